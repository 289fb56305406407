"""The rules of the studies that later editions rely on."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from dro_core import margin_collapse
from experiments.collapse import problems
from experiments.collapse import study as collapse_study
from experiments.robustness import first_edition, verdicts
from experiments.robustness.held_out import parted
from experiments.robustness.whole_prompts import out_of_fold
from llm.data.corpus.corpus import generate
from llm.data.pairs import Pair, read_pairs


def marked(pairs):
    return hashlib.sha256("\n".join(pair.id for pair in pairs).encode()).hexdigest()[:16]


def test_the_test_set_of_the_built_in_corpus_is_the_one_it_was():
    train, held_out = parted(generate(600, seed=0), size=150)
    assert (len(train), len(held_out), marked(held_out)) == (440, 160, "ff3ab6dc98ab243c")


def test_prompts_stand_on_one_side_and_sources_give_their_share():
    pairs = list(generate(900, seed=1))
    again = enumerate(pairs[::9])
    pairs += [Pair(f"again-{i}", pair.prompt, pair.rejected, pair.chosen, source="other") for i, pair in again]
    train, held_out = parted(pairs, size=200)
    assert {pair.id for pair in train} | {pair.id for pair in held_out} == {pair.id for pair in pairs}
    assert not {str(pair.prompt) for pair in train} & {str(pair.prompt) for pair in held_out}
    first = {}
    for pair in pairs:
        first.setdefault(str(pair.prompt), pair.source)
    share = Counter(first[str(pair.prompt)] for pair in pairs)
    given = Counter(first[str(pair.prompt)] for pair in held_out)
    largest = max(Counter(str(pair.prompt) for pair in pairs).values())
    for source, count in share.items():
        assert round(200 * count / len(pairs)) <= given[source] < round(200 * count / len(pairs)) + largest
    with pytest.raises(ValueError, match="needs more than 10 pairs"):
        parted(pairs[:10], size=200)


def test_the_test_set_of_the_real_pairs_is_the_one_it_was(shared_data):
    train, held_out = parted(read_pairs(shared_data / "train.jsonl.gz").pairs)
    assert (len(train), len(held_out), marked(held_out)) == (9899, 4004, "0032a27d5d14f30f")


def test_the_first_edition_is_read_as_it_read(monkeypatch):
    """Worked by hand: a letter is a token, a long prompt loses its beginning beside each answer for itself."""
    monkeypatch.setattr(first_edition, "LENGTH", 12)  # ten between the two special tokens

    def letters(texts, **_):
        return {"input_ids": [[ord(sign) for sign in text if sign != " "] for text in texts]}

    def pair(prompt, chosen, rejected):
        return Pair("p", ({"role": "user", "content": prompt},), chosen, rejected)

    whole = len("User:abc\n\nAssistant:")
    found = first_edition.read([pair("abc", "xy", "uvwxyz"), pair("abc", "a" * 12, "a" * 11 + "b")], letters)
    assert [(r.prompts, r.whole, r.equal) for r in found] == [((8, 4), whole, False), ((0, 0), whole, True)]


def test_the_average_counts_every_suite_out_of_distribution_alike():
    """Worked by hand: 4 pairs of which 1 is equal, 2 of which none is; the suite in distribution stays out."""
    accuracies = {"id_test": (0.9, 0.1), "ood_a": (0.3, 0.6), "ood_b": (0.5, 0.4)}
    rows_of = [(suite, *row) for suite, both in accuracies.items() for row in zip(("erm", "tv:0.2"), both, strict=True)]
    told = first_edition.PUBLISHED | {"category": "", "learning_rate": 0.003}
    table = pd.DataFrame([told | {"suite": suite, "ambiguity": spec, "accuracy": x} for suite, spec, x in rows_of])
    sizes = {"id_test": (8, 0), "ood_a": (4, 1), "ood_b": (2, 0)}
    found = {
        name: [first_edition.Read((0, 0), 0, equal=place < equal) for place in range(n)]
        for name, (n, equal) in sizes.items()
    }
    pairs = {name: generate(n, seed=0) for name, (n, _) in sizes.items()}
    rows = {name: numbers for name, *numbers in first_edition.corrected_table(table, pairs, found)}
    assert rows["ood_a"] == ["4", "1", "30.0", "42.5", "40.0", "+40.0"]
    average = ["6", "1", "40.0", "46.2", "45.0", "+15.0"]
    assert rows["average of the suites out of distribution"] == average


def difference(mean, low, high, p=1.0):
    return {"difference": mean, "low": low, "high": high, "p_holm": p}


def test_what_becomes_of_a_claim_follows_from_its_interval():
    """Worked by hand from the rules that the page states."""
    loss, none, gain = (
        difference(-0.04, -0.06, -0.02, 0.01),
        difference(0.0, -0.01, 0.01),
        difference(0.03, 0.01, 0.05, 0.01),
    )
    vague = difference(-0.02, -0.05, 0.01)
    assert [verdicts.no_gain([loss, none]), verdicts.no_gain([loss, gain])] == ["stands", "falls"]
    assert [verdicts.no_gain([difference(0.03, 0.01, 0.05, 0.06)])] == ["stands"]
    falling = [none, difference(-0.01, -0.03, 0.01), loss]
    assert [verdicts.larger(falling), verdicts.larger([*falling[::-1], loss])] == ["stands", "changes"]
    assert verdicts.larger([loss, none]) == "falls"
    small = difference(-0.025, -0.03, -0.021, 0.01)
    found = [verdicts.as_large(one, -0.038) for one in (loss, small, none, gain)]
    assert found == ["stands", "changes", "falls", "falls"]
    assert verdicts.as_large(vague, -0.038).startswith("open")
    parts = ((True, True), (False, True), (False, False))
    assert [verdicts.both(*found) for found in parts] == ["stands", "changes", "falls"]
    assert [verdicts.pushed(r) for r in (-0.85, -0.2, 0.3)] == ["stands", "changes", "falls"]
    assert [verdicts.helps(one) for one in (gain, none)] == ["stands", "falls"]
    assert verdicts.helps(difference(0.02, -0.003, 0.043)).startswith("open")


def test_a_head_trained_on_a_suite_itself_is_judged_on_prompts_it_did_not_see():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(300), 2)
    signal = rng.normal((0.8, 0, 0, 0, 0), size=(600, 5))
    assert 0.7 < out_of_fold(signal, prompts).mean() < 0.9
    memory = rng.normal(size=(300, 200)).repeat(2, axis=0)  # of the prompt alone: nothing carries over
    memory *= rng.choice([-1, 1], size=300).repeat(2)[:, None]
    assert abs(out_of_fold(memory, prompts).mean() - 0.5) < 0.1


def test_the_pairs_of_the_collapse_page_are_what_it_says():
    """Shares of wrong labels in groups, and the population's radius against a large sample along the best direction."""
    pairs = problems.flipped()
    wrong, longer = pairs.rows[:, 0] < 0, np.array(pairs.groups["chosen_is_longer"])
    shares = [pairs.masses[wrong & group].sum() / pairs.masses[group].sum() for group in (~longer, longer)]
    assert shares == pytest.approx([0.5, 0.04 / 0.68])
    assert pairs.masses[wrong].sum() == pytest.approx(0.2)
    sums = problems.drawn(400_000, 20, seed=0).sum(axis=1)
    assert (sums > 0).mean() + (sums == 0).mean() / 2 == pytest.approx(0.73, abs=0.01)
    assert margin_collapse(sums, "kl") == pytest.approx(problems.population_radius(20), rel=0.02)
    exact = problems.population()
    assert exact.masses.sum() == pytest.approx(1)
    right = exact.rows @ problems.STRENGTHS > 0
    assert exact.masses[right].sum() == pytest.approx(np.mean(1 / (1 + np.exp(-np.array([1.75, 1.25, 0.75, 0.25])))))


def test_the_norm_of_a_fit_vanishes_at_the_radius_that_is_marked():
    curves = collapse_study.norms(problems.drawn(200, 5, seed=1), penalty=1e-6)
    assert set(curves) == {"tv", "cvar", "chi2", "kl"}
    for curve in curves.values():
        assert all((norm < 1e-5) == (share > 1) for share, norm in curve)
        assert max(share for share, _ in curve) > 1
