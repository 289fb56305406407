"""Sets written in cvxpy beside the closed forms of the same sets, and instances to solve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from dro_core import KL, AmbiguitySet, ChiSquare, ConvexSet, CVaR, TotalVariation, Wasserstein

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


@dataclass(frozen=True, eq=False)
class WithinDiscrepancy:
    """The constraint |factor' (q - p)| <= radius: scenarios have places in it, and it can be pickled."""

    factor: np.ndarray = field(repr=False)
    radius: float

    def __call__(self, q: Any, p: Any) -> list[Any]:
        return [cp.norm(self.factor.T @ (q - p)) <= self.radius]

    def take(self, rows: np.ndarray) -> WithinDiscrepancy:
        return replace(self, factor=self.factor[rows])


def mmd_ball(kernel: np.ndarray, radius: float) -> ConvexSet:
    """(q - p)' K (q - p) <= radius^2, K exactly as it is: singular ones too."""
    powers, directions = np.linalg.eigh(kernel)
    kept = powers >= len(kernel) * np.finfo(np.float64).eps * powers[-1]
    return ConvexSet(WithinDiscrepancy(directions[:, kept] * np.sqrt(powers[kept]), radius))
