"""What becomes of the claims of docs/results/verifiable.md, by the rules that were fixed before the runs."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.verifiable import arms, judge, rules
from experiments.verifiable.measures import NAMES


def found(mean, half, p=0.001):
    return judge.Found(mean, mean - half, mean + half, p)


def test_what_becomes_of_a_claim_follows_from_its_intervals():
    """Worked by hand from the rules that were fixed before the runs."""
    more, less = rules.Test("a", "m"), rules.Test("a", "m", "less")
    no_less, equal = rules.Test("a", "m", "no less", margin=0.01), rules.Test("a", "m", "equal", margin=0.01)
    shown = [judge.outcome(test, found(0.02, 0.01), 0.01) for test in (more, less, no_less, equal)]
    assert shown == ["holds", "reversed", "holds", "not shown"]
    assert [judge.outcome(more, found(0.02, 0.01), 0.06), judge.outcome(less, found(-0.02, 0.01), 0.01)] == [
        "not shown", "holds",
    ]  # fmt: skip
    assert [judge.outcome(no_less, found(mean, 0.004), 1) for mean in (-0.004, -0.009, -0.02)] == [
        "holds", "not shown", "reversed",
    ]  # fmt: skip
    assert [judge.outcome(equal, found(mean, 0.004), 1) for mean in (0.005, 0.009, 0.02, -0.02)] == [
        "holds", "not shown", "reversed", "reversed",
    ]  # fmt: skip
    parts = (["holds"] * 2, ["holds", "not shown"], ["holds", "reversed"])
    assert [judge.together(part) for part in parts] == ["holds", "not shown", "reversed"]


def stage(curves):
    """Numbers whose measures are all one curve ``(times,)`` times 1, 2 for two problems, of each arm."""
    along = np.stack([np.stack([np.outer(curve, (1.0, 2.0))] * len(NAMES), axis=-1) for curve in curves.values()], 2)
    return judge.Numbers([(name, 1.0) for name in curves], along)


def test_differences_are_taken_when_a_test_says():
    """Worked by hand: two arms, a quarter of the steps is the third measurement after the first."""
    plain, other = np.linspace(0, 0.12, 13), np.linspace(0, 0.24, 13)
    third = np.linspace(0, 0.06, 13)
    stages = {
        "end": stage({"plain": plain, "b": other, "c": third}),
        "longer": stage({"plain": plain + 1, "b": other + 3, "c": third}),
    }
    sizes = dict.fromkeys(("plain", "b", "c"), 1.0)

    def of(**told):
        return judge.difference(rules.Test("b", "held-out pass@1", **told), stages, sizes)

    assert of() == pytest.approx(np.array([0.12, 0.24]))
    assert of(when="early") == pytest.approx(np.array([0.03, 0.06]))
    assert of(when="longer") == pytest.approx(np.array([2.12, 4.24]))
    assert of(when="level") == pytest.approx(np.zeros(2))
    assert of(against="c", times=0.5) == pytest.approx(np.array([0.15, 0.30]))
    assert judge.at_level(np.array([[0.0], [0.4], [0.6]]), np.array([[0.0], [1.0], [5.0]]), np.array([0.5])) == 3.0
    assert judge.at_level(np.array([[0.7], [0.4]]), np.array([[2.0], [1.0]]), np.array([0.3])) == 2.0


def test_the_scoreboard_corrects_over_all_its_signed_tests():
    rng = np.random.default_rng(0)
    along = np.zeros((13, 40, 3, len(NAMES)))
    along[-1] = 0.01 * rng.normal(size=(40, 3, len(NAMES)))
    along[-1, :, 1] += 0.004
    stages = {"end": judge.Numbers([("plain", 1.0), ("b", 1.0), ("c", 1.0)], along)}
    sizes = dict.fromkeys(("plain", "b", "c"), 1.0)
    tests = [rules.Test(arm, name) for name in NAMES for arm in "bc"]
    claims = [rules.Claim("", "", (test,)) for test in tests]
    board = judge.scoreboard(claims, stages, sizes)
    raw = [rows[0][0].p for _, rows in board]
    from statsmodels.stats.multitest import multipletests

    assert [rows[0][1] for _, rows in board] == pytest.approx(list(multipletests(raw, method="holm")[1]))
    assert 0 < sum(verdict == "holds" for verdict, _ in board) < len([p for p in raw if p < 0.05])


def test_an_arm_against_itself_comes_out_different_as_often_as_the_level_says():
    rng = np.random.default_rng(0)
    along = rng.normal(size=(1, 100, 40, len(NAMES)))
    numbers = judge.Numbers([("plain", 1.0)] * 40, along)
    alarms = judge.false_alarms(numbers)
    assert sum(alarms.values()) / (100 * len(NAMES)) == pytest.approx(0.05, abs=0.025)
    along[:, :, ::2] += 3.0
    assert set(judge.false_alarms(judge.Numbers(numbers.runs, along)).values()) == {100}


def test_every_claim_names_arms_and_measures_that_there_are():
    names = {arm.name for arm in arms.ARMS}
    assert set(arms.MAIN) <= names
    for claim in rules.CLAIMS:
        for test in claim.tests:
            assert {test.arm, test.against} <= names, claim.text
            assert test.measure in NAMES, claim.text
            assert test.when != "longer" or {test.arm, test.against} <= set(arms.MAIN), claim.text
