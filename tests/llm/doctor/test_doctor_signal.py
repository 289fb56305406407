"""The doctor on policies whose answers are right or wrong: silent prompts, the weight on them, coverage."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from record_runs import unpack
from scipy.stats import binom

from llm.adversary.ledger import AdversaryLedger
from llm.doctor.diagnosis import Finding, Severity, Unchecked
from llm.doctor.doctor import diagnose
from llm.doctor.record import read_run
from llm.doctor.signal import chases_unsolvable, coverage_lost, silent_prompts, weight_on_silent
from llm.doctor.weights import mostly_ignored, single_examples, too_few_effective

STEPS = 40
LINE = np.linspace(0, 1, STEPS)
SETTINGS = {"samples": 8, "ambiguity": "kl_penalty:0.3", "silent_groups": "keep"}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return read_run(unpack("healthy tv", tmp_path_factory.mktemp("signal")))


def run_of(healthy, ledger=None, *, settings=SETTINGS, **columns):
    """A policy's record with these columns, numbers or one per step."""
    told = {"effective_sample_size": 20.0, "radius_fraction": 1.0, "reward": 0.5, "kl": 0.1, "skipped": 0.0,
            "all_right": 0.2, "all_wrong": 0.2, "all_alike": 0.0, "weight_without_signal": 0.4} | columns  # fmt: skip
    whole = {name: np.broadcast_to(np.asarray(value, float), STEPS) for name, value in told.items()}
    rows = [{"step": step + 1, **{name: float(v[step]) for name, v in whole.items()}} for step in range(STEPS)]
    return replace(healthy, kind="policy", config=settings, training=rows, ledger=ledger, batch=32)


def ledger_of(failed, multiplier, *, visits=4):
    """A hundred prompts, the first ``failed`` of them without a right answer, at ``multiplier`` times the weight."""
    found, rows = AdversaryLedger(100), np.arange(100)
    weights = np.where(rows < failed, multiplier, 1.0)
    for _ in range(visits):
        found.record(rows, weights, np.where(rows < failed, 0.0, -0.5), answered=weights)
    return found


NOISE = np.random.default_rng(3).normal(scale=0.02, size=STEPS)


@pytest.mark.parametrize(
    ("check", "run", "title"),
    [
        (silent_prompts, {"all_wrong": 0.5}, "most prompts tell nothing"),
        (silent_prompts, {"skipped": 0.2}, "most prompts tell nothing"),
        (silent_prompts, {}, None),
        (silent_prompts, {"all_wrong": 0.6 * (LINE < 0.4)}, None),  # it was so in the beginning
        (weight_on_silent, {"weight_without_signal": 0.8}, "weight goes to prompts that tell nothing"),
        (weight_on_silent, {"weight_without_signal": 0.8, "all_wrong": 0.6}, None),  # no more than their share
        (weight_on_silent, {}, None),
        (
            coverage_lost,
            {"all_wrong": 0.2 + 0.2 * LINE + NOISE, "reward": 0.3 + 0.2 * LINE},
            "the policy loses coverage",
        ),
        (coverage_lost, {"all_wrong": 0.2 + 0.2 * LINE + NOISE, "reward": 0.5 - 0.2 * LINE}, None),  # it got worse
        (coverage_lost, {"all_wrong": 0.4 - 0.2 * LINE, "reward": 0.3 + 0.2 * LINE}, None),
        (chases_unsolvable, {"ledger": (30, 5.0)}, "the adversary chases prompts that are not solved"),
        (chases_unsolvable, {"ledger": (30, 1.0)}, None),
        (chases_unsolvable, {"ledger": (30, 5.0), "all_wrong": 0.5 - 0.3 * LINE + NOISE}, None),  # and solves them
    ],
)
def test_what_is_found_and_what_is_not(check, run, title, healthy):
    given = dict(run)
    ledger = ledger_of(*given.pop("ledger")) if "ledger" in given else None
    verdict = check(run_of(healthy, ledger, **given))
    assert (verdict.title if isinstance(verdict, Finding) else verdict) == title


def test_prompts_that_were_left_out_are_no_fault_of_the_set(healthy):
    """Three of 32 count, and the set weighs these alike."""
    told = {"effective_sample_size": 2.9, "largest_multiplier": 1.1, "zero_share": 0.0, "prompts_counted": 3.0}
    run = run_of(healthy, **told)
    assert not [check(run) for check in (too_few_effective, single_examples, mostly_ignored) if check(run)]
    large = SETTINGS | {"ambiguity": "maxrl"}
    blind = run_of(healthy, settings=large, **told | {"prompts_counted": 32.0, "largest_multiplier": 30.0})
    found = [check(blind) for check in (too_few_effective, single_examples)]
    assert [finding.severity for finding in found] == [Severity.PROBLEM] * 2
    assert "prompts_per_step" in found[0].remedy
    assert "gradient_accumulation_steps" not in found[0].remedy


def test_values_that_hold_a_charge_do_not_say_what_is_solved(healthy):
    charged = run_of(healthy, ledger_of(30, 5.0), settings=SETTINGS | {"kl_coefficient": 0.05})
    assert isinstance(chases_unsolvable(charged), Unchecked)
    seen = run_of(healthy, ledger_of(30, 5.0), settings=SETTINGS | {"kl_coefficient": 0.05, "adversary_sees": "score"})
    assert isinstance(chases_unsolvable(seen), Finding)


def test_a_run_whose_steps_were_all_skipped_is_a_problem(tmp_path):
    """Its rows have no weights at all, and are read."""
    folder = unpack("healthy tv", tmp_path)
    content = json.loads((folder / "run.json").read_text())
    content["kind"], content["config"] = "policy", content["config"] | SETTINGS
    row = {"skipped": 1.0, "all_right": 1.0, "all_wrong": 0.0, "all_alike": 0.0, "reward": 1.0, "radius_fraction": 1.0}
    content["history"] = [row | {"step": step} for step in range(1, 20)]
    (folder / "run.json").write_text(json.dumps(content))
    found = {finding.title: finding for finding in diagnose(read_run(folder)).findings}
    assert found["most prompts tell nothing"].severity is Severity.PROBLEM
    assert "100% of the steps were skipped" in found["most prompts tell nothing"].evidence


def test_other_runs_are_not_asked(healthy):
    for check in (silent_prompts, weight_on_silent, coverage_lost, chases_unsolvable):
        assert check(healthy) == Unchecked("it is no policy trained on a reward")
        older = run_of(healthy)
        names = ("all_right", "all_wrong", "all_alike", "weight_without_signal", "skipped")
        rows = [{name: value for name, value in row.items() if name not in names} for row in older.training]
        assert isinstance(check(replace(older, training=rows)), Unchecked)
    plain = SETTINGS | {"ambiguity": "erm"}
    assert isinstance(weight_on_silent(run_of(healthy, settings=plain)), Unchecked)
    assert isinstance(chases_unsolvable(run_of(healthy, settings=plain)), Unchecked)


def test_equal_scores_tell_a_value_function_something(healthy):
    """With one answer to a prompt, as is usual there, all of them are equal; a step that is skipped tells nobody."""
    settings, wrong = SETTINGS | {"estimator": "ppo"}, {"all_right": 0.0, "all_wrong": 1.0}
    for check in (silent_prompts, weight_on_silent):
        assert isinstance(check(run_of(healthy, settings=settings, weight_without_signal=1.0, **wrong)), Unchecked)
    skipping = run_of(healthy, settings=settings | {"silent_groups": "leave_out"}, skipped=1.0, **wrong)
    assert isinstance(silent_prompts(skipping), Finding)


def test_coverage_is_rarely_called_lost_where_there_is_no_trend(healthy):
    rng, found = np.random.default_rng(1), 0
    for _ in range(400):
        wrong, reward = rng.uniform(0.1, 0.5, STEPS), rng.normal(size=STEPS)
        found += isinstance(coverage_lost(run_of(healthy, all_wrong=wrong, reward=reward)), Finding)
    assert found <= binom.ppf(0.999, 400, 0.025**2)
