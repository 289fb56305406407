"""The convergence claims, their exact halves in rationals, and the semidefinite oracle."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from performance_estimation import worst_gap

from proofs_check import Evidence, Verdict, check
from proofs_check.claims.convergence.convergence import Descent, sgd_dpo, sgd_reward
from proofs_check.claims.convergence.long_runs import sgd_sampled
from proofs_check.claims.convergence.subgradient import (
    Kink,
    Span,
    stays_above,
    subgradient_optimal,
    subgradient_worst_case,
)
from proofs_check.evaluation import Tally
from proofs_check.hunt.stages import draw

CLAIMS = {
    sgd_reward: Evidence.SEARCHED,
    sgd_dpo: Evidence.SEARCHED,
    sgd_sampled: Evidence.STATISTICAL,
    subgradient_worst_case: Evidence.SEARCHED,
    subgradient_optimal: Evidence.CERTIFIED,
}


@pytest.mark.parametrize("build", CLAIMS, ids=lambda build: build.__name__)
def test_every_convergence_claim_is_upheld_and_its_mutants_are_not(build, searched):
    report = searched(build()).report
    assert (report.verdict, report.evidence) == (Verdict.UPHELD, CLAIMS[build]), report.reason
    assert report.controls
    assert set(report.controls.values()) == {Verdict.REFUTED}
    if build().tight:
        assert 0.99 <= report.tightness <= 1 + 1e-9


@pytest.mark.exhaustive
def test_what_refutes_the_bound_without_the_bias_is_a_rare_pair():
    unbiased = next(false for false in sgd_reward().mutants if "bias" in false.label)
    witness = check(unbiased).worst
    assert witness.instance.masses == (1023.0, 1.0)
    # By hand: n = 1, T = 16; almost surely the common pair, slope about 1/2, steps of R/4, in the ball of R = 1/8.
    points = np.minimum(np.arange(16) / 4, 1).mean() / 8
    value = 63 / 64 * np.logaddexp(0, points) + 1 / 64 * np.logaddexp(0, -points)  # the rare pair, with mass 63/64 + p
    assert witness.lhs == pytest.approx(value - np.log(2), rel=0.03)
    assert witness.rhs < 0.025 < 0.04 < witness.lhs


@pytest.mark.parametrize("build", [sgd_reward, sgd_dpo])
def test_draws_reach_the_long_runs_in_which_part_of_the_bias_is_too_little(build):
    claim = build()
    quarter = next(false for false in claim.mutants if "quarter" in false.label)
    tally = Tally(quarter)
    draw(tally, quarter.instances.strategy, 80, seed=0)
    assert tally.settled
    assert tally.worst.instance.steps > 8
    assert not claim.admits(replace(tally.worst.instance, steps=17))  # runs of one pair would go on for ever


def test_the_reference_policy_is_only_the_start_and_beta_is_in_the_constant():
    x = Descent((1.0,), (-1.0,), (1.0,), 0.25, 0.25, 1, 4, beta=0.25, reference=0.5)
    claim = sgd_dpo()
    assert np.all(claim.lhs(x) <= claim.rhs(x))
    np.testing.assert_allclose(claim.lhs(x), claim.lhs(replace(x, reference=-3.0)), atol=1e-12)
    assert claim.scale(x) == pytest.approx(0.25 * 0.5 / (1 + np.exp(-0.125)))


@pytest.mark.parametrize("root", [1, 2, 3, 4])
def test_the_resisting_function_attains_the_constant_in_rationals(root):
    """N = root^2 iterates, G = R = 1: step 1/root; every iterate, and the average, is at f = f* + 1/root."""
    n, step = root * root, Fraction(1, root)
    minimiser = [-step] * n
    assert sum(entry * entry for entry in minimiser) == 1
    point, total = [Fraction(0)] * n, [Fraction(0)] * n
    for _ in range(n):
        values = [entry - best for entry, best in zip(point, minimiser, strict=True)]
        assert max(values) == step
        total = [a + b for a, b in zip(total, point, strict=True)]
        point[values.index(max(values))] -= step
    assert max(a / n + step for a in total) == step
    corner = next(c for c in subgradient_worst_case().instances.corners if c.iterates == n and c.pace == 1)
    assert subgradient_worst_case().lhs(corner)[-1] == pytest.approx(float(step), abs=1e-15)


def test_the_lower_bound_rests_on_its_certificate():
    assert stays_above(Span((1.0, -0.5, 2.0)))
    doubted = replace(subgradient_optimal(), verifies=lambda x: False, mutants=())
    assert check(doubted).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("iterates", [1, 2, 4, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (3, 5, 6, 7))])
def test_the_semidefinite_oracle_finds_the_same_constant(iterates):
    pytest.importorskip("PEPit")
    for output in ("average", "best"):
        assert worst_gap(iterates, output=output) == pytest.approx(iterates**-0.5, abs=1e-4)
    if iterates > 1:
        assert worst_gap(iterates, output="last") > 1.2 * iterates**-0.5


@pytest.mark.parametrize(("iterates", "pace"), [(2, 2.0), (3, 2.0), (4, 0.5), (5, 0.5)])
def test_the_bound_for_other_steps_is_reached_too(iterates, pace):
    pytest.importorskip("PEPit")
    assert worst_gap(iterates, pace=pace) == pytest.approx((1 / pace + pace) / 2 * iterates**-0.5, abs=1e-4)


def test_the_last_iterate_corner_is_the_worst_that_the_oracle_knows():
    pytest.importorskip("PEPit")
    late = next(c for c in subgradient_worst_case().instances.corners if c.slopes[:2] == (1.0, 0.0) and c.slopes[2] < 0)
    assert isinstance(late, Kink)
    last = next(false for false in subgradient_worst_case().mutants if "last" in false.label)
    assert last.lhs(late)[-1] == pytest.approx(worst_gap(2, output="last"), abs=1e-4)
