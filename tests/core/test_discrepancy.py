"""Sets of mean discrepancy: against the conic program, their formula inside the simplex, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dro_core import Dual, MeanDiscrepancy, dual_objective, duality_gap, gaussian_kernel, worst_case

from . import tolerances as tol
from .convex_twins import embeddings, mmd_ball

RADII = [1e-3, 0.05, 0.3, 1.0]


def instance(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses, some with ties; a kernel, some with equal scenarios; a reference, some without mass here and there."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 18))
    points = rng.normal(size=(n, int(rng.integers(1, 6))))
    if seed % 3 == 0:
        points[rng.integers(n)] = points[rng.integers(n)]
    losses = rng.exponential(size=n)
    losses = np.round(losses) if seed % 4 == 0 else losses
    reference = rng.dirichlet(np.full(n, 3.0)) if seed % 2 else np.full(n, 1 / n)
    if seed % 5 == 1:
        reference[rng.integers(n)] = 0.0
    return losses, gaussian_kernel(points, bandwidth=float(rng.uniform(0.3, 3))), reference / reference.sum()


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("seed", range(6))
def test_the_path_ends_where_a_conic_solver_does(seed: int, radius: float) -> None:
    losses, kernel, p = instance(seed)
    ball, matrix = MeanDiscrepancy(radius, kernel), kernel + 1e-6 * np.eye(len(losses))
    result = worst_case(losses, ball, reference=p)
    q = result.weights
    assert (q - p) @ matrix @ (q - p) <= radius**2 + 1e-12
    oracle = worst_case(losses, mmd_ball(matrix, radius), reference=p)
    assert float(result.value) == pytest.approx(float(oracle.value), abs=1e-7 * max(np.ptp(losses), 1e-12))
    assert (
        0 <= float(duality_gap(losses, ball, result, reference=p)) + 1e-14 <= tol.CERTIFICATE * np.ptp(losses) + 2e-14
    )


@pytest.mark.parametrize("radius", [1e-6, 1e-3])
def test_inside_the_simplex_it_is_a_formula(radius: float) -> None:
    """Mean + radius sqrt((l - c)' K^-1 (l - c)), c the generalised mean that keeps the sum at one."""
    losses = np.random.default_rng(3).standard_normal(6)
    kernel = gaussian_kernel(embeddings(), bandwidth=0.7)
    inverse = np.linalg.inv(kernel + 1e-6 * np.eye(6))
    away = losses - (inverse @ losses).sum() / inverse.sum()
    slope = np.sqrt(away @ inverse @ away)
    result = worst_case(losses, MeanDiscrepancy(radius, kernel))
    assert float(result.value) == pytest.approx(losses.mean() + radius * slope, abs=1e-13)
    assert float(result.dual.multiplier) == pytest.approx(slope, rel=1e-12)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize("seed", range(1, 6))
def test_the_multiplier_is_what_a_larger_radius_brings(seed: int, factor: float) -> None:
    """In the unit of the radius, whatever that of the kernel is."""
    losses, kernel, p = instance(seed)
    radius, step = 0.08 * factor**0.5, 1e-5 * factor**0.5
    below, here, above = (
        worst_case(losses, MeanDiscrepancy(radius + move, factor * kernel), reference=p) for move in (-step, 0, step)
    )
    slope = float(above.value - below.value) / (2 * step)
    assert float(here.dual.multiplier) == pytest.approx(slope, rel=1e-4, abs=1e-9 / step)


@pytest.mark.parametrize("multiplier", [0.0, 0.1, 0.7, 3.0, 1e3])
def test_every_price_gives_the_conic_bound(multiplier: float) -> None:
    """min over w of radius multiplier + E w + max(l - w), w no longer than the multiplier: by cvxpy."""
    import cvxpy as cp

    losses, kernel, p = instance(1)
    matrix = kernel + 1e-6 * np.eye(len(losses))
    move = cp.Variable(len(losses))  # w = K move
    price = p @ (matrix @ move) + cp.max(losses - matrix @ move)
    within = cp.norm(np.linalg.cholesky(matrix).T @ move) <= multiplier
    expected = 0.05 * multiplier + float(cp.Problem(cp.Minimize(price), [within]).solve(solver=cp.CLARABEL))
    ours = dual_objective(losses, MeanDiscrepancy(0.05, kernel), Dual(multiplier, 0.0), reference=p)
    assert float(ours) == pytest.approx(expected, abs=1e-6)


def test_alike_scenarios_exchange_weight_and_distant_ones_hardly() -> None:
    points = np.array([[0.0], [0.1], [9.0], [-9.0]])
    ball = MeanDiscrepancy(0.05, gaussian_kernel(points, bandwidth=1.0))
    q = worst_case(np.array([1.0, 0.0, 1.0, 0.0]), ball).weights
    assert q[1] < 0.05
    assert q[3] > 0.18


def crowded(seed: int, unit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal scenarios, equal losses, many without mass."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 14))
    at = rng.integers(0, 4, n).astype(float)
    kernel = np.exp(-((at[:, None] - at) ** 2) / 2) if seed % 2 else 1e-9 * np.eye(n) + np.outer(at, at)
    p = rng.choice([0.0, 0.0, 1.0, 2.0, 5.0, 2.0**-50], n)
    p = p / p.sum() if p.sum() >= 1 else np.full(n, 1 / n)
    return rng.integers(-3, 4, n) / 8, unit * kernel, p


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("unit", [1e-3, 1.0])
def test_it_ends_where_much_happens_at_once(unit: float) -> None:
    """Events coincide, and rounding decides on their order."""
    for seed in range(200):
        losses, kernel, p = crowded(seed, unit)
        for radius in (0.0, 1e-12, 1e-4, 0.01, 0.3, 2.0):
            ball = MeanDiscrepancy(radius * unit**0.5, kernel)
            gap = float(duality_gap(losses, ball, worst_case(losses, ball, reference=p), reference=p))
            assert abs(gap) <= tol.CERTIFICATE * max(float(np.ptp(losses)), 1e-9), seed


def test_a_kernel_from_float32_will_do() -> None:
    points = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    single = torch.exp(-(torch.cdist(points, points) ** 2) / 8)
    assert float(torch.linalg.eigvalsh(single.double())[0]) < 0
    losses = points[:, 0].double().numpy()
    exact = gaussian_kernel(points, bandwidth=2.0)
    values = [float(worst_case(losses, MeanDiscrepancy(0.1, kernel)).value) for kernel in (single, exact)]
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_take_keeps_the_rows_and_columns() -> None:
    kernel = gaussian_kernel(embeddings(6))
    rows = torch.tensor([4, 0, 0, 2])
    at = rows.numpy()
    assert MeanDiscrepancy(0.1, kernel).take(rows) == MeanDiscrepancy(0.1, kernel[np.ix_(at, at)])


def test_equality_and_pickling_look_into_the_kernel() -> None:
    ball = MeanDiscrepancy(0.1, np.eye(4))
    copy = pickle.loads(pickle.dumps(ball))
    assert copy == ball
    assert len({ball, copy, MeanDiscrepancy(0.2, np.eye(4)), MeanDiscrepancy(0.1, 2 * np.eye(4))}) == 3


def test_a_kernel_for_another_number_of_scenarios() -> None:
    with pytest.raises(ValueError, match=r"`MeanDiscrepancy\.kernel` is for 4 scenarios, the losses have 3; use `take"):
        worst_case(np.arange(3.0), MeanDiscrepancy(0.1, np.eye(4)))


def test_gaussian_kernel_is_its_formula() -> None:
    points = embeddings(4)
    distances = np.array([[np.sqrt(sum((a - b) ** 2)) for b in points] for a in points])
    median = np.median([distances[i, j] for i in range(4) for j in range(i)])
    np.testing.assert_allclose(gaussian_kernel(points), np.exp(-(distances**2) / (2 * median**2)), rtol=1e-12)
    np.testing.assert_allclose(gaussian_kernel(points, 0.5), np.exp(-2 * distances**2), rtol=1e-12)
    assert gaussian_kernel(np.zeros((1, 3))).tolist() == [[1.0]]
    assert gaussian_kernel(torch.tensor(points)).tolist() == gaussian_kernel(points).tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MeanDiscrepancy(-0.1, np.eye(3)),
            r"`MeanDiscrepancy\.radius` is a mean discrepancy and must lie in \[0, inf\)",
        ),
        (lambda: MeanDiscrepancy(0.1, np.ones((2, 3))), r"must be finite and square, \(n, n\), got shape \(2, 3\)"),
        (lambda: MeanDiscrepancy(0.1, np.full((2, 2), np.nan)), "must be finite and square"),
        (lambda: MeanDiscrepancy(0.1, np.array([[1.0, 0.5], [0.4, 1.0]])), "must be symmetric"),
        (
            lambda: MeanDiscrepancy(0.1, np.array([[1.0, 2.0], [2.0, 1.0]])),
            "positive semidefinite, got the eigenvalue -1",
        ),
        (lambda: MeanDiscrepancy(0.1, np.zeros((2, 2))), "is zero and finds all scenarios equal"),
        (lambda: gaussian_kernel(np.ones((3, 2))), r"`bandwidth` .* \(0, inf\), got 0\.0\. If most of them coincide"),
        (lambda: gaussian_kernel(np.arange(3.0)), r"must be finite and \(n, dimension\), got shape \(3,\)"),
        (lambda: gaussian_kernel(np.eye(3), bandwidth=0), r"`bandwidth` .* got 0"),
    ],
)
def test_wrong_kernels_are_explained(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
