"""The collapse radius of scenarios with features, from both sides: weights that balance, a direction that resists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from typing import NamedTuple

import numpy as np
from numpy.linalg import LinAlgError

from .._solvers.arrays import Array
from .interior import PROGRAMS, interior_path
from .layers import layered_path
from .margins import margin_collapse, rounded
from .newton import newton_path
from .transport import transport_path

_DEPENDENT = 1e-10  # a singular value so small, relative to the largest, is a rounding error of dependent columns
_ROUNDING = 1e-12  # a mean feature so small, in root mean squares of the feature, is zero
_FLAT = 1e-8  # a direction is only approached whose least margin is zero: near enough
_BALANCED = 1e-10  # a mean feature so small, in root mean squares of the feature, is zero
_STEPS = 150

_Path = Iterator[tuple[Array, Array, float | None]]

_DIVERGENCES: dict[str, Callable[[Array, Array], float]] = {
    "tv": lambda ratio, masses: float(masses @ np.abs(ratio - 1)) / 2,
    "cvar": lambda ratio, masses: 1 / float(ratio.max()),
    "chi2": lambda ratio, masses: float(masses @ (ratio - 1) ** 2) / 2,
    "kl": lambda ratio, masses: float(masses @ (ratio * np.log(np.maximum(ratio, 1e-300)))),
    "burg": lambda ratio, masses: -float(masses @ np.log(ratio)) if ratio.min() > 0 else np.inf,
}


class Whitened(NamedTuple):
    """Scenarios in independent features: ``rows`` ``(n, k)`` = features @ ``back``, with E rows' rows = 1."""

    rows: Array
    back: Array  # (d, k)


class Balance(NamedTuple):
    """How far q must go for E_q x = 0: ``radius`` is reached by ``weights``, ``bound`` by the ``direction``.

    ``weights`` ``(n,)`` is None where none balance; ``direction`` ``(k,)`` is in whitened features.
    """

    radius: float
    bound: float
    weights: Array | None
    direction: Array

    def error(self, name: str) -> float:
        """Return how far radius and bound are apart, relative to the smaller one."""
        if self.radius == self.bound:
            return 0.0
        apart = self.bound - self.radius if name == "cvar" else self.radius - self.bound
        return apart / max(min(self.radius, self.bound), 1e-300)


def whiten(features: Array, masses: Array) -> Whitened:
    """Drop what depends on other columns, and make the rest orthonormal under masses ``(n,)``, positive.

    Half of p is replaced by the uniform law, so that rows of very small mass do not become very long.
    """
    masses = (masses + 1 / len(masses)) / 2
    largest = np.abs(features).max(axis=0)
    largest = np.where(largest > 0, largest, 1.0)
    size = largest * np.sqrt(masses @ (features / largest) ** 2)
    size = np.where(size > 0, size, 1.0)
    triangle = np.linalg.qr(np.sqrt(masses)[:, None] * (features / size), mode="r")
    _, values, right = np.linalg.svd(triangle, full_matrices=False)
    kept = values > _DEPENDENT * np.max(values, initial=1e-300)
    back = (right[kept] / values[kept, None]).T / size[:, None]
    return Whitened(features @ back, back)


def balance(
    rows: Array, masses: Array, name: str, *, tolerance: float, cost: Array | None = None, batch: int | None = None
) -> Balance:
    """Find the least radius at which a set holds weights that balance the rows.

    Args:
        rows: Shape ``(n, k)``, whitened.
        masses: p, shape ``(n,)``, positive but for "wasserstein".
        name: Of the set, as ``kind_name`` gives it.
        tolerance: Of the gap between the two sides, relative to the radius.
        cost: Shape ``(n, n)``, of "wasserstein".
        batch: Of how many rows, at most n, the minibatches are whose sets these are; "tv" or "cvar", even masses.
    """
    n, k = rows.shape
    never, none = (0.0, 1.0) if name == "cvar" else (np.inf, 0.0)
    mean = masses @ rows
    if k == 0 or np.max(np.abs(mean)) <= _ROUNDING:
        return Balance(none, none, masses, np.zeros(k))
    if k >= n:  # independent rows: some direction gives all of them the margin 1
        return Balance(never, never, None, np.linalg.solve(rows, np.ones(n)))
    # Nothing balances yet, and the mean direction bears nothing; both sides improve from there.
    best = Balance(never, none, None, mean)
    if batch is None or batch == n:
        path, given = _path(rows, masses, name, cost), {"reference": masses, "cost": cost}
    else:
        path, given = _finite([layered_path(rows, name, batch, tolerance)]), {"batch": batch}
    for weights, direction, radius in path:
        margins = rounded(rows @ direction)
        bound = never if _separates(margins, name) else float(margin_collapse(margins, name, **given))
        if bound == never:
            return Balance(never, never, None, direction)
        if bound < best.bound if name == "cvar" else bound > best.bound:
            best = best._replace(bound=bound, direction=direction)
        best = _with_weights(best, weights, radius, rows, masses, name)
        if best.weights is None:
            continue
        if best.error(name) < -tolerance:  # a margin below zero was taken for zero: the weights know better
            best = best._replace(bound=none, direction=mean)
        elif best.error(name) <= tolerance:
            break
    return best


def _separates(margins: Array, name: str) -> bool:
    least = margins.min()
    return bool(least > 0 or (name == "burg" and margins.max() > 0 and least >= -_FLAT * margins.max()))


def _path(rows: Array, masses: Array, name: str, cost: Array | None) -> _Path:
    """Return the solver's weights, directions and, where weights do not tell them, radii."""
    program = PROGRAMS.get(name)
    paths: Sequence[_Path]
    if cost is not None:
        paths = [((plan.weights, plan.direction, plan.cost) for plan in transport_path(rows, masses, cost))]
    elif program is not None:  # the second one is for the rare pairs with which the first one goes in circles
        ways = (interior_path(rows, masses, program, careful=careful) for careful in (False, True))
        paths = [((*found, None) for found in way) for way in ways]
    else:
        paths = [((*found, None) for found in newton_path(rows, masses, name))]
    return _finite(paths)


def _finite(paths: Sequence[_Path]) -> _Path:
    """Yield what the paths do, until rounding stops them."""
    for path in paths:
        with suppress(LinAlgError), np.errstate(all="ignore"):
            yield from takewhile(_is_finite, islice(path, _STEPS))


def _is_finite(found: tuple[Array, Array, float | None]) -> bool:
    return bool(np.all(np.isfinite(found[1])))


def _with_weights(
    best: Balance, weights: Array, radius: float | None, rows: Array, masses: Array, name: str
) -> Balance:
    """Return the better of what is known and of these weights, up to a scale, if they balance."""
    weights = np.maximum(weights, 0.0)
    total = float(weights.sum())
    if not 0 < total < np.inf:
        return best
    weights = weights / total
    if radius is None:
        radius = _DIVERGENCES[name](weights / masses, masses)
    better = radius > best.radius if name == "cvar" else radius < best.radius
    if not better or not np.max(np.abs(weights @ rows)) <= _BALANCED:
        return best
    return best._replace(radius=radius, weights=weights)
