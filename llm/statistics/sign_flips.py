"""The exact test of paired differences that are mostly 0: random signs for the few that are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

EXACT_BELOW = 25  # changed units under which the signs are enumerated, as McNemar's test does


def sign_flip_p(differences: ArrayLike) -> float:
    """Two-sided p-value of the sum of the differences, among all sums that other signs of them would give.

    If neither model is better, every independent unit could as well have come out the other way round. So k units that
    changed give no p-value below 2 / 2^k, and k changes of equal size give McNemar's exact p-value.

    Args:
        differences: Shape (units,), one finite sum per independent unit; units without a change do not matter.

    Returns:
        The share of the signs whose sum is as far from 0; 0.0, no bound at all, from 25 changed units on.

    >>> sign_flip_p([1, 1, 1, 1, 0, 0]), sign_flip_p([1, 1, -1])
    (0.125, 1.0)
    """
    values = np.asarray(differences, dtype=np.float64)
    changed = np.abs(values[np.abs(values) > 1e-12])
    if len(changed) >= EXACT_BELOW:
        return 0.0
    # 2^24 sums at most, counted without being listed: those of one half sorted, looked up for each of the other half.
    middle = len(changed) // 2
    one, other = np.sort(_sums(changed[:middle])), _sums(changed[middle:])
    least = abs(values.sum()) - 1e-9
    as_far = len(one) * len(other) - int(np.searchsorted(one, least - other).sum())
    return min(1.0, 2.0 * as_far / (len(one) * len(other)))


def no_surer(reach: float, p: float, differences: ArrayLike, freedom: float, level: float) -> tuple[float, float]:
    """Half the width of a t-interval of the sum of the differences and its p-value, no surer than random signs are.

    Where t excludes 0 and the signs do not, the limits become test-based: of the standard error that gives the exact
    p-value. So the interval still excludes 0 exactly where the p-value is below 1 - level.

    Args:
        reach: Half the width, in units of the sum.
        p: Two-sided p-value of the t-test.
        differences: As in :func:`sign_flip_p`.
        freedom: Degrees of freedom of t.
        level: Confidence level of the interval.
    """
    exact = sign_flip_p(differences)
    if p < 1.0 - level <= exact:
        wanted, given = special.stdtrit(freedom, [0.5 + level / 2, 1.0 - exact / 2])
        reach = abs(float(np.sum(differences))) * float(wanted / given)
    return reach, max(p, exact)


def _sums(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """All sums of ``sizes``, shape (k,), under every choice of signs; shape (2^k,)."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums
