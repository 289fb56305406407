"""Controls of a worst case over groups: weights that balancing means, labels without a meaning, and what is said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dro_core import Grouped, TotalVariation, worst_case
from llm.adversary.inaction import bound, concerns
from llm.adversary.rules import reweighted
from llm.adversary.spec import parse_reweighting
from llm.data.corpus.corpus import generate
from llm.data.grouping.named import NamedGroups
from llm.data.pairs import Pair
from llm.sweep.regimes import Origins, Regime

GROUPED = ("tv:0.3,by=group", "cvar:0.4,by=group", "gr_dpo:0.5,by=group", "balanced:by=group")


def of_rows(spec, labels, rows, *, seed=0):
    columns = {"group": labels}
    return bound(parse_reweighting(spec), columns, batch=len(rows), seed=seed).take(np.array(rows))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=2, max_size=12), st.floats(0.05, 1))
def test_balancing_gives_every_group_that_is_there_the_same(rows, strength):
    """Counted by hand over the examples that are no padding."""
    labels, there = [label for label, _ in rows], [here for _, here in rows]
    if len(set(labels)) < 2 or not any(there):
        return
    rule = bound(parse_reweighting("balanced:by=group"), {"group": labels}, batch=len(rows)).with_strength(strength)
    masses = torch.tensor(there, dtype=torch.float64) / sum(there)
    found = rule.weights(torch.zeros(len(rows), dtype=torch.float64), masses).numpy()
    sizes = Counter(label for label, here in rows if here)
    equal = np.array([here / sizes[label] / len(sizes) if here else 0.0 for label, here in rows])
    np.testing.assert_allclose(found, strength * equal + (1 - strength) * masses.numpy(), atol=1e-12)
    assert found.sum() == pytest.approx(1)


def test_balancing_does_not_look_at_losses():
    rule, masses = of_rows("balanced:by=group", list("aabb"), [0, 1, 2]), torch.full((3,), 1 / 3)
    one, other = (rule.weights(torch.tensor(losses), masses) for losses in ([1.0, 2.0, 3.0], [9.0, 0.0, 1.0]))
    assert torch.equal(one, other)
    torch.testing.assert_close(one, torch.tensor([0.25, 0.25, 0.5]))


@pytest.mark.parametrize("spec", GROUPED)
def test_permuted_groups_are_the_set_on_labels_that_were_dealt_anew(spec):
    rng = np.random.default_rng(0)
    labels, rows = rng.choice(list("abcd"), 40, p=[0.4, 0.3, 0.2, 0.1]).tolist(), rng.permutation(40)[:16]
    losses = torch.from_numpy(rng.exponential(size=16))
    dealt = NamedGroups({"group": labels}, seed=5).permuted()["group"]
    assert Counter(dealt) == Counter(labels)
    assert dealt != labels
    found = reweighted(of_rows(f"permuted_groups:{spec}", labels, rows, seed=5), losses)
    torch.testing.assert_close(found, reweighted(of_rows(spec, dealt, rows), losses))
    other = reweighted(of_rows(f"permuted_groups:{spec}", labels, rows, seed=6), losses)
    assert not torch.allclose(found, other)


def test_labels_that_were_dealt_anew_say_nothing_of_the_old_ones():
    """Share of pairs whose new label is the old one: that of chance, within four standard errors over seeds."""
    labels = ["a"] * 300 + ["b"] * 100
    kept = [
        np.mean([x == y for x, y in zip(labels, NamedGroups({"g": labels}, seed=seed).permuted()["g"], strict=True)])
        for seed in range(200)
    ]
    chance = 0.75**2 + 0.25**2
    assert abs(np.mean(kept) - chance) < 4 * np.std(kept) / np.sqrt(200)


def test_a_group_that_a_batch_lacks_takes_no_weight():
    rows, losses = [0, 1, 3, 4], torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64)
    found = reweighted(of_rows("tv:0.25,by=group", list("aabcc"), rows), losses)
    alone = worst_case(losses, Grouped(TotalVariation(0.25), [0, 0, 1, 1])).weights
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize(
    ("labels", "batch", "said"),
    [
        (list("abcdefgh"), 4, ["every group is one example, so tv:0.2,by=group weighs single examples"]),
        (list("aaabbbcd"), 4, ["2 of 4 groups are one example"]),
        (["a"] * 98 + ["b"] * 2, 8, ["about 85% of the batches of 8 hold one group alone"]),
        (list("aabbccdd"), 4, []),
    ],
)
def test_what_groups_leave_undone_is_said(labels, batch, said):
    for spec in ("tv:0.2,by=group", "permuted_groups:tv:0.2,by=group"):
        asked = parse_reweighting(spec)
        found = list(concerns(asked, bound(asked, {"group": labels}, batch=batch), batch=batch))
        assert len(found) == len(said)
        assert all(part.replace("tv:0.2,by=group", spec) in text for part, text in zip(said, found, strict=True))
    assert not list(concerns(None, None, batch=4))


def test_flips_gather_where_the_chosen_answer_is_the_shorter_one():
    """Longer right in 80 %, a fifth of the labels wrong: 5.9 % noise among the longer, half among the shorter ones.

    Groups by the absolute gap have a fifth everywhere.
    """
    pairs = [
        Pair(str(n), ({"role": "user", "content": str(n)},), "x" * (9 + n % 3 if n % 5 else 2), "x" * 5)
        for n in range(2000)
    ]
    origins = Origins.of(pairs, {})
    _, flipped = Regime(label_noise=0.2).select(origins, seed=3)
    columns = NamedGroups(origins.columns(flipped))
    noise = {}
    for name in ("chosen_is_longer", "length_gap/2"):
        labels = np.array(columns[name])
        noise[name] = {label: flipped[labels == label].mean() for label in np.unique(labels)}
    assert noise["chosen_is_longer"]["no"] == pytest.approx(0.5, abs=0.04)
    assert noise["chosen_is_longer"]["yes"] == pytest.approx(1 / 17, abs=0.02)
    assert all(share == pytest.approx(0.2, abs=0.04) for share in noise["length_gap/2"].values())


def test_columns_of_a_sweep_are_those_of_the_pairs_as_they_are_trained_on():
    pairs = [replace(pair, kept=(("tag", pair.id[-1]),)) for pair in generate(40, seed=1)]
    origins = Origins.of(pairs, {})
    flipped = np.arange(40) % 3 == 0
    swapped = [
        replace(p, chosen=p.rejected, rejected=p.chosen) if f else p for p, f in zip(pairs, flipped, strict=True)
    ]
    one, other = origins.columns(flipped), Origins.of(swapped, {}).columns(np.zeros(40, dtype=bool))
    assert one.keys() == other.keys() >= {"tag", "length_gap", "drawn"}
    for name in one:
        assert list(one[name]) == list(other[name]), name
    rows = np.array([5, 3, 9])
    assert list(origins.take(rows).columns(flipped[rows])["tag"]) == [pairs[row].kept[0][1] for row in rows]


def test_the_seed_of_a_rule_is_that_of_its_run():
    seeds = [reweighted(of_rows("permuted_groups:tv:0.3,by=group", list("ab") * 20, range(12), seed=seed),
                        torch.arange(12, dtype=torch.float64)) for seed in range(5)]  # fmt: skip
    assert sum(torch.allclose(one, other) for one, other in pairwise(seeds)) < 4
