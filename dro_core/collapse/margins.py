"""The collapse radius of margins: how far the adversary must go to make their mean vanish.

    r(m) = min_q D(q, p)   s.t.   E_q m <= 0,  q in the simplex,

for the divergence D whose balls the set's radius measures: exact, whatever the number of margins.
"""

from __future__ import annotations

import numpy as np

from .._solvers.arrays import Array
from .._solvers.checks import checked_masses
from ..sets.ambiguity import AmbiguitySet
from ..sets.burg import Burg
from ..sets.divergences import KL
from ..sets.sorted import ChiSquare, CVaR, TotalVariation
from ..sets.transport import Wasserstein
from .exact import EXACT, Margins
from .minibatches import order_means
from .transport import transport_margin

_ROUNDING = 1e-12  # a margin so small, relative to the largest, is zero: it decides whether any set collapses

_CLASSES: tuple[type[AmbiguitySet], ...] = (TotalVariation, CVaR, ChiSquare, KL, Burg, Wasserstein)
_NAMES = (*EXACT, "wasserstein")


def margin_collapse(
    margins: Array,
    set_kind: str | type[AmbiguitySet],
    *,
    reference: Array | None = None,
    batch: int | None = None,
    cost: Array | None = None,
) -> float | Array:
    """Return the smallest radius at which some q of the set has a mean margin of at most 0.

        r(m) = min { radius : min_q <q, m> <= 0, q in the set of that radius around p }.

    With the margins <v, x_i> of pairs along a direction v it is a lower bound of the ``collapse_radius`` of the x_i,
    whatever v. Margins +-1 that are right with probability a have r = a - 1/2 (TV), (2a - 1)^2 / (8 a (1 - a))
    (chi-square), -1/2 log(4 a (1 - a)) (KL), log 2 - H(a) with the binary entropy H (Burg), and
    alpha = 2 (1 - a) (CVaR).

    Args:
        margins: Shape ``(*batch, n)``; numpy or anything ``numpy.asarray`` reads. Only their signs and ratios matter.
        set_kind: ``TotalVariation``, ``CVaR``, ``ChiSquare``, ``KL``, ``Burg``, ``Wasserstein``, or a name: "tv",
            "cvar", "chi2", "kl", "burg", "wasserstein".
        batch: Of how many margins, drawn without replacement, the adversary sees one lot at a time: the radius at which
            its mean over all such minibatches is <= 0, which is larger. Total variation and CVaR, uniform reference.
        cost: Shape ``(n, n)``, of ``Wasserstein``, for which margins without mass count too.
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
        check_batch(batch, values.shape[-1], name, even=reference is None)
        values = _expected_in_batches(values, batch)
        masses = np.full(values.shape, 1 / batch)
    if cost is not None and name != "wasserstein":
        raise ValueError(f"`cost` belongs to 'wasserstein', got set_kind {name!r}.")
    if name == "wasserstein":
        return _by_transport(values, masses, checked_cost(cost, values.shape[-1]))
    if not np.all(np.isfinite(values) | (masses == 0)):
        raise ValueError("margins must be finite; give those that are not a reference mass of 0.")
    n, seen = values.shape[-1], masses > 0
    # The largest margin in place of an unseen one: it is neither the least nor has it mass.
    seen_values = np.where(seen, values, -np.inf).astype(np.float64)
    found = _collapse(np.where(seen, seen_values, seen_values.max(axis=-1, keepdims=True)), masses, n, name)
    return _shaped(found, values)


def _by_transport(values: Array, masses: Array, cost: Array) -> float | Array:
    """Return the radius of every row in transport cost."""
    if not np.all(np.isfinite(values)):
        raise ValueError("margins must be finite; with 'wasserstein' those without mass can receive some.")
    rows, shares = values.reshape(-1, values.shape[-1]), masses.reshape(-1, values.shape[-1])
    found = np.zeros(len(rows))
    for place, (row, share) in enumerate(zip(rows.astype(np.float64), shares, strict=True)):
        if share @ row > 0:
            found[place] = np.inf if row.min() > 0 else transport_margin(row, share, cost)
    return _shaped(found, values)


def _shaped(found: Array, values: Array) -> float | Array:
    """Return what was found for the rows of values, ``(batch,)``, in their shape."""
    return float(found[0]) if values.ndim == 1 else found.reshape(values.shape[:-1])


def checked_cost(cost: Array | None, n: int) -> Array:
    """Return the cost of moving mass, ``(n, n)``.

    Raises:
        ValueError: There is none, it has another shape, or ``Wasserstein`` refuses it.
    """
    if cost is None:
        raise ValueError("'wasserstein' needs `cost`, the (n, n) costs of moving mass between the scenarios.")
    ways = np.asarray(Wasserstein(1.0, np.asarray(cost, dtype=np.float64)).cost)
    if ways.shape != (n, n):
        raise ValueError(f"`cost` must have shape ({n}, {n}), one row and column per scenario, got {ways.shape}.")
    return ways


def _expected_in_batches(values: Array, batch: int) -> Array:
    """Return the mean, over all subsets of that size, of each of their sorted margins, ``(*batch, batch)``.

    A set whose weights go by rank has the same worst case of these as, on average, of the subsets.
    """
    expected = order_means(values, batch)
    return _without_rounding(expected, np.abs(values).max(axis=-1, keepdims=True))


def rounded(margins: Array) -> Array:
    """Return margins with rounding errors taken for the zeros they are; their last axis is one direction's."""
    return _without_rounding(margins, np.abs(margins).max(axis=-1, keepdims=True))


def _without_rounding(values: Array, largest: Array) -> Array:
    return np.where(np.abs(values) <= _ROUNDING * largest, 0.0, values)


def check_batch(batch: int, n: int, name: str, *, even: bool) -> None:
    """Check the size of minibatches of n pairs.

    Raises:
        ValueError: There are none of that size, or pairs that are not ``even`` or whose set does not weigh by rank.
    """
    if name not in ("tv", "cvar") or not even:
        raise ValueError(
            "`batch` needs 'tv' or 'cvar', whose weights depend on ranks alone, and no reference and no groups."
        )
    if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= n:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"`batch` must be an integer from 1 to {n}, how many there are, got {batch!r}.")


def kind_name(set_kind: str | type[AmbiguitySet]) -> str:
    """Return the name of a set with a collapse radius.

    Raises:
        ValueError: It has none; the known ones are listed.
    """
    names = {kind: kind.spec for kind in _CLASSES}
    name = names.get(set_kind) if isinstance(set_kind, type) else set_kind
    if isinstance(name, str) and name in _NAMES:
        return name
    raise ValueError(
        f"no collapse radius is known for {set_kind!r}; use one of {', '.join(map(repr, _NAMES))} or its class "
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
        found[left] = EXACT[name](Margins(values[left], masses[left], mean[left], least[left]))
    return found
