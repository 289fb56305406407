"""What a set of weights does to the sample it is computed from."""

from __future__ import annotations

from . import _arrays
from ._arrays import Array


def effective_sample_size(weights: Array) -> Array:
    """Return (sum w)^2 / sum w^2 over the last axis: how many equally weighted scenarios are as informative.

    Args:
        weights: Shape ``(*batch, n)``, nonnegative, not all zero.

    Returns:
        Shape ``(*batch,)``, between 1 and n, in the dtype of the weights.

    Example:
        >>> import numpy as np
        >>> float(effective_sample_size(np.array([0.5, 0.5, 0.0])))
        2.0
    """
    xp = _arrays.namespace_of(weights)
    exact = _arrays.as_float64(xp, weights, "weights")
    size = xp.sum(exact, axis=-1) ** 2 / xp.sum(exact * exact, axis=-1)
    return xp.astype(size, _arrays.result_dtype(xp, weights))


def largest_multiplier(weights: Array, reference: Array | None = None) -> Array:
    """Return max q/p over the last axis: how many times its usual share the heaviest scenario gets.

    Args:
        weights: Shape ``(*batch, n)``, the weights q.
        reference: Shape ``(n,)`` or ``(*batch, n)``, the distribution p; uniform by default. Scenarios with p
            = 0 are not seen.

    Returns:
        Shape ``(*batch,)``, in the dtype of the weights.

    Example:
        >>> import numpy as np
        >>> float(largest_multiplier(np.array([0.5, 0.25, 0.25, 0.0])))
        2.0
    """
    xp = _arrays.namespace_of(weights, reference)
    exact = _arrays.as_float64(xp, weights, "weights")
    if reference is None:
        ratio = exact * weights.shape[-1]
    else:
        masses = _arrays.as_float64(xp, reference, "reference")
        ratio = xp.where(masses > 0, exact / xp.where(masses > 0, masses, 1.0), 0.0)
    return xp.astype(xp.max(ratio, axis=-1), _arrays.result_dtype(xp, weights))
