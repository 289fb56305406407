"""The inner problem as the sets see it: centred losses, so that no set needs to care for offset or scale."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array, Namespace, count, highest, inner, lowest, on_host, rows_like, total
from .sizes import Size

# Losses per block of a large batch: 128 KiB of float64, which also spares the allocator fresh pages.
BLOCK = 2**14
_SHORT = 128  # losses of a row that numpy sorts sooner than it looks for their extremes


class Problem(NamedTuple):
    """A batch of inner problems.

    Losses have maximum 0 and minimum -1 over the support of the reference (all 0 if constant); scenarios of
    zero mass carry the minimum. ``shift`` and ``scale`` lead back to the losses that were centred; ``unit`` is
    what one unit is worth in those of ``worst_case``, also when a set centres once more for the set inside it, and
    ``offset`` is the largest loss there.
    A reference of None is the uniform one: then sorting needs no gather, and nothing of size n is stored for it.
    """

    xp: Namespace
    losses: Array  # (*batch, n), float64
    reference: Array | None  # (*batch, n), float64
    shift: Array  # (*batch, 1)
    scale: Array  # (*batch, 1), positive
    unit: Array  # (*batch, 1), positive
    offset: Array  # (*batch, 1)

    def rising(self, at: int) -> Array:
        """Return the loss of that place from the smallest on, in main memory, ``(*batch, 1)``."""
        found = np.sort(self.losses, axis=-1) if _short(self.losses) else np.partition(self.losses, at, axis=-1)
        return found[..., at : at + 1]

    def mean(self, values: Array) -> Array:
        """E values under the reference, ``(*batch, 1)``."""
        if self.reference is None:
            return total(self.xp, values) / self.losses.shape[-1]
        return inner(self.xp, self.reference, values)

    def mean_product(self, left: Array, right: Array) -> Array:
        """E left * right under the reference, ``(*batch, 1)``."""
        if self.reference is None:
            return inner(self.xp, left, right) / self.losses.shape[-1]
        return inner(self.xp, self.reference * left, right)

    def mass(self, chosen: Array) -> Array:
        """Mass of the scenarios where a condition ``(*batch, n)`` holds, ``(*batch, 1)``."""
        if self.reference is None:
            return count(self.xp, chosen) / self.losses.shape[-1]
        if on_host(self.xp):
            return inner(self.xp, self.reference, chosen)
        return total(self.xp, self.xp.where(chosen, self.reference, 0.0))

    def weighted(self, ratio: Array) -> Array:
        """Return the weights p * ratio, ``(*batch, n)``."""
        return ratio * (1.0 / self.losses.shape[-1] if self.reference is None else self.reference)

    def ratio(self, weights: Array) -> Array:
        """Return q / p of weights, 0 where p is 0."""
        if self.reference is None:
            return weights * self.losses.shape[-1]
        seen = self.reference > 0
        return self.xp.where(seen, weights / self.xp.where(seen, self.reference, 1.0), 0.0)

    def size(self, given: Size) -> Size:
        """Return a number as it is, and an array of one per problem as ``(*batch, 1)``, outside any gradient graph."""
        return given if isinstance(given, float) else rows_like(self.xp, given, self.losses)[..., None]

    def masses(self) -> Array:
        """Return the reference as an array, also where it is uniform."""
        if self.reference is None:
            return self.xp.full_like(self.losses, 1.0 / self.losses.shape[-1])
        return self.reference


def _short(losses: Array) -> bool:
    """Whether these are rows that numpy sorts sooner than it finds one of their losses."""
    return losses.ndim > 1 and 0 < losses.shape[-1] <= _SHORT


def extremes(xp: Namespace, losses: Array, *, checked: bool) -> tuple[Array, Array]:
    """Return the largest and smallest loss, ``(*batch, 1)``; where ``checked`` a NaN may be the largest alone."""
    if not (checked and on_host(xp) and _short(losses)):
        return highest(xp, losses), lowest(xp, losses)
    n = losses.shape[-1]
    rows, count = losses.reshape(-1, n), max(BLOCK // n, 1)
    ends = np.empty((len(rows), 2))
    for start in range(0, len(rows), count):
        ends[start : start + count] = np.sort(rows[start : start + count], axis=-1)[:, [-1, 0]]
    shape = (*losses.shape[:-1], 1)
    return ends[:, 0].reshape(shape), ends[:, 1].reshape(shape)


def centre(xp: Namespace, losses: Array, reference: Array | None, bounds: tuple[Array, Array] | None = None) -> Problem:
    """Subtract the largest loss and divide by the range (by 1 if that is 0).

    ``bounds`` are the largest and smallest loss, if all scenarios count; by default those of positive mass do.
    """
    if bounds is None:
        assert reference is not None
        seen: Array = reference > 0
        if on_host(xp) and seen.all():
            high, low = highest(xp, losses), lowest(xp, losses)
        else:
            high = highest(xp, xp.where(seen, losses, -xp.inf))
            low = lowest(xp, xp.where(seen, losses, xp.inf))
            losses = xp.where(seen, losses, low)
    else:
        high, low = bounds
    spread = high - low
    if on_host(xp) and spread.size == 1:
        scale = spread if spread.item() else np.ones_like(spread)
    else:
        scale = xp.where(spread == 0, 1.0, spread)  # not finite where a loss is not
    centred = losses - high
    centred /= scale
    return Problem(xp, centred, reference, high, scale, scale, high)
