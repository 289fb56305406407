"""The inner problem max_q <q, l>: validate, centre, solve in float64, package.

Centring subtracts the largest loss and divides by the range, so every set may assume losses in [-1, 0]:
translation equivariance and positive homogeneity hold by construction, at any sign and any scale. Tensors in
main memory are solved by numpy through a view, all others by their own library without a look at a value.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ._solvers import arrays, graph
from ._solvers.arrays import Array, Namespace, highest, lowest, total
from ._solvers.certificate import bound_of, dual_value, primal_value, warn_unless_certified
from ._solvers.problem import BLOCK, Problem, centre, extremes
from .sets.ambiguity import AmbiguitySet, Dual, require_fit


class WorstCase(NamedTuple):
    """Solution: ``weights`` ``(*batch, n)`` summing to 1, ``value`` ``(*batch,)``, ``dual`` to certify."""

    weights: Array
    value: Array
    dual: Dual


class _Validated(NamedTuple):
    xp: Namespace
    losses: Array  # (*batch, n), float64
    reference: Array | None  # (*batch, n), float64, summing to 1
    bounds: tuple[Array, Array] | None  # largest and smallest loss, (*batch, 1); None where zero masses hide some
    finite: bool = True  # known to be so
    delicate: bool = False  # with masses so tiny that the answer is certified before it is returned


def _validated(
    losses: Array, ambiguity: AmbiguitySet, reference: Array | None, *, check_finite: bool | None = None
) -> _Validated:
    given: Any = ambiguity
    if not isinstance(given, AmbiguitySet):
        raise TypeError(
            f"ambiguity must be a set such as TotalVariation(0.2), got {given!r}; text goes through parse_ambiguity, "
            "and plain averaging is losses.mean(-1)."
        )
    xp = arrays.namespace_of(losses, reference)
    exact = arrays.as_float64(xp, losses, "losses")
    if losses.ndim == 0 or losses.shape[-1] == 0:
        raise ValueError(
            f"losses must have at least one scenario on the last axis, got shape {tuple(losses.shape)}; "
            "skip empty batches."
        )
    require_fit(ambiguity, tuple(losses.shape))
    checked = check_finite
    if checked is None:
        checked = all(part is None or arrays.as_numpy(part) is not None for part in (losses, reference))
    if reference is None:
        bounds = extremes(xp, exact, checked=checked)
        if checked:
            arrays.require_finite(xp, exact, bounds)
        return _Validated(xp, exact, None, bounds, checked)
    bounds = highest(xp, exact), lowest(xp, exact)
    masses = arrays.as_float64(xp, reference, "reference")
    if masses.ndim == 0 or tuple(masses.shape) not in (tuple(losses.shape), tuple(losses.shape[-1:])):
        raise ValueError(
            f"reference must have shape (n,) or that of losses, {tuple(losses.shape)}, got {tuple(reference.shape)}."
        )
    if arrays.device(masses) != arrays.device(exact):
        raise ValueError(f"reference must be on the device of the losses, {arrays.device(exact)}; move it there.")
    tiny = False
    if checked:
        eps = float(xp.finfo(arrays.result_dtype(xp, reference)).eps)
        tiny = arrays.require_distribution(xp, masses, max(1e-6, 8 * eps))
        arrays.require_finite(xp, exact, bounds, None if ambiguity.sees_zero_mass else masses)
    masses = xp.broadcast_to(masses / total(xp, masses), exact.shape)
    delicate = tiny and arrays.on_host(xp) and not ambiguity.sees_zero_mass
    return _Validated(xp, exact, masses, bounds if ambiguity.sees_zero_mass else None, checked, delicate)


def _optimum(given: _Validated, ambiguity: AmbiguitySet) -> tuple[Array, ...]:
    """Return weights ``(*batch, n)``, value, multiplier and threshold ``(*batch, 1)``, in float64."""
    problem = centre(*given[:4])
    looked_at = given.finite and (arrays.on_host(given.xp) or ambiguity.sizes is None)
    if not looked_at and ambiguity.sizes is not None:
        # A size that no one looked at may be NaN, or stand for several where the losses stand for themselves.
        sizes: Array = problem.size(ambiguity.sizes)
        unseen = given.xp.where(given.xp.isnan(sizes), sizes, given.xp.zeros_like(sizes))
        problem = problem._replace(losses=problem.losses + unseen, scale=problem.scale + unseen)
    weights, (multiplier, threshold) = ambiguity.maximise(problem)
    shift, scale = problem.shift, problem.scale
    if not looked_at:
        # What is chosen by comparisons would be 0 for NaN, and a gradient of 0 skips a step in silence.
        blank = 0.0 * scale
        weights, multiplier, threshold = weights + blank, multiplier + blank, threshold + blank
    value = ambiguity.value(problem, weights, Dual(multiplier, threshold))
    if given.delicate:
        warn_unless_certified(problem, ambiguity, Dual(multiplier, threshold), value)
    return weights, shift + scale * value, scale * multiplier, shift + scale * threshold


def _solved(given: _Validated, ambiguity: AmbiguitySet) -> tuple[Array, ...]:
    """Solve; a large batch in main memory some rows at a time, so that what lies between stays in the cache."""
    xp, losses, reference, bounds = given[:4]
    if not arrays.on_host(xp):
        return _optimum(given, ambiguity)
    n = losses.shape[-1]
    rows = max(BLOCK // n, 1)
    if losses.size <= 2 * rows * n or ambiguity.has_rows:
        return _optimum(given, ambiguity)

    def block(array: Array, start: int) -> Array:
        return array.reshape(-1, array.shape[-1])[start : start + rows]

    # Written where it belongs at once, so that the next block finds the memory of this one, not fresh pages.
    found = [np.empty((losses.size // n, width)) for width in (n, 1, 1, 1)]
    for start in range(0, losses.size // n, rows):
        given_here = _Validated(
            xp,
            block(losses, start),
            None if reference is None else block(reference, start),
            None if bounds is None else (block(bounds[0], start), block(bounds[1], start)),
            given.finite,
            given.delicate,
        )
        for whole, part in zip(found, _optimum(given_here, ambiguity), strict=True):
            whole[start : start + rows] = part
    return tuple(part.reshape(*losses.shape[:-1], -1) for part in found)


def _solve(losses: Array, ambiguity: AmbiguitySet, reference: Array | None, *, check_finite: bool | None) -> WorstCase:
    given = _validated(losses, ambiguity, reference, check_finite=check_finite)
    with arrays.quiet(given.xp):
        weights, value, multiplier, threshold = _solved(given, ambiguity)
    dtype = arrays.result_dtype(given.xp, losses)
    weights, value = (arrays.cast(given.xp, part, dtype) for part in (weights, value))
    return WorstCase(weights, value[..., 0], Dual(multiplier[..., 0], threshold[..., 0]))


def _found(losses: Array, ambiguity: AmbiguitySet, reference: Array | None, *, check_finite: bool | None) -> WorstCase:
    """Solve outside any gradient graph, tensors in main memory by numpy."""
    hosted, masses = arrays.as_numpy(losses), None if reference is None else arrays.as_numpy(reference)
    mixed = reference is not None and (masses is None or (masses is reference) != (hosted is losses))
    if hosted is None or hosted is losses or mixed or graph.is_transformed(ambiguity.sizes):
        return _solve(losses, ambiguity, reference, check_finite=check_finite)
    weights, value, dual = _solve(hosted, ambiguity, masses, check_finite=check_finite)
    dtype = losses.dtype if losses.is_floating_point() else None
    weights, value = (arrays.as_tensor(part, dtype) for part in (weights, value))
    return WorstCase(weights, value, Dual(*(arrays.as_tensor(part) for part in dual)))


def _answer(losses: Array, ambiguity: AmbiguitySet, reference: Array | None, worst: WorstCase) -> graph.Answer:
    def problem() -> Problem:
        return centre(*_validated(losses, ambiguity, reference, check_finite=False)[:4])

    return graph.Answer(losses, ambiguity, problem, *worst, masked=reference is not None)


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
            axis. Any real dtype of numpy, torch or another array-API library.
        ambiguity: The set, for example ``TotalVariation(0.2)``; its size is a number, or an array that broadcasts to
            ``(*batch,)``.
        reference: Shape ``(n,)`` or that of ``losses``: nonnegative, summing to 1. Uniform by default. A
            scenario of zero mass gets zero weight and its loss is not seen: it may be NaN, which masks it, but
            for ``Wasserstein``, ``MeanDiscrepancy`` and ``ConvexSet``, which may move mass there.
        check_finite: Whether to look for NaN, infinite losses and a bad reference. By default only in main
            memory, because on a GPU the look waits for the device. Where no one looks, a loss that is not finite
            makes all weights of its problem NaN, and the value.

    Returns:
        Weights and value in the dtype of ``losses`` (float64 for integers), the dual variables in float64. In torch
        the weights are differentiable in the losses (zero where they are piecewise constant; not for ``ConvexSet``);
        ``detach()`` them to use them as constants. Value and dual are outside the graph: see ``robust_loss``.

    Warns:
        RuntimeWarning: An answer of a duality gap above 1e-9 of the range; looked for in main memory where a mass is
            positive and below 1e-12, and rounding could hide it.

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
    worst = _found(losses, ambiguity, reference, check_finite=check_finite)
    if not graph.is_tensor(losses) or not ambiguity.has_jacobian:
        return worst
    return worst._replace(weights=graph.connected_weights(_answer(losses, ambiguity, reference, worst)))


def robust_loss(
    losses: Array,
    ambiguity: AmbiguitySet,
    *,
    reference: Array | None = None,
    check_finite: bool | None = None,
) -> Array:
    """Return the worst-case value, differentiable in torch with the worst-case weights as its gradient.

    This is Danskin's theorem: where the maximiser is unique its weights are the gradient, elsewhere a
    subgradient. The Hessian is the Jacobian of the weights, exact where their support is locally constant; at
    constant losses and other kinks of a set it is stated as zero. A third derivative is infinite or NaN.

    Args:
        losses: Shape ``(*batch, n)``, unreduced; see ``worst_case``.
        ambiguity: The set. A size that is a tensor gets its gradient, too, and with it no second derivative is finite.
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
    worst = _found(losses, ambiguity, reference, check_finite=check_finite)
    if not graph.is_tensor(losses):
        graph.require_no_gradient(ambiguity)
        return worst.value
    # Not as <q, losses>, which in float32 or bfloat16 would round at the size of the losses, not of their range.
    return graph.connected_value(_answer(losses, ambiguity, reference, worst))


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
    problem = centre(*_validated(losses, ambiguity, reference)[:4])
    with arrays.quiet(problem.xp):
        value = problem.shift + problem.scale * dual_value(problem, ambiguity, dual)
    return value[..., 0]


def duality_gap(losses: Array, ambiguity: AmbiguitySet, result: WorstCase, *, reference: Array | None = None) -> Array:
    """Return dual minus primal value of a result: with feasible weights, a bound on their suboptimality.

    Both sides are taken on centred losses in float64, so a large common offset does not blur them.

    Args:
        losses: Shape ``(*batch, n)``, those the result was computed for.
        ambiguity: The set.
        result: Any weights and dual, also from another solver.
        reference: See ``worst_case``.

    Returns:
        Shape ``(*batch,)``, float64: nonnegative up to rounding; for our float64 solutions below 1e-9 of the
        range and a rounding of the largest loss (the threshold is stored as a loss).

    Example:
        >>> import numpy as np
        >>> from dro_core import KL, duality_gap, worst_case
        >>> losses = np.array([0.5, 0.1, 2.0])
        >>> abs(float(duality_gap(losses, KL(0.3), worst_case(losses, KL(0.3))))) < 1e-12
        True
    """
    problem = centre(*_validated(losses, ambiguity, reference)[:4])
    weights = arrays.as_float64(problem.xp, result.weights, "weights")
    with arrays.quiet(problem.xp):
        gap = bound_of(problem, ambiguity, result.dual) - primal_value(problem, ambiguity, weights)
    return (problem.scale * gap)[..., 0]
