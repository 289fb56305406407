"""Algorithm 2 of theory.md: natural policy gradient on the worst-case mixture of prompts, all of it exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dro_core import worst_case
from synthetic.bandits.policies import natural_gradient, policy_values
from synthetic.trajectory import Trajectory

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from dro_core import AmbiguitySet
    from synthetic.bandits.mdp import KLRegulariser, TabularMDP
    from synthetic.bandits.policies import PolicyClass

    Array = NDArray[np.float64]


class PolicyRun(NamedTuple):
    """T steps of natural policy gradient.

    Attributes:
        iterates: Parameters, shape ``(T + 1, d)``, theta_0 first.
        prompt_values: V of every state at every iterate, KL charges included, shape ``(T + 1, s)``.
        weights: The distribution q over start states behind every step, shape ``(T, s)``.
        average_prompt_values: Row t - 1 holds V at the average of theta_0 ... theta_{t-1}, shape ``(T, s)``.
        start: Distribution of the prompts, shape ``(s,)``.
    """

    iterates: Array
    prompt_values: Array
    weights: Array
    average_prompt_values: Array
    start: Array

    @property
    def values(self) -> Array:
        """Value under the start distribution at every iterate, shape ``(T + 1,)``."""
        return self.prompt_values @ self.start

    def worst_values(self, ambiguity: AmbiguitySet) -> Array:
        """Smallest <q, V> over the set around the start distribution at every iterate, shape ``(T + 1,)``."""
        return worst_value(self.prompt_values, ambiguity, self.start)

    def trajectory(self, ambiguity: AmbiguitySet, optimum: float) -> Trajectory:
        """Return the run as a minimisation of the worst-case loss, minus the worst-case value.

        Args:
            ambiguity: Of the objective; it need not be the one that the run was weighted by.
            optimum: Largest worst-case **value** that the policies can reach, or an upper bound of it, such as
                ``worst_value(mdp.optimal_values(), ambiguity, mdp.start)``.
        """
        average = worst_value(self.average_prompt_values, ambiguity, self.start)
        return Trajectory(self.iterates, -self.worst_values(ambiguity), -average, -optimum)


def worst_value(prompt_values: ArrayLike, ambiguity: AmbiguitySet, start: Array) -> Array:
    """Smallest <q, V> over the set around ``start``, for values ``(*batch, s)``; shape ``(*batch,)``.

    Example:
        >>> from dro_core import TotalVariation
        >>> float(worst_value([1.0, 0.0], TotalVariation(0.25), np.array([0.5, 0.5])))
        0.25
    """
    return -np.asarray(worst_case(-np.asarray(prompt_values, float), ambiguity, reference=start).value)


def natural_policy_gradient(
    mdp: TabularMDP,
    policy: PolicyClass,
    *,
    steps: int,
    step_size: float,
    ambiguity: AmbiguitySet | None = None,
    initial: ArrayLike | None = None,
    regulariser: KLRegulariser | None = None,
    batch: int | None = None,
    rng: np.random.Generator | None = None,
) -> PolicyRun:
    """Run robust natural policy gradient over prompts, theory.md section 2, Algorithm 2.

        q* = argmin_q <q, V> over the ambiguity set around the prompt distribution,
        theta <- theta + step_size F_{q*}^+ g_{q*}.

    The values V, the Fisher matrix and the gradient are exact; only the prompts may be sampled. Then the reference
    is the share of each prompt in the minibatch, and prompts that were not drawn have weight 0.

    Args:
        mdp: Its start states are the prompts.
        policy: Family of policies.
        steps: T >= 0.
        step_size: eta > 0.
        ambiguity: Set around the prompts; None for plain natural policy gradient.
        initial: Shape ``(d,)``; zeros by default, which is the uniform policy or the reference of the family.
        regulariser: KL charges, part of the value.
        batch: Prompts per minibatch, drawn from the start distribution; all of them by default.
        rng: Draws the minibatches; needed with ``batch``.

    Returns:
        The run; its values are of the whole population, also when prompts were sampled.

    Raises:
        ValueError: steps, step_size or batch out of range, or a batch without rng.

    Example:
        Prompts that want opposite answers, one parameter. The mean sees no slope; the worst prompt pulls:

        >>> from dro_core import TotalVariation
        >>> from synthetic.bandits.mdp import prompts
        >>> from synthetic.bandits.policies import LogLinearPolicy
        >>> bandit = prompts([[1.0, 0.0], [0.25, 1.25]])
        >>> shared = LogLinearPolicy([[[1.0], [0.0]], [[1.0], [0.0]]])
        >>> plain = natural_policy_gradient(bandit, shared, steps=2, step_size=1.0)
        >>> robust = natural_policy_gradient(bandit, shared, steps=2, step_size=1.0, ambiguity=TotalVariation(0.25))
        >>> plain.iterates.ravel().tolist(), robust.iterates.ravel().round(12).tolist()
        ([0.0, 0.0, 0.0], [0.0, 0.5, 1.0])
    """
    _require_run(steps, step_size, batch, rng)
    iterates = [np.zeros(policy.size) if initial is None else np.asarray(initial, float)]
    weights: list[Array] = []
    for _ in range(steps):
        theta = iterates[-1]
        reference = mdp.start if batch is None or rng is None else rng.multinomial(batch, mdp.start) / batch
        q = reference
        if ambiguity is not None:
            values = policy_values(policy, theta, mdp, regulariser=regulariser)
            q = np.asarray(worst_case(-values, ambiguity, reference=reference).weights)
        direction = natural_gradient(policy, theta, mdp, start=q, regulariser=regulariser)
        iterates.append(theta + step_size * direction)
        weights.append(q)
    path = np.array(iterates)
    averages = np.cumsum(path[:-1], axis=0) / np.arange(1, steps + 1)[:, None]

    def values_along(parameters: Array) -> Array:
        rows = [policy_values(policy, theta, mdp, regulariser=regulariser) for theta in parameters]
        return np.reshape(rows, (len(parameters), -1)) if rows else np.empty((0, len(mdp.start)))

    shares = np.array(weights).reshape(steps, len(mdp.start))
    return PolicyRun(path, values_along(path), shares, values_along(averages), mdp.start)


def _require_run(steps: int, step_size: float, batch: int | None, rng: np.random.Generator | None) -> None:
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}.")
    if not 0 < step_size < np.inf:
        raise ValueError(f"step_size must lie in (0, inf), got {step_size}: it multiplies the natural gradient.")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}: for all prompts use None.")
    if batch is not None and rng is None:
        raise ValueError("a batch of prompts needs rng, a numpy Generator: pass np.random.default_rng(seed).")
