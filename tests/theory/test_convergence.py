"""Robust pairs and the runs on them, against enumeration by hand, cvxpy, log-softmax and finite differences."""

from itertools import product

import cvxpy as cp
import numpy as np
import pytest
from scipy.special import log_softmax

from dro_core import KL, ChiSquare, CVaR, ProjectedSubgradient, TotalVariation, worst_case
from synthetic.biases.bias import plugin_bias
from synthetic.pairs.convergence import expected_gaps, full_batch_run, guarantees, method_for, minibatch_runs
from synthetic.pairs.robust_pairs import RobustPairs, into_ball

SETS = [TotalVariation(0.25), TotalVariation(0.25, max_ratio=2.0), CVaR(0.5), ChiSquare(0.5), KL(0.25)]


def pairs(ambiguity, *, m=4, d=2, radius=1.5, seed=0, **named):
    rng = np.random.default_rng(seed)
    return RobustPairs(
        rng.normal(size=(m, d)) + 0.5, rng.dirichlet(np.ones(m)), ambiguity, radius, start=rng.normal(size=d), **named
    )


def test_the_dpo_problem_has_the_loss_of_a_softmax_policy():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 4, 3))  # prompts, answers, features; the first answer is chosen, the third rejected
    reference, policy = rng.normal(size=(2, 3))
    gains = log_softmax(features @ policy, axis=1) - log_softmax(features @ reference, axis=1)
    problem = RobustPairs.dpo(
        features[:, 0], features[:, 2], np.full(5, 0.2), CVaR(0.5), radius=4.0, beta=0.3, reference_policy=reference
    )
    expected = np.log1p(np.exp(-0.3 * (gains[:, 0] - gains[:, 2])))
    np.testing.assert_allclose(problem.losses(policy), expected, atol=1e-13)
    largest = np.linalg.norm(features, axis=-1).max()
    assert problem.steepness <= 2 * 0.3 * largest
    same = RobustPairs.reward(0.3 * features[:, 0], 0.3 * features[:, 2], np.full(5, 0.2), CVaR(0.5), radius=4.0)
    assert problem.objective(policy) == pytest.approx(float(same.objective(policy - reference)), abs=1e-13)


@pytest.mark.parametrize("ambiguity", SETS, ids=str)
def test_a_subgradient_is_the_derivative_where_there_is_one(ambiguity):
    problem, counts = pairs(ambiguity, beta=0.7), np.array([1, 0, 2, 1])
    point, ahead = np.array([0.3, -0.4]), np.eye(2) * 1e-6

    def value(parameters):
        return worst_case(problem.losses(parameters), ambiguity, reference=counts / 4).value

    slope = (value(point + ahead) - value(point - ahead)) / 2e-6
    np.testing.assert_allclose(problem.subgradient(point, counts), slope, atol=1e-7)


@pytest.mark.parametrize("ambiguity", SETS, ids=str)
def test_the_mean_minibatch_gradient_is_a_subgradient_of_the_mean_plugin_value(ambiguity):
    problem, rng = pairs(ambiguity, m=3), np.random.default_rng(1)
    counts, chances = problem.minibatches(3)
    points = rng.normal(size=(12, 2)) * 2
    points[0] = problem.start  # all losses tie there
    values = problem.plugin_objective(points, 3)
    for point, value in zip(points, values, strict=True):
        slope = chances @ problem.subgradient(np.tile(point, (len(counts), 1)), counts)
        assert np.all(values >= value + (points - point) @ slope - 1e-12)


def test_no_gradient_in_the_ball_is_longer_than_the_lipschitz_constant_and_some_is_as_long():
    problem, rng = pairs(CVaR(0.5), beta=2.0), np.random.default_rng(2)
    points = problem.start + into_ball(rng.normal(size=(4000, 2)) * 9, problem.radius)
    norms = [np.linalg.norm(problem.subgradient(points, np.tile(row, (4000, 1))), axis=1) for row in np.eye(4)]
    assert 0.999 * problem.lipschitz <= np.max(norms) <= problem.lipschitz * (1 + 1e-12)


def solved_by_cvxpy(problem, rho):
    """(1 - rho) CVaR_{1 - rho} + rho max, from its definition by linear constraints."""
    w, threshold, most = cp.Variable(problem.differences.shape[1]), cp.Variable(), cp.Variable()
    losses = cp.logistic(-problem.beta * problem.differences @ (w - problem.start))
    value = (1 - rho) * threshold + problem.masses @ cp.pos(losses - threshold) + rho * most
    constraints = [losses <= most, cp.norm(w - problem.start) <= problem.radius]
    return cp.Problem(cp.Minimize(value), constraints).solve(solver="CLARABEL")


@pytest.mark.parametrize(("rho", "radius"), [(0.0, 1.0), (0.125, 0.1), (0.25, 1.0), (0.25, 20.0), (0.9, 2.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_certified_and_that_of_a_conic_solver(rho, radius, seed):
    problem = pairs(TotalVariation(rho), radius=radius, seed=seed, m=5, beta=1.5)
    found = problem.optimum
    assert -1e-13 <= found.value - found.bound <= 1e-9
    assert np.linalg.norm(found.parameters - problem.start) <= radius * (1 + 1e-12)
    assert found.value == pytest.approx(float(problem.objective(found.parameters)), abs=1e-15)
    assert found.value == pytest.approx(solved_by_cvxpy(problem, rho), abs=1e-6)


def run_by_hand(problem, method, batches):
    """Gaps of the averages along one sequence of minibatches, each a tuple of pairs; uniform weights on repeats."""
    single, gaps = ProjectedSubgradient(method.step_size, problem.radius), []
    state = single.init(np.zeros(len(problem.start)))
    for batch in batches:
        rows, margins = problem.beta * problem.differences[list(batch)], []
        margins = rows @ state.iterate
        weights = worst_case(np.log1p(np.exp(-margins)), problem.ambiguity).weights
        state = single.step(state, -(weights / (1 + np.exp(margins))) @ rows)
        gaps.append(float(problem.objective(problem.start + state.average)) - problem.optimum.value)
    return np.array(gaps)


@pytest.mark.parametrize("direction", [(0.0625, -1.71875), (1.0, 0.0), (0.6, 0.0, -0.8)])
def test_directions_that_no_pair_sees_change_no_optimum(direction):
    """Opposed pairs on a line, in a plane or in space: that of the line."""
    row, masses = np.array(direction), [512 / 513, 1 / 513]
    found = RobustPairs([row, -row], masses, TotalVariation(0.5), radius=0.5).optimum
    length = float(np.linalg.norm(row))
    alone = RobustPairs([[length], [-length]], masses, TotalVariation(0.5), radius=0.5).optimum
    assert (found.value, found.bound) == pytest.approx((alone.value, alone.bound), abs=1e-9)
    assert found.bound <= found.value + 1e-12
    assert found.parameters == pytest.approx(alone.parameters * row / length, abs=1e-3)


@pytest.mark.parametrize("ambiguity", SETS, ids=str)
def test_expected_gaps_are_the_mean_over_every_sequence_of_draws(ambiguity):
    problem = pairs(ambiguity, m=2, radius=0.4, beta=1.5)
    method, mean = method_for(problem, 3), np.zeros(3)
    for batches in product(product(range(2), repeat=2), repeat=3):
        chance = np.prod([problem.masses[i] for batch in batches for i in batch])
        mean += chance * run_by_hand(problem, method, batches)
    np.testing.assert_allclose(expected_gaps(problem, method, 3, 2), mean, atol=1e-9)


def test_simulated_runs_average_to_the_enumerated_gaps():
    problem = pairs(TotalVariation(0.25), m=3)
    method, exact = method_for(problem, 5), expected_gaps(problem, method_for(problem, 5), 5, 2)
    runs = minibatch_runs(problem, method, 5, 2, np.random.default_rng(3), runs=20_000)
    error = runs.gaps.std(axis=0) / np.sqrt(20_000)
    assert np.all(np.abs(runs.gaps.mean(axis=0) - exact) <= 5 * error + 1e-12)
    assert error[-1] < 0.01 * exact[-1]
    np.testing.assert_allclose(runs.average_values, problem.objective(np.cumsum(runs.iterates, 1)[:, :-1] / np.arange(1, 6)[:, None]))  # noqa: E501  # fmt: skip
    assert np.all(np.linalg.norm(runs.iterates - problem.start, axis=-1) <= problem.radius * (1 + 1e-12))
    assert np.all(runs.iterate_gaps >= 0)


def test_a_full_batch_run_stays_below_its_guarantee_and_converges():
    problem = pairs(TotalVariation(0.25), radius=3.0)
    run = full_batch_run(problem, method_for(problem, 400), 400)
    bound = guarantees(method_for(problem, 400), problem, 400, 0.0)
    assert np.all(run.gaps <= bound)
    assert bound[-1] == pytest.approx(problem.lipschitz * 3.0 / 20)
    assert run.gaps[-1] < 0.2 * run.gaps[0]


def test_the_largest_bias_is_bracketed():
    problem = pairs(TotalVariation(0.5), m=3, d=1, radius=2.0)
    grid = problem.start + np.linspace(-2, 2, 401)[:, None]
    biases = [plugin_bias(losses, problem.masses, 3, problem.ambiguity) for losses in problem.losses(grid)]
    np.testing.assert_allclose(problem.bias(grid, 3), biases, atol=1e-13)
    found = problem.largest_bias(3)
    assert found.bound - found.reached <= 1e-3 * problem.lipschitz * 2.0 * (1 + 1e-9)
    assert max(biases) <= found.bound
    assert found.reached <= max(biases) + 2 * problem.lipschitz * 0.005
    assert 0 <= problem.bias_term(3) <= found.bound


def test_the_search_for_the_largest_bias_does_not_stop_at_a_flat_centre():
    rare = RobustPairs([[1.0], [-1.0]], [1023 / 1024, 1 / 1024], TotalVariation(15 / 16), 0.125)
    # The value of one draw is the mean; at R the population moves 15/16 from the common pair, l, to the rare, l + R.
    expected, found = 15 / 16 * 0.125, rare.largest_bias(1)
    assert 0.999 * expected <= found.reached <= expected + 1e-12
    assert expected <= rare.largest_bias(1, tolerance=1.5).bound
    assert rare.bias_term(1) == pytest.approx(found.bound, abs=1e-12)  # w* is 0, where no loss differs


@pytest.mark.parametrize("ambiguity", SETS, ids=str)
def test_no_point_of_a_disc_has_a_larger_bias_than_the_bound(ambiguity):
    problem, rng = pairs(ambiguity, m=3, radius=2.0), np.random.default_rng(4)
    found = problem.largest_bias(2, tolerance=0.05)
    points = problem.start + into_ball(rng.normal(size=(3000, 2)) * 3, 2.0)
    largest = problem.bias(points, 2).max()
    assert largest <= found.bound
    assert found.bound <= 1.05 * largest + 0.06 * problem.lipschitz * 2.0


def test_bad_problems_are_explained():
    good = [[1.0], [-1.0]]
    for arguments, advice in (
        (([1.0], [1.0], CVaR(0.5), 1.0), "one row and one mass"),
        ((good, [1.0], CVaR(0.5), 1.0), "one row and one mass"),
        (([[0.0], [0.0]], [0.5, 0.5], CVaR(0.5), 1.0), "not all zero"),
        ((good, [0.5, 0.6], CVaR(0.5), 1.0), "divide by the sum"),
        ((good, [0.5, 0.5], CVaR(0.5), 0.0), "radius"),
        ((good, [0.5, 0.5], CVaR(0.5), 1.0, -1.0), "beta"),
        ((good, [0.5, 0.5], CVaR(0.5), 1.0, 1.0, [0.0, 0.0]), "start"),
    ):
        with pytest.raises(ValueError, match=advice):
            RobustPairs(*arguments)
    problem = RobustPairs(good, [0.5, 0.5], CVaR(0.5), 1.0)
    with pytest.raises(ValueError, match="minibatch_runs"):
        expected_gaps(problem, method_for(problem, 40), 40, 2)
