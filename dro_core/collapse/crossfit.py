"""The radius of a direction on pairs that did not choose it, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize as _optimize  # pyright: ignore[reportMissingTypeStubs]

from .._solvers.arrays import Array
from .balance import Balance, balance, whiten
from .margins import margin_collapse, rounded

xp: Any = np  # whose arrays of any kind have no type hints
optimize: Any = _optimize  # nor has scipy

_DRAWS = 400  # of the bootstrap
_ENDS = (0.025, 0.975)
_KEPT = 1e-9  # mass of a row that was not drawn: the adversary still sees it, so draws do not lose the least margin


class HeldOut(NamedTuple):
    """Mean over the folds, the value of each, and an interval of 95 % for the mean."""

    value: float
    by_fold: tuple[float, ...]
    interval: tuple[float, float]


class Pairs(NamedTuple):
    """Rows ``(n, k)`` with masses ``(n,)``, codes ``(n,)`` of groups, costs ``(n, n)``, and the size of minibatches."""

    rows: Array
    masses: Array
    groups: Array | None = None
    cost: Array | None = None
    batch: int | None = None

    def take(self, kept: Array) -> Pairs:
        """Return some of the rows, with masses that sum to 1."""
        masses = self.masses[kept]
        if not masses.any():
            raise ValueError("a fold holds no reference mass; use fewer folds or, for no held-out value, folds=0.")
        groups = None if self.groups is None else self.groups[kept]
        cost = None if self.cost is None else self.cost[np.ix_(kept, kept)]
        return Pairs(self.rows[kept], masses / masses.sum(), groups, cost, self.batch)

    def scenarios(self) -> tuple[Array, Array]:
        """Return what the adversary weighs: the rows, or the means of groups ``(K, k)``; and their masses."""
        if self.groups is None:
            return self.rows, self.masses
        means, masses = group_means(self.rows.T, self.masses, self.groups)
        return means.T, masses

    def balance(self, rows: Array, masses: Array, name: str, tolerance: float) -> Balance:
        """Return the ``balance`` of the scenarios, whitened."""
        return balance(rows, masses, name, tolerance=tolerance, cost=self.cost, batch=self.batch)


def group_means(values: Array, masses: Array, groups: Array) -> tuple[Array, Array]:
    """Return means over the groups, ``(*batch, K)`` of values ``(*batch, n)``, and masses of groups.

    Groups without mass in a row of masses ``(*batch, n)`` have mean and mass 0.
    """
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    total = np.add.reduceat(masses[..., order], starts, axis=-1)
    sums = np.add.reduceat((values * masses)[..., order], starts, axis=-1)
    return sums / np.where(total > 0, total, 1.0), total


def deal(clusters: Array, folds: int, rng: np.random.Generator) -> list[Array]:
    """Return the rows of each fold; codes ``(n,)`` of clusters stay together, folds differ by one cluster at most."""
    shuffled = rng.permutation(int(clusters.max()) + 1)
    return [np.isin(clusters, part).nonzero()[0] for part in np.array_split(shuffled, folds)]


def held_out(
    pairs: Pairs, name: str, folds: Sequence[Array], clusters: Array, rng: np.random.Generator, *, tolerance: float
) -> HeldOut:
    """Find the most robust direction on all folds but one and its radius on that one, for each.

    The interval draws whole clusters of each held-out fold anew, at the directions as they are: what it covers is the
    radius of these directions. The spread over folds would not do: their directions share most of their pairs.
    """
    found: list[Array] = []
    for fold in folds:
        others = np.setdiff1d(np.arange(len(pairs.masses)), fold)
        direction = _direction(pairs.take(others), name, tolerance)
        found.append(_radii(pairs.take(fold), direction, name, _resampled(clusters[fold], rng)))
    values = np.array(found)
    means = values.mean(axis=0)
    low, high = np.quantile(means[1:], _ENDS, method="inverted_cdf")  # which needs no mean of infinities
    return HeldOut(float(means[0]), tuple(values[:, 0].tolist()), (float(low), float(high)))


def _direction(train: Pairs, name: str, tolerance: float) -> Array:
    """Return the most robust direction; where groups are separable, the one that separates their means most widely.

    Any of many directions gives few groups the same margin, and most of them fit noise. So the least margin is compared
    with the spread of single pairs: min E <v, x>^2 with a mean margin of at least 1 in every group.
    """
    rows, masses = train.scenarios()
    white = whiten(rows, masses)
    solved = train.balance(white.rows, masses, name, tolerance)
    if train.groups is None or solved.weights is not None:
        return white.back @ solved.direction
    single = whiten(train.rows, train.masses)
    means = train._replace(rows=single.rows).scenarios()[0]
    k = len(means)
    shares, _ = optimize.nnls(np.vstack([means.T, np.ones(k)]), np.append(np.zeros(means.shape[1]), 1.0))
    return single.back @ (means.T @ shares)


def _resampled(clusters: Array, rng: np.random.Generator) -> Array:
    """Return how often each row counts, ``(1 + draws, n)``: once, then as often as its cluster is drawn."""
    _, codes = np.unique(clusters, return_inverse=True)
    count = int(codes.max()) + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=_DRAWS)
    return np.vstack([np.ones(codes.size), drawn[:, codes] + _KEPT])


def _radii(pairs: Pairs, direction: Array, name: str, counts: Array) -> Array:
    """Return the radius of the margins along a direction for every row of counts."""
    masses = counts * pairs.masses
    masses = masses / masses.sum(axis=-1, keepdims=True)
    along = rounded(pairs.rows @ direction)
    if pairs.batch is not None:
        drawn = np.vstack([along, _even(along, masses[1:])])
        return np.asarray(margin_collapse(drawn, name, batch=pairs.batch))
    margins = np.broadcast_to(along, masses.shape)
    if pairs.groups is not None:
        margins, masses = group_means(margins, masses, pairs.groups)
    return np.asarray(margin_collapse(margins, name, reference=masses, cost=pairs.cost))


def _even(margins: Array, masses: Array) -> Array:
    """Return margins ``(draws, n)`` of even mass in place of margins ``(n,)`` with masses ``(draws, n)``.

    They are the means of n equal parts of the mass: the margins that were drawn, where masses count n draws.
    """
    order = np.argsort(margins)
    ends = np.linspace(0.0, 1.0, margins.size + 1)
    found: list[Array] = []
    for mass in masses[:, order]:
        below, sums = np.cumsum(np.r_[0.0, mass]), np.cumsum(np.r_[0.0, mass * margins[order]])
        found.append(xp.diff(xp.interp(ends * below[-1], below, sums)) * margins.size)
    return rounded(np.array(found))
