"""The search, the tally and the verdicts, on claims small enough to judge by eye."""

import json
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from proofs_check import Budget, Claim, Curve, Evidence, Instances, Relation, Verdict, check, mutant, replay, shrunk
from proofs_check.evaluation import evaluate
from proofs_check.report import instance_from_json
from proofs_check.search import NO_CONTROL
from proofs_check.statistics import MOST_CLAIMS, claim_estimate, comparison_error
from synthetic import Estimate, mean_estimate

SMALL = Budget(examples=30, restarts=1, evaluations=30, draws=8000)


@dataclass(frozen=True)
class Table:
    rows: tuple[tuple[float, ...], ...]
    n: int = 1


def squares(**changes) -> Claim[Table]:
    """The square of a mean is at most the mean of squares."""
    rows = st.lists(st.integers(-8, 8).map(float), min_size=2, max_size=4).map(tuple)
    claim = Claim(
        label="jensen",
        statement="(mean)^2 <= mean of squares",
        reference="Jensen",
        assumptions={"not all zero": lambda x: bool(np.any(x.rows))},
        instances=Instances(Table, (Table(((1.0, 1.0),)),), st.builds(Table, st.tuples(rows))),
        lhs=lambda x: np.mean(x.rows) ** 2,
        rhs=lambda x: np.mean(np.square(x.rows)),
        scale=lambda x: np.max(np.square(x.rows)),
        tight=True,
    )
    return replace(claim.with_mutants(shrunk(claim)), **changes)


@dataclass(frozen=True)
class Coin:
    chance: float
    draws: int = 0
    seed: int = 0


def tosses(x: Coin) -> np.ndarray:
    return (np.random.default_rng(x.seed).random(x.draws) < x.chance).astype(float)


def fair(**changes) -> Claim[Coin]:
    claim = Claim(
        label="mean-of-a-coin",
        statement="the mean is the chance",
        reference="",
        assumptions={},
        instances=Instances(Coin, (Coin(0.25), Coin(0.5))),
        lhs=lambda x: claim_estimate(tosses(x), tests=2, bounds=(0.0, 1.0)),
        rhs=lambda x: x.chance,
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
    )
    return replace(claim.with_mutants(mutant(claim, "10 % more", rhs=lambda x: x.chance + 0.1)), **changes)


def test_the_search_upholds_a_truth_and_climbs_tables_of_floats_to_a_violation():
    assert check(squares(), budget=SMALL).verdict is Verdict.UPHELD
    # From a margin of -0.4 at the only corner the optimiser has to find 1.2 mean^2 > mean of squares by itself.
    wrong = mutant(squares(), "1.2", lhs=lambda x: 1.2 * np.mean(x.rows) ** 2)
    corner = Instances(Table, (Table(((1.0, 0.125),)),), st.just(Table(((1.0, 0.125),))))
    stuck = replace(wrong, instances=replace(corner, strategy=None))
    assert check(stuck, budget=SMALL).reason == NO_CONTROL
    report = check(replace(wrong, instances=corner), budget=SMALL)
    assert report.verdict is Verdict.REFUTED
    assert report.checked > 2
    assert isinstance(report.worst.instance.rows[0], tuple)


def test_exact_checks_decide_between_certified_and_inconclusive():
    def holds(x: Table) -> bool:
        values = [Fraction(v) for row in x.rows for v in row]
        return sum(values) ** 2 <= len(values) * sum(v * v for v in values)

    assert check(squares(verifies=holds), budget=SMALL).evidence is Evidence.CERTIFIED
    doubtful = check(squares(verifies=lambda x: x.rows[0][0] > 1), budget=SMALL)
    assert (doubtful.verdict, doubtful.worst.instance) == (Verdict.INCONCLUSIVE, Table(((1.0, 1.0),)))
    assert "does not confirm" in doubtful.reason
    refuted = squares(rhs=lambda x: 0.9 * np.mean(np.square(x.rows)), violates=lambda x: not holds(x), mutants=())
    assert check(refuted, budget=SMALL).verdict is Verdict.INCONCLUSIVE


def test_all_cases_are_exhaustive_evidence():
    instances = Instances(Table, tuple(Table(((1.0, float(k)),)) for k in range(5)), complete=True)
    report = check(squares(instances=instances), budget=SMALL)
    assert (report.verdict, report.evidence, report.checked) == (Verdict.UPHELD, Evidence.EXHAUSTIVE, 5)


@pytest.mark.parametrize("part", ["lhs", "rhs", "scale", "assumptions"])
def test_a_side_that_raises_is_reported_with_its_instance(part):
    def explode(x: Table) -> float:
        raise ZeroDivisionError("two is too many") if len(x.rows[0]) == 2 else ValueError("never reached")

    report = check(squares(**{part: {"fine": explode} if part == "assumptions" else explode}), budget=SMALL)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "ZeroDivisionError: two is too many" in report.reason
    assert report.worst.instance == Table(((1.0, 1.0),))
    assert np.isnan(report.worst.margin)


def test_ctrl_c_inside_a_side_is_not_swallowed():
    def interrupt(x: Table) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(squares(lhs=interrupt), budget=SMALL)


def test_vectors_of_several_lengths_are_compared_entry_by_entry():
    rows = (Table(((3.0, 1.0),)), Table(((1.0, 2.0, 3.0),)))
    claim = squares(
        instances=Instances(Table, rows),
        lhs=lambda x: np.array(x.rows[0]),
        rhs=lambda x: np.array(x.rows[0]) + (np.arange(len(x.rows[0])) != 2),
        mutants=(),
    )
    assert check(claim, budget=SMALL).reason == NO_CONTROL  # no violation
    worst = evaluate(replace(claim, rhs=lambda x: np.array(x.rows[0]) - (np.arange(len(x.rows[0])) == 2)), rows[1])
    assert (worst.lhs, worst.rhs) == (3.0, 2.0)


def test_simulated_sides_are_filled_in_and_judged_by_their_intervals():
    report = check(fair(), budget=SMALL)
    assert (report.verdict, report.evidence) == (Verdict.UPHELD, Evidence.STATISTICAL), report.reason
    assert report.worst.instance.draws == 8000
    assert replay(fair(), report.to_json()) == report.worst
    assert set(report.controls.values()) == {Verdict.REFUTED}
    assert check(fair(), budget=SMALL, seed=1).worst.instance.seed != report.worst.instance.seed
    few = check(fair(mutants=()), budget=replace(SMALL, draws=50))
    assert (few.verdict, "too wide" in few.reason) == (Verdict.INCONCLUSIVE, True)
    blind = check(fair(), budget=replace(SMALL, draws=50))
    assert blind.verdict is Verdict.INCONCLUSIVE


def test_no_true_simulated_claim_is_refuted_in_a_hundred_seeds():
    verdicts = {check(fair(mutants=()), budget=replace(SMALL, draws=500), seed=seed).verdict for seed in range(100)}
    assert Verdict.REFUTED not in verdicts


def test_intervals_cover_at_their_rate():
    rng, error = np.random.default_rng(0), 0.1
    draws = rng.exponential(size=(200, 2000))
    normal = mean_estimate(draws, error)
    missed = np.sum((normal.low > 1) | (normal.high < 1))
    # Skewed draws: a t interval of 200 misses a little more often than it should.
    assert stats.binom.ppf(1e-4, 2000, error) <= missed <= stats.binom.ppf(1 - 1e-4, 2000, 0.125)
    lower, upper = stats.t.interval(1 - error, 199, draws.mean(axis=0), stats.sem(draws, axis=0))
    np.testing.assert_allclose([normal.low, normal.high], [lower, upper], rtol=1e-12)
    sure = mean_estimate(rng.random((200, 2000)) < 0.02, error, bounds=(0.0, 1.0))
    assert np.mean((sure.low > 0.02) | (sure.high < 0.02)) <= error


def test_interval_requests_that_make_no_sense_are_explained():
    with pytest.raises(ValueError, match="draw more"):
        mean_estimate([1.0], 0.1)
    with pytest.raises(ValueError, match=r"error must lie in \(0, 1\)"):
        mean_estimate([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="do not hold the draws"):
        mean_estimate([1.0, 2.0], 0.1, bounds=(0.0, 1.0))
    with pytest.raises(ValueError, match="count every interval"):
        comparison_error(0)
    assert comparison_error(1) * MOST_CLAIMS == pytest.approx(1e-3)


def test_an_interval_on_both_sides_needs_a_gap_to_refute():
    side = Estimate(np.array(2.0), np.array(1.0), np.array(3.0))
    claim = fair(lhs=lambda x: side, rhs=lambda x: Estimate(*(part - 1 for part in side)))
    assert evaluate(claim, Coin(0.5)).margin == -1
    assert evaluate(replace(claim, rhs=lambda x: 0.5), Coin(0.5)).margin == 0.5
    assert evaluate(replace(claim, rhs=lambda x: 4.0), Coin(0.5)).margin == 1
    assert evaluate(replace(claim, rhs=lambda x: 4.0, relation=Relation.AT_MOST), Coin(0.5)).margin == -3


def test_reports_keep_nested_instances_and_infinities_through_json():
    broken = check(squares(rhs=lambda x: np.inf), budget=SMALL)
    stored = json.loads(json.dumps(broken.to_json(), allow_nan=False))
    assert stored["worst"]["rhs"] == "inf"
    assert instance_from_json(squares(), stored["worst"]["instance"]) == broken.worst.instance


def test_a_curve_follows_its_axis():
    family = tuple(Table(((1.0, float(k)),), n=k) for k in (1, 2, 4))
    claim = squares(curve=Curve("n", family))
    assert check(claim, budget=SMALL).curve == ()
    points = check(claim, budget=SMALL, curves=True).curve
    assert [point.x for point in points] == [1, 2, 4]
    assert [(p.lhs, p.rhs) for p in points] == [(((1 + k) / 2) ** 2, (1 + k * k) / 2) for k in (1, 2, 4)]


def test_a_curve_stays_on_the_entry_that_comes_closest_to_a_violation():
    family = tuple(Table(((1.0, float(k)),), n=k) for k in (1, 2, 4))
    claim = squares(
        curve=Curve("n", family),
        lhs=lambda x: (x.n, -x.n),
        rhs=lambda x: (x.n + 1 / x.n, 0.0 if x.n > 1 else -0.9),  # closest: the second at 1, the first at 4
        scale=lambda x: 1.0,
    )
    assert check(claim, budget=SMALL, curves=True).curve == ((1, -1, -0.9), (2, -2, 0), (4, -4, 0))


def test_effort_scales_the_search_and_keeps_the_corners():
    budget = Budget(examples=40, restarts=2, evaluations=20, draws=7).scaled(0.1)
    assert (budget.examples, budget.restarts, budget.evaluations, budget.draws) == (4, 2, 2, 7)
    cheap, full = (check(squares(effort=e, mutants=()), budget=SMALL).checked for e in (0.01, 1.0))
    assert 1 <= cheap < full
