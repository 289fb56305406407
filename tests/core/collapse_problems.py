"""Pairs whose collapse radius is looked for, and the linear and conic programs that say what it is."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import linprog

from dro_core import KL, ChiSquare, CVaR, TotalVariation, collapse_radius

CLASSES: dict[str, Any] = {"tv": TotalVariation, "cvar": CVaR, "chi2": ChiSquare, "kl": KL}
KINDS = [*CLASSES, "burg"]
kinds = pytest.mark.parametrize("kind", KINDS)
SEEDS = [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(3, 15))]


def never(kind: str) -> float:
    return 0.0 if kind == "cvar" else np.inf


def only_radius(x: np.ndarray, kind: Any, **given: Any) -> Any:
    return collapse_radius(x, kind, folds=0, seeds=(), **given)


def problem(seed: int, n: int = 30, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Pairs with a signal, every third time on a lattice, with dependent columns and a row of mass 0."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, d)) + 0.3) * 10.0 ** rng.uniform(-3, 3, d)
    if seed % 3 == 1:
        x = np.hstack([np.round(2 * rng.standard_normal((n, d)) + 0.5), np.zeros((n, 1))])
    x = np.hstack([x, x[:, :1], x[:, :1] - x[:, 1:2]])
    masses = rng.dirichlet(np.full(n, 2.0))
    masses[3] = 0.0
    return x, masses / masses.sum()


def balancing(x: np.ndarray, p: np.ndarray, kind: str, *, below: bool = False) -> float:
    """The least radius of a q with E_q x = 0 (E_q x <= 0 if ``below``), from the definitions of the sets."""
    x, p = x[p > 0], p[p > 0]
    x = x / np.abs(x).max(axis=0).clip(1e-300)
    if kind in ("tv", "cvar"):
        return linear_program(x, p, kind, below=below)
    q = cp.Variable(p.size, nonneg=True)
    divergence = {
        "chi2": cp.sum_squares(cp.multiply(q - p, p**-0.5)) / 2,
        "kl": cp.sum(cp.kl_div(q, p)),
        "burg": cp.sum(cp.kl_div(p, q)),
    }[kind]
    constraints: Any = [cp.sum(q) == 1, x.T @ q <= 0 if below else x.T @ q == 0]
    program = cp.Problem(cp.Minimize(divergence), constraints)
    value: Any = program.solve(solver="CLARABEL")
    return float(value)


def linear_program(x: np.ndarray, p: np.ndarray, kind: str, *, below: bool) -> float:
    """By HiGHS, in the variables (q, excess of q over p) or (q, the largest q/p)."""
    n, d = x.shape
    eye, zeros = np.eye(n), np.zeros((d, n))
    if kind == "tv":
        cost, upper, over = np.r_[np.zeros(n), np.ones(n)], np.hstack([eye, -eye]), p
        means, total = np.hstack([x.T, zeros]), np.r_[np.ones(n), np.zeros(n)]
    else:
        cost, upper, over = np.r_[np.zeros(n), 1.0], np.hstack([eye, -p[:, None]]), np.zeros(n)
        means, total = np.hstack([x.T, zeros[:, :1]]), np.r_[np.ones(n), 0.0]
    if below:
        upper, over, means = np.vstack([upper, means]), np.r_[over, np.zeros(d)], means[:0]
    target = np.r_[np.zeros(len(means)), 1.0]
    found = linprog(cost, A_ub=upper, b_ub=over, A_eq=np.vstack([means, total]), b_eq=target, method="highs")
    value = found.fun if found.status == 0 else np.inf
    return 1 / value if kind == "cvar" else value
