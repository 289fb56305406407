"""The inner problem as a linear or conic program, from the definitions: what the solver is checked against."""

from __future__ import annotations

import itertools
from typing import Any

import cvxpy as cp
import numpy as np

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    BurgPenalty,
    Charged,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CressieReadPenalty,
    CVaR,
    Grouped,
    Hellinger,
    KLPenalty,
    MeanDiscrepancy,
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
)

Model = tuple[list[Any], Any]  # cvxpy constraints on q, and what the objective charges for q

_SUBSETS = 8  # up to so many scenarios a spectral set is written as one constraint per set of them


def instance(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of range 1 (every other seed with ties) and a random reference with an atom of zero mass."""
    rng = np.random.default_rng(seed)
    losses = rng.standard_normal(n)
    if seed % 2:
        losses = np.round(2 * losses)
    masses = rng.dirichlet(np.ones(n))
    masses[n // 2] = 0.0
    return (losses - losses.mean()) / max(float(np.ptp(losses)), 1e-9), masses / masses.sum()


def worst_value(losses: np.ndarray, p: np.ndarray, ambiguity: AmbiguitySet) -> float:
    """Return max <q, losses> - price(q) over the set around p, by HiGHS if that is linear, else by Clarabel."""
    if isinstance(ambiguity, Trimmed):
        return worst_value(losses, trimmed(losses, p, ambiguity.fraction), ambiguity.inner)
    q = cp.Variable(len(p), nonneg=True)
    constraints, price = model(ambiguity, q, p)
    problem = cp.Problem(cp.Maximize(q @ losses - price), [cp.sum(q) == 1, *constraints])
    kind = ambiguity.inner if isinstance(ambiguity, Grouped) else ambiguity
    linear = isinstance(kind, (TotalVariation, CVaR, Spectral, Wasserstein))
    return float(problem.solve(solver=cp.HIGHS if linear else cp.CLARABEL))


def trimmed(losses: np.ndarray, p: np.ndarray, fraction: float) -> np.ndarray:
    """Drop the part of p, ``fraction`` in all, whose losses are largest in sum; rescale the rest."""
    dropped = cp.Variable(len(p), nonneg=True)
    cp.Problem(cp.Maximize(dropped @ losses), [dropped <= p, cp.sum(dropped) == fraction]).solve(solver=cp.HIGHS)
    left = np.where(p - dropped.value > 1e-12, p - dropped.value, 0.0)
    return left / left.sum()


def spectral_mass(spectrum: tuple[float, ...], share: float) -> float:
    """Return what the worst ``share`` of p may get: the integral of the spectrum, spread over [0, 1], from the top."""
    ends = np.arange(len(spectrum) + 1) / len(spectrum)
    overlap = np.clip(share - ends[:-1], 0, np.diff(ends))
    return float(overlap @ spectrum[::-1]) * len(spectrum)


def model(ambiguity: AmbiguitySet, q: Any, p: np.ndarray) -> Model:
    """Write the set around p as cvxpy constraints on q."""
    if isinstance(ambiguity, Wasserstein):
        plan = cp.Variable((len(p), len(p)), nonneg=True)
        moved = cp.sum(cp.multiply(plan, ambiguity.cost))
        return [cp.sum(plan, axis=1) == p, cp.sum(plan, axis=0) == q, moved <= ambiguity.radius], 0.0
    if isinstance(ambiguity, MeanDiscrepancy):
        matrix = ambiguity.kernel + 1e-6 * np.diag(ambiguity.kernel).max() * np.eye(len(p))
        return [cp.norm(np.linalg.cholesky(matrix).T @ (q - p)) <= ambiguity.radius], 0.0
    if isinstance(ambiguity, Grouped):
        return _grouped(ambiguity, q, p)
    seen = p > 0
    constraints, price = _around(ambiguity, q[seen], p[seen])
    return ([q[~seen] == 0] if np.any(~seen) else []) + constraints, price


def _around(ambiguity: AmbiguitySet, q: Any, p: np.ndarray) -> Model:
    """Write a set around a positive p; in ratios q/p where powers of them would be badly scaled."""
    ratio = cp.multiply(q, 1 / p)
    match ambiguity:
        case TotalVariation(radius, max_ratio):
            bound = [] if max_ratio is None else [q <= max_ratio * p]
            return [cp.norm1(q - p) / 2 <= radius, *bound], 0.0
        case CVaR(alpha):
            return [alpha * q <= p], 0.0
        case Spectral(spectrum):
            return _spectral(spectrum, q, p), 0.0
        case ChiSquare(radius):
            return [_half_square(q, p) <= radius], 0.0
        case KL(radius):
            return [cp.sum(cp.kl_div(q, p)) <= radius], 0.0
        case CressieRead(order, radius):
            moment = 1 + order * (order - 1) * radius
            if order < 1:
                return [p @ cp.power(ratio, order) >= moment], 0.0
            # As a norm: a fourth power would turn the solver's feasibility of 1e-8 into 3e-6 of the value.
            return [cp.pnorm(cp.multiply(ratio, p ** (1 / order)), order) <= moment ** (1 / order)], 0.0
        case Hellinger(radius):
            return [2 - 2 * (p @ cp.sqrt(ratio)) <= radius], 0.0
        case Charged(base, price):
            return _around(base, q, p)[0], _around(price, q, p)[1]
        case Burg(radius):
            return [cp.sum(cp.kl_div(p, q)) <= radius], 0.0
        case BurgPenalty(strength):
            return [], strength * cp.sum(cp.kl_div(p, q))
        case CressieReadPenalty(order, strength):
            return [], strength * (p @ (cp.power(ratio, order) - 1)) / (order * (order - 1))
        case KLPenalty(temperature):
            return [], temperature * cp.sum(cp.kl_div(q, p))
        case ChiSquarePenalty(strength):
            return [], strength * _half_square(q, p)
        case _:
            raise NotImplementedError(f"no model of {ambiguity}")


def _grouped(ambiguity: Grouped, q: Any, p: np.ndarray) -> Model:
    """Bind every q to its group's weight, and the groups' weights to the inner set."""
    member = np.equal.outer(np.arange(ambiguity.count or 0), ambiguity.groups).astype(float)
    masses = member @ p
    within = member.T * (p / np.where(member.T @ masses > 0, member.T @ masses, 1.0))[:, None]
    constraints, price = model(ambiguity.inner, member @ q, masses)
    return [q == within @ (member @ q), *constraints], price


def _half_square(q: Any, p: np.ndarray) -> Any:
    return cp.sum_squares(cp.multiply(q - p, 1 / np.sqrt(p))) / 2


def _spectral(spectrum: tuple[float, ...], q: Any, p: np.ndarray) -> list[Any]:
    """No set of scenarios above its share; for many scenarios a mixture of distributions below k/j times p."""
    n, k = len(p), len(spectrum)
    if n <= _SUBSETS:
        member = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
        return [member @ q <= np.array([spectral_mass(spectrum, float(row @ p)) for row in member])]
    falling = np.append(spectrum[::-1], 0.0)
    steps = np.arange(1, k + 1) * (falling[:-1] - falling[1:])
    parts = cp.Variable((k, n), nonneg=True)
    ceilings = [parts[j] <= steps[j] * p * (k / (j + 1)) for j in range(k)]
    return [cp.sum(parts, axis=1) == steps, cp.sum(parts, axis=0) == q, *ceilings]
