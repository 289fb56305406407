"""The collapse radius of margins: how far the adversary must go to make their mean vanish.

    r(m) = min_q D(q, p)   s.t.   E_q m <= 0,  q in the simplex,

for the divergence D whose balls the set's radius measures. Exact: a sort for total variation, CVaR and chi-square, one
scalar root for KL and Burg.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special as _special  # pyright: ignore[reportMissingTypeStubs]

from .._solvers.arrays import Array
from .._solvers.checks import checked_masses
from ..sets.ambiguity import AmbiguitySet
from ..sets.divergences import KL
from ..sets.sorted import ChiSquare, CVaR, TotalVariation

special: Any = _special  # scipy ships no type hints
xp: Any = np  # nor do arrays of any kind have them

_CLASSES: tuple[type[AmbiguitySet], ...] = (TotalVariation, CVaR, ChiSquare, KL)
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


def margin_collapse(
    margins: Array, set_kind: str | type[AmbiguitySet], *, reference: Array | None = None, batch: int | None = None
) -> float | Array:
    """Return the smallest radius at which some q of the set has a mean margin of at most 0.

        r(m) = min { radius : min_q <q, m> <= 0, q in the set of that radius around p }.

    With the margins <v, x_i> of pairs along a direction v it is a lower bound of the ``collapse_radius`` of the x_i,
    whatever v. Margins +-1 that are right with probability a have r = a - 1/2 (TV), (2a - 1)^2 / (8 a (1 - a))
    (chi-square), -1/2 log(4 a (1 - a)) (KL), log 2 - H(a) with the binary entropy H (Burg), and
    alpha = 2 (1 - a) (CVaR).

    Args:
        margins: Shape ``(*batch, n)``; numpy or anything ``numpy.asarray`` reads. Only their signs and ratios matter.
        set_kind: ``TotalVariation``, ``CVaR``, ``ChiSquare``, ``KL`` or the name of one, "tv", "cvar", "chi2", "kl"; or
            "burg", the ball E_p log(p/q) <= radius.
        batch: Of how many margins, drawn without replacement, the adversary sees one lot at a time: the radius at which
            its mean over all such minibatches is <= 0, which is larger. Total variation and CVaR, uniform reference.
        reference: p, shape ``(n,)`` or that of the margins; uniform by default. A margin without mass is not seen.

    Returns:
        Shape ``(*batch,)``, a float for one row: 0 where the mean is <= 0 already, infinite where all margins are
        positive (for Burg, whose q have mass everywhere: where none is negative). For CVaR the *largest alpha* that
        collapses: 1 where the mean is <= 0 already, 0 where all margins are positive.

    Raises:
        TypeError: Margins that are not real numbers.
        ValueError: No margins, one that is not finite, a bad reference or batch, or a set for which nothing is known.

    Example:
        >>> margin_collapse([1.0, 1.0, 1.0, -1.0], "tv"), margin_collapse([1.0, 1.0, 1.0, -1.0], "cvar")
        (0.25, 0.5)
    """
    name, values = kind_name(set_kind), np.asarray(margins)
    if values.ndim == 0 or values.size == 0:
        raise ValueError(f"margins must have shape (*batch, n) with n > 0, got {values.shape}.")
    if values.dtype.kind not in "biuf":
        raise TypeError(f"margins must be real numbers, got dtype {values.dtype}.")
    masses = checked_masses(reference, values.shape)
    if batch is not None:
        if name not in ("tv", "cvar") or reference is not None:
            raise ValueError("`batch` needs 'tv' or 'cvar', whose weights depend on ranks alone, and no reference.")
        values = _expected_in_batches(values, batch)
        masses = np.full(values.shape, 1 / batch)
    if not np.all(np.isfinite(values) | (masses == 0)):
        raise ValueError("margins must be finite; give those that are not a reference mass of 0.")
    n, seen = values.shape[-1], masses > 0
    # The largest margin in place of an unseen one: it is neither the least nor has it mass.
    seen_values = np.where(seen, values, -np.inf).astype(np.float64)
    found = _collapse(np.where(seen, seen_values, seen_values.max(axis=-1, keepdims=True)), masses, n, name)
    return float(found[0]) if values.ndim == 1 else found.reshape(values.shape[:-1])


def _expected_in_batches(values: Array, batch: int) -> Array:
    """Return the mean, over all subsets of that size, of each of their sorted margins, ``(*batch, batch)``.

    A set whose weights go by rank has the same worst case of these as, on average, of the subsets.
    """
    n = values.shape[-1]
    if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= n:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"`batch` must be an integer from 1 to {n}, the number of margins, got {batch!r}.")
    place, rank = xp.arange(n)[:, None], xp.arange(batch)

    def ways(of: Array, chosen: Array) -> Array:
        possible = of >= chosen
        some = np.where(possible, of - chosen, 0)
        logs = special.gammaln(of + 1) - special.gammaln(chosen + 1) - special.gammaln(some + 1)
        return np.where(possible, logs, -np.inf)

    log_chance = ways(place, rank) + ways(n - 1 - place, batch - 1 - rank) - ways(np.array(n), np.array(batch))
    return np.sort(values, axis=-1) @ np.exp(log_chance)


def kind_name(set_kind: str | type[AmbiguitySet]) -> str:
    """Return the name of a set with a collapse radius.

    Raises:
        ValueError: It has none; the known ones are listed.
    """
    names = {kind: kind.spec for kind in _CLASSES}
    name = names.get(set_kind) if isinstance(set_kind, type) else set_kind
    if isinstance(name, str) and name in _EXACT:
        return name
    raise ValueError(
        f"no collapse radius is known for {set_kind!r}; use one of {', '.join(map(repr, _EXACT))} or its class "
        f"({', '.join(kind.__name__ for kind in _CLASSES)})."
    )


def _collapse(values: Array, masses: Array, n: int, name: str) -> Array:
    """Return the radius of every row, ``(batch,)``."""
    values, masses = values.reshape(-1, n), masses.reshape(-1, n)
    scale = np.abs(values).max(axis=-1, keepdims=True)
    values = values / np.where(scale > 0, scale, 1.0)
    mean, least = np.sum(masses * values, axis=-1), values.min(axis=-1)
    never, none = (0.0, 1.0) if name == "cvar" else (np.inf, 0.0)
    separate = least >= 0 if name == "burg" else least > 0
    found = np.where(mean <= 0, none, never)
    (left,) = np.nonzero((mean > 0) & ~separate)
    if left.size:
        found[left] = _EXACT[name](Margins(values[left], masses[left], mean[left], least[left]))
    return found


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
    last = np.sum(masses * gains > 0, axis=-1, keepdims=True) - 1
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


_EXACT: dict[str, Callable[[Margins], Array]] = {
    "tv": _total_variation,
    "cvar": _cvar,
    "chi2": _chi_square,
    "kl": _kl,
    "burg": _burg,
}
