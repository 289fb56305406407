"""Best-of-n: draw n answers, keep the one with the highest proxy reward. The strong simple baseline of policy training.

From N answers per prompt every n <= N is estimated at once and without bias: a random subset of n of them is a sample
of best-of-n, and the expectation over all C(N, n) subsets is a weighted sum of the sorted answers. No subset is drawn.

How far best-of-n is from the policy that it samples from is known without knowing the policy: its KL divergence is at
most log n - (n-1)/n, with equality where no two answers have the same reward and none has a probability of its own
[2401.01879]. A policy with few likely answers stays nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Clusters, Interval, mean_interval

Floats: TypeAlias = NDArray[np.float64]


class Point(NamedTuple):
    """Best-of-n for one n: mean rewards over prompts with intervals, and the bound on the KL divergence in nats."""

    n: int
    kl_bound: float
    proxy: Interval
    gold: Interval


@dataclass(frozen=True)
class BestOfN:
    """Expected rewards of best-of-n per prompt.

    Attributes:
        sizes: The n, ascending, shape ``(s,)``.
        proxy: Expected proxy reward of the answer kept, ``(prompts, s)``.
        gold: Its expected gold reward, ``(prompts, s)``.
    """

    sizes: NDArray[np.intp]
    proxy: Floats
    gold: Floats

    @property
    def kl_bound(self) -> Floats:
        """Upper bound on the KL divergence to the sampling policy in nats, ``(s,)``, the same for every prompt."""
        return kl_bound(self.sizes)

    def points(self, clusters: Clusters = None, *, level: float = 0.95) -> list[Point]:
        """Means over prompts, one point per n.

        Args:
            clusters: One label per prompt; prompts with the same label are not independent.
            level: Confidence level of the intervals. They are about other prompts, with the same N answers each.
        """
        return [
            Point(
                int(n),
                float(kl),
                mean_interval(self.proxy[:, place], clusters, level=level),
                mean_interval(self.gold[:, place], clusters, level=level),
            )
            for place, (n, kl) in enumerate(zip(self.sizes, self.kl_bound, strict=True))
        ]


def best_of(proxy: ArrayLike, gold: ArrayLike, *, sizes: Sequence[int] | None = None) -> BestOfN:
    """Expected proxy and gold reward of best-of-n, by proxy, for every prompt and many n; unbiased.

    Between answers of the same proxy reward the choice is a fair draw, so their gold rewards enter by their mean.
    At n = N there is one subset left: the estimate is still unbiased, and as noisy as a single draw.

    Args:
        proxy: Rewards that choose, ``(prompts, N)``: N independent answers to every prompt.
        gold: Rewards that judge, the same answers.
        sizes: Which n; default: 1, 2, 4, ... up to N, and N.

    Raises:
        ValueError: Shapes differ, a reward is not finite, or an n is not in 1 ... N.

    >>> best_of([[0.0, 1.0, 2.0]], [[5.0, 9.0, 1.0]], sizes=[1, 2, 3]).gold.round(3).tolist()
    [[5.0, 3.667, 1.0]]
    """
    proxies, golds = _rewards(proxy, "proxy"), _rewards(gold, "gold")
    if proxies.shape != golds.shape:
        raise ValueError(f"proxy and gold must judge the same answers: shapes {proxies.shape} and {golds.shape}")
    samples = proxies.shape[1]
    kept = np.array(_doubling(samples) if sizes is None else sorted(set(sizes)), dtype=np.intp)
    if not len(kept) or kept[0] < 1 or kept[-1] > samples:
        raise ValueError(f"sizes must lie in 1 ... {samples}, the answers per prompt; got {list(sizes or ())}")
    order = np.argsort(proxies, axis=1, kind="stable")
    ascending = np.take_along_axis(proxies, order, axis=1)
    judged = _tie_means(ascending, np.take_along_axis(golds, order, axis=1))
    weights = selection_weights(samples, kept)
    return BestOfN(kept, ascending @ weights.T, judged @ weights.T)


def selection_weights(samples: int, sizes: ArrayLike) -> Floats:
    """Probability that the k-th smallest of N is the largest of a random subset of n: C(k-1, n-1) / C(N, n).

    Built from k = N downwards by the ratio (k-n) / (k-1) of neighbours, so there are no large binomials to overflow.

    Args:
        samples: N.
        sizes: The n, ``(s,)``.

    Returns:
        ``(s, N)``, rows sum to one.

    >>> selection_weights(4, [1, 2, 4]).round(3).tolist()
    [[0.25, 0.25, 0.25, 0.25], [0.0, 0.167, 0.333, 0.5], [0.0, 0.0, 0.0, 1.0]]
    """
    n = np.asarray(sizes, dtype=np.float64)[:, None]
    k = np.arange(samples, 1, -1, dtype=np.float64)
    ratios = np.maximum(k - n, 0.0) / (k - 1)
    descending = n / samples * np.cumprod(np.hstack([np.ones_like(n), ratios]), axis=1)
    return descending[:, ::-1]


def kl_bound(sizes: ArrayLike) -> Floats:
    """Upper bound on KL(best-of-n || policy) in nats, log n - (n-1)/n, shape of ``sizes`` [2401.01879, theorem 3.1].

    >>> kl_bound([1, 2, 1000]).round(3).tolist()
    [0.0, 0.193, 5.909]
    """
    n = np.asarray(sizes, dtype=np.float64)
    return np.log(n) - (n - 1) / n


def _tie_means(ascending: Floats, golds: Floats) -> Floats:
    """Gold rewards with each replaced by the mean over the answers of the same proxy reward, ``(prompts, N)``."""
    prompts, samples = ascending.shape
    starts = np.concatenate([np.ones((prompts, 1), bool), ascending[:, 1:] != ascending[:, :-1]], axis=1)
    group = np.cumsum(starts.reshape(-1)) - 1
    means = np.bincount(group, weights=golds.reshape(-1)) / np.bincount(group)
    return means[group].reshape(prompts, samples)


def _rewards(values: ArrayLike, name: str) -> Floats:
    rewards = np.asarray(values, dtype=np.float64)
    if rewards.ndim != 2 or not rewards.size:
        raise ValueError(f"{name} must be (prompts, answers per prompt), at least one of each; got {rewards.shape}")
    broken = np.flatnonzero(~np.isfinite(rewards).all(axis=1))
    if len(broken):
        raise ValueError(f"{name} has rewards that are nan or infinite, first for prompt {broken[0]}: check its model")
    return rewards


def _doubling(samples: int) -> list[int]:
    return sorted({*(2**power for power in range(samples.bit_length())), samples})
