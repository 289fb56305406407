"""Pairs across prompts, after RRM (2409.13156): an answer that fits its prompt beats a good answer to something else.

The rejected answer of such a pair may be long, polished and right; what is wrong with it is the prompt alone. So no
property that answers have by themselves tells the two apart, length for example, and no model is needed to make them.

Example:
    >>> ask = lambda text: ({"role": "user", "content": text},)
    >>> pairs = [Pair("a", ask("2 + 2?"), "4", "5"), Pair("b", ask("Who?"), "Me.", "You.")]
    >>> sorted(pair.id for pair in cross_prompt_pairs(pairs, share=1))
    ['a+b', 'b+a']
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from llm.data.formats.opened import DataError
from llm.data.grouping.columns import CROSSED, DRAWN
from llm.data.layouts import Pair
from llm.data.layouts.tools import CallingAnswer
from llm.data.questions import asked
from llm.data.stream import UniqueIds

from .pairs import check_share

_TRIES = 32
_log = logging.getLogger(__name__)


def cross_prompt_pairs(pairs: Sequence[Pair], *, share: float, seed: int = 0) -> list[Pair]:
    """Pairs to be added: chosen answers against answers, chosen or rejected ones, to other prompts.

    Every pair lends its prompt and chosen answer equally often, up to one. The other answer is drawn from all pairs;
    never one to an equal prompt or of the same ``question_id``, nor one that says what some answer to this prompt says,
    nor one that calls tools. Source and category are those of the pair; ``drawn`` in ``kept`` tells them apart.

    Args:
        pairs: The training pairs.
        share: How many to make, as a share of these: .3 adds three pairs to ten.
        seed: Of what is drawn; the same pairs, share and seed give the same.

    Returns:
        ``round(share * len(pairs))`` pairs, fewer where the data do not have as many different ones.

    Raises:
        DataError: The share makes no sense, or all pairs ask the same.
    """
    check_share(share)
    wanted = math.floor(share * len(pairs) + 0.5)
    if not wanted:
        return []
    answers = _Answers(pairs, np.random.default_rng([seed, 6]))
    ids, made = UniqueIds(pair.id for pair in pairs), list[Pair]()
    for place in answers.anchors(wanted):
        if (found := answers.other(place)) is None:
            continue
        own, (other, text) = pairs[place], found
        kept = (*((name, value) for name, value in own.kept if name != DRAWN), (DRAWN, CROSSED))
        made.append(
            ids.unique(replace(own, id=f"{own.id}+{other.id}", rejected=text, margin=None, preference=None, kept=kept))
        )
    if not made:
        raise DataError("cross_prompt takes answers to other prompts, and the training pairs have none: set it to 0.")
    if len(made) < wanted:
        _log.warning("cross_prompt: %d pairs instead of %d, for there are no other answers left", len(made), wanted)
    return made


class _Answers:
    """All answers, and which of them may stand beside a pair."""

    def __init__(self, pairs: Sequence[Pair], rng: np.random.Generator) -> None:
        self._pairs, self._rng = pairs, rng
        self._prompts = [_asked(pair) for pair in pairs]
        self._exhausted: set[tuple[str, str | None]] = set()
        self._said = defaultdict[str, set[str]](set)  # by prompt, what is an answer to it, or was made one
        for prompt, pair in zip(self._prompts, pairs, strict=True):
            self._said[prompt] |= {str(pair.chosen), str(pair.rejected)}
        if len(self._said) < 2:
            raise DataError(
                f"cross_prompt takes answers to other prompts, and all {len(pairs)} training pairs have the same one: "
                "add pairs of other prompts, or set it to 0."
            )

    def anchors(self, count: int) -> Iterator[int]:
        """Places of the pairs that lend prompt and answer: all of them in random order, and again."""
        while count > 0:
            order = self._rng.permutation(len(self._pairs))[:count]
            yield from map(int, order)
            count -= len(order)

    def other(self, place: int) -> tuple[Pair, str] | None:
        """A pair and one of its answers for the pair at ``place``; None if every one is out of the question."""
        total, kind = 2 * len(self._pairs), (self._prompts[place], self._pairs[place].question_id)
        if kind in self._exhausted:
            return None
        for draw in self._rng.integers(total, size=_TRIES):
            if found := self._usable(place, int(draw)):
                return found
        start = int(self._rng.integers(total))
        for step in range(total):
            if found := self._usable(place, (start + step) % total):
                return found
        self._exhausted.add(kind)
        return None

    def _usable(self, place: int, draw: int) -> tuple[Pair, str] | None:
        own, other = self._pairs[place], self._pairs[draw // 2]
        text, said = other.rejected if draw % 2 else other.chosen, self._said[self._prompts[place]]
        same = own.question_id is not None and own.question_id == other.question_id
        if same or isinstance(text, CallingAnswer) or text in said:  # what answers an equal prompt is among these
            return None
        said.add(text)
        return other, text


def _asked(pair: Pair) -> str:
    """What is asked, white space around it left aside."""
    return asked([{**message, "content": message["content"].strip()} for message in pair.prompt])
