"""Estimates from minibatches: plug-in, multilevel Monte Carlo, dual SGD; and what weights do to their sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .._solvers import arrays
from .._solvers.arrays import Array
from ..inner import worst_case
from ..sets.ambiguity import AmbiguitySet, require_one_size
from ..sets.penalties import ChiSquarePenalty, KLPenalty
from ..sets.sorted import CVaR, Spectral, TotalVariation
from .moments import Tailed, checked_levels, tail_mixture


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
    xp = arrays.namespace_of(weights)
    exact = arrays.as_float64(xp, weights, "weights")
    size = xp.sum(exact, axis=-1) ** 2 / xp.sum(exact * exact, axis=-1)
    return xp.astype(size, arrays.result_dtype(xp, weights))


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
    xp = arrays.namespace_of(weights, reference)
    exact = arrays.as_float64(xp, weights, "weights")
    if reference is None:
        ratio = exact * weights.shape[-1]
    else:
        masses = arrays.as_float64(xp, reference, "reference")
        ratio = xp.where(masses > 0, exact / xp.where(masses > 0, masses, 1.0), 0.0)
    return xp.astype(xp.max(ratio, axis=-1), arrays.result_dtype(xp, weights))


class Estimate(NamedTuple):
    """A random estimate of the worst-case value and its gradient, and how many draws it took.

    ``value`` ``(*batch,)``, ``gradient`` ``(*batch, d)``.
    """

    value: Array
    gradient: Array
    draws: int


def plugin_estimate(losses: Array, gradients: Array, ambiguity: AmbiguitySet) -> Estimate:
    """Treat a minibatch as the population: its worst-case value and sum_i q_i g_i [L20, section 3].

    By Danskin's theorem the gradient is one of the minibatch's value. Its mean is a gradient of the mean
    plug-in value, which lies below the population's; see ``bias_bound`` and ``gradient_variance_bound``.

    Args:
        losses: Shape ``(*batch, n)``, independent draws.
        gradients: Shape ``(*batch, n, d)``, the gradient of every loss; d = 0 if only the value is wanted.
        ambiguity: The set.

    Returns:
        Value in the dtype of the losses, gradient in that of the gradients, draws = n.

    Raises:
        ValueError: Gradients that do not have one row per loss; else as ``worst_case``.

    Example:
        >>> import numpy as np
        >>> from dro_core import CVaR
        >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, 3.0]])
        >>> estimate = plugin_estimate(np.array([1.0, 2.0, 3.0, 6.0]), rows, CVaR(alpha=0.5))
        >>> float(estimate.value), estimate.gradient.tolist(), estimate.draws
        (4.5, [1.0, 2.5], 4)
    """
    worst = worst_case(losses, ambiguity)
    return Estimate(worst.value, _weighted_sum(worst.weights, gradients), int(losses.shape[-1]))


def _weighted_sum(weights: Array, gradients: Array) -> Array:
    xp = arrays.namespace_of(weights, gradients)
    if gradients.ndim == 0 or tuple(gradients.shape[:-1]) != tuple(weights.shape):
        raise ValueError(
            f"gradients must have shape (*losses.shape, d), got {tuple(gradients.shape)} for losses of shape "
            f"{tuple(weights.shape)}; give one row per loss, of length 0 if only the value is wanted."
        )
    dtype = arrays.result_dtype(xp, gradients)
    rows = xp.astype(weights, dtype)[..., None, :]
    return xp.matmul(rows, xp.astype(gradients, dtype))[..., 0, :]


def multilevel_estimate(
    sample: Callable[[np.random.Generator, int], tuple[Array, Array]],
    ambiguity: AmbiguitySet,
    rng: np.random.Generator,
    *,
    n_min: int,
    n_max: int,
) -> Estimate:
    """Estimate without bias what the plug-in of n_max draws estimates, from far fewer draws [L20, section 4].

    A level J in 1..m, m = log2(n_max / n_min), has P(J = j) = 2^-j, and 2^-(m-1) for j = m. From n_min 2^J
    draws the estimate is

        plugin(first n_min) + [plugin(all) - (plugin(first half) + plugin(second half)) / 2] / P(J).

    Its mean telescopes to that of plugin(n_max draws), value and gradient alike; the mean number of draws is
    ``multilevel_cost``. The second moment stays bounded for CVaR, max_ratio and the penalties
    (``multilevel_second_moment_bound``); for plain total variation it grows like n_max, and for the
    chi-square ball no bound holds [L20, Proposition 7].

    Args:
        sample: ``sample(rng, size)`` draws losses ``(size,)`` and their gradients ``(size, d)``.
        ambiguity: The set.
        rng: Source of the level; also handed to ``sample``.
        n_min: Draws of the first term.
        n_max: n_min times a power of 2; n_min itself gives the plug-in estimate.

    Raises:
        ValueError: n_max is not n_min times a power of 2, or ``sample`` returned another number of losses.

    Example:
        >>> import numpy as np
        >>> from dro_core import CVaR
        >>> normal = lambda rng, size: (rng.standard_normal(size), np.ones((size, 1)))
        >>> estimate = multilevel_estimate(normal, CVaR(0.25), np.random.default_rng(0), n_min=4, n_max=64)
        >>> estimate.draws, round(float(estimate.gradient[0]), 12)
        (16, 1.0)
    """
    levels = checked_levels(n_min, n_max)
    level = min(int(rng.geometric(0.5)), levels)
    size = n_min << level
    losses, gradients = sample(rng, size)
    if tuple(losses.shape) != (size,):
        raise ValueError(f"sample must return {size} losses, shape ({size},), got {tuple(losses.shape)}.")
    first = worst_case(losses[:n_min], ambiguity)
    if level == 0:
        return Estimate(first.value, _weighted_sum(first.weights, gradients), size)
    xp = arrays.namespace_of(losses)
    whole, halves = worst_case(losses, ambiguity), worst_case(xp.reshape(losses, (2, -1)), ambiguity)
    scale = 2.0 ** min(level, levels - 1)  # 1 / P(J)
    start = xp.concat([first.weights, xp.zeros_like(losses[n_min:], dtype=first.weights.dtype)])
    weights = start + scale * (whole.weights - xp.reshape(halves.weights, (-1,)) / 2)
    value = first.value + scale * (whole.value - xp.mean(halves.value))
    return Estimate(value, _weighted_sum(weights, gradients), size)


def multilevel_cost(n_min: int, n_max: int) -> float:
    """Return the mean number of draws of ``multilevel_estimate``, n_min (1 + log2(n_max/n_min)), exactly [L20].

    With m levels it is n_min [sum_{j < m} 2^-j 2^j + 2^-(m - 1) 2^m] = n_min (m + 1).

    Example:
        >>> multilevel_cost(4, 64)
        20.0
    """
    return float(n_min * (1 + checked_levels(n_min, n_max)))


class DualState(NamedTuple):
    """Where dual SGD stands: ``parameters`` ``(d,)`` and ``thresholds`` ``(k,)``, one for every term of the dual."""

    parameters: Array
    thresholds: Array


def dual_init(parameters: Array, losses: Array, ambiguity: AmbiguitySet) -> DualState:
    """Start dual SGD at the best thresholds of a first minibatch.

    Args:
        parameters: Shape ``(d,)``.
        losses: Shape ``(n,)``, the losses there.
        ambiguity: A set that ``dual_step`` takes.

    Example:
        >>> import numpy as np
        >>> from dro_core import CVaR
        >>> dual_init(np.zeros(2), np.array([1.0, 2.0, 3.0, 6.0]), CVaR(alpha=0.5)).thresholds.tolist()
        [3.0]
    """
    terms = [CVaR(alpha) for _, alpha in _carried_tails(ambiguity)] if isinstance(ambiguity, Tailed) else [ambiguity]
    xp = arrays.namespace_of(losses)
    state = DualState(parameters, xp.stack([worst_case(losses, term).dual.threshold for term in terms]))
    _dual_shares(losses, state.thresholds, ambiguity)  # refuses a set without such a dual
    return state


def dual_step(
    state: DualState,
    losses: Array,
    gradients: Array,
    ambiguity: AmbiguitySet,
    *,
    step_size: float,
    threshold_step: float | None = None,
) -> DualState:
    """Take a stochastic subgradient step on the dual, jointly in parameters and thresholds [L20, A.3].

    Where the dual is a minimum over thresholds of one expectation, single draws give unbiased subgradients and
    no minibatch bias arises; the price is a variance of order 1/alpha^2 instead of 1/alpha:

        CVaR(alpha)             eta + E (l - eta)_+ / alpha
        TotalVariation(r, c)    (1 - r) that of CVaR(1 - r) + r that of CVaR(r/(c - 1)), two thresholds; so Spectral
        ChiSquarePenalty(s)     eta + s/2 + E (l - eta)_+^2 / (2 s)
        KLPenalty(t)            eta - t + t E exp((l - eta) / t)

    Each is jointly convex in (parameters, eta) when the losses are convex. Plain total variation contains the
    maximum, which no finite number of draws estimates without bias; the duals of the chi-square and KL balls
    divide by a multiplier that may tend to 0, which leaves no bound on the variance.

    Args:
        state: From ``dual_init`` or the last step. Project or average its parameters outside:
            ``state._replace(parameters=...)``.
        losses: Shape ``(n,)``, fresh draws at ``state.parameters``; n = 1 will do.
        gradients: Shape ``(n, d)``.
        ambiguity: The set.
        step_size: For the parameters.
        threshold_step: For the thresholds, in the units of the losses; ``step_size`` if not given.

    Returns:
        The next state; the given one is unchanged.

    Raises:
        ValueError: A set without such a dual, or shapes that do not fit.

    Example:
        >>> import numpy as np
        >>> from dro_core import CVaR
        >>> state = DualState(np.array([1.0]), np.array([2.0]))
        >>> step = dual_step(state, np.array([3.0]), np.array([[1.0]]), CVaR(0.5), step_size=0.25)
        >>> step.parameters.tolist(), step.thresholds.tolist()
        ([0.5], [2.25])
    """
    shares, masses = _dual_shares(losses, state.thresholds, ambiguity)
    xp = arrays.namespace_of(losses)
    descent = _weighted_sum(xp.sum(shares, axis=-1) / losses.shape[-1], gradients)
    slope = masses - xp.mean(shares, axis=0)
    threshold_step = step_size if threshold_step is None else threshold_step
    return DualState(state.parameters - step_size * descent, state.thresholds - threshold_step * slope)


def _carried_tails(ambiguity: Tailed) -> list[tuple[float, float]]:
    tails = tail_mixture(ambiguity)
    if any(alpha == 0 for _, alpha in tails):
        raise ValueError(
            f"{ambiguity!r} has no unbiased dual subgradient: its value contains the maximum. "
            "Use TotalVariation(..., max_ratio=...)."
        )
    return tails


def _dual_shares(losses: Array, thresholds: Array, ambiguity: AmbiguitySet) -> tuple[Array, Array]:
    """Return what every draw puts on every dual term, ``(n, k)``, and the means that are best, ``(k,)``."""
    require_one_size(ambiguity)
    xp = arrays.namespace_of(losses, thresholds)
    excess = losses[:, None] - thresholds
    match ambiguity:
        case CVaR() | TotalVariation() | Spectral():
            tails = _carried_tails(ambiguity)
            masses = arrays.asarray_like(xp, [mass for mass, _ in tails], thresholds)
            rates = arrays.asarray_like(xp, [mass / alpha for mass, alpha in tails], thresholds)
            return xp.where(excess > 0, rates, 0.0), masses
        case ChiSquarePenalty(strength=strength):
            return xp.clip(excess, 0.0, None) / strength, xp.ones_like(thresholds)
        case KLPenalty(temperature=temperature):
            return xp.exp(excess / temperature), xp.ones_like(thresholds)
        case _:
            raise ValueError(
                f"{ambiguity!r} has no dual that is one expectation with bounded slopes. Use CVaR, TotalVariation "
                "with max_ratio, Spectral or a penalty; or plugin_estimate."
            )
