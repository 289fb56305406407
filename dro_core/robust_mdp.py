"""Robust Markov decision processes: an adversary picks every next-state distribution [I05, NE05].

    (T v)(s) = max_a [ rewards[s, a] + discount * min_q <q, v> ],   q in the ambiguity set around transitions[s, a].

The adversary chooses for each state and action by itself, (s, a)-rectangularity, so one batched call of the
solver on losses = -values is the whole inner problem. For every set and penalty of this package T is monotone,
and T (v + c) = T v + discount c for a number c. Everything below follows from these two properties alone; a
penalty, which is not positively homogeneous, contracts just as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ._solvers import arrays
from ._solvers.arrays import Array, Namespace
from .inner import robust_loss
from .sets.ambiguity import AmbiguitySet, checked_number


class RobustSolution(NamedTuple):
    """Answer of ``robust_value_iteration``, in the dtype of the rewards.

    ``values`` ``(S,)`` and ``action_values`` ``(S, A)`` are within ``error_bound`` of the exact ones. ``policy``
    ``(S, A)`` holds action probabilities, one row per state. ``iterations`` counts uses of the operator.
    """

    values: Array
    action_values: Array
    policy: Array
    iterations: int
    error_bound: float


def _require_shape(name: str, array: Array, symbols: str, expected: tuple[int, ...]) -> None:
    if tuple(array.shape) != expected:
        raise ValueError(f"{name} must have shape {symbols}, here {expected}, got {tuple(array.shape)}.")


def _require_model(rewards: Array, transitions: Array) -> None:
    if rewards.ndim != 2 or 0 in rewards.shape:
        raise ValueError(
            f"rewards must have shape (S, A) with at least one state and one action, got {tuple(rewards.shape)}; "
            "average rewards that depend on the next state over it first."
        )
    states, actions = rewards.shape
    _require_shape("transitions", transitions, "(S, A, S), next state last", (states, actions, states))


def robust_bellman(
    values: Array, rewards: Array, transitions: Array, discount: float, ambiguity: AmbiguitySet
) -> Array:
    """Apply the (s, a)-rectangular robust Bellman operator, short of choosing the action.

        Q[s, a] = rewards[s, a] + discount * min_q <q, values>,   q in the set around transitions[s, a].

    ``Q.max(axis=1)`` is the optimal backup T v, ``(policy * Q).sum(axis=1)`` that of a policy. Both contract the
    sup norm by ``discount`` for every set and penalty [I05, NE05]: v <= w + ||v - w|| gives T v <= T w + discount
    ||v - w||, and so with v and w exchanged. The adversary's choice is ``worst_case`` at losses = -values.

    Args:
        values: Shape ``(S,)``, larger is better.
        rewards: Shape ``(S, A)``, in the unit of the values.
        transitions: Shape ``(S, A, S)``, probabilities of the next state. One of probability 0 stays impossible,
            save in ``Wasserstein`` (cost ``(S, S)``), which moves mass to any state.
        discount: In [0, 1]; 1 for a finite horizon.
        ambiguity: The set, for example ``TotalVariation(0.1)``. Its radius may have shape ``(S, A)``, one for each
            state and action: ``ChiSquare(radius_from_confidence(ChiSquare, visits, 0.05))``.

    Returns:
        Shape ``(S, A)``. In torch its gradient in ``values`` is discount times the worst transitions (Danskin).

    Raises:
        ValueError: Shapes that do not fit, a discount outside [0, 1], and whatever ``worst_case`` refuses.

    Example:
        >>> import numpy as np
        >>> from dro_core import TotalVariation
        >>> transitions = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.5, 0.5]]])
        >>> rewards = np.array([[1.0, 0.0], [0.0, 0.5]])
        >>> robust_bellman(np.array([8.0, 0.0]), rewards, transitions, 0.5, TotalVariation(0.25)).tolist()
        [[2.0, 4.0], [0.0, 1.5]]
    """
    _require_model(rewards, transitions)
    _require_shape("values", values, "(S,)", (rewards.shape[0],))
    checked_number("discount", "the weight of the next state", "[0, 1]", discount, "Use for example 0.95.")
    xp = arrays.namespace_of(values, rewards, transitions)
    losses = xp.broadcast_to(-values, transitions.shape)
    return rewards - discount * robust_loss(losses, ambiguity, reference=transitions)


def _greedy(xp: Namespace, action_values: Array) -> Array:
    """Return the first best action of each state as a row of probabilities, ``(S, A)``."""
    is_best = action_values == xp.max(action_values, axis=1, keepdims=True)
    is_first = xp.cumulative_sum(xp.astype(is_best, xp.int64), axis=1) == 1
    return xp.astype(is_best & is_first, action_values.dtype)


def _checked_policy(xp: Namespace, policy: Array, rewards: Array) -> Array:
    _require_shape("policy", policy, "(S, A), action probabilities", tuple(rewards.shape))
    exact = arrays.as_float64(xp, policy, "policy")
    off = xp.max(xp.abs(xp.sum(exact, axis=1) - 1))
    if not bool(xp.all(exact >= 0)) or not bool(off <= 1e-6):
        raise ValueError(
            f"every row of policy must be nonnegative and sum to 1, the sums are off by {float(off):.3g}; "
            "give one probability per action, 1 for the action of a deterministic policy."
        )
    return exact


def _start(xp: Namespace, start: Array | None, rewards: Array) -> Array:
    if start is None:
        return xp.zeros_like(rewards[:, 0])
    _require_shape("start", start, "(S,)", (rewards.shape[0],))
    return arrays.as_float64(xp, start, "start")


class _Bracket(NamedTuple):
    """T v for the last v, and by how much the solution may lie above it: ``middle`` give or take ``bound``."""

    values: Array
    action_values: Array
    middle: float
    bound: float
    iterations: int


def _iterate(
    xp: Namespace,
    backup: Callable[[Array], tuple[Array, Array]],
    values: Array,
    discount: float,
    tolerance: float,
) -> _Bracket:
    """Apply ``backup``, which returns Q and T v, until the bracket is narrow enough or only rounding is left."""
    factor, iterations, limit = discount / (1 - discount), 0, math.inf
    while True:
        iterations += 1
        action_values, backed_up = backup(values)
        low, high = (float(extreme(backed_up - values)) for extreme in (xp.min, xp.max))
        values, bound = backed_up, factor * (high - low) / 2
        if not bound > tolerance or iterations >= limit:  # also stops at NaN, which a GPU does not report
            return _Bracket(values, action_values, factor * (high + low) / 2, bound, iterations)
        if iterations == 1:
            limit = 2 + math.log(bound / tolerance) / -math.log(discount)


def robust_value_iteration(
    rewards: Array,
    transitions: Array,
    discount: float,
    ambiguity: AmbiguitySet,
    *,
    policy: Array | None = None,
    tolerance: float = 1e-8,
    start: Array | None = None,
) -> RobustSolution:
    """Solve v = T v by value iteration, or v = T_policy v for the robust values of a given policy [I05, NE05].

        v*(s) = max over policies, min over every choice of transitions in the sets, of E sum_t discount^t reward_t.

    Each step brackets the solution by the smallest and largest change, low <= T v - v <= high (MacQueen's bounds:
    T v <= v + high, and T used again and again adds discount high, discount^2 high, ...):

        T v + c low <= v* <= T v + c high,   c = discount / (1 - discount).

    The middle is returned, and half the width is ``error_bound``; it is never above the contraction bound
    ||T v - v*|| <= c ||T v - v|| and often far below. A greedy policy's own robust values lie in the same bracket,
    so it loses at most 2 ``error_bound`` in any state. The width shrinks by ``discount`` per step, which limits
    the steps beforehand; only rounding can then leave ``error_bound`` above ``tolerance``.

    Args:
        rewards: Shape ``(S, A)``.
        transitions: Shape ``(S, A, S)``; see ``robust_bellman``.
        discount: In [0, 1).
        ambiguity: The set or penalty; see ``robust_bellman``.
        policy: Shape ``(S, A)``, action probabilities to evaluate; by default the best action is taken.
        tolerance: Largest ``error_bound`` wanted, positive, in the unit of the rewards.
        start: Shape ``(S,)``, values to start from, such as those of a neighbouring radius; 0 by default.

    Returns:
        A ``RobustSolution``; its policy is the given one, else the greedy one. Outside the gradient graph.

    Raises:
        ValueError: As ``robust_bellman``; discount 1; a tolerance of 0; rewards that are not finite; a bad policy.

    Example:
        >>> import numpy as np
        >>> from dro_core import TotalVariation
        >>> stay_or_leave = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> rewards = np.array([[1.0, 2.0], [0.0, 0.0]])
        >>> solution = robust_value_iteration(rewards, stay_or_leave, 0.5, TotalVariation(0.25))
        >>> solution.values.round(6).tolist(), solution.policy[0].tolist()
        ([2.285714, 0.0], [0.0, 1.0])
    """
    checked_number("discount", "the weight of the next state", "[0, 1)", discount, "Use for example 0.95.")
    checked_number("tolerance", "the largest error of a value", "(0, inf)", tolerance, "Use for example 1e-8.")
    _require_model(rewards, transitions)
    xp = arrays.namespace_of(rewards, transitions, policy, start)
    exact, model = arrays.as_float64(xp, rewards, "rewards"), arrays.as_float64(xp, transitions, "transitions")
    if not bool(xp.all(xp.isfinite(exact))):
        raise ValueError("rewards must be finite, got NaN or infinity; clip them or forbid the action first.")
    mixture = None if policy is None else _checked_policy(xp, policy, exact)

    def backup(values: Array) -> tuple[Array, Array]:
        action_values = robust_bellman(values, exact, model, discount, ambiguity)
        if mixture is None:
            return action_values, xp.max(action_values, axis=1)
        return action_values, xp.sum(mixture * action_values, axis=1)

    last = _iterate(xp, backup, _start(xp, start, exact), discount, tolerance)
    followed = _greedy(xp, last.action_values) if mixture is None else mixture
    dtype = arrays.result_dtype(xp, rewards)
    return RobustSolution(
        xp.astype(last.values + last.middle, dtype),
        xp.astype(last.action_values + last.middle, dtype),
        xp.astype(followed, dtype),
        last.iterations,
        last.bound,
    )
