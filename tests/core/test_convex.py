"""Sets written in cvxpy: against the closed forms of the same sets, against models without cvxpy, and their edges."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.reductions.dcp2cone.dcp2cone import Dcp2Cone
from scipy.optimize import linprog, minimize

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ConvexSet,
    CVaR,
    Dual,
    TotalVariation,
    Wasserstein,
    dual_objective,
    duality_gap,
    gaussian_kernel,
    mmd_ball,
    robust_loss,
    worst_case,
)
from dro_core.sets import convex

from . import tolerances as tol
from .registry import BACKENDS, Backend

COST = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0))) ** 1.5


def capped(q: Any, p: Any) -> list[Any]:
    return [cp.norm1(q - p) <= 0.6, q <= 2 * p]


def chi_square(q: Any, p: Any) -> list[Any]:
    r = cp.Variable(q.size)
    return [r == p, sum(cp.quad_over_lin(q[i] - r[i], r[i]) for i in range(q.size)) <= 2 * 0.2]


def transport(q: Any, p: Any) -> list[Any]:
    plan = cp.Variable((6, 6), nonneg=True)
    return [cp.sum(plan, axis=1) == p, cp.sum(plan, axis=0) == q, cp.sum(cp.multiply(plan, COST)) <= 0.7]


def total_variation(q: Any, p: Any) -> list[Any]:
    return [cp.norm1(q - p) <= 0.5]


TWINS: list[tuple[Callable[[Any, Any], list[Any]], AmbiguitySet]] = [
    (total_variation, TotalVariation(0.25)),
    (capped, TotalVariation(0.3, max_ratio=2.0)),
    (lambda q, p: [q <= p / 0.35], CVaR(0.35)),
    (lambda q, p: [cp.sum(cp.kl_div(q, p)) <= 0.3], KL(0.3)),
    (chi_square, ChiSquare(0.2)),
    (transport, Wasserstein(0.7, COST)),
]
twins = pytest.mark.parametrize(("constraints", "twin"), TWINS, ids=[str(twin) for _, twin in TWINS])


def instance(seed: int, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal(n) - 40, rng.dirichlet(np.ones(n))


def embeddings(n: int = 6) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((n, 3))


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


# The machinery.


def test_compiled_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    written, compiled = [], []
    apply = Dcp2Cone.apply
    monkeypatch.setattr(Dcp2Cone, "apply", lambda self, problem: compiled.append(1) or apply(self, problem))
    ball = ConvexSet(lambda q, p: written.append(q.size) or total_variation(q, p))
    for losses, p in (instance(0), instance(1)):
        result = worst_case(losses, ball, reference=p)
        duality_gap(losses, ball, result, reference=p)
        worst_case(np.stack([losses, -losses]), ball.with_strength(0.5))
    assert (written, len(compiled)) == ([6], 1)
    worst_case(np.arange(4.0), ball.with_strength(0.25))
    worst_case(np.arange(4.0), ball)
    assert (written, len(compiled)) == ([6, 4], 2)


@pytest.mark.parametrize(
    "renew", [copy.deepcopy, lambda ball: pickle.loads(pickle.dumps(ball))], ids=["copy", "pickle"]
)
def test_copies_leave_the_compiled_problem_behind(renew: Callable[[ConvexSet], ConvexSet]) -> None:
    losses, p = instance(2)
    ball = mmd_ball(gaussian_kernel(embeddings()), 0.2).with_strength(0.5)
    value = worst_case(losses, ball, reference=p).value
    other = renew(ball)
    assert not other._programs
    assert worst_case(losses, other, reference=p).value == value
    assert str(other) == "convex:MeanDiscrepancy(radius=0.2),strength=0.5"


def test_threads_share_a_set() -> None:
    ball, given = ConvexSet(total_variation), [instance(seed) for seed in range(40)]
    alone = [worst_case(losses, ball, reference=p).value for losses, p in given]
    patient = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: worst_case(pair[0], ball, reference=pair[1]).value, given))
    sys.setswitchinterval(patient)
    assert together == alone


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_every_array_library_and_batch(backend: Backend) -> None:
    rows, p = np.random.default_rng(1).standard_normal((2, 3, 6)), instance(1)[1]
    ball = ConvexSet(total_variation)
    result = worst_case(backend.array(rows), ball, reference=backend.array(p))
    assert type(result.weights) is type(result.dual.threshold) is type(backend.array(rows))
    expected = worst_case(rows, TotalVariation(0.25), reference=p)
    np.testing.assert_allclose(backend.numpy(result.value), expected.value, atol=1e-9)
    np.testing.assert_allclose(backend.numpy(result.weights), expected.weights, atol=1e-7)
    gap = backend.numpy(duality_gap(backend.array(rows), ball, result, reference=backend.array(p)))
    assert gap.shape == (2, 3)
    assert np.all((gap >= -1e-14) & (gap <= 1e-8))


def test_an_empty_batch() -> None:
    assert worst_case(np.zeros((0, 6)), ConvexSet(total_variation)).weights.shape == (0, 6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_gradient_is_the_weights(dtype: torch.dtype) -> None:
    losses = torch.tensor(instance(3)[0], dtype=dtype, requires_grad=True)
    ball = mmd_ball(gaussian_kernel(embeddings()), 0.2)
    loss = robust_loss(losses, ball)
    loss.backward()
    assert losses.grad is not None
    assert loss.dtype == losses.grad.dtype == dtype
    torch.testing.assert_close(losses.grad, worst_case(losses, ball).weights, rtol=0, atol=0)
    if dtype == torch.float64:
        step = 1e-4
        moved = [losses.detach() + sign * step * torch.eye(6, dtype=dtype) for sign in (1, -1)]
        slopes = (robust_loss(moved[0], ball) - robust_loss(moved[1], ball)) / (2 * step)
        torch.testing.assert_close(losses.grad, slopes, rtol=0, atol=1e-5)


# Refusals.


def refused(constraints: Any) -> Any:
    return worst_case(np.arange(3.0), ConvexSet(constraints))


@pytest.mark.parametrize(
    ("constraints", "error", "message"),
    [
        (None, TypeError, "must be a function of q and p, got None"),
        (lambda q, p: q <= 2 * p, TypeError, "must return a list of cvxpy constraints, got Inequality"),
        (lambda q, p: [True], TypeError, r"must return a list of cvxpy constraints, got \[True\]"),
        (
            lambda q, p: [cp.norm1(q - p) >= 0.1],
            ValueError,
            r"be convex \(DCP\): write it as .* does not: 0\.1 <= norm1",
        ),
        (lambda q, p: [cp.quad_over_lin(q, p[0]) <= 1], ValueError, r"compile once for all p \(DPP\): give p to a var"),
        (lambda q, p: [q == cp.Variable(3, boolean=True)], ValueError, "must not use integer variables"),
        (lambda q, p: [q >= 0.4], ValueError, "no q satisfies the constraints .* relax them"),
        (mmd_ball(np.eye(4), 0.1).constraints, ValueError, "is for 4 scenarios, the losses have 3; use `take"),
    ],
)
def test_wrong_constraints_are_explained(constraints: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        refused(constraints)


@pytest.mark.parametrize("strength", [-0.1, 1.1, np.nan, True, "1"])
def test_strength_is_checked(strength: Any) -> None:
    with pytest.raises(ValueError, match=r"`ConvexSet\.strength` .* \[0, 1\], got"):
        ConvexSet(total_variation, strength)


def test_an_inaccurate_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convex, "_REFUSED", 1e-30)
    with pytest.raises(RuntimeError, match=r"solved to .* only \(\w+\), not to 1e-30\. Write constraints with numbers"):
        refused(total_variation)


def test_without_cvxpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"pip install 'robust-rlhf\[convex\]'"):
        refused(total_variation)


def test_gaussian_kernel_is_its_formula() -> None:
    points = embeddings(4)
    distances = np.array([[np.sqrt(sum((a - b) ** 2)) for b in points] for a in points])
    median = np.median([distances[i, j] for i in range(4) for j in range(i)])
    np.testing.assert_allclose(gaussian_kernel(points), np.exp(-(distances**2) / (2 * median**2)), rtol=1e-12)
    np.testing.assert_allclose(gaussian_kernel(points, 0.5), np.exp(-2 * distances**2), rtol=1e-12)
    assert gaussian_kernel(np.zeros((1, 3))).tolist() == [[1.0]]
    assert gaussian_kernel(torch.tensor(points)).tolist() == gaussian_kernel(points).tolist()


def test_mmd_ball_of_a_kernel_of_zeros_is_the_simplex() -> None:
    assert worst_case(np.arange(3.0), mmd_ball(np.zeros((3, 3)), 0.1)).value == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mmd_ball(np.eye(3), -0.1), r"`mmd_ball\.radius` is a mean discrepancy and must lie in \[0, inf\)"),
        (lambda: mmd_ball(np.ones((2, 3)), 0.1), r"must be finite and square, \(n, n\), got shape \(2, 3\)"),
        (lambda: mmd_ball(np.full((2, 2), np.nan), 0.1), "must be finite and square"),
        (lambda: mmd_ball(np.array([[1.0, 0.5], [0.4, 1.0]]), 0.1), "must be symmetric"),
        (lambda: mmd_ball(np.array([[1.0, 2.0], [2.0, 1.0]]), 0.1), "positive semidefinite, got the eigenvalue -1"),
        (lambda: gaussian_kernel(np.ones((3, 2))), r"`bandwidth` .* \(0, inf\), got 0\.0\. If most of them coincide"),
        (lambda: gaussian_kernel(np.arange(3.0)), r"must be finite and \(n, dimension\), got shape \(3,\)"),
        (lambda: gaussian_kernel(np.eye(3), bandwidth=0), r"`bandwidth` .* got 0"),
    ],
)
def test_wrong_kernels_are_explained(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
