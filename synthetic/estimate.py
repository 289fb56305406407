"""A number that was simulated, with the interval it lies in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean and its two-sided confidence interval; numbers, or vectors of one shape."""

    value: Array
    low: Array
    high: Array


def mean_estimate(draws: ArrayLike, error: float, *, bounds: tuple[float, float] | None = None) -> Estimate:
    """Estimate E X from independent draws, with an interval that misses it with probability at most ``error``.

    Without bounds: Student's t, valid for many draws by the central limit theorem. With the bounds of one draw: the
    empirical Bernstein interval, valid for every number of draws [MP09].

    Args:
        draws: Shape ``(n,)`` or ``(n, k)``, n >= 2; each of the k columns gets its own interval.
        error: In (0, 1), for one column: divide it by the number of comparisons you will make.
        bounds: The smallest and largest value a draw can take.

    Returns:
        Parts of shape ``()`` or ``(k,)``.

    Example:
        >>> estimate = mean_estimate(np.arange(101.0), 0.05)
        >>> float(estimate.value), round(float(estimate.high - estimate.low), 3)
        (50.0, 11.568)
    """
    draws = np.asarray(draws, float)
    if draws.ndim not in (1, 2) or len(draws) < 2:
        raise ValueError(f"draws must have shape (n,) or (n, k) with n >= 2, got {draws.shape}: draw more.")
    if not 0 < error < 1:
        raise ValueError(f"error must lie in (0, 1), got {error}: it is the chance that the interval misses the mean.")
    n, value, variance = len(draws), draws.mean(axis=0), draws.var(axis=0, ddof=1)
    if bounds is None:
        half = stdtrit(n - 1, 1 - error / 2) * np.sqrt(variance / n)
        return Estimate(value, value - half, value + half)
    smallest, largest = bounds
    if draws.min() < smallest or draws.max() > largest:
        raise ValueError(f"bounds {bounds} do not hold the draws, which reach from {draws.min()} to {draws.max()}.")
    logarithm = np.log(4 / error)  # each side has half of the error
    half = np.sqrt(2 * variance * logarithm / n) + 7 * (largest - smallest) * logarithm / (3 * (n - 1))
    return Estimate(value, np.maximum(value - half, smallest), np.minimum(value + half, largest))
