"""Markov decision processes small enough to solve exactly, contextual bandits (prompts) among them.

Everything is a linear solve, so values are known to rounding. For a policy pi, rows of action probabilities,

    V(s) = sum_a pi(a|s) Q(s, a),   Q(s, a) = r(s, a) + discount sum_t P(t|s, a) V(t),   A = Q - V,
    d(s) = (1 - discount) sum_k discount^k P(s_k = s | s_0 ~ start, pi),   which sums to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """States and actions in tables; the start distribution is what an adversary over prompts reweights.

    Args:
        rewards: Shape ``(s, a)``, finite.
        transitions: Shape ``(s, a, s)``, nonnegative, the last axis sums to 1.
        discount: In [0, 1); 0 makes it a contextual bandit.
        start: Shape ``(s,)``, nonnegative, sums to 1.

    Raises:
        ValueError: A shape, a row of probabilities or the discount is wrong; the message says which and what to do.

    Example:
        >>> loop = TabularMDP([[1.0, 0.0]], [[[1.0], [1.0]]], 0.5, [1.0])
        >>> loop.values([[1.0, 0.0]]).tolist(), loop.optimal_values().tolist()
        ([2.0], [2.0])
    """

    rewards: Array
    transitions: Array
    discount: float
    start: Array

    def __post_init__(self) -> None:
        rewards, transitions, start = (np.asarray(x, float) for x in (self.rewards, self.transitions, self.start))
        if rewards.ndim != 2 or not rewards.size or not np.all(np.isfinite(rewards)):
            raise ValueError(f"rewards must be finite, of shape (s, a), got shape {rewards.shape}: forbid no action.")
        states, actions = rewards.shape
        _require_rows("transitions", transitions, (states, actions, states))
        _require_rows("start", start, (states,))
        if not 0 <= self.discount < 1:
            raise ValueError(
                f"discount is the weight of the next state and must lie in [0, 1), got {self.discount}. "
                "For a single step use 0."
            )
        for name, value in {"rewards": rewards, "transitions": transitions, "start": start}.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of states and of actions."""
        states, actions = self.rewards.shape
        return states, actions

    def values(self, policy: ArrayLike) -> Array:
        """V of a policy ``(s, a)``, shape ``(s,)``: the solution of (1 - discount P_pi) V = r_pi."""
        policy = self._checked(policy)
        return np.linalg.solve(self._resolvent(policy), np.sum(policy * self.rewards, axis=1))

    def action_values(self, policy: ArrayLike) -> Array:
        """Q of a policy, shape ``(s, a)``."""
        return self._backup(self.values(policy))

    def advantages(self, policy: ArrayLike) -> Array:
        """A = Q - V of a policy, shape ``(s, a)``; its mean under the policy is 0 in every state."""
        values = self.values(policy)
        return self._backup(values) - values[:, None]

    def occupancy(self, policy: ArrayLike, start: ArrayLike | None = None) -> Array:
        """Discounted share of time spent in each state, shape ``(s,)``, sums to 1; another start may be given."""
        first = self.start if start is None else np.asarray(start, float)
        _require_rows("start", first, self.start.shape)
        visits = np.linalg.solve(self._resolvent(self._checked(policy)).T, (1 - self.discount) * first)
        return np.maximum(visits, 0.0)  # rounding can leave -1e-17

    def optimal_values(self) -> Array:
        """V of the best policy, shape ``(s,)``; it is best from every start at once."""
        return self.values(self.optimal_policy())

    def optimal_policy(self) -> Array:
        """A deterministic best policy, rows of zeros and a one, by policy iteration.

        An action changes only if its advantage exceeds the rounding error of the solve, so the loop ends: every
        round but the last raises the value of some state, and there are finitely many policies.
        """
        states, actions = self.shape
        chosen, rows = np.argmax(self.rewards, axis=1), np.arange(states)
        rounding = 1e-12 * (1 + np.abs(self.rewards).max() / (1 - self.discount))
        while True:
            policy = np.eye(actions)[chosen]
            advantages = self.advantages(policy)
            best = np.argmax(advantages, axis=1)
            better = advantages[rows, best] > rounding
            if not better.any():
                return policy
            chosen = np.where(better, best, chosen)

    def _backup(self, values: Array) -> Array:
        return self.rewards + self.discount * self.transitions @ values

    def _resolvent(self, policy: Array) -> Array:
        return np.eye(len(policy)) - self.discount * np.einsum("sa,sat->st", policy, self.transitions)

    def _checked(self, policy: ArrayLike) -> Array:
        exact = np.asarray(policy, float)
        _require_rows("policy", exact, self.rewards.shape)
        return exact


def garnet(states: int, actions: int, branching: int, discount: float, rng: np.random.Generator) -> TabularMDP:
    """A random MDP: every action leads to ``branching`` states, with rewards uniform in [0, 1] and a uniform start.

    The probabilities are the gaps between sorted uniform numbers. Source: Archibald, McKinnon & Thomas 1995.

    Example:
        >>> mdp = garnet(5, 2, 3, 0.9, np.random.default_rng(0))
        >>> int(np.count_nonzero(mdp.transitions[0, 0]))
        3
    """
    if not 1 <= branching <= states:
        raise ValueError(f"branching must lie in [1, {states}], got {branching}: an action leads to so many states.")
    transitions = np.zeros((states, actions, states))
    for s, a in np.ndindex(states, actions):
        cuts = np.sort(rng.random(branching - 1))
        transitions[s, a, rng.permutation(states)[:branching]] = np.diff(cuts, prepend=0.0, append=1.0)
    return TabularMDP(rng.random((states, actions)), transitions, discount, _uniform(states))


def chain(length: int, discount: float, *, slip: float = 0.0) -> TabularMDP:
    """A line of states; action 0 goes left, 1 right, and with probability ``slip`` the move is the opposite one.

    The reward is 1 for going right in the last state, else 0; the start is the first state.

    Example:
        >>> chain(3, 0.5).optimal_values().tolist()
        [0.5, 1.0, 2.0]
    """
    moves = np.stack([np.eye(length)[np.clip(np.arange(length) + step, 0, length - 1)] for step in (-1, 1)], axis=1)
    rewards = np.zeros((length, 2))
    rewards[-1, 1] = 1.0
    return TabularMDP(rewards, (1 - slip) * moves + slip * moves[:, ::-1], discount, np.eye(length)[0])


def corridor(length: int, actions: int, discount: float, comfort: float) -> TabularMDP:
    """A corridor with exits, in which policy iteration needs a round per room: each learns from the next.

    In the rooms 0 ... length - 1 action 0 goes on for nothing, and all others leave for good for ``comfort`` per
    step. Behind the last room is the goal, which pays 1 per step for good. The start is room 0.

    Example:
        >>> corridor(2, 3, 0.5, 0.125).optimal_values().tolist()
        [0.5, 1.0, 2.0, 0.25]
    """
    states, goal = length + 2, length
    transitions, rewards = np.zeros((states, actions, states)), np.zeros((states, actions))
    rooms = np.arange(length)
    transitions[rooms, 0, rooms + 1] = 1.0
    transitions[:length, 1:, -1], rewards[:length, 1:] = 1.0, comfort
    transitions[goal, :, goal], rewards[goal] = 1.0, 1.0
    transitions[-1, :, -1], rewards[-1] = 1.0, comfort
    return TabularMDP(rewards, transitions, discount, np.eye(states)[0])


def prompts(rewards: ArrayLike, masses: ArrayLike | None = None) -> TabularMDP:
    """A contextual bandit: prompts are start states, answers actions, and one answer ends it.

    Embedded with discount 0 and states that lead to themselves: nothing after the first reward counts, so V(x) is
    the mean reward at prompt x, and the occupancy of a start distribution is that distribution.

    Args:
        rewards: Shape ``(x, a)``.
        masses: Shape ``(x,)``, probabilities of the prompts; uniform by default.

    Example:
        >>> prompts([[1.0, 0.0], [0.0, 4.0]]).values([[0.5, 0.5], [0.5, 0.5]]).tolist()
        [0.5, 2.0]
    """
    table = np.asarray(rewards, float)
    if table.ndim != 2:
        raise ValueError(f"rewards must have shape (prompts, answers), got {table.shape}: give one row per prompt.")
    states, actions = table.shape
    loops = np.broadcast_to(np.eye(states)[:, None], (states, actions, states))
    return TabularMDP(table, loops, 0.0, _uniform(states) if masses is None else np.asarray(masses, float))


class KLOptimum(NamedTuple):
    """The best regularised policy ``(x, a)`` of a bandit and its values ``(x,)``, the KL term included."""

    policy: Array
    values: Array


@dataclass(frozen=True, eq=False)
class KLRegulariser:
    """A charge of strength log(pi(a|s) / reference(a|s)) for each action, the KL divergence in the mean.

    Args:
        reference: Shape ``(s, a)``, positive rows that sum to 1.
        strength: beta > 0, in the unit of the rewards.

    Example:
        >>> regulariser = KLRegulariser([[0.5, 0.5]], 1.0)
        >>> best = regulariser.optimum(prompts([[np.log(3.0), 0.0]]))
        >>> best.policy.round(6).tolist(), bool(np.isclose(best.values[0], np.log(2.0)))
        ([[0.75, 0.25]], True)
    """

    reference: Array
    strength: float

    def __post_init__(self) -> None:
        reference = np.asarray(self.reference, float)
        _require_rows("reference", reference, reference.shape)
        if reference.ndim != 2 or reference.min() <= 0:
            raise ValueError("reference must be positive, of shape (s, a): an action it forbids costs infinitely much.")
        if not 0 < self.strength < np.inf:
            raise ValueError(
                f"strength must lie in (0, inf), got {self.strength}: without a charge use no regulariser."
            )
        object.__setattr__(self, "reference", reference)

    def charge(self, mdp: TabularMDP, log_policy: Array) -> TabularMDP:
        """Return the MDP with the charges of this policy deducted from its rewards.

        The values, advantages and policy gradient of the regularised problem at that policy are the plain ones of
        this MDP: the charge changes with the policy too, but the mean of that change, of log pi under pi, is 0.
        """
        return replace(mdp, rewards=mdp.rewards - self.strength * (log_policy - np.log(self.reference)))

    def optimum(self, mdp: TabularMDP) -> KLOptimum:
        """Best policy of a bandit, reference exp(r / beta) / Z, and its values beta log Z [R23]; discount 0."""
        if mdp.discount != 0:
            raise ValueError(f"optimum is the closed form for one step, discount 0, got {mdp.discount}: use prompts().")
        logits = mdp.rewards / self.strength + np.log(self.reference)
        normaliser = logsumexp(logits, axis=1)
        return KLOptimum(np.exp(logits - normaliser[:, None]), self.strength * normaliser)


def _uniform(n: int) -> Array:
    return np.full(n, 1 / n)


def _require_rows(name: str, rows: Array, shape: tuple[int, ...]) -> None:
    if rows.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {rows.shape}.")
    if not (rows.min() >= 0 and np.abs(rows.sum(axis=-1) - 1).max() <= 1e-9):
        raise ValueError(f"{name} must be nonnegative and sum to 1 over the last axis: divide by the sums.")
