"""Sets that take a share of what held-out margins bear: their text, their radius, its lower end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dro_core import worst_case
from llm.adversary.adversary import Adversary
from llm.adversary.inaction import bound
from llm.adversary.radius.auto import auto_of, lower_end
from llm.adversary.radius.slices import check_covers
from llm.adversary.spec import parse_reweighting


def drawn(n, *, seed=0, mean=0.6):
    return np.random.default_rng(seed).normal(mean, 1.0, n)


def columns(n):
    return {"source": [f"s{min(k % 7, 3)}" for k in range(n)]}


AUTO = ["tv:auto=0.5", "cvar:auto=0.5", "chi2:auto=0.5", "kl:auto=0.5", "burg:auto=0.5", "tv:auto=0.5,by=source",
        "tv:auto=0.5,max_ratio=4", "shuffled:tv:auto=0.5,within=source", "micro:8:kl:auto=0.3,trim=0.1"]  # fmt: skip


@pytest.mark.parametrize("spec", AUTO)
def test_a_share_is_read_and_written_as_it_stands(spec):
    rule = parse_reweighting(spec)
    assert str(rule) == spec
    assert str(parse_reweighting(str(rule))) == spec
    assert str(auto_of(bound(rule, columns(40), batch=8, measures=True))) == str(auto_of(rule))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("spectral:auto=0.5", "collapse radius is known"),
        ("dr_dpo:auto=0.5", "collapse radius is known"),
        ("tv:0.2:auto=0.5", "takes the place of the number"),
        ("tv:auto=0.5+kl_penalty:1", "takes the place of the number"),
        ("tv:auto=1.5", "share of the running radius in (0, 1]"),
        ("tv:auto=0", "share of the running radius in (0, 1]"),
        ("tv:auto=half", "share of the running radius in (0, 1]"),
        ("tv:auto=0.5,minibatch=24", "not known for this set"),
        ("tv:auto=0.5,nope=3", "ambiguity 'tv:auto=0.5,nope=3' has the option"),
        ("auto=0.5", "unknown ambiguity 'auto=0.5'"),
        ("auto:0.5:tv:0", "unknown ambiguity"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(spec, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace("]", r"\]").replace(":", ".")) as refused:
        parse_reweighting(spec)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spec", ["tv:auto=0.5", "cvar:auto=0.5", "chi2:auto=0.5", "kl:auto=0.5", "burg:auto=0.5"])
def test_the_radius_is_that_share_of_what_the_slice_bears_at_least(spec):
    """A worst case of the set at that radius, written as a number; at half the strength of half of it."""
    rule = auto_of(bound(parse_reweighting(spec), columns(40), batch=8, measures=True))
    slice_margins, losses = drawn(256), drawn(40, seed=1)
    assert rule is not None
    equal = torch.full((40,), 1 / 40, dtype=torch.float64)
    before = rule.weights(torch.as_tensor(losses), equal)
    rule.measure(slice_margins, np.arange(256), columns(256), step=0)
    low = lower_end(rule.inner, slice_margins, np.arange(256)).low
    name = spec.split(":")[0]
    for strength in (1.0, 0.5):
        size = 1 - 0.5 * strength * low if name == "cvar" else 0.5 * strength * low
        expected = worst_case(losses, parse_reweighting(f"{name}:{size}")).weights
        here = rule.with_strength(strength) if strength < 1 else rule
        np.testing.assert_allclose(here.weights(torch.as_tensor(losses), equal), expected, atol=1e-9)
    assert torch.equal(before, equal)


def test_the_lower_end_holds_nineteen_times_in_twenty_and_is_zero_where_nothing_is_learned():
    """Signs that are right with probability a bear a - 1/2; prompts of two pairs that agree count once."""
    rule, draws, right, margins = parse_reweighting("tv:0.2"), np.random.default_rng(0), 0.7, []
    for _ in range(200):
        pairs = np.repeat(np.where(draws.random(100) < right, 1.0, -1.0), 2)
        margins.append(lower_end(rule, pairs, np.repeat(np.arange(100), 2)).low)
    assert 0.88 < np.mean(np.array(margins) <= right - 0.5) <= 1
    assert np.mean(margins) > 0.5 * (right - 0.5)
    idle = [lower_end(rule, draws.standard_normal(256), np.arange(256)).low for _ in range(100)]
    assert np.mean(np.array(idle) == 0) >= 0.88


def test_weights_of_the_slice_count():
    """Wrong pairs of hardly any weight are hardly there; of much weight nothing is learned."""
    margins, clusters = np.where(np.arange(200) % 2, -1.0, 1.0), np.arange(200)
    rule = parse_reweighting("tv:0.2")
    light, heavy = (lower_end(rule, margins, clusters, np.where(margins < 0, w, 1.0)) for w in (0.02, 50.0))
    assert light.estimate > 0.4
    assert light.low > 0.35
    assert heavy == (0, 0)
    assert lower_end(rule, margins, clusters, np.full(200, 3.0)) == lower_end(rule, margins, clusters)


@pytest.mark.parametrize("spec", ["regret:tv:auto=0.5", "permuted_groups:tv:auto=0.5,by=source"])
def test_what_a_slice_does_not_show_is_refused(spec):
    with pytest.raises(ValueError, match="give the set inside it a number"):
        bound(parse_reweighting(spec), columns(40), batch=8, measures=True)


def test_a_group_that_the_slice_lacks_is_refused():
    rule, train = parse_reweighting("tv:auto=0.5,by=source"), {"source": ["a", "b", "b"]}
    check_covers(rule, train, {"source": ["b", "a"]})
    check_covers(parse_reweighting("tv:0.5,by=source"), train, {"source": ["b"]})
    with pytest.raises(ValueError, match="hold none of source=a: raise auto_slice"):
        check_covers(rule, train, {"source": ["b"]})


def test_pairs_that_are_all_right_do_not_show_that_the_next_one_is():
    low, estimate = lower_end(parse_reweighting("tv:0.2"), np.ones(50), np.arange(50))
    assert low == pytest.approx(50 / 51 - 0.5)
    assert estimate == pytest.approx(low)
    everything = bound(parse_reweighting("tv:0.2,by=source"), columns(50), batch=8)
    assert lower_end(everything, np.ones(50), np.arange(50)).low == 1


def test_what_was_measured_travels_in_checkpoints(tmp_path):
    one, other = (Adversary(bound(parse_reweighting("micro:8:tv:auto=0.5"), {}, batch=8, measures=True), 8) for _ in "ab")  # fmt: skip  # noqa: E501
    measured = auto_of(one.rule)
    assert measured is not None
    assert one.strength(3, 10) == 0
    measured.measure(drawn(256), np.arange(256), {}, step=2)
    one.save(tmp_path)
    other.load(tmp_path)
    assert vars(auto_of(other.rule).found) == vars(measured.found)  # type: ignore[union-attr]
    assert other.strength(3, 10) == 1
    assert json.loads((tmp_path / "auto.json").read_text())["step"] == 2


def test_a_trainer_that_measures_nothing_refuses_the_share():
    with pytest.raises(ValueError, match="held out of the training of a reward model or of DPO"):
        bound(parse_reweighting("shuffled:tv:auto=0.5"), {}, batch=8)
