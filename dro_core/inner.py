"""The inner problem max_q <q, l>: validate, centre, solve in float64, package.

Centring subtracts the largest loss and divides by the range (by 1 if that is 0), so every set may assume
losses in [-1, 0]: translation equivariance and positive homogeneity hold by construction, at any sign and any
scale.
"""

from __future__ import annotations

from typing import NamedTuple

from . import _arrays
from ._arrays import Array, Namespace, total
from .sets import AmbiguitySet, Dual


class WorstCase(NamedTuple):
    """Solution: ``weights`` ``(*batch, n)`` summing to 1, ``value`` ``(*batch,)``, ``dual`` to certify."""

    weights: Array
    value: Array
    dual: Dual


class _Centred(NamedTuple):
    xp: Namespace
    losses: Array  # (*batch, n) in [-1, 0]
    reference: Array  # (*batch, n)
    shift: Array  # (*batch, 1)
    scale: Array  # (*batch, 1), positive


def _validated(
    losses: Array, reference: Array | None, *, check_finite: bool | None
) -> tuple[Namespace, Array, Array | None]:
    xp = _arrays.namespace_of(losses, reference)
    exact = _arrays.as_float64(xp, losses, "losses")
    if losses.ndim == 0 or losses.shape[-1] == 0:
        raise ValueError(
            f"losses must have at least one scenario on the last axis, got shape {tuple(losses.shape)}; "
            "skip empty batches."
        )
    checked = _arrays.is_checked(xp, check_finite=check_finite)
    if checked:
        _arrays.require_finite(xp, exact)
    if reference is None:
        return xp, exact, None
    masses = _arrays.as_float64(xp, reference, "reference")
    if masses.ndim == 0 or masses.shape[-1] != losses.shape[-1] or masses.ndim > losses.ndim:
        raise ValueError(
            f"reference must have shape (n,) or that of losses, {tuple(losses.shape)}, got {tuple(reference.shape)}."
        )
    if checked:
        eps = float(xp.finfo(_arrays.result_dtype(xp, reference)).eps)
        _arrays.require_distribution(xp, masses, max(1e-6, 8 * eps))
    return xp, exact, masses


def _centred(losses: Array, reference: Array | None, *, check_finite: bool | None = None) -> _Centred:
    xp, exact, masses = _validated(losses, reference, check_finite=check_finite)
    if masses is None:
        masses = _arrays.uniform_like(xp, exact)
        high, low = xp.max(exact, axis=-1, keepdims=True), xp.min(exact, axis=-1, keepdims=True)
    else:
        masses = xp.broadcast_to(masses / total(xp, masses), exact.shape)
        seen = masses > 0
        high = xp.max(xp.where(seen, exact, -xp.inf), axis=-1, keepdims=True)
        low = xp.min(xp.where(seen, exact, xp.inf), axis=-1, keepdims=True)
        exact = xp.where(seen, exact, low)
    spread = high - low
    scale = xp.where(spread > 0, spread, 1.0)
    return _Centred(xp, (exact - high) / scale, masses, high, scale)


def worst_case(
    losses: Array,
    ambiguity: AmbiguitySet,
    *,
    reference: Array | None = None,
    check_finite: bool | None = None,
) -> WorstCase:
    """Solve max_q <q, losses> over an ambiguity set around the reference.

    Args:
        losses: Shape ``(*batch, n)``, larger is worse: one problem per leading index, scenarios on the last
            axis. Any real dtype of numpy, torch or another array-API library; a gradient graph is left alone.
        ambiguity: The set, for example ``TotalVariation(0.2)``.
        reference: Shape ``(n,)`` or that of ``losses``: nonnegative, summing to 1. Uniform by default. A
            scenario of zero mass gets zero weight and its loss is not seen.
        check_finite: Whether to look for NaN, infinite losses and a bad reference. By default only on numpy,
            because on a GPU the look waits for the device.

    Returns:
        Weights and value in the dtype of ``losses`` (float64 for integers), the dual variables in float64.

    Raises:
        TypeError: Not an array, complex or boolean losses, or arrays of two libraries.
        ValueError: No scenario, a loss that is not finite (its index is named), or a bad reference.

    Example:
        >>> import numpy as np
        >>> from dro_core import TotalVariation, worst_case
        >>> worst = worst_case(np.array([4.0, 0.0, 1.0, 2.0]), TotalVariation(0.5))
        >>> worst.weights.tolist(), float(worst.value)
        ([0.75, 0.0, 0.0, 0.25], 3.5)
    """
    xp, centred, masses, shift, scale = _centred(losses, reference, check_finite=check_finite)
    weights, dual = ambiguity.maximise(xp, centred, masses)
    dtype = _arrays.result_dtype(xp, losses)
    value = shift + scale * total(xp, weights * centred)
    return WorstCase(
        xp.astype(weights, dtype),
        xp.astype(value[..., 0], dtype),
        Dual((scale * dual.multiplier)[..., 0], (shift + scale * dual.threshold)[..., 0]),
    )


def robust_loss(
    losses: Array,
    ambiguity: AmbiguitySet,
    *,
    reference: Array | None = None,
    check_finite: bool | None = None,
) -> Array:
    """Return the worst-case value, differentiable in torch with the worst-case weights as its gradient.

    This is Danskin's theorem: where the maximiser is unique its weights are the gradient, elsewhere a
    subgradient. First order only: the weights are constants to autograd, so second derivatives miss their
    change.

    Args:
        losses: Shape ``(*batch, n)``, unreduced; see ``worst_case``.
        ambiguity: The set.
        reference: See ``worst_case``; no gradient flows to it.
        check_finite: See ``worst_case``.

    Returns:
        Shape ``(*batch,)``, dtype of ``losses``; equals ``worst_case(...).value``.

    Example:
        >>> import numpy as np
        >>> from dro_core import CVaR, robust_loss
        >>> float(robust_loss(np.array([1.0, 2.0, 3.0, 6.0]), CVaR(alpha=0.5)))
        4.5
    """
    worst = worst_case(losses, ambiguity, reference=reference, check_finite=check_finite)
    if not hasattr(losses, "detach"):
        return worst.value
    # The sum is exactly zero. It carries the gradient, while the value keeps its float64 accuracy: <q,
    # losses> in float32 or bfloat16 would round at the size of the losses, not of their range.
    xp = _arrays.namespace_of(losses)
    return worst.value + xp.sum(worst.weights * (losses - losses.detach()), axis=-1)


def _dual_value(problem: _Centred, ambiguity: AmbiguitySet, dual: Dual) -> Array:
    xp, centred, masses, shift, scale = problem
    multiplier = _arrays.float64_like(xp, dual.multiplier, centred)[..., None] / scale
    threshold = (_arrays.float64_like(xp, dual.threshold, centred)[..., None] - shift) / scale
    feasible = (multiplier >= 0) & xp.isfinite(multiplier) & xp.isfinite(threshold)
    safe = Dual(xp.where(feasible, multiplier, 0.0), xp.where(feasible, threshold, 0.0))
    return xp.where(feasible, ambiguity.dual_value(xp, centred, masses, safe), xp.inf)


def dual_objective(losses: Array, ambiguity: AmbiguitySet, dual: Dual, *, reference: Array | None = None) -> Array:
    """Evaluate the dual: an upper bound of the worst-case value at every feasible point, tight at the best.

    Args:
        losses: Shape ``(*batch, n)``.
        ambiguity: The set; its docstring states the dual function.
        dual: Multiplier and threshold, numbers or arrays of shape ``(*batch,)``.
        reference: See ``worst_case``.

    Returns:
        Shape ``(*batch,)``, float64; infinite where the dual is infeasible.

    Example:
        >>> import numpy as np
        >>> from dro_core import CVaR, Dual, dual_objective
        >>> float(dual_objective(np.array([1.0, 2.0, 3.0, 6.0]), CVaR(alpha=0.5), Dual(0.0, 1.0)))
        5.0
    """
    problem = _centred(losses, reference)
    value = problem.shift + problem.scale * _dual_value(problem, ambiguity, dual)
    return value[..., 0]


def duality_gap(losses: Array, ambiguity: AmbiguitySet, result: WorstCase, *, reference: Array | None = None) -> Array:
    """Return dual minus primal value of a result: with feasible weights, a bound on their suboptimality.

    Both sides are taken on centred losses in float64, so a large common offset does not blur the difference.

    Args:
        losses: Shape ``(*batch, n)``, those the result was computed for.
        ambiguity: The set.
        result: Any weights and dual, also from another solver.
        reference: See ``worst_case``.

    Returns:
        Shape ``(*batch,)``, float64: nonnegative up to rounding, below 1e-9 of the range for our float64
        solutions.

    Example:
        >>> import numpy as np
        >>> from dro_core import KL, duality_gap, worst_case
        >>> losses = np.array([0.5, 0.1, 2.0])
        >>> abs(float(duality_gap(losses, KL(0.3), worst_case(losses, KL(0.3))))) < 1e-12
        True
    """
    problem = _centred(losses, reference)
    xp = problem.xp
    weights = _arrays.as_float64(xp, result.weights, "weights")
    primal = total(xp, weights * problem.losses)
    return (problem.scale * (_dual_value(problem, ambiguity, result.dual) - primal))[..., 0]
