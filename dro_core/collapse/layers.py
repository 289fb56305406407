"""Balancing weights of minibatches: the rank weights of a sample as layers, each a CVaR, with smooth edges.

Averages of permutations of nonincreasing rank weights s are q = sum_j h_j z_j with 0 <= z_j <= 1 and sum z_j = k_j,
where h_j is the j-th drop of s, after k_j ranks. Those that are worst for margins m have z_j = 1 up to a threshold and
0 beyond. Here they are z_j = sigmoid((t_j - m) / width), which makes the worst mean margin of a direction smooth:
Newton's method finds its largest value at a given size of the set, and there the q balance what is orthogonal to the
mean of the features. Where their own mean margin is not positive, some mixture with p balances everything.

s is replaced by its means over blocks of ranks, which are averages of its permutations, so that some dozens of layers
do. The q are in the set, whatever the blocks and the width; only the direction is a little off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.special as _special  # pyright: ignore[reportMissingTypeStubs]

from .._solvers.arrays import Array
from .._solvers.normal import factor, gram
from .margins import margin_collapse, rounded
from .minibatches import RankWeights

special: Any = _special  # scipy ships no type hints
xp: Any = np  # nor do arrays of any kind have them

_ROOM = 0.5  # how far beyond the best bound the set is, in tolerances of the gap
_LOSS = 0.3  # of the room that this leaves: what blocks of ranks may cost
_FEWEST = 16  # layers
_WIDEST, _NARROWER = 0.3, 0.4  # edges at the start, in root mean squares of a margin, and from stage to stage
_FAR = 40.0  # edges away from a threshold a share is 0 or 1
_TINY = 1e-300
_FLAT = 1e-12  # a drop of rank weights so small, relative to the largest of them, is rounding
_ZERO = 1e-11  # a mean feature so small, in root mean squares of the feature, is zero
_LEAST = 1e-3  # room in tolerances, where there is no larger set
_ROOTS, _EXACT = 60, 1e-11  # steps to thresholds, and the error of what lies below them, relative
_DAMPING = 1e-2  # of Newton's steps, in lengths of the gradient
_SLOPE, _HALVINGS = 0.1, 30  # what a step must gain at least of what it promises, and how often it is cut
_DECIDED, _DONE = 1e-2, 1e-12  # of the room: a gain that tells the sign of the largest value, and one that is rounding


class _At(NamedTuple):
    """The smooth worst mean margin at some margins ``(n,)``, its thresholds, and the weights q ``(n,)``.

    ``bend`` ``(layers, n)`` is how fast the weights of each layer follow its threshold less the margin.
    """

    value: float
    thresholds: Array
    weights: Array
    bend: Array


class _Newton(NamedTuple):
    """A step with what it would gain, how far it lifts the thresholds, and the weights ``(n,)`` it leads to.

    The last two to first order, in which the weights balance what is linearised.
    """

    step: Array
    gain: float
    lift: Array
    weights: Array


class _Layers:
    """Blocks of rank weights ``(n,)`` as layers with edges of such a width."""

    def __init__(self, ranked: Array, margins: Array, width: float, loss: float) -> None:
        ascending = np.sort(margins)
        starts, levels = _blocks(ranked, ascending, loss)
        self.counts, self.heights, self.least = starts[1:], -np.diff(levels), levels[-1]
        self.width = width
        self.thresholds = (ascending[self.counts - 1] + ascending[self.counts]) / 2

    def at(self, margins: Array, thresholds: Array) -> _At:
        """Evaluate at margins; the thresholds are a guess."""
        low = np.full(thresholds.shape, margins.min() - _FAR * self.width)
        high = np.full(thresholds.shape, margins.max() + _FAR * self.width)
        depth = share = slope = np.zeros(0)
        for _ in range(_ROOTS):
            depth = (thresholds[:, None] - margins) / self.width
            share = special.expit(depth)
            slope = share * (1 - share)
            over = share.sum(axis=1) - self.counts
            wrong = np.abs(over) > _EXACT * self.counts
            if not wrong.any():
                break
            low, high = np.where(over < 0, thresholds, low), np.where(over > 0, thresholds, high)
            newton = thresholds - over * self.width / np.maximum(slope.sum(axis=1), _TINY)
            newton = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
            thresholds = np.where(wrong, newton, thresholds)
        soft = self.width * np.logaddexp(0.0, depth).sum(axis=1)
        value = self.least * margins.sum() + self.heights @ (self.counts * thresholds - soft)
        weights = self.least + self.heights @ share
        return _At(float(value), thresholds, weights, self.heights[:, None] * slope / self.width)

    def newton(self, at: _At, across: Array) -> _Newton:
        """Linearise the weights in the direction, ``(k,)``, whose margins are columns of ``across``."""
        missing = across.T @ at.weights
        moved, loose = at.bend @ across, np.maximum(at.bend.sum(axis=1), _TINY)
        curvature = gram(across, at.bend.sum(axis=0)) - (moved / loose[:, None]).T @ moved
        curvature[np.diag_indices_from(curvature)] += _DAMPING * np.linalg.norm(missing) + _TINY
        step = factor(curvature)(missing)
        lift = (moved @ step) / loose
        weights = at.weights + lift @ at.bend - at.bend.sum(axis=0) * (across @ step)
        return _Newton(step, float(missing @ step), lift, weights)


def _blocks(ranked: Array, ascending: Array, loss: float) -> tuple[Array, Array]:
    """Return the first ranks of blocks and mean weights, which lift the worst mean margin by at most ``loss``."""
    drops, gaps = -np.diff(ranked), np.diff(ascending)
    seen = np.flatnonzero(drops > _FLAT * ranked[0])
    parts = np.cumsum(np.cbrt(drops * (gaps + gaps.mean()))[seen])  # even parts of it lose least
    count = _FEWEST
    while True:
        some: Array = xp.searchsorted(parts, np.arange(1, count + 1) / (count + 1) * parts[-1])
        starts = np.r_[0, (seen[np.unique(some)] if count < seen.size else seen) + 1]
        sizes = np.diff(np.r_[starts, ranked.size])
        levels = np.add.reduceat(ranked, starts) / sizes
        if count >= seen.size or (np.repeat(levels, sizes) - ranked) @ ascending <= loss:
            return starts, levels
        count *= 2


def layered_path(rows: Array, name: str, batch: int, tolerance: float) -> Iterator[tuple[Array, Array, float]]:
    """Yield weights ``(n,)``, directions ``(k,)`` and sizes of the set that has the weights, better at every step.

    Args:
        rows: Shape ``(n, k)``, linearly independent whitened columns whose mean is not 0.
        name: "tv" or "cvar".
        batch: Of how many rows, fewer than n, a minibatch consists.
        tolerance: Of the gap that is asked for, relative to the size.
    """
    ranks = RankWeights(name, len(rows), batch)
    length = float(np.linalg.norm(rows.mean(axis=0)))
    unit = rows.mean(axis=0) / length
    basis = np.linalg.qr(unit[:, None], mode="complete")[0][:, 1:]
    along, across = rows @ unit, rows @ basis
    place, best, width = np.zeros(basis.shape[1]), ranks.smallest, _WIDEST
    while True:
        margins = along + across @ place
        bound = float(margin_collapse(rounded(margins), name, batch=batch))
        if bound == ranks.never:
            yield np.full(margins.size, 1 / margins.size), unit + basis @ place, bound
            return
        best = bound if ranks.exceeds(bound, best) else best
        ranked = ranks(ranks.beyond(best, _ROOM * tolerance))
        room = max(-float(ranked @ np.sort(margins)), _LEAST * tolerance * length)
        layers = _Layers(ranked, margins, width, _LOSS * room)
        at = layers.at(margins, layers.thresholds)
        while True:
            found = layers.newton(at, across)
            weights, size = _balanced(found.weights, along / length, across, ranks)
            yield weights, unit + basis @ place, size
            short = found.weights @ along > 0
            if found.gain <= (_DECIDED if short else _DONE) * room:
                break
            place, margins, at = _advance(layers, at, found, (along, across, place))
        width *= _NARROWER


def _balanced(weights: Array, along: Array, across: Array, ranks: RankWeights) -> tuple[Array, float]:
    """Mix weights with p until the mean of ``along``, 1 under p, is 0; return the size of the set that has them, too.

    Infinite (CVaR: 0) where that is no mixture, or the weights are negative or do not balance ``across``.
    """
    weights = weights / weights.sum()
    mean = float(weights @ along)
    if mean > _ZERO or np.max(np.abs(weights @ across), initial=0.0) > _ZERO:
        return weights, ranks.never
    mixed = (weights - min(mean, 0.0) / weights.size) / (1 - min(mean, 0.0))
    return mixed, ranks.least_size(mixed)


def _advance(layers: _Layers, at: _At, found: _Newton, where: tuple[Array, Array, Array]) -> tuple[Array, Array, _At]:
    """Return the place, the margins and their value after as much of the step as gains what it should."""
    along, across, place = where
    length = 1.0
    for _ in range(_HALVINGS):
        new = place + length * found.step
        margins = along + across @ new
        after = layers.at(margins, at.thresholds + length * found.lift)
        if after.value >= at.value + _SLOPE * length * found.gain:
            return new, margins, after
        length /= 2
    return place, along + across @ place, at
