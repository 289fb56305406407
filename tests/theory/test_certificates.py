"""Exact values against a linear programming solver and by hand; enclosures against wrong solutions."""

from fractions import Fraction

import cvxpy as cp
import mpmath
import numpy as np
import pytest
from scipy.optimize import linprog

from dro_core import KL, ChiSquare, CVaR, Hellinger, TotalVariation, Wasserstein, WorstCase, worst_case
from dro_core.sets.ambiguity import Dual
from proofs_check.exact import enclosures
from proofs_check.exact.certificates import distribution, exact_cvar, exact_tv, exact_wasserstein, tv_dual
from proofs_check.exact.enclosures import GAP, certified, enclosure

SEEDS = range(25)


def drawn(seed: int):
    """Losses with ties, masses some of which may be zero, a radius."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 8))
    masses = rng.integers(seed % 2, 9, n)
    masses[0] += 1
    return (rng.integers(-6, 7, n) / 4).tolist(), masses.tolist(), float(rng.integers(0, 17)) / 16, rng


def reweighting(losses, masses, radius, ratio) -> float:
    """Maximise over q <= ratio p with 1/2 |q - p| <= radius; variables q and |q - p|."""
    seen = np.array(masses) > 0
    losses, p = np.array(losses)[seen], np.array(masses)[seen] / sum(masses)
    n, one = len(p), np.eye(len(p))
    rows = np.block([[one, -one], [-one, -one], [np.zeros((1, n)), np.ones((1, n)) / 2]])
    limits = np.hstack([p, -p, radius])
    bounds = [(0, ratio * mass) for mass in p] + [(0, None)] * n
    total = np.hstack([np.ones(n), np.zeros(n)])[None]
    return -linprog(np.hstack([-losses, np.zeros(n)]), rows, limits, total, [1], bounds).fun


def transport(losses, masses, cost, radius) -> float:
    n = len(losses)
    rows = np.kron(np.eye(n), np.ones(n))
    p = np.array(masses) / sum(masses)
    return -linprog(-np.tile(losses, n), np.ravel(cost)[None], [radius], rows, p).fun


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_values_agree_with_a_linear_programming_solver(seed):
    losses, masses, radius, rng = drawn(seed)
    ratio, alpha = 1 + float(rng.integers(0, 40)) / 16, max(radius, 1 / 16)
    cost = rng.integers(0, 9, (len(losses),) * 2) / 8
    np.fill_diagonal(cost, 0)  # neither symmetric nor a metric
    pairs = [
        (exact_tv(losses, masses, radius), reweighting(losses, masses, radius, 1e9)),
        (exact_tv(losses, masses, radius, ratio), reweighting(losses, masses, radius, ratio)),
        (exact_cvar(losses, masses, alpha), reweighting(losses, masses, 1, 1 / alpha)),
        (exact_wasserstein(losses, masses, cost.tolist(), radius), transport(losses, masses, cost, radius)),
    ]
    for exact, solved in pairs:
        assert isinstance(exact, Fraction)
        assert float(exact) == pytest.approx(solved, abs=1e-9)


def test_exact_values_by_hand():
    third = Fraction(1, 3)
    assert exact_tv([0, 1], [1, 1], third) == Fraction(1, 2) + third
    assert exact_tv([0, 1, 9], [1, 1, 0], 1) == 1  # what has no mass is not seen
    assert exact_tv([0, 0, 1, 1], [1, 1, 1, 1], 1, max_ratio=1) == Fraction(1, 2)
    assert exact_tv([3], [2], 1, max_ratio=5) == 3
    assert exact_cvar([0, 1, 2], [1, 1, 1], Fraction(1, 2)) == third * 4 + third
    assert exact_wasserstein([0, 9], [1, 0], [[0, 3], [3, 0]], 1) == 3  # but may receive mass
    assert exact_wasserstein([0, 1], [1, 1], [[0, 0], [0, 0]], 0) == 1


def test_float_inputs_are_taken_at_their_binary_value():
    assert exact_tv([0.0, 1.0], [1.0, 1.0], 0.1) == Fraction(1, 2) + Fraction(0.1) != Fraction(6, 10)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_multiplier_and_threshold_bound_total_variation_from_above(seed):
    losses, masses, radius, rng = drawn(seed)
    values, p = distribution(losses, masses)
    seen = [i for i, mass in enumerate(p) if mass]
    values, p = [values[i] for i in seen], [p[i] for i in seen]
    for ratio in (None, Fraction(5, 2)):
        multiplier, threshold = (Fraction(int(rng.integers(-20, 21)), 8) for _ in range(2))
        bound = tv_dual(values, p, Fraction(radius), ratio, multiplier, threshold)
        assert bound >= exact_tv(losses, masses, radius, ratio)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: exact_tv([0, 1], [1, 1], 1.5), "radius"),
        (lambda: exact_tv([0, 1], [1, 1], 0.5, max_ratio=0.5), "max_ratio"),
        (lambda: exact_tv([0, 1], [1], 0.5), "masses"),
        (lambda: exact_tv([0, 1], [1, -1], 0.5), "masses"),
        (lambda: exact_cvar([0, 1], [1, 1], 0), "alpha"),
        (lambda: exact_wasserstein([0, 1], [1, 1], [[0, 1]], 1), "cost"),
        (lambda: exact_wasserstein([0, 1], [1, 1], [[1, 1], [1, 0]], 1), "cost"),
        (lambda: exact_wasserstein([0, 1], [1, 1], [[0, -1], [1, 0]], 1), "cost"),
    ],
)
def test_errors_name_the_argument(call, field):
    with pytest.raises(ValueError, match=f"`{field}` must"):
        call()


BALLS = (TotalVariation(0.25), TotalVariation(0.5, max_ratio=1.75), CVaR(0.3), ChiSquare(0.7), KL(0.2))
EXTREMES = (TotalVariation(0), ChiSquare(0), KL(0), CVaR(1), ChiSquare(50), KL(50))


@pytest.mark.parametrize(
    "ball", [*BALLS, TotalVariation(0), ChiSquare(0), KL(0), CVaR(1), ChiSquare(50), KL(50)], ids=str
)
@pytest.mark.parametrize("seed", range(5))
def test_every_solution_is_certified(ball, seed):
    losses, masses, _, _ = drawn(seed + 2)
    losses[0] += 1 / 8
    assert certified(losses, ball, masses)


def conic(losses, p, ball) -> float:
    q = cp.Variable(len(p))
    if isinstance(ball, KL):
        near = cp.sum(cp.rel_entr(q, p)) <= ball.radius
    else:
        near = cp.sum_squares(cp.multiply(q - p, 1 / np.sqrt(p))) / 2 <= ball.radius
    problem = cp.Problem(cp.Maximize(losses @ q), [near, cp.sum(q) == 1, q >= 0])
    return float(problem.solve(solver=cp.CLARABEL))


@pytest.mark.parametrize("ball", [ChiSquare(0.125), ChiSquare(1.5), KL(0.05), KL(0.9)], ids=str)
def test_enclosures_hold_the_value_of_a_conic_solver(ball):
    losses, masses = [0.0, 1.0, 2.5, -1.0], [1.0, 3.0, 1.0, 2.0]
    low, high = enclosure(losses, ball, masses)
    assert low <= high <= low + GAP
    assert float(low) == pytest.approx(conic(np.array(losses), np.array(masses) / 7, ball), abs=1e-6)


@pytest.mark.parametrize("ball", BALLS, ids=str)
@pytest.mark.parametrize("part", ["weights", "dual"])
def test_wrong_solutions_still_enclose_the_value_but_are_not_certified(ball, part, monkeypatch):
    losses, masses = [0.0, 1.0, 2.5, -1.0], [1.0, 3.0, 1.0, 2.0]
    right = enclosure(losses, ball, masses)

    def wrong(*args, **kwargs) -> WorstCase:
        weights, value, (multiplier, threshold) = worst_case(*args, **kwargs)
        if part == "weights":
            return WorstCase(np.roll(weights, 1), value, Dual(multiplier, threshold))
        return WorstCase(weights, value, Dual(1.1 * multiplier + 0.01, threshold - 0.3))

    monkeypatch.setattr(enclosures, "worst_case", wrong)
    low, high = enclosure(losses, ball, masses)
    assert low <= right.dual
    assert high >= right.primal
    assert not certified(losses, ball, masses)


def test_infeasible_weights_are_drawn_into_the_set(monkeypatch):
    """All mass on the largest loss is worth more than the set allows; what remains of it must not be."""
    losses, masses = [0.0, 1.0], [1.0, 1.0]
    dual = Dual(np.array(1.0), np.array(0.0))
    monkeypatch.setattr(enclosures, "worst_case", lambda *a, **k: WorstCase(np.array([0.0, 1.0]), np.array(1.0), dual))
    for ball in (TotalVariation(0.25), CVaR(0.75), ChiSquare(0.125), KL(0.1), TotalVariation(0.5, max_ratio=1.25)):
        best = float(worst_case(np.array(losses), ball).value)
        assert 0.5 < float(enclosure(losses, ball, masses).primal) <= best + 1e-15


def test_rounding_is_outwards():
    with mpmath.workprec(400):
        for x in (Fraction(1, 3), Fraction(7, 5), Fraction(10**30 + 1, 10**30)):
            exact = mpmath.mpf(x.numerator) / x.denominator
            for bounds, truth in (
                (enclosures.log_bounds(x), mpmath.log(exact)),
                (enclosures.exp_bounds(x), mpmath.exp(exact)),
            ):
                low, high = (mpmath.mpf(end.numerator) / end.denominator for end in bounds)
                assert low < truth < high
                assert high - low < mpmath.mpf(2) ** -180 * max(1, abs(truth))


def test_other_sets_have_no_enclosure():
    for ball in (Hellinger(0.1), Wasserstein(1.0, 1 - np.eye(2))):
        with pytest.raises(TypeError, match="no enclosure"):
            enclosure([0.0, 1.0], ball, [1.0, 1.0])
