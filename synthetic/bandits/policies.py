"""Differentiable policy classes, their exact policy gradients and Fisher matrices; no automatic differentiation.

For a start distribution q, with d_q the discounted occupancy of ``synthetic.bandits.mdp`` and scores grad log pi,

    g_q = grad <q, V> = 1/(1 - discount) E_{d_q, pi} [A grad log pi],   F_q = E_{d_q, pi} [grad log pi grad log pi^T].

F_q^+ g_q is the smallest w among those that fit the advantages best, in the weighted mean square over (s, a),

    min_w E_{d_q, pi} (<w, grad log pi> - A / (1 - discount))^2   (compatible function approximation [AKLM21]).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from synthetic.bandits.mdp import KLRegulariser, TabularMDP

    Array = NDArray[np.float64]

# Singular values below this share of the largest are taken for zero. Rounding leaves about 1e-15; a true one is the
# root of a probability, so the fit does not see a prompt or an answer whose probability is below about 1e-22.
RANK = 1e-11


class PolicyClass(Protocol):
    """What gradients and algorithms need to know of a family of policies with parameters ``(d,)``."""

    @property
    def size(self) -> int:
        """Number of parameters d."""
        ...

    def log_probabilities(self, parameters: ArrayLike) -> Array:
        """Log pi(a|s), shape ``(s, a)``."""
        ...

    def scores(self, parameters: ArrayLike) -> Array:
        """Gradient of log pi(a|s) in the parameters, shape ``(s, a, d)``."""
        ...

    def natural_direction(self, parameters: ArrayLike, targets: Array, occupancy: Array) -> Array:
        """F^+ E[targets grad log pi] for targets ``(s, a)`` of mean zero under pi, shape ``(d,)``."""
        ...


@dataclass(frozen=True, eq=False)
class LogLinearPolicy:
    """pi(a|s) proportional to reference(a|s) exp <theta, features(s, a)>.

    Args:
        features: Shape ``(s, a, d)``.
        reference: Shape ``(s, a)``, positive; what theta = 0 gives. Uniform by default.

    Example:
        >>> policy = LogLinearPolicy([[[1.0], [0.0]]])
        >>> np.exp(policy.log_probabilities([np.log(3.0)])).round(6).tolist()
        [[0.75, 0.25]]
        >>> policy.scores([0.0]).tolist()
        [[[0.5], [-0.5]]]
    """

    features: Array
    reference: Array | None = None

    def __post_init__(self) -> None:
        features = np.asarray(self.features, float)
        if features.ndim != 3 or not np.all(np.isfinite(features)):
            raise ValueError(f"features must be finite, of shape (s, a, d), got {features.shape}: one row per action.")
        object.__setattr__(self, "features", features)
        if self.reference is None:
            return
        reference = np.asarray(self.reference, float)
        if reference.shape != features.shape[:2] or not np.all(reference > 0):
            raise ValueError(
                f"reference must be positive, of shape {features.shape[:2]}, got shape {reference.shape}: "
                "leave forbidden actions out."
            )
        object.__setattr__(self, "reference", reference)

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return self.features.shape[2]

    def log_probabilities(self, parameters: ArrayLike) -> Array:
        """Log pi(a|s), shape ``(s, a)``."""
        logits = self.features @ _parameters(parameters, self.size)
        return _log_softmax(logits if self.reference is None else logits + np.log(self.reference))

    def scores(self, parameters: ArrayLike) -> Array:
        """Features minus their mean under the policy, shape ``(s, a, d)``."""
        means = np.einsum("sa,sad->sd", np.exp(self.log_probabilities(parameters)), self.features)
        return self.features - means[:, None]

    def natural_direction(self, parameters: ArrayLike, targets: Array, occupancy: Array) -> Array:
        """Smallest solution of the weighted least-squares problem above, shape ``(d,)``; see ``natural_gradient``."""
        roots = np.sqrt(occupancy[:, None] * np.exp(self.log_probabilities(parameters)))
        rows = (roots[..., None] * self.scores(parameters)).reshape(-1, self.size)
        return np.asarray(np.linalg.lstsq(rows, (roots * targets).ravel(), rcond=RANK)[0], np.float64)


@dataclass(frozen=True)
class TabularPolicy:
    """One free logit per state and action: pi(a|s) proportional to exp theta[s, a], theta flattened row by row.

    Example:
        >>> TabularPolicy(2, 2).log_probabilities([0.0, 0.0, 1.0, 1.0]).round(4).tolist()
        [[-0.6931, -0.6931], [-0.6931, -0.6931]]
    """

    states: int
    actions: int

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.states * self.actions

    def log_probabilities(self, parameters: ArrayLike) -> Array:
        """Log pi(a|s), shape ``(s, a)``."""
        return _log_softmax(_parameters(parameters, self.size).reshape(self.states, self.actions))

    def scores(self, parameters: ArrayLike) -> Array:
        """Indicator of (s, a) minus the probabilities in state s, shape ``(s, a, s a)``."""
        return self.as_log_linear().scores(parameters)

    def natural_direction(self, parameters: ArrayLike, targets: Array, occupancy: Array) -> Array:
        """Exact at any probabilities: the targets, centred in each visited state, and 0 in the others.

        F is block diagonal with blocks d(s) (diag pi - pi pi^T), whose kernel is spanned by the vector of ones; the
        gradient's block is the same matrix times the targets, so d(s) > 0 cancels [AKLM21, Lemma 5.1].
        """
        centred = targets - targets.mean(axis=1, keepdims=True)
        return np.where(occupancy[:, None] > 0, centred, 0.0).ravel()

    def as_log_linear(self) -> LogLinearPolicy:
        """The same family with one indicator feature per state and action."""
        return LogLinearPolicy(np.eye(self.size).reshape(self.states, self.actions, self.size))


def policy_values(
    policy: PolicyClass, parameters: ArrayLike, mdp: TabularMDP, *, regulariser: KLRegulariser | None = None
) -> Array:
    """Values of all states, shape ``(s,)``, less the KL charges if there is a regulariser."""
    probabilities, charged = _evaluated(policy, parameters, mdp, regulariser)
    return charged.values(probabilities)


def policy_gradient(
    policy: PolicyClass,
    parameters: ArrayLike,
    mdp: TabularMDP,
    *,
    start: ArrayLike | None = None,
    regulariser: KLRegulariser | None = None,
) -> Array:
    """Gradient of <start, V> in the parameters, shape ``(d,)``.

    Args:
        policy: The family.
        parameters: Shape ``(d,)``.
        mdp: Where it acts.
        start: Distribution q over the start states, shape ``(s,)``; that of the MDP by default.
        regulariser: KL charges to deduct from the rewards.

    Example:
        >>> from synthetic.bandits.mdp import prompts
        >>> policy_gradient(TabularPolicy(1, 2), [0.0, 0.0], prompts([[1.0, 0.0]])).tolist()
        [0.25, -0.25]
    """
    probabilities, charged = _evaluated(policy, parameters, mdp, regulariser)
    visits = mdp.occupancy(probabilities, start)[:, None] * probabilities
    targets = charged.advantages(probabilities) / (1 - mdp.discount)
    return np.einsum("sa,sa,sad->d", visits, targets, policy.scores(parameters))


def fisher(policy: PolicyClass, parameters: ArrayLike, mdp: TabularMDP, *, start: ArrayLike | None = None) -> Array:
    """Fisher matrix F_q of the policy under its own discounted occupancy from ``start``, shape ``(d, d)``.

    Example:
        >>> from synthetic.bandits.mdp import prompts
        >>> fisher(TabularPolicy(1, 2), [0.0, 0.0], prompts([[1.0, 0.0]])).tolist()
        [[0.25, -0.25], [-0.25, 0.25]]
    """
    probabilities, scores = np.exp(policy.log_probabilities(parameters)), policy.scores(parameters)
    visits = mdp.occupancy(probabilities, start)[:, None] * probabilities
    return np.einsum("sa,sad,sae->de", visits, scores, scores)


def natural_gradient(
    policy: PolicyClass,
    parameters: ArrayLike,
    mdp: TabularMDP,
    *,
    start: ArrayLike | None = None,
    regulariser: KLRegulariser | None = None,
) -> Array:
    """F_q^+ g_q, shape ``(d,)``, arguments as in ``policy_gradient``.

    Solved as the least-squares problem above, never through F: that would square the condition number.

    Example:
        The tabular direction is the centred advantage, whatever the weights of the prompts:

        >>> from synthetic.bandits.mdp import prompts
        >>> bandit = prompts([[1.0, 0.0], [0.0, 2.0]])
        >>> natural_gradient(TabularPolicy(2, 2), np.zeros(4), bandit, start=[0.9, 0.1]).tolist()
        [0.5, -0.5, -1.0, 1.0]
    """
    probabilities, charged = _evaluated(policy, parameters, mdp, regulariser)
    targets = charged.advantages(probabilities) / (1 - mdp.discount)
    return policy.natural_direction(parameters, targets, mdp.occupancy(probabilities, start))


def _evaluated(
    policy: PolicyClass, parameters: ArrayLike, mdp: TabularMDP, regulariser: KLRegulariser | None
) -> tuple[Array, TabularMDP]:
    """Return the probabilities, and the MDP whose plain values are those wanted."""
    logs = policy.log_probabilities(parameters)
    if logs.shape != mdp.shape:
        raise ValueError(
            f"the policy has {logs.shape} states and actions, the MDP {mdp.shape}: build both from the same tables."
        )
    return np.exp(logs), mdp if regulariser is None else regulariser.charge(mdp, logs)


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _parameters(parameters: ArrayLike, size: int) -> Array:
    exact = np.asarray(parameters, float)
    if exact.shape != (size,):
        raise ValueError(f"parameters must have shape ({size},), got {exact.shape}.")
    return exact
