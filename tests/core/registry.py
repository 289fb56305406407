"""The table that drives the solver tests: one line per set, one per array library, one strategy per input.

One table drives this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import array_api_strict
import numpy as np
import torch
from hypothesis import strategies as st
from scipy.optimize import linprog

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    BurgPenalty,
    Charged,
    ChiSquare,
    ChiSquarePenalty,
    ConvexSet,
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

from .convex_twins import mmd_ball


@dataclass(frozen=True)
class Family:
    """A kind of set: how to draw one for n scenarios, one that holds every distribution, how far q lies outside.

    ``lacks`` names the laws that do not hold, each with the reason.
    """

    name: str
    draw: Callable[[int], st.SearchStrategy[Any]]
    everything: Callable[[np.ndarray], AmbiguitySet] | None
    violation: Callable[[Any, np.ndarray, np.ndarray, np.ndarray], float]
    lacks: dict[str, str] = field(default_factory=dict)
    accuracy: float = 0.0  # of values, in units of the range, where a solver is not exact


def _tv_violation(ball: TotalVariation, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    over = 0.0 if ball.max_ratio is None else float(np.max(q - ball.max_ratio * p))
    return max(over, float(np.abs(q - p).sum() / 2) - ball.radius)


def _cvar_violation(ball: CVaR, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    return float(np.max(ball.alpha * q - p))


def _chi2_violation(ball: ChiSquare, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    seen = p > 0
    return (float(np.sum((q - p)[seen] ** 2 / p[seen])) / 2 - ball.radius) / (1 + ball.radius)


def _kl_violation(ball: KL, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    seen = q > 0
    return float(np.sum(q[seen] * np.log(q[seen] / p[seen]))) - ball.radius


def _power_violation(ball: CressieRead, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    r, k = q[p > 0] / p[p > 0], ball.order
    divergence = float(np.sum(p[p > 0] * (r**k - k * r + k - 1))) / (k * (k - 1))
    # An atom of 2**-50 that gets weight sits within 1e-8 of the slope at which everything else vanishes.
    rounding = 1e-9 if p[p > 0].min() < 1e-9 else 0.0
    return (divergence - ball.radius) / (1 + ball.radius) - rounding


def _hellinger_violation(ball: Hellinger, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    return float(np.sum((np.sqrt(q) - np.sqrt(p)) ** 2)) - ball.radius


def _burg_violation(ball: Burg, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    return -float(p[p > 0] @ np.log(q[p > 0] / p[p > 0])) - ball.radius


def _spectral_violation(ball: Spectral, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    """q is in the set if no set of scenarios has more than its share; the worst ones are those of largest q/p."""
    order = np.argsort(-np.divide(q, p, out=np.zeros_like(q), where=p > 0))
    knots = np.linspace(0, 1, len(ball.spectrum) + 1)
    allowed = np.interp(np.cumsum(p[order]), knots, np.cumsum([0.0, *ball.spectrum[::-1]]))
    return float(np.max(np.cumsum(q[order]) - allowed))


def _transport_violation(ball: Wasserstein, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    n = len(p)
    marginals = np.vstack([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    moved = linprog(ball.cost.ravel(), A_eq=marginals[:-1], b_eq=np.concatenate([p, q])[:-1], bounds=(0, None))
    return float(moved.fun) - ball.radius - 1e-9  # the LP is feasible to about that


def _grouped_violation(ball: Grouped, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    sums = [np.bincount(ball.groups, masses, ball.count) for masses in (q, p)]
    within = np.divide(sums[0], sums[1], out=np.zeros(ball.count), where=sums[1] > 0)[ball.groups] * p
    return max(float(np.abs(q - within).max()) - 1e-10, _KINDS[type(ball.inner)](ball.inner, *sums, losses))


def _trimmed_violation(ball: Trimmed, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    left, kept = ball.fraction, p.copy()
    for level in np.unique(losses[p > 0])[::-1]:
        at = (losses == level) & (p > 0)
        gone = min(left, kept[at].sum())
        kept[at] -= gone * p[at] / p[at].sum()
        left = left - gone if left - gone > 1e-12 else 0.0
    kept = np.where(kept > 1e-9 * p, kept, 0.0) / (1 - ball.fraction)
    stray = float(q[kept == 0].sum()) - 1e-10
    inside = np.where(kept > 0, q, 0.0)
    return max(stray, _KINDS[type(ball.inner)](ball.inner, inside, kept, losses))


def _nothing(ball: Any, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    return 0.0


def _charged_violation(ball: Charged, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    return _KINDS[type(ball.base)](ball.base, q, p, losses)


_KINDS: dict[type, Callable[[Any, np.ndarray, np.ndarray, np.ndarray], float]] = {
    TotalVariation: _tv_violation,
    CVaR: _cvar_violation,
    ChiSquare: _chi2_violation,
    KL: _kl_violation,
    KLPenalty: _nothing,
    Spectral: _spectral_violation,
    Burg: _burg_violation,
}


def _radii(most: float) -> st.SearchStrategy[float]:
    small = st.sampled_from([0.0, 1e-12, 1e-4, 0.005])
    return st.one_of(st.integers(1, 64).map(lambda k: most * k / 64), small)


_SIXTEENTHS = st.integers(1, 16).map(lambda k: k / 16)
_RATIOS = st.sampled_from([1.0, 1.25, 2.0, 4.0, 1e6])
_SPECTRA = (
    st.lists(st.integers(0, 8), min_size=1, max_size=6).filter(any).map(lambda parts: np.sort(parts) / sum(parts))
)


def _any(kind: st.SearchStrategy[Any]) -> Callable[[int], st.SearchStrategy[Any]]:
    return lambda n: kind


def _costs(n: int) -> st.SearchStrategy[np.ndarray]:
    """Distances of points on a line, some of them equal; the discrete metric; arbitrary symmetric costs."""
    points = st.lists(st.integers(0, 6), min_size=n, max_size=n).map(np.array)
    line = points.map(lambda at: np.abs(at[:, None] - at[None, :]) / 4.0)
    free = st.lists(st.integers(1, 9), min_size=n * n, max_size=n * n).map(lambda c: np.reshape(c, (n, n)) / 4)
    symmetric = free.map(lambda c: (c + c.T) * (1 - np.eye(n)))
    return st.one_of(line, st.just(1 - np.eye(n)), symmetric)


def _labels(n: int) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.integers(0, 3), min_size=n, max_size=n).map(np.array)


def _grouped(inner: st.SearchStrategy[Any]) -> Callable[[int], st.SearchStrategy[Any]]:
    return lambda n: st.builds(Grouped, inner, _labels(n))


_PRICES = st.sampled_from([1e-6, 0.01, 0.125, 0.5, 2.0, 1e3, 1e9, float("inf")])
_PRICED = {
    "positively_homogeneous": "the price does not grow with the losses",
    "everything_is_the_maximum": "only in the limit of a vanishing price",
}


_CHARGES = st.builds(lambda kind, price: kind(price), st.sampled_from([KLPenalty, ChiSquarePenalty]), _PRICES)
_PAIRS = st.one_of(
    st.tuples(_radii(2.0).map(KL), _PRICES.map(KLPenalty)),
    st.tuples(_radii(4.0).map(ChiSquare), _PRICES.map(ChiSquarePenalty)),
    st.tuples(_radii(2.0).map(Burg), _PRICES.map(BurgPenalty)),
)


@cache  # compiled once for all examples
def _written_sets(n: int) -> list[ConvexSet]:
    """Three that cvxpy writes around p, and the whole simplex."""
    at = np.arange(n)
    near, pairs = (np.exp(-np.abs(k[:, None] - k[None, :]) / 2) for k in (at, at // 2))
    return [mmd_ball(near, 0.25), mmd_ball(near, 0.01), mmd_ball(pairs, 0.5), mmd_ball(np.eye(n), 1.5)]


def _written_violation(ball: Any, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    moved = ball.constraints.factor.T @ (q - p)
    return float(np.linalg.norm(moved)) - ball.strength * ball.constraints.radius - 1e-8  # the solver's feasibility


def _kernels(n: int) -> st.SearchStrategy[np.ndarray]:
    """Points on a line, some of them equal; equal pairs; scenarios that have nothing in common, of any unit."""
    points = st.lists(st.integers(0, 6), min_size=n, max_size=n).map(np.array)
    line = points.map(lambda at: np.exp(-np.abs(at[:, None] - at[None, :]) / 2.0))
    smooth = points.map(lambda at: np.exp(-((at[:, None] - at[None, :]) ** 2) / 2.0))
    return st.one_of(line, smooth, st.sampled_from([np.eye(n), 1e-3 * np.eye(n), 50.0 * np.ones((n, n))]))


def _discrepancy_violation(ball: MeanDiscrepancy, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    largest = np.diag(ball.kernel).max()
    square = (q - p) @ (ball.kernel / largest + 1e-6 * np.eye(len(p))) @ (q - p)
    return float(np.sqrt(max(square, 0.0))) - ball.radius / np.sqrt(largest)


FAMILIES = [
    Family("tv", _any(_radii(1.0).map(TotalVariation)), lambda p: TotalVariation(1.0), _tv_violation),
    Family(
        "tv_capped",
        _any(st.builds(TotalVariation, _radii(1.0), _RATIOS)),
        lambda p: TotalVariation(1.0, max_ratio=float(1 / p[p > 0].min())),
        _tv_violation,
    ),
    Family("cvar", _any(st.one_of(_SIXTEENTHS, st.just(0.0)).map(CVaR)), lambda p: CVaR(0.0), _cvar_violation),
    Family(
        "spectral",
        _any(_SPECTRA.map(Spectral)),
        None,
        _spectral_violation,
        {"everything_is_the_maximum": "would take more shares than an atom of 2**-50 fits into 1; tested apart"},
    ),
    Family("chi2", _any(_radii(4.0).map(ChiSquare)), lambda p: ChiSquare(float(1 / p[p > 0].min())), _chi2_violation),
    Family("kl", _any(_radii(2.0).map(KL)), lambda p: KL(float(-np.log(p[p > 0].min())) + 1e-9), _kl_violation),
    Family(
        "cressie_read",
        _any(st.builds(CressieRead, st.sampled_from([0.5, 1.25, 1.5, 2.0, 3.0]), _radii(2.0))),
        lambda p: CressieRead(1.5, 4 * float(p[p > 0].min()) ** -0.5),
        _power_violation,
    ),
    Family("hellinger", _any(_radii(1.9).map(Hellinger)), lambda p: Hellinger(2 - 1e-15), _hellinger_violation),
    Family("burg", _any(_radii(2.0).map(Burg)), lambda p: Burg(1e3), _burg_violation),
    Family(
        "wasserstein",
        lambda n: st.builds(Wasserstein, _radii(3.0), _costs(n)),
        lambda p: Wasserstein(1.0, 1 - np.eye(len(p))),
        _transport_violation,
        {
            "zero_mass_gets_nothing": "mass may move to any scenario",
            "equal_losses_share_by_mass": "where mass goes depends on what the way there costs",
            "permutation_equivariant": "which of two equally good plans is chosen depends on the order; the value is",
            "splitting_an_atom_changes_nothing": "the copies need not share alike; the value stays",
            "no_strength_is_the_mean": "equal losses at no distance may swap mass; the value is the mean",
        },
    ),
    Family(
        "mean_discrepancy",
        lambda n: st.builds(MeanDiscrepancy, _radii(1.5), _kernels(n)),
        lambda p: MeanDiscrepancy(1.5, np.eye(len(p))),
        _discrepancy_violation,
        {
            "zero_mass_gets_nothing": "mass may move to any scenario",
            "equal_losses_share_by_mass": "where mass goes depends on what is like it",
            "splitting_an_atom_changes_nothing": "the ridge tells copies apart",
        },
    ),
    Family(
        "grouped",
        _grouped(_radii(1.0).map(TotalVariation)),
        None,
        _grouped_violation,
        {
            "everything_is_the_maximum": "it is the largest group mean",
            "equal_losses_share_by_mass": "only within a group",
        },
    ),
    Family(
        "grouped_kl",
        _grouped(_radii(2.0).map(KL)),
        None,
        _grouped_violation,
        {
            "everything_is_the_maximum": "it is the largest group mean",
            "equal_losses_share_by_mass": "only within a group",
        },
    ),
    Family(
        "trimmed",
        _any(st.builds(Trimmed, _radii(2.0).map(KL), st.sampled_from([0.0, 0.05, 0.25, 0.5]))),
        None,
        _trimmed_violation,
        {
            "convex": "a minimum over trimmings",
            "no_strength_is_the_mean": "it is the trimmed mean",
            "everything_is_the_maximum": "it is the largest loss that is left",
        },
    ),
    Family("kl_penalty", _any(_PRICES.map(KLPenalty)), None, _nothing, _PRICED),
    Family("chi2_penalty", _any(_PRICES.map(ChiSquarePenalty)), None, _nothing, _PRICED),
    Family("burg_penalty", _any(_PRICES.map(BurgPenalty)), None, _nothing, _PRICED),
    Family(
        "cressie_read_penalty",
        _any(st.builds(CressieReadPenalty, st.sampled_from([0.5, 0.9, 1.25, 1.5, 2.0, 3.0]), _PRICES)),
        None,
        _nothing,
        _PRICED,
    ),
    Family(
        "charged_tail",
        _any(
            st.builds(
                Charged,
                st.one_of(
                    _SIXTEENTHS.map(CVaR),
                    _radii(1.0).map(TotalVariation),
                    st.builds(TotalVariation, _radii(1.0), _RATIOS),
                ),
                _CHARGES,
            )
        ),
        None,
        _charged_violation,
        _PRICED,
    ),
    Family(
        "charged_spectrum",
        _any(st.builds(Charged, _SPECTRA.map(Spectral), _CHARGES)),
        None,
        _charged_violation,
        _PRICED,
    ),
    Family("charged_ball", _any(_PAIRS.map(lambda pair: Charged(*pair))), None, _charged_violation, _PRICED),
    Family(
        "convex",
        lambda n: st.builds(
            lambda ball, part: ball.with_strength(part / 8), st.sampled_from(_written_sets(n)), st.integers(0, 8)
        ),
        lambda p: _written_sets(len(p))[-1],
        _written_violation,
        {
            "zero_mass_gets_nothing": "mass may move to any scenario",
            "equal_losses_share_by_mass": "where mass goes depends on what is like it",
            "permutation_equivariant": "weights are as sharp as the root of the gap; the value is",
            "splitting_an_atom_changes_nothing": "where several q are worst the copies need not share alike",
        },
        accuracy=1e-9,
    ),
]


@dataclass(frozen=True)
class Backend:
    """An array library: how numbers get in and out of it."""

    name: str
    array: Callable[[np.ndarray], Any]
    numpy: Callable[[Any], np.ndarray]


class DeviceTensor(torch.Tensor):
    """A tensor that no one looks at as a numpy array: it is solved by torch, as if it were on a device."""


BACKENDS = [
    Backend("numpy", np.array, np.asarray),
    Backend("torch", lambda a: torch.from_numpy(np.array(a)), lambda t: t.numpy()),
    Backend(
        "torch_device",
        lambda a: torch.from_numpy(np.array(a)).as_subclass(DeviceTensor),
        lambda t: t.as_subclass(torch.Tensor).numpy(),
    ),
    Backend("strict", array_api_strict.asarray, lambda a: np.asarray(a._array)),
]

# Eighths are exact in binary, so ties stay ties and sums of a few of them do not round.
_EIGHTHS = st.lists(st.integers(-32, 32).map(lambda k: k / 8), min_size=1, max_size=9)
_PLACES: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda a: a,
    lambda a: a * 2.0**660,  # about 1e200
    lambda a: a * 2.0**-660,
    lambda a: a + 1e8,
    lambda a: a - 8.0,  # all negative
    lambda a: a - a.max(),  # maximum exactly zero
    lambda a: np.full_like(a, a[0]),
    lambda a: np.where(a > 0, 4.0, a),  # saturated: many share the maximum
    lambda a: np.exp(3 * a),  # wide magnitudes
]


@st.composite
def losses(draw: st.DrawFn) -> np.ndarray:
    return draw(st.sampled_from(_PLACES))(np.array(draw(_EIGHTHS)))


def references(n: int) -> st.SearchStrategy[np.ndarray]:
    """Distributions with zero-mass atoms, and now and then a mass of 2**-50."""
    masses = st.lists(st.sampled_from([0.0, 2.0**-50, 1.0, 1.0, 2.0, 5.0]), min_size=n, max_size=n)
    usable = masses.map(np.array).filter(lambda m: m.sum() >= 1)
    return st.one_of(st.just(np.full(n, 1 / n)), usable.map(lambda m: m / m.sum()))
