"""Spectral weights: the cumulative spectrum, read at the mass above every loss level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import (
    Array,
    arange_like,
    at_least,
    at_most,
    constants_like,
    descending_order,
    on_host,
    sum_by_code,
    total,
    unequal_to_previous,
)
from .problem import Problem
from .sorting import descending, excess, upper_tail


def _cumulative(problem: Problem, spectrum: tuple[float, ...], mass: Array) -> Array:
    """Return the spectral mass of the worst ``mass``: piecewise linear through the partial sums from the top."""
    xp, k = problem.xp, len(spectrum)
    steps = np.array(spectrum[::-1])
    height, before = (constants_like(xp, part, mass) for part in (steps, np.cumsum(steps) - steps))
    step = at_most(xp, at_least(xp, xp.floor(mass * k), 0.0), float(k - 1))
    at = xp.reshape(xp.astype(step, xp.int64), (-1,))
    base, slope = (xp.reshape(xp.take(part, at), mass.shape) for part in (before, height))
    return base + (mass * k - step) * slope


_TAILS = 8  # as many tails are found by selection sooner than by a sort
_BORDER = 1 - 1e-12  # of a share: a mass that rounding leaves below it has reached it


def _mixture(spectrum: tuple[float, ...]) -> NDArray[np.float64]:
    """Return c_1 ... c_k: the spectrum is the mixture of the CVaR(j/k) with weights c_j = j (jth largest - next)."""
    return -np.arange(1, len(spectrum) + 1) * np.diff([*spectrum[::-1], 0.0])


def weights(problem: Problem, spectrum: tuple[float, ...]) -> Array:
    """Return the maximiser, ``(*batch, n)``; all scenarios of one loss level have the same q/p."""
    xp, losses = problem.xp, problem.losses
    n, k = losses.shape[-1], len(spectrum)
    if on_host(xp) and k <= _TAILS:
        mixed = enumerate(_mixture(spectrum), 1)
        found = sum(upper_tail(problem, j / k, part * k / j)[0] for j, part in mixed if part > 0)
        return found / total(xp, found)
    order = descending_order(xp, losses)
    masses = xp.take_along_axis(problem.masses(), order, axis=-1)
    through = xp.cumulative_sum(masses, axis=-1)
    reached = _cumulative(problem, spectrum, at_most(xp, at_least(xp, through, 0.0), 1.0))
    new = unequal_to_previous(xp, xp.take_along_axis(losses, order, axis=-1))
    level = xp.cumulative_sum(xp.astype(new, xp.int64), axis=-1)
    gained = xp.concat([reached[..., :1], reached[..., 1:] - reached[..., :-1]], axis=-1)
    level_mass = sum_by_code(xp, masses, level, n)
    ratio = sum_by_code(xp, gained, level, n) / xp.where(level_mass > 0, level_mass, 1.0)
    back = xp.argsort(order, axis=-1)
    level = xp.take_along_axis(level, back, axis=-1)
    found = problem.weighted(at_least(xp, xp.take_along_axis(ratio, level, axis=-1), 0.0))
    return found / total(xp, found)


def dual_value(problem: Problem, spectrum: tuple[float, ...]) -> Array:
    """Evaluate sum_j c_j [eta_j + E (l - eta_j)_+ k / j], eta_j the loss at mass j/k from the top."""
    xp, k = problem.xp, len(spectrum)
    ordered, _, _, first = excess(problem)
    share, mixture = np.arange(1, k + 1) / k, _mixture(spectrum)
    _, through = descending(problem)
    shares = xp.broadcast_to(constants_like(xp, share * _BORDER, through), (*problem.losses.shape[:-1], k))
    # How many scenarios come before share j: its place among both, less the j - 1 shares before it.
    through = xp.broadcast_to(through, problem.losses.shape)
    both = xp.argsort(xp.argsort(xp.concat([shares, through], axis=-1), axis=-1, stable=True), axis=-1)
    place = both[..., :k] - arange_like(xp, k, through, dtype=both.dtype)
    place = at_most(xp, at_least(xp, place, 0), through.shape[-1] - 1)
    eta, above = (xp.take_along_axis(part, place, axis=-1) for part in (ordered, first))
    scaled = constants_like(xp, mixture / share, through)
    return total(xp, constants_like(xp, mixture, through) * eta + scaled * above)
