"""Solvers of ``margin_collapse``, each for a batch of margins whose mean is positive and whose least is not.

A sort for total variation, CVaR and chi-square, one scalar root for KL and Burg.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special as _special  # pyright: ignore[reportMissingTypeStubs]

from .._solvers.arrays import Array

special: Any = _special  # scipy ships no type hints
xp: Any = np  # nor do arrays of any kind have them

_MOST_STEPS = 200  # of a root; five to ten are usual


class Margins(NamedTuple):
    """Margins and masses ``(batch, n)`` with, ``(batch,)`` each, their mean and the least one that has mass."""

    values: Array
    masses: Array
    mean: Array
    least: Array

    def ascending(self) -> Margins:
        """Return the same, sorted by margin."""
        order = np.argsort(self.values, axis=-1)
        return self._replace(
            values=np.take_along_axis(self.values, order, -1), masses=np.take_along_axis(self.masses, order, -1)
        )


def _up_to(sums: Array, target: Array) -> Array:
    """Return the first place of each row whose running sum reaches the target, ``(batch, 1)``."""
    short = np.sum(sums < target[:, None], axis=-1, keepdims=True)
    return np.minimum(short, sums.shape[-1] - 1)


def _at(rows: Array, place: Array) -> Array:
    return np.take_along_axis(rows, place, axis=-1)[:, 0]


def _total_variation(margins: Margins) -> Array:
    """Move mass from the largest margins to the least one, until what was gained is the mean."""
    at = margins.ascending()
    masses = at.masses[:, ::-1]
    gains = (at.values - at.least[:, None])[:, ::-1]
    sums = np.cumsum(masses * gains, axis=-1)
    # Rounding must not run past the last margin that gains anything.
    last = masses.shape[-1] - 1 - np.argmax((masses * gains > 0)[:, ::-1], axis=-1)[:, None]
    place = np.minimum(_up_to(sums, at.mean), last)
    missing = at.mean - (_at(sums, place) - _at(masses * gains, place))
    before = _at(np.cumsum(masses, axis=-1), place) - _at(masses, place)
    return before + np.clip(missing / _at(gains, place), 0.0, _at(masses, place))


def _cvar(margins: Margins) -> Array:
    """Keep what is not positive, and of the rest the smallest margins as long as the mean allows."""
    at = margins.ascending()
    loss = np.sum(at.masses * np.maximum(-at.values, 0.0), axis=-1)
    kept = np.sum(np.where(at.values <= 0, at.masses, 0.0), axis=-1)
    masses = np.where(at.values > 0, at.masses, 0.0)
    sums = np.cumsum(masses * at.values, axis=-1)
    first = np.sum(at.values <= 0, axis=-1, keepdims=True)  # the mean is positive, so one above 0 exists
    place = np.maximum(_up_to(sums, loss), first)
    spare = loss - (_at(sums, place) - _at(masses * at.values, place))
    before = _at(np.cumsum(masses, axis=-1), place) - _at(masses, place)
    return kept + before + np.clip(spare / _at(at.values, place), 0.0, _at(masses, place))


def _chi_square(margins: Margins) -> Array:
    """The minimiser is proportional to p (t - m)_+ with E (t - m)_+ m = 0; then E (q/p)^2 = t / E (t - m)_+."""
    at = margins.ascending()
    mass, first, second = (np.cumsum(at.masses * at.values**k, axis=-1) for k in range(3))
    # E (t - m)_+ m first falls in t, then rises: the last margin at which it is <= 0 ends what keeps weight.
    negative = at.values * first - second <= 0
    place = at.values.shape[-1] - 1 - np.argmax(negative[:, ::-1], axis=-1)[:, None]
    kept, total, squares = _at(mass, place), _at(first, place), _at(second, place)
    at_zero = at.least == 0  # then q is p on the margins 0
    threshold = xp.where(at_zero, 1.0, squares / np.where(at_zero, 1.0, total))
    excess = xp.where(at_zero, _none_positive(at), threshold * kept - total)
    return xp.maximum((threshold / excess - 1) / 2, 0.0)


def _none_positive(margins: Margins) -> Array:
    """Return the mass of the margins that are not positive."""
    return np.sum(np.where(margins.values <= 0, margins.masses, 0.0), axis=-1)


def _kl(margins: Margins) -> Array:
    """max_t -log E exp(-t m), at the t where the tilted mean is 0."""
    with np.errstate(divide="ignore"):
        log_masses = np.log(margins.masses)
        found = -np.log(_none_positive(margins))  # where the least margin is 0: the limit t -> infinity
    (rows,) = np.nonzero(margins.least < 0)
    values, logs = margins.values[rows] / -margins.least[rows, None], log_masses[rows]

    def tilted(slope: Array) -> tuple[Array, Array]:
        weights = special.softmax(logs - slope[:, None] * values, axis=-1)
        mean = np.sum(weights * values, axis=-1)
        return mean, -np.sum(weights * (values - mean[:, None]) ** 2, axis=-1)

    # At t >= 1 the positive margins add at most 1 / (e t) to E m exp(-t m), and the least one, -1, takes p e^t.
    lowest = np.max(np.where(values == -1, logs, -np.inf), axis=-1, initial=-np.inf)
    slope = _root(tilted, np.maximum(1.0, -lowest))
    found[rows] = np.maximum(-special.logsumexp(logs - slope[:, None] * values, axis=-1), 0.0)
    return found


def _burg(margins: Margins) -> Array:
    """max_u E log(1 + u m / |least|) over u in [0, 1), where E m / (1 + u m / |least|) is 0."""
    values, masses = margins.values / -margins.least[:, None], margins.masses

    def slope(odds: Array) -> tuple[Array, Array]:  # in u / (1 - u), so that u near 1 is not rounded
        growth = 1 + odds[:, None] * (1 + values)
        terms = values / growth
        return np.sum(masses * terms, axis=-1), -np.sum(masses * terms * (1 + values) / growth, axis=-1)

    lowest = np.max(np.where(values == -1, masses, 0.0), axis=-1)
    odds = _root(slope, 1 / lowest)  # there p / (1 - u) is 1 / u, and the positive margins reach no more
    growth = np.log1p(odds[:, None] * (1 + values)) - np.log1p(odds)[:, None]
    return np.maximum(np.sum(masses * growth, axis=-1), 0.0)


def _root(function: Callable[[Array], tuple[Array, Array]], high: Array) -> Array:
    """Find where a function that is positive at 0 changes its sign, up to ``high``: Newton's method in a bracket."""
    low = xp.zeros_like(high)
    if high.size == 0:
        return high
    value, fall = function(low)
    at = -value / xp.minimum(fall, -1e-300)
    at = xp.where(at < high, at, high / 2)
    size = high - low
    error = xp.full_like(high, xp.inf)
    for _ in range(_MOST_STEPS):
        value, fall = function(at)
        low, high = xp.where(value > 0, at, low), xp.where(value > 0, high, at)
        with xp.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = at - value / fall
        if xp.all((high - low <= 1e-15 * high) | (xp.abs(newton - at) <= 1e-13 * at)):
            break
        # A step that neither halves the error nor the bracket earns no second.
        good = (newton > low) & (newton < high) & ((xp.abs(value) <= error / 2) | (high - low <= size / 2))
        middle = xp.where(low > high / 16, xp.sqrt(low * high), (low + high) / 16)
        at = xp.where(good, newton, xp.clip(middle, low, high))
        size, error = high - low, xp.abs(value)
    return at


EXACT: dict[str, Callable[[Margins], Array]] = {
    "tv": _total_variation,
    "cvar": _cvar,
    "chi2": _chi_square,
    "kl": _kl,
    "burg": _burg,
}
