"""The words that a page cannot do without, explained where they are first used and once more at its end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from markupsafe import Markup, escape


class Word(NamedTuple):
    """``name`` as it heads its entry; ``pattern`` finds it in a text; ``brief`` explains it in half a sentence."""

    key: str
    name: str
    pattern: str
    brief: str
    whole: str


WORDS = (
    Word("pair", "Pair", "", "", "A prompt with two answers, of which people (or a stronger model) preferred one, the "
         "chosen, to the other, the rejected."),
    Word("arm", "Arm", r"\b[Aa]rms?\b", "one way of training, run with one or more seeds",
         "The runs that differ in nothing but the seed. Arms that differ in nothing but the set are a family, "
         "and are compared with plain training of their family."),
    Word("erm", "Plain training (erm)", r"\berm\b",
         "plain training, empirical risk minimisation: every example weighs the same",
         "Empirical risk minimisation: every example of a batch weighs the same. The others are compared with it."),
    Word("balanced", "Balanced groups", r"\bbalanced:by=\w+",
         "no worst case: plain training with weights under which every group counts as much as another",
         "Plain training in which every group of the column after by= has the same weight, however many pairs it has."),
    Word("set", "Ambiguity set", r"\b(?:tv|cvar|kl|chi2|wasserstein):[\d.]*\d(?:,\w+=[\w.]*\w)*",
         "a robust arm, named by its ambiguity set and size: how far the weights may move from plain training",
         "The reweightings of a batch that the adversary may choose from. tv:0.2: it may move 20 % of the weight; "
         "max_ratio=4: no example gets more than four times its plain weight."),
    Word("worst", "Worst group", r"\bworst group\b", "the group, of any suite, where an arm is right least often",
         "The group, of any suite, with the lowest accuracy: a category, a source, or what the set weighs. "
         "Testing the one on which plain training looks worst would favour every other arm; here the limits hold "
         "whichever is truly the worst, of either arm."),
    Word("holm", "Holm's correction", r"\bHolm(?:'s correction)?\b",
         "makes p-values larger for the number of tests, so that the chance of one false finding stays below 5 %",
         "Raises p-values so that, over one kind of column of the whole table, the chance of even one false finding "
         "stays below 5 %."),
    Word("margin", "Margin", "", "", "Reward of the chosen answer minus reward of the rejected one; for a policy the "
         "reward is beta log(policy/reference), or log policy where there is no reference. A pair counts as right when "
         "it is above 0; a tie counts one half."),
    Word("accuracy", "Accuracy", "", "", "Share of pairs that are right, ties counting one half. Guessing gives 50 %. "
         "With several seeds, a pair counts by the share of seeds that get it right."),
    Word("interval", "95 % interval", "", "", "Over test pairs, for the seeds that were trained; pairs that share a "
         "question or a prompt count as one observation. It says nothing of seeds that were never run."),
    Word("gold", "Gold score", r"\bgold\b", "what a judge says of an answer that no training saw",
         "The score of a judge that no reward model and no policy was trained on."),
    Word("mcnemar", "McNemar's test", "", "", "Compares two models by the pairs that only one of them gets right, "
         "and takes pairs of one question for independent; the p-value of the difference is the one that counts."),
    Word("longer", "Longer wins", "", "", "The rule that always prefers the longer answer (one half where both are "
         "equally long)."),
    Word("ess", "Effective sample size", "", "", "1 / sum of squared weights: how many equally weighted examples of a "
         "batch carry as much information."),
    Word("cvar", "Worst tenth (CVaR)", "", "", "Mean loss of the tenth of the pairs on which the model does worst; the "
         "same for other shares."),
    Word("dissent", "Disagreement", "", "", "Share of plain training's seeds that rank a training pair against the "
         "majority of them."),
)  # fmt: skip


def first_uses(texts: Iterable[str]) -> list[tuple[Word, str]]:
    """The words that need explaining in these texts, in the order of their first use, as they stand there.

    >>> [(word.key, found) for word, found in first_uses(["Use erm: no arm is better."])]
    [('erm', 'erm'), ('arm', 'arm')]
    >>> [word.key for word, _ in first_uses(["balanced:by=source", "tv:0.4,by=source"])]
    ['balanced', 'set']
    """
    text = "\n".join(texts)
    found = [
        (match.start(), word, match[0]) for word in WORDS if word.pattern and (match := re.search(word.pattern, text))
    ]
    return [(word, name) for _, word, name in sorted(found, key=lambda entry: entry[0])]


def linked(text: str) -> Markup:
    """The text with the first use of each word as a link to its entry."""
    marks = sorted((text.index(name), name, word) for word, name in first_uses([text]))
    parts, end = [], 0
    for start, name, word in marks:
        if start >= end:
            parts += [
                escape(text[end:start]),
                Markup(f'<a class="word" href="#word-{word.key}">'),
                escape(name),
                Markup("</a>"),
            ]
            end = start + len(name)
    return Markup("").join([*parts, escape(text[end:])])


def coded(text: str) -> Markup:
    """The text with its commands as code."""
    return Markup(re.sub(r"robust-rlhf [^,.;]*[^,.; ]", r"<code>\g<0></code>", str(escape(text))))
