from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, softmax

from proofs_check import Budget, Evidence, Verdict, check
from proofs_check.claims.convergence.npg_invariance import npg_realizable_invariance, npg_tabular_invariance
from proofs_check.claims.convergence.pointwise import RegularisedPolicy, pointwise_optimum, pointwise_optimum_mdp
from proofs_check.claims.convergence.policy_gradient import TabularRun, npg_tabular
from proofs_check.claims.convergence.robust_npg import npg_best_iterate, npg_last_iterate
from proofs_check.exact.interval_npg import worst_value_intervals
from proofs_check.search import NO_CONTROL
from synthetic.bandits.mdp import TabularMDP

SMALL = Budget(examples=30, restarts=1, evaluations=20)
UPHELD = [npg_tabular, npg_tabular_invariance, npg_realizable_invariance, pointwise_optimum, pointwise_optimum_mdp]
REFUTED = [npg_last_iterate, npg_best_iterate]


@pytest.mark.parametrize("build", UPHELD + REFUTED)
def test_every_claim_gets_its_verdict_and_every_mutant_is_refuted(build, searched):
    claim = build()
    report = searched(claim).report
    assert report.verdict is claim.expected, report.reason
    assert report.controls
    assert set(report.controls.values()) == {Verdict.REFUTED}
    assert len(report.curve) == (len(claim.curve.instances) if claim.curve else 0)
    if build in REFUTED:
        assert report.evidence is Evidence.CERTIFIED
        assert 1 <= len(claim.by_hand.splitlines()) <= 3


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (1, 2))])
@pytest.mark.parametrize("build", UPHELD)
def test_no_seed_refutes_a_true_claim(build, seed):
    assert check(build().with_mutants(), budget=SMALL, seed=10 + seed).reason == NO_CONTROL  # no violation


def test_the_tabular_gap_of_a_bandit_follows_by_hand():
    """The best answer has the logit eta t more than each of the others."""
    x = TabularRun("bandit", 3, 4, 0.0, 0.5, 10)
    best = np.exp(0.5 * np.arange(11))
    assert npg_tabular().lhs(x) == pytest.approx(3 / (best + 3), abs=1e-12)
    assert npg_tabular().rhs(x) == pytest.approx((np.log(4) / 0.5 + 1) / np.arange(1, 12), abs=1e-12)


def test_the_tabular_gap_agrees_with_the_multiplicative_form_of_the_algorithm():
    """pi <- pi exp(eta A / (1 - gamma)) / Z [AKLM21, Lemma 5.1], by value iteration and without parameters."""
    x = TabularRun("garnet", 4, 3, 0.75, 2.0, 6, number=5)
    mdp: TabularMDP = x.mdp
    policy, gaps = np.full((4, 3), 1 / 3), []
    for _ in range(7):
        values = np.zeros(4)
        for _ in range(200):
            scores = mdp.rewards + mdp.discount * mdp.transitions @ values
            values = (policy * scores).sum(axis=1)
        gaps.append(mdp.start @ (mdp.optimal_values() - values))
        policy = softmax(np.log(policy) + 2.0 * scores / (1 - mdp.discount), axis=1)
    assert npg_tabular().lhs(x) == pytest.approx(gaps, abs=1e-10)


def test_the_overshooting_witness_follows_by_hand():
    (x,) = npg_last_iterate().instances.corners
    run, plain = x.run(robust=True), x.run(robust=False)
    assert plain.iterates.ravel().tolist() == [0.0] * 10
    assert run.iterates.ravel() == pytest.approx([0.0, 4.0] * 5, abs=1e-12)
    first, second = expit(4), 1 / 4 + expit(-4)
    assert run.worst_values(x.ball)[-1] == pytest.approx(first / 4 + 3 * second / 4, abs=1e-12)
    assert plain.worst_values(x.ball)[-1] == 9 / 16
    # The remedy that the docstring names: short steps end within a step of the best point, worth 5/8.
    short = replace(x, step=1 / 16, steps=100)
    assert short.run(robust=True).worst_values(x.ball)[-1] > 0.61
    assert not npg_last_iterate().violates(short)


@pytest.mark.parametrize("step", [1 / 4, 1 / 64])
def test_the_trap_holds_whatever_the_step(step):
    (x,) = npg_best_iterate().instances.corners
    x = replace(x, step=step, steps=round(16 / step))

    def values(theta):
        return np.array([softmax(theta * np.array(f)) @ r for f, r in zip(x.features, x.rewards, strict=True)])

    crossing = brentq(lambda theta: np.diff(values(theta))[0], -2, 0, xtol=1e-14)
    assert crossing == pytest.approx(-0.435, abs=5e-4)
    run, plain = x.run(robust=True), x.run(robust=False)
    assert run.worst_values(x.ball).max() <= values(crossing)[0] + 1e-12
    assert values(crossing)[0] == pytest.approx(0.564, abs=5e-4)
    assert abs(run.iterates[-1, 0] - crossing) <= 2 * step
    assert plain.worst_values(x.ball)[-1] == pytest.approx(0.8125, abs=1e-3)
    # The slopes named by hand.
    grid = np.linspace(-8, 8, 1601)
    slopes = (np.array([values(t + 1e-5) for t in grid]) - np.array([values(t - 1e-5) for t in grid])) / 2e-5
    assert (slopes.sum(axis=1) > 0).all()
    assert (slopes[grid < crossing] @ [0.75, 0.25] > 0).all()
    assert (slopes[(grid > crossing) & (grid < 0.027)] @ [0.25, 0.75] < 0).all()


@pytest.mark.parametrize("build", REFUTED)
def test_intervals_hold_the_floating_point_values_and_say_when_they_cannot_decide(build):
    (x,) = build().instances.corners
    for robust in (False, True):
        intervals = worst_value_intervals(x.rewards, x.features, x.radius, x.step, x.steps, robust=robust)
        values = x.run(robust=robust).worst_values(x.ball)
        assert len(intervals) == x.steps + 1
        for interval, value in zip(intervals, values, strict=True):
            assert 0 <= interval.high - interval.low < 1e-30
            assert value == pytest.approx(float(interval.low), abs=1e-9)
    same = ((1.0, 0.0), (1.0, 0.0))
    assert worst_value_intervals(same, same, 0.25, 1.0, 0, robust=True) is None
    assert not build().violates(replace(x, rewards=same, features=same))
    assert not build().violates(replace(x, steps=0))


@pytest.mark.parametrize("radius", [0.0, 0.125, 0.25, 0.6])
def test_the_maximiser_over_all_policies_agrees_with_a_conic_solver_at_every_radius(radius):
    cvxpy = pytest.importorskip("cvxpy")
    rewards, reference = ((1.0, 0.0, -0.5), (0.0, 2.0, 1.0)), ((0.5, 0.0, 0.0), (-1.0, 0.0, 0.5))
    x = RegularisedPolicy(rewards, reference, rewards, (0.75, 0.25), 0.5, radius)
    base, p = softmax(np.array(reference), axis=1), np.array(x.masses)
    policy, top, threshold = cvxpy.Variable((2, 3)), cvxpy.Variable(), cvxpy.Variable()
    charges = cvxpy.sum(cvxpy.kl_div(policy, base), axis=1)  # the same as KL on the simplex
    losses = 0.5 * charges - cvxpy.sum(cvxpy.multiply(np.array(rewards), policy), axis=1)
    # The dual of the total-variation ball, theory.md section 3, `tv-dual`.
    dual = radius * (top - threshold) + threshold + p @ cvxpy.pos(losses - threshold)
    constraints = [cvxpy.sum(policy, axis=1) == 1, threshold <= top, losses <= top]
    worst = -cvxpy.Problem(cvxpy.Minimize(dual), constraints).solve(solver=cvxpy.CLARABEL)
    assert x.worst(x.optimum.policy)[0] == pytest.approx(worst, abs=1e-6)
    if radius < 1 / 4:  # from there on the better prompt has no mass left, and its policy is free
        assert policy.value == pytest.approx(x.optimum.policy, abs=1e-3)
