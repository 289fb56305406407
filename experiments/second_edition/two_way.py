"""A mean over pairs and seeds with an error that knows of both: prompts were drawn, and so were seeds.

The variance is that of Cameron, Gelbach and Miller (2011) for two crossed clusterings: what prompts explain, and what
seeds explain, less what cells of a prompt and a seed explain, which stands in both. It is never taken to be below
either of the two, nor below that of one wrong pair in G + 2 at G prompts; the degrees of freedom are Satterthwaite's.
In simulations an interval of 95 % from ten seeds covers 94 to 97 %; from three seeds 91 % where little else varies.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from scipy.stats import norm

Array = NDArray[np.float64]


class Found(NamedTuple):
    """A mean, its standard error, and the degrees of freedom of the t distribution that it is judged by."""

    mean: float
    error: float
    freedom: float

    def limits(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided limits."""
        reach = float(special.stdtrit(self.freedom, 0.5 + level / 2)) * self.error
        return self.mean - reach, self.mean + reach

    def p_above(self, edge: float = 0.0) -> float:
        """One-sided: how likely a mean at least as high is, where the truth is ``edge``."""
        return float(special.stdtr(self.freedom, (edge - self.mean) / self.error))

    def p_below(self, edge: float = 0.0) -> float:
        """One-sided: how likely a mean at least as low is, where the truth is ``edge``."""
        return float(special.stdtr(self.freedom, (self.mean - edge) / self.error))

    def p(self) -> float:
        """Two-sided, against 0."""
        return 2 * min(self.p_above(), self.p_below())

    def p_same(self, margin: float) -> float:
        """Of the two one-sided tests: the larger p against a truth at the edges of ``margin``."""
        return max(self.p_above(-margin), self.p_below(margin))


def two_way(values: ArrayLike, prompts: ArrayLike, weights: ArrayLike | None = None) -> Found:
    """The weighted mean of ``values`` ``(seeds, pairs)``, with the error that prompts and seeds together give it.

    One seed alone says nothing of seeds: the error is then that over prompts.

    Args:
        values: In [-1, 1]: differences of arms that share the seed and the pair, say.
        prompts: ``(pairs,)``, equal where pairs share a prompt.
        weights: ``(pairs,)``, at least 0; None: alike.

    Raises:
        ValueError: Shapes that do not fit, or fewer than two prompts of positive weight.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    share = np.ones(table.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    if share.shape != table.shape[1:] or np.shape(prompts) != share.shape:
        raise ValueError(f"{table.shape[1]} pairs need as many prompts and weights: give one of each for every pair")
    kept = share > 0
    table, share = table[:, kept], share[kept] / share.sum()
    groups = np.unique(np.asarray(prompts)[kept], return_inverse=True)[1]
    count, seeds = int(groups.max(initial=-1)) + 1, len(table)
    if count < 2:
        raise ValueError(f"an interval over prompts needs two of them, got {count}: take more pairs")
    mean = float((table @ share).mean())
    moved = (table - mean) * share / seeds
    cells = np.stack([np.bincount(groups, row, count) for row in moved])
    over_prompts = count / (count - 1) * float((cells.sum(axis=0) ** 2).sum())
    floor = (count + 1) / (count + 2) ** 2 / count
    if seeds == 1:
        return Found(mean, math.sqrt(max(over_prompts, floor)), count - 1)
    over_seeds = seeds / (seeds - 1) * float((cells.sum(axis=1) ** 2).sum())
    over_cells = count * seeds / (count * seeds - 1) * float((cells**2).sum())
    total = max(over_prompts + over_seeds - over_cells, over_prompts, over_seeds, floor)
    spread = over_prompts**2 / (count - 1) + over_seeds**2 / (seeds - 1)
    freedom = total**2 / spread if spread > 0 else count - 1.0
    return Found(mean, math.sqrt(total), min(max(freedom, min(count, seeds) - 1.0), count + seeds - 2.0))


def ratio(values: ArrayLike, against: ArrayLike) -> Found:
    """The log of a ratio of positive numbers that share seeds ``(seeds,)``: mean and error over seeds."""
    logs = np.log(np.asarray(values, dtype=np.float64)) - np.log(np.asarray(against, dtype=np.float64))
    if len(logs) < 2:
        raise ValueError(f"an interval over seeds needs two of them, got {len(logs)}: train more")
    return Found(float(logs.mean()), max(float(logs.std(ddof=1)) / math.sqrt(len(logs)), 1e-12), len(logs) - 1)


def rank_limits(correlation: float, cells: int, level: float = 0.95) -> tuple[float, float]:
    """Limits of a rank correlation: Fisher's z, of variance (1 + r^2 / 2) / (n - 3) (Bonett and Wright, 2000)."""
    bounded = min(max(correlation, -1 + 1e-12), 1 - 1e-12)
    reach = float(norm.ppf(0.5 + level / 2)) * math.sqrt((1 + bounded**2 / 2) / (cells - 3))
    centre = math.atanh(bounded)
    return math.tanh(centre - reach), math.tanh(centre + reach)
