"""The table that drives the solver tests: one line per set, one per array library, one strategy per input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_strict
import numpy as np
import torch
from hypothesis import strategies as st

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, TotalVariation


@dataclass(frozen=True)
class Family:
    """A kind of set: how to draw one, one so large that it holds every distribution, and how far q lies outside."""

    name: str
    draw: st.SearchStrategy[Any]
    everything: Callable[[np.ndarray], AmbiguitySet]
    violation: Callable[[Any, np.ndarray, np.ndarray], float]


def _tv_violation(ball: TotalVariation, q: np.ndarray, p: np.ndarray) -> float:
    over = 0.0 if ball.max_ratio is None else float(np.max(q - ball.max_ratio * p))
    return max(over, float(np.abs(q - p).sum() / 2) - ball.radius)


def _cvar_violation(ball: CVaR, q: np.ndarray, p: np.ndarray) -> float:
    return float(np.max(ball.alpha * q - p))


def _chi2_violation(ball: ChiSquare, q: np.ndarray, p: np.ndarray) -> float:
    seen = p > 0
    return (float(np.sum((q - p)[seen] ** 2 / p[seen])) / 2 - ball.radius) / (1 + ball.radius)


def _kl_violation(ball: KL, q: np.ndarray, p: np.ndarray) -> float:
    seen = q > 0
    return float(np.sum(q[seen] * np.log(q[seen] / p[seen]))) - ball.radius


def _radii(most: float) -> st.SearchStrategy[float]:
    small = st.sampled_from([0.0, 1e-12, 1e-4, 0.005])
    return st.one_of(st.integers(1, 64).map(lambda k: most * k / 64), small)


_SIXTEENTHS = st.integers(1, 16).map(lambda k: k / 16)
_RATIOS = st.sampled_from([1.0, 1.25, 2.0, 4.0, 1e6])

FAMILIES = [
    Family("tv", _radii(1.0).map(TotalVariation), lambda p: TotalVariation(1.0), _tv_violation),
    Family(
        "tv_capped",
        st.builds(TotalVariation, _radii(1.0), _RATIOS),
        lambda p: TotalVariation(1.0, max_ratio=float(1 / p[p > 0].min())),
        _tv_violation,
    ),
    Family("cvar", _SIXTEENTHS.map(CVaR), lambda p: CVaR(float(p[p > 0].min())), _cvar_violation),
    Family("chi2", _radii(4.0).map(ChiSquare), lambda p: ChiSquare(float(1 / p[p > 0].min())), _chi2_violation),
    Family("kl", _radii(2.0).map(KL), lambda p: KL(float(-np.log(p[p > 0].min())) + 1e-9), _kl_violation),
]


@dataclass(frozen=True)
class Backend:
    """An array library: how numbers get in and out of it."""

    name: str
    array: Callable[[np.ndarray], Any]
    numpy: Callable[[Any], np.ndarray]


BACKENDS = [
    Backend("numpy", np.array, np.asarray),
    Backend("torch", lambda a: torch.from_numpy(np.array(a)), lambda t: t.numpy()),
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
