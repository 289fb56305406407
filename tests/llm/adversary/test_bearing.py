"""What margins bear of a set: against the worst case itself, pooled, through checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from dro_core import worst_case
from llm.adversary.adversary import Adversary
from llm.adversary.effective_batch import EffectiveBatch
from llm.adversary.equal_losses import Accuracy
from llm.adversary.inaction import bound
from llm.adversary.radius.bearing import POOLED, bearable, has_bearing, margins_of, resized
from llm.adversary.rules import layers
from llm.adversary.spec import parse_reweighting

LOGISTIC = Accuracy(1e-9, logistic=True)
KNOWN = [
    "tv:0.2",
    "tv:0.2,max_ratio=3",
    "cvar:0.3",
    "chi2:0.5",
    "kl:0.3",
    "burg:0.3",
    "tv:0.2,by=source",
    "cvar:0.5,by=source",
    pytest.param("kl:0.3,by=source", marks=pytest.mark.exhaustive),
    pytest.param("chi2:0.3,trim=0.1", marks=pytest.mark.exhaustive),
    "tv:0.2,trim=0.1",
    "tv:0.2,trim=0.05,by=source",
]
UNKNOWN = ["erm", "spectral:0.1/0.9", "hellinger:0.2", "kl_penalty:1", "cvar:0.4+kl_penalty:0.1", "tv:0.2,minibatch=8"]
RULES = ["dr_dpo:1", "shuffled:tv:0.2", "micro:4:tv:0.2", "hardest:0.1,factor=4"]


def drawn(n, *, seed=0, mean=0.6):
    return np.random.default_rng(seed).normal(mean, 1.0, n)


def mixed(rows, *, seed):
    """Margins of which the group s2 is wrong on average and the others are right."""
    return drawn(len(rows), seed=seed) - 2 * (rows % 7 == 2)


def columns(n):
    return {"source": [f"s{min(k % 7, 3)}" for k in range(n)]}  # groups of unequal mass


def bound_to(spec, n):
    return bound(parse_reweighting(spec), columns(n), batch=8)


def batch_of(margins, rows, *, told=False):
    given = torch.as_tensor(margins, dtype=torch.float64)
    losses, index = -logsigmoid(given), torch.as_tensor(rows)
    margins = given if told else None
    return EffectiveBatch(losses, index, torch.ones_like(losses), slice(0, len(rows)), padded=False, margins=margins)


def step_of(adversary, margins, rows, *, step=0, strength=1.0, accuracy=LOGISTIC, told=False):
    return adversary.weigh(batch_of(margins, rows, told=told), step=step, strength=strength, accuracy=accuracy)


def test_margins_are_those_of_the_losses():
    margins = torch.linspace(-20, 20, 41, dtype=torch.float64)
    np.testing.assert_allclose(margins_of(-logsigmoid(margins)), margins, rtol=1e-6)
    assert margins_of(0.0) > 27


@pytest.mark.parametrize("spec", KNOWN)
def test_just_below_it_the_worst_mean_margin_is_positive_and_just_above_it_is_not(spec):
    """By the solver of worst cases, on the groups and after the trimming, not by that of margins."""
    margins = drawn(60)
    margins[np.arange(60) % 7 == 2] -= 1.2  # a group whose mean is negative
    rule = bound_to(spec, 60)
    (found,) = bearable(rule, margins)
    assert 0 < found < 1
    grows = -1 if "cvar" in spec else 1  # CVaR's alpha falls as the set grows
    inside, outside = (worst_case(-margins, resized(rule, found + step * grows * 1e-6)).value for step in (-1, 1))
    assert inside < 0 <= outside + 1e-12


@pytest.mark.parametrize("spec", KNOWN)
def test_what_bears_everything_or_nothing(spec):
    rule, nothing, everything = bound_to(spec, 30), 0.0, np.inf
    if "cvar" in spec:
        nothing, everything = 1.0, 0.0
    assert bearable(rule, -np.abs(drawn(30)))[0] == nothing
    assert bearable(rule, np.abs(drawn(30)) + 0.1)[0] == everything


def test_weights_of_pairs_are_the_reference_of_what_their_margins_bear():
    """A weight of 2 is the margin twice, whichever of the training examples are in the batch."""
    margins, weights, rows = drawn(40), torch.tensor([1.0, 2.0] * 50), np.arange(7, 47)
    adversary = Adversary(bound_to("tv:0.2", 100), 100, masses=weights)
    step_of(adversary, margins, rows)
    twice = np.repeat(margins, weights[rows].int().numpy())
    (expected,) = bearable(parse_reweighting("tv:0.2"), twice)
    assert adversary.summary()["collapse_radius"] == pytest.approx(expected, rel=1e-5)
    assert abs(expected - bearable(parse_reweighting("tv:0.2"), margins)[0]) > 1e-3


def test_sets_of_which_nothing_is_known_say_nothing():
    for spec in [*UNKNOWN, *RULES]:
        rule = parse_reweighting(spec)
        assert not has_bearing(rule), spec
        adversary = Adversary(rule, 40)
        if rule is not None:
            step_of(adversary, drawn(8), np.arange(8))
            row = adversary.summary()
            assert not {"collapse_radius", "radius_ratio"} & row.keys()
            assert ("radius_used" in row) == any(has_bearing(part) for part in layers(rule)), spec


def test_rules_around_a_set_log_its_radius_and_not_what_margins_bear():
    for spec in ("regret:tv:0.2", "shuffled:tv:0.2", "permuted_groups:tv:0.2,by=source"):
        adversary = Adversary(bound_to(spec, 64), 64)
        step_of(adversary, drawn(64), np.arange(64), strength=0.5)
        row = adversary.summary()
        assert row["radius_used"] == pytest.approx(0.1), spec
        assert "collapse_radius" not in row


@pytest.mark.parametrize(("spec", "used"), [("tv:0.2", 0.1), ("chi2:0.4", 0.2), ("kl:0.3", 0.15), ("cvar:0.4", 0.7)])
def test_the_log_has_the_radius_used_what_is_borne_and_how_far_one_is_beyond_the_other(spec, used):
    """At half the strength. The ratio compares what may move: of CVaR one less alpha."""
    margins = drawn(64)
    adversary = Adversary(bound_to(spec, 64), 64)
    step_of(adversary, margins, np.arange(64), strength=0.5)
    row = adversary.summary()
    (borne,) = bearable(parse_reweighting(spec), margins)
    assert row["radius_used"] == pytest.approx(used)
    assert row["collapse_radius"] == pytest.approx(borne, rel=1e-5)
    within, of = (1 - used, 1 - borne) if "cvar" in spec else (used, borne)
    assert row["radius_ratio"] == pytest.approx(within / of, rel=1e-5)
    assert row["collapse_margins"] == 64
    assert adversary.summary() == {}


def test_margins_that_losses_do_not_tell_are_taken_from_the_trainer_or_not_at_all():
    margins = drawn(64)
    for told in (True, False):
        adversary = Adversary(bound_to("tv:0.2", 64), 64)
        step_of(adversary, margins, np.arange(64), accuracy=Accuracy(1e-9), told=told)
        row = adversary.summary()
        assert ("collapse_radius" in row) == told
        assert row["radius_used"] == 0.2
        if told:
            assert row["collapse_radius"] == pytest.approx(bearable(parse_reweighting("tv:0.2"), margins)[0], rel=1e-5)


def test_margins_below_their_accuracy_bear_nothing():
    """The first step of DPO: all margins are rounding, of whatever sign."""
    adversary = Adversary(bound_to("tv:0.2", 8), 8)
    step_of(adversary, np.full(8, 1e-7), np.arange(8), accuracy=Accuracy(1e-6, logistic=True))
    row = adversary.summary()
    assert row["collapse_radius"] == 0
    assert row["radius_ratio"] == 99


def test_separable_margins_have_no_radius_and_a_ratio_of_nothing():
    adversary = Adversary(bound_to("kl:0.2", 8), 8)
    step_of(adversary, np.full(8, 2.0), np.arange(8))
    row = adversary.summary()
    assert "collapse_radius" not in row
    assert row["radius_ratio"] == 0


def test_the_latest_batches_are_pooled_and_a_resumed_run_pools_the_same(tmp_path):
    spec, size = "tv:0.2,by=source", 40
    one, steps = Adversary(bound_to(spec, 800), 800), 12
    margins = {step: mixed(size * step + np.arange(size), seed=step) for step in range(steps)}
    for step in range(steps):
        step_of(one, margins[step], size * step + np.arange(size), step=step)
        if step == 8:
            one.save(tmp_path)
            other = Adversary(bound_to(spec, 800), 800)
            other.load(tmp_path)
        elif step > 8:
            step_of(other, margins[step], size * step + np.arange(size), step=step)
    row, again, kept = one.summary(), other.summary(), -(-POOLED // size)
    latest = np.concatenate([margins[step] for step in range(steps - kept, steps)])
    here = bound_to(spec, 800).take(np.arange(size * (steps - kept), size * steps))
    assert row["collapse_margins"] == kept * size
    assert row["collapse_radius"] == pytest.approx(bearable(here, latest)[0], rel=1e-4)
    assert 0 < row["collapse_radius"] < 1
    for name in ("collapse_radius", "radius_ratio", "collapse_margins"):
        assert again[name] == pytest.approx(row[name], rel=1e-12)


def test_a_checkpoint_of_an_earlier_version_begins_to_pool_anew(tmp_path):
    one = Adversary(bound_to("tv:0.2", 64), 64)
    step_of(one, drawn(64), np.arange(64))
    one.save(tmp_path)
    (tmp_path / "margins.npz").unlink()
    one.load(tmp_path)
    assert not one.running.tells({"radius_used": 0.2})
