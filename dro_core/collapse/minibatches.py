"""Minibatches drawn without replacement, under sets whose weights go by rank: total variation and CVaR.

The mean worst case of the minibatches of a sample is the worst case of their mean order statistics, and of the sample
under one weight per rank: those of the minibatch, each shared among the places it may come from.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as _sparse  # pyright: ignore[reportMissingTypeStubs]

from .._solvers.arrays import Array

sparse: Any = _sparse  # scipy ships no type hints

_UNLIKELY = -60.0  # log of a chance, relative to the largest, that sums do not see
_SLACK = 1e-12  # of sums of weights, for rounding
_HALVINGS = 50


@lru_cache(maxsize=8)
def chances(n: int, batch: int) -> Any:
    """Return how likely the margin of each rank in a minibatch is that of each rank in the sample.

    Shape ``(batch, n)``, sparse; rows sum to 1, columns to batch / n.
    """
    spare = n - batch  # so many places a rank may be later in the sample
    logs = np.log(np.arange(1, n + 1))
    values: list[Array] = []
    places: list[Array] = []
    for rank in range(batch):  # from place to place by ratios, which round less than factorials
        later = logs[rank : rank + spare] + logs[:spare][::-1]
        sooner = logs[:spare] + logs[batch - 1 - rank : n - 1 - rank][::-1]
        growth = np.cumsum(np.r_[0.0, later - sooner])
        seen = np.flatnonzero(growth - growth.max() > _UNLIKELY)
        chance = np.exp(growth[seen] - growth.max())
        values.append(chance / chance.sum())
        places.append(seen + rank)
    starts = np.cumsum([0, *map(len, places)])
    return sparse.csr_array((np.concatenate(values), np.concatenate(places), starts), shape=(batch, n))


def order_means(values: Array, batch: int) -> Array:
    """Return the means, over all minibatches, of each of their sorted values: ``(*lots, batch)`` of ``(*lots, n)``."""
    rows = np.sort(values, axis=-1).reshape(-1, values.shape[-1])
    return (chances(values.shape[-1], batch) @ rows.T).T.reshape(*values.shape[:-1], batch)


class RankWeights:
    """The weights of a sample of ``n`` whose minibatches are reweighed, by the size of the set: "tv" or "cvar"."""

    def __init__(self, name: str, n: int, batch: int) -> None:
        self.name, self.batch = name, batch
        self.smallest, self.largest = (1.0, 1 / batch) if name == "cvar" else (0.0, 1 - 1 / batch)
        self.never = 0.0 if name == "cvar" else np.inf
        self._shares = chances(n, batch).T.tocsr()

    def __call__(self, size: float) -> Array:
        """Return the weight of each rank, ``(n,)``: the smallest margin has the first one, which is the largest."""
        below = np.arange(self.batch) / self.batch
        if self.name == "cvar":
            weights = np.clip(1 - below / size, 0.0, 1 / (size * self.batch))
        else:
            weights = np.clip(1 - size - below, 0.0, 1 / self.batch)
            weights[0] += size
        return np.sort(self._shares @ weights)[::-1]  # sorted but for rounding

    def beyond(self, size: float, share: float) -> float:
        """Return a set that is larger by such a share, unless none is."""
        if self.name == "cvar":
            return max(size / (1 + share), self.largest)
        return min(size * (1 + share), self.largest)

    def exceeds(self, size: float, other: float) -> bool:
        """Return whether a set is the larger one."""
        return size < other if self.name == "cvar" else size > other

    def least_size(self, weights: Array) -> float:
        """Return the least set that has weights ``(n,)`` which sum to 1; infinite (CVaR: 0) if none has.

        They are an average of permuted rank weights if and only if no sum of their largest ones is larger (Rado).
        """
        sums = np.cumsum(np.sort(weights)[::-1])

        def held(size: float) -> bool:
            return bool(np.all(sums <= np.cumsum(self(size)) + _SLACK))

        if not held(self.largest):
            return self.never
        outside, inside = self.smallest, self.largest
        for _ in range(_HALVINGS):
            middle = (outside + inside) / 2
            outside, inside = (outside, middle) if held(middle) else (middle, inside)
        return inside
