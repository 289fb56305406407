"""Sets written in cvxpy: against the closed forms of the same sets, and against models without cvxpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from dro_core import (
    AmbiguitySet,
    ConvexSet,
    Dual,
    TotalVariation,
    dual_objective,
    duality_gap,
    gaussian_kernel,
    worst_case,
)
from dro_core.sets import convex

from . import tolerances as tol
from .convex_twins import capped, embeddings, instance, mmd_ball, total_variation, transport, twins

# The answer.


@twins
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_the_closed_form(constraints: Any, twin: AmbiguitySet, seed: int) -> None:
    losses, p = instance(seed)
    mine, theirs = (worst_case(losses, ambiguity, reference=p) for ambiguity in (ConvexSet(constraints), twin))
    assert mine.value == pytest.approx(theirs.value, abs=tol.CERTIFICATE * np.ptp(losses))
    np.testing.assert_allclose(mine.weights, theirs.weights, atol=1e-5)


@twins
@pytest.mark.parametrize("seed", range(4))
def test_the_bound_lies_above_the_closed_form_and_is_tight(constraints: Any, twin: AmbiguitySet, seed: int) -> None:
    losses, p = instance(seed)
    mine, exact = ConvexSet(constraints), float(worst_case(losses, twin, reference=p).value)
    result = worst_case(losses, mine, reference=p)
    assert -1e-14 <= (float(result.dual.threshold) - exact) / np.ptp(losses) <= tol.CERTIFICATE
    assert 0 <= duality_gap(losses, mine, result, reference=p) <= tol.CERTIFICATE * np.ptp(losses)


def test_the_certificate_trusts_no_number_it_is_given() -> None:
    losses, p = instance(1)
    ball = ConvexSet(total_variation)
    result = worst_case(losses, ball, reference=p)
    assert dual_objective(losses, ball, Dual(0.0, -1e6), reference=p) == result.dual.threshold
    at_rest = result._replace(weights=p, dual=Dual(np.array(0.0), np.array(float(losses @ p))))
    expected = float(worst_case(losses, TotalVariation(0.25), reference=p).value - losses @ p)
    assert duality_gap(losses, ball, at_rest, reference=p) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "constraints", [total_variation, transport, mmd_ball(gaussian_kernel(embeddings()), 0.3).constraints]
)
def test_the_bound_holds_at_any_point_of_the_dual_cone(constraints: Any) -> None:
    """Dual points far from feasible: what they lack is charged, so the bound is loose, never wrong."""
    losses, p = instance(2)
    losses -= losses.max()
    program = convex._Program(constraints, 6)
    best = program.solve(losses, p)
    data, chain, _ = program.problem.get_problem_data("CLARABEL")
    found = chain.solve_via_data(program.problem, data)
    start, rows = data["param_prob"].var_id_to_col[program.q.id], data["dims"]
    rng, bounds = np.random.default_rng(0), []
    for scale in np.repeat([1e-9, 1e-4, 1e-2, 1.0], 40):
        z = np.array(found.z)
        z[: rows.zero] += scale * rng.standard_normal(rows.zero)
        z[rows.zero :] *= 1 - scale * rng.random(len(z) - rows.zero)
        for end in rows.zero + rows.nonneg + np.cumsum(rows.soc, dtype=int):
            first = end - rows.soc[0]
            z[first + 1 : end] += scale * rng.standard_normal(rows.soc[0] - 1)
            z[first] = max(z[first], np.linalg.norm(z[first + 1 : end]))
        x = found.x + min(scale, 1e-2) * rng.standard_normal(len(found.x))
        answer = convex._certified(data, SimpleNamespace(x=x, z=z, s=found.s), start, losses)
        bounds.append(answer.bound - best.bound)
        assert answer.weights.min() >= 0
        assert answer.weights.sum() == pytest.approx(1, abs=1e-14)
    assert min(bounds) >= -1e-9
    assert np.median(bounds[:40]) < 1e-5 < np.median(bounds[120:])


@pytest.mark.parametrize("seed", range(3))
def test_mmd_ball_against_sequential_quadratic_programming(seed: int) -> None:
    losses, p = instance(seed)
    losses = (losses - losses.mean()) / np.ptp(losses)
    kernel = gaussian_kernel(embeddings(), bandwidth=1.0)
    ball = {"type": "ineq", "fun": lambda q: 0.09 - (q - p) @ kernel @ (q - p), "jac": lambda q: -2 * kernel @ (q - p)}
    whole = {"type": "eq", "fun": lambda q: q.sum() - 1, "jac": np.ones_like}
    found = minimize(
        lambda q: -q @ losses, p, jac=lambda q: -losses, method="SLSQP", bounds=[(0, 1)] * 6,
        constraints=[ball, whole], options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert found.success
    result = worst_case(losses, mmd_ball(kernel, 0.3), reference=p)
    assert -found.fun == pytest.approx(result.value, abs=tol.CONIC)
    assert min(found.x) < 1e-9  # the sign of the weights matters here
    moved = result.weights - p
    assert np.sqrt(moved @ kernel @ moved) <= 0.3 + 1e-9


@pytest.mark.parametrize("radius", [0.0, 1e-6, 1e-3])
def test_mmd_ball_inside_the_simplex(radius: float) -> None:
    """Mean + radius sqrt((l - c)' K^-1 (l - c)), c the generalised mean that keeps the sum at one."""
    losses, _ = instance(3)
    kernel = gaussian_kernel(embeddings(), bandwidth=0.7)
    inverse = np.linalg.inv(kernel)
    away = losses - (inverse @ losses).sum() / inverse.sum()
    expected = losses.mean() + radius * np.sqrt(away @ inverse @ away)
    value = worst_case(losses, mmd_ball(kernel, radius)).value
    assert value == pytest.approx(expected, abs=tol.CERTIFICATE * np.ptp(losses))


def test_a_semidefinite_constraint() -> None:
    losses, p = instance(4)
    kernel = gaussian_kernel(embeddings(), bandwidth=0.7)
    inverse = np.linalg.inv(kernel)

    def schur(q: Any, p: Any) -> list[Any]:
        column = cp.reshape(q - p, (6, 1), order="F")
        return [cp.bmat([[(inverse + inverse.T) / 2, column], [column.T, np.full((1, 1), 0.2**2)]]) >> 0]

    mine, norm = (worst_case(losses, set_, reference=p) for set_ in (ConvexSet(schur), mmd_ball(kernel, 0.2)))
    assert mine.value == pytest.approx(norm.value, abs=1e-8 * np.ptp(losses))
    assert mine.dual.threshold >= mine.value


def test_a_set_that_need_not_hold_the_reference() -> None:
    """Distributions of a given mean, by HiGHS; a mean out of reach is refused."""
    losses, p = instance(5)
    feature = np.arange(6.0)
    known = ConvexSet(lambda q, p: [q @ feature == 4.25])
    program = linprog(-losses, A_eq=np.stack([np.ones(6), feature]), b_eq=[1, 4.25], bounds=(0, 1))
    assert worst_case(losses, known, reference=p).value == pytest.approx(-program.fun, abs=1e-8)
    with pytest.raises(ValueError, match="no q satisfies the constraints of the `ConvexSet`"):
        worst_case(losses, ConvexSet(lambda q, p: [q @ feature == 5.25]), reference=p)


def test_the_value_of_constant_losses_is_exact() -> None:
    losses, ball = np.full(5, -3.1), ConvexSet(total_variation)
    result = worst_case(losses, ball)
    assert result.value == result.dual.threshold == -3.1
    assert duality_gap(losses, ball, result) == 0


def test_scenarios_of_zero_mass_may_get_mass() -> None:
    losses, p = np.array([1.0, 0.0, 2.0]), np.array([0.5, 0.5, 0.0])
    result = worst_case(losses, ConvexSet(total_variation), reference=p)
    np.testing.assert_allclose(result.weights, [0.5, 0.25, 0.25], atol=1e-9)
    assert result.value == pytest.approx(1.0, abs=1e-9)


# Strength, places, parameters.


def test_strength_shrinks_the_set_towards_the_reference() -> None:
    losses, p = instance(6)
    ball = ConvexSet(capped)
    whole, mean = float(worst_case(losses, ball, reference=p).value), float(losses @ p)
    for fraction in (0.25, 0.5, 1.0):
        part = worst_case(losses, ball.with_strength(fraction), reference=p)
        assert part.value == pytest.approx(mean + fraction * (whole - mean), abs=1e-12 * np.ptp(losses))
        assert part.dual.threshold == pytest.approx(part.value, abs=tol.CERTIFICATE * np.ptp(losses))
    np.testing.assert_allclose(worst_case(losses, ball.with_strength(0), reference=p).weights, p, rtol=1e-15)
    assert ball.with_strength(0.5).with_strength(0.5).strength == 0.25


def test_take_follows_the_scenarios() -> None:
    """Permuted, and with one scenario split in two: the value stays."""
    losses, p = instance(7)
    ball = mmd_ball(gaussian_kernel(embeddings()), 0.2)
    value = worst_case(losses, ball, reference=p).value
    order = np.array([3, 1, 5, 0, 2, 4])
    permuted = worst_case(losses[order], ball.take(order), reference=p[order])
    rows = np.append(np.arange(6), 2)
    split = p[rows] * np.where(rows == 2, 0.5, 1.0)
    for other in (permuted, worst_case(losses[rows], ball.take(rows), reference=split)):
        assert other.value == pytest.approx(value, abs=tol.CERTIFICATE * np.ptp(losses))
    free = ConvexSet(capped)
    assert free.take(order) is free


def test_parameters_of_ones_own_may_change() -> None:
    losses, p = instance(8)
    radius = cp.Parameter(nonneg=True)
    ball = ConvexSet(lambda q, p: [cp.norm1(q - p) <= 2 * radius])
    for size in (0.1, 0.4):
        radius.value = size
        expected = worst_case(losses, TotalVariation(size), reference=p).value
        assert worst_case(losses, ball, reference=p).value == pytest.approx(expected, abs=1e-9)
