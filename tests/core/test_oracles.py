"""Against solvers and methods that share nothing with ours: HiGHS, Clarabel, and all vertices of small polytopes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    BurgPenalty,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CressieReadPenalty,
    CVaR,
    Hellinger,
    KLPenalty,
    Spectral,
    TotalVariation,
    worst_case,
)

from . import tolerances as tol
from .oracles import instance, worst_value

POLYHEDRAL = [
    TotalVariation(0.005),
    TotalVariation(0.3),
    TotalVariation(0.95),
    TotalVariation(0.3, max_ratio=1.5),
    TotalVariation(0.1, max_ratio=4.0),
    TotalVariation(0.9, max_ratio=3.0),
    CVaR(0),
    CVaR(0.07),
    CVaR(0.5),
    CVaR(0.93),
]
MODELLED = [
    TotalVariation(0.3, max_ratio=1.5),
    CVaR(0.07),
    Spectral((1.0,)),
    Spectral((0.1, 0.3, 0.6)),
    Spectral((0.0, 0.0, 0.0, 1.0)),
    Spectral((0.0, 0.0, 0.05, 0.05, 0.2, 0.2, 0.5)),
    ChiSquare(1e-4),
    ChiSquare(0.1),
    ChiSquare(0.5),
    ChiSquare(3.0),
    KL(1e-4),
    KL(0.05),
    KL(0.3),
    KL(1.5),
    CressieRead(0.5, 0.01),
    CressieRead(0.5, 1.0),
    CressieRead(0.75, 0.3),
    CressieRead(1.25, 0.3),
    CressieRead(1.5, 1e-3),
    CressieRead(1.5, 2.0),
    CressieRead(3.0, 0.3),
    CressieRead(2.5, 2.0),
    Hellinger(1e-3),
    Hellinger(0.3),
    Hellinger(1.2),
    Burg(1e-3),
    Burg(0.3),
    Burg(2.0),
    KLPenalty(0.05),
    KLPenalty(1.0),
    KLPenalty(30.0),
    ChiSquarePenalty(0.05),
    ChiSquarePenalty(1.0),
    ChiSquarePenalty(30.0),
    BurgPenalty(0.05),
    BurgPenalty(1.0),
    BurgPenalty(30.0),
    CressieReadPenalty(0.5, 0.05),
    CressieReadPenalty(0.5, 1.0),
    CressieReadPenalty(1.5, 0.05),
    CressieReadPenalty(1.5, 1.0),
    CressieReadPenalty(3.0, 0.3),
    CVaR(0.4) + KLPenalty(0.2),
    CVaR(0.4) + ChiSquarePenalty(0.2),
    CVaR(0.0) + KLPenalty(0.2),
    TotalVariation(0.3) + KLPenalty(0.1),
    TotalVariation(0.3) + ChiSquarePenalty(0.05),
    TotalVariation(0.3, max_ratio=1.5) + KLPenalty(0.2),
    TotalVariation(0.9, max_ratio=2.0) + ChiSquarePenalty(0.2),
    Spectral((0.1, 0.3, 0.6)) + KLPenalty(0.2),
    Spectral((0.0, 0.0, 0.05, 0.05, 0.2, 0.2, 0.5)) + ChiSquarePenalty(0.3),
    KL(0.3) + KLPenalty(0.2),
    KL(0.3) + KLPenalty(1.0),
    ChiSquare(0.5) + ChiSquarePenalty(0.2),
    Burg(0.3) + BurgPenalty(0.1),
    CressieRead(1.5, 0.3) + CressieReadPenalty(1.5, 0.1),
    CressieRead(0.5, 0.3) + CressieReadPenalty(0.5, 0.1),
]


def standard_form(ambiguity: AmbiguitySet, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Write a polyhedral set as A z = b, 0 <= z <= upper and return A, b, upper and the map from z to q.

    CVaR: z = q. Total variation: z = (drained, added, unused radius) and q = p + map @ z.
    """
    n = len(p)
    if isinstance(ambiguity, CVaR):
        most = p / ambiguity.alpha if ambiguity.alpha else np.where(p > 0, 1.0, 0.0)
        return np.ones((1, n)), np.ones(1), most, np.eye(n)
    assert isinstance(ambiguity, TotalVariation)
    ratio = np.inf if ambiguity.max_ratio is None else ambiguity.max_ratio
    room = np.array([(ratio - 1) * mass if mass > 0 else 0.0 for mass in p])
    one, zero = np.ones(n), np.zeros(n)
    balance = np.concatenate([one, -one, [0.0]])
    budget = np.concatenate([one, zero, [1.0]])
    upper = np.concatenate([p, room, [np.inf]])
    gain = np.hstack([-np.eye(n), np.eye(n), np.zeros((n, 1))])
    return np.stack([balance, budget]), np.array([0.0, ambiguity.radius]), upper, gain


def lp_value(losses: np.ndarray, p: np.ndarray, ambiguity: AmbiguitySet) -> float:
    equations, right, upper, gain = standard_form(ambiguity, p)
    found = linprog(
        -(losses @ gain), A_eq=equations, b_eq=right, bounds=list(zip(np.zeros_like(upper), upper, strict=True))
    )
    assert found.status == 0
    return -found.fun + (0.0 if isinstance(ambiguity, CVaR) else losses @ p)


def vertex_value(losses: np.ndarray, p: np.ndarray, ambiguity: AmbiguitySet) -> float:
    """Enumerate every basic solution: the basis solves the equations, all others sit at one of their bounds."""
    equations, right, upper, gain = standard_form(ambiguity, p)
    upper = np.minimum(upper, 10.0)  # no variable of a feasible point exceeds 1
    rows, columns = equations.shape
    corners = np.array(list(itertools.product([0.0, 1.0], repeat=columns - rows)))
    best = -np.inf
    for basis in itertools.combinations(range(columns), rows):
        matrix = equations[:, basis]
        if abs(np.linalg.det(matrix)) < 1e-9:
            continue
        rest = [k for k in range(columns) if k not in basis]
        point = np.zeros((len(corners), columns))
        point[:, rest] = corners * upper[rest]
        point[:, basis] = (right - point[:, rest] @ equations[:, rest].T) @ np.linalg.inv(matrix).T
        feasible = np.all((point >= -1e-12) & (point <= upper + 1e-12), axis=1)
        best = max(best, float(np.max(np.where(feasible, point @ (losses @ gain), -np.inf))))
    return best + (0.0 if isinstance(ambiguity, CVaR) else losses @ p)


@pytest.mark.parametrize("ambiguity", POLYHEDRAL, ids=str)
@pytest.mark.parametrize("n", [2, 7, 40])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_highs(ambiguity: AmbiguitySet, n: int, seed: int) -> None:
    losses, p = instance(seed, n)
    ours = float(worst_case(losses, ambiguity, reference=p).value)
    assert ours == pytest.approx(lp_value(losses, p, ambiguity), abs=tol.CONIC)


@pytest.mark.parametrize("ambiguity", POLYHEDRAL, ids=str)
@pytest.mark.parametrize("n", [2, 4, 6])
def test_agrees_with_the_best_vertex(ambiguity: AmbiguitySet, n: int) -> None:
    losses, p = instance(n + 1, n)
    ours = float(worst_case(losses, ambiguity, reference=p).value)
    assert ours == pytest.approx(vertex_value(losses, p, ambiguity), abs=1e-11)


@pytest.mark.parametrize("ambiguity", MODELLED, ids=str)
@pytest.mark.parametrize(("seed", "n"), [(0, 2), (1, 7), (0, 7), (1, 40), (2, 40)])
def test_agrees_with_the_definition(ambiguity: AmbiguitySet, seed: int, n: int) -> None:
    """By HiGHS or Clarabel, with an atom of zero mass, and ties at odd seeds."""
    losses, p = instance(seed, n)
    ours = float(worst_case(losses, ambiguity, reference=p).value)
    assert ours == pytest.approx(worst_value(losses, p, ambiguity), abs=tol.CONIC)


@pytest.mark.parametrize("ambiguity", [ChiSquare(0.5), ChiSquare(40.0), KL(0.3), KL(1e-12), KL(3.0)], ids=str)
def test_the_theorys_formula_has_this_minimum(ambiguity: AmbiguitySet) -> None:
    """The one-dimensional dual of theory.md, minimised by brute force on a grid around our solution."""
    losses, p = instance(2, 30)
    result = worst_case(losses, ambiguity, reference=p)
    multiplier, threshold = (float(part) for part in result.dual)
    factors = 1 + np.linspace(-0.5, 0.5, 2001)
    if isinstance(ambiguity, ChiSquare):
        grid = losses.max() + (threshold - losses.max()) * factors
        excess = np.maximum(losses - grid[:, None], 0) ** 2 @ p
        values = grid + np.sqrt((1 + 2 * ambiguity.radius) * excess)
    else:
        assert isinstance(ambiguity, KL)
        grid, top = multiplier * factors, losses[p > 0].max()
        values = top + grid * (ambiguity.radius + np.log(np.exp((losses[p > 0] - top) / grid[:, None]) @ p[p > 0]))
    assert values[1000] == pytest.approx(float(result.value), abs=1e-9)
    assert values.min() >= float(result.value) - 1e-9
