"""Many contextual bandits of one size at once: Algorithm 2 of theory.md, vectorised over random problems.

``natural_gradient`` runs one problem of any kind; this runs hundreds of one kind, for distributions over
problems. Prompts are equally likely, policies log-linear from the uniform one, KL is to the uniform policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dro_core import worst_case
from synthetic.bandits.policies import RANK

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from dro_core import AmbiguitySet

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BanditBatch:
    """b bandits with V(x) = E_pi [r(x, a)] - strength KL(pi(.|x) || uniform), pi proportional to exp <theta, features>.

    Args:
        features: Shape ``(b, x, a, d)``.
        rewards: Shape ``(b, x, a)``.
        strength: beta >= 0, in units of reward; 0 for no charge.

    Example:
        >>> pair = BanditBatch(np.array([[[[1.0], [0.0]]]]), np.array([[[1.0, 0.0]]]))
        >>> zero = np.zeros((1, 1))
        >>> pair.values(zero).tolist(), pair.direction(zero, np.ones((1, 1))).round(12).tolist()
        ([[0.5]], [[1.0]])
    """

    features: Array
    rewards: Array
    strength: float = 0.0

    def __post_init__(self) -> None:
        if self.features.ndim != 4 or self.features.shape[:3] != self.rewards.shape:
            raise ValueError(
                f"features must have shape (b, x, a, d) and rewards (b, x, a), got {self.features.shape} and "
                f"{self.rewards.shape}: one row of features per bandit, prompt and answer."
            )
        if not 0 <= self.strength < np.inf:
            raise ValueError(f"strength must lie in [0, inf), got {self.strength}: for no charge use 0.")

    def log_probabilities(self, parameters: Array) -> Array:
        """Log pi(a|x) for parameters ``(..., b, d)``, shape ``(..., b, x, a)``."""
        logits = np.squeeze(self.features @ parameters[..., None, :, None], axis=-1)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    def values(self, parameters: Array) -> Array:
        """V of every prompt, shape ``(..., b, x)``."""
        logs = self.log_probabilities(parameters)
        return (np.exp(logs) * self._charged(logs)).sum(axis=-1)

    def direction(self, parameters: Array, weights: Array) -> Array:
        """F_q^+ g_q for parameters ``(b, d)`` and weights ``(b, x)``, as the least-squares fit of ``policies``."""
        logs = self.log_probabilities(parameters)
        probabilities, charged = np.exp(logs), self._charged(logs)
        roots = np.sqrt(weights[..., None] * probabilities)
        targets = roots * (charged - (probabilities * charged).sum(axis=-1, keepdims=True))
        means = np.einsum("bxa,bxad->bxd", probabilities, self.features)
        rows = roots[..., None] * (self.features - means[:, :, None])
        count, size = len(rows), rows.shape[-1]
        inverse = np.linalg.pinv(rows.reshape(count, -1, size), rcond=RANK)
        return np.squeeze(inverse @ targets.reshape(count, -1, 1), axis=-1)

    def _charged(self, logs: Array) -> Array:
        return self.rewards - self.strength * (logs + np.log(logs.shape[-1]))


class BatchRun(NamedTuple):
    """T steps on b bandits.

    Attributes:
        iterates: Shape ``(T + 1, b, d)``, theta_0 first.
        prompt_values: V of every prompt at every iterate, shape ``(T + 1, b, x)``.
        weights: The q behind every step, shape ``(T, b, x)``.
    """

    iterates: Array
    prompt_values: Array
    weights: Array


def random_bandits(
    count: int,
    *,
    prompts: int,
    answers: int,
    features: int,
    noise: float,
    rng: np.random.Generator,
    strength: float = 0.0,
) -> BanditBatch:
    """Draw normal features, and rewards <w, features> + ``noise`` N(0, 1), scaled to [0, 1] in every bandit.

    Args:
        count: b.
        prompts: x.
        answers: a.
        features: d.
        noise: Deviation of what the features miss, before scaling; 0 makes the reward realizable.
        rng: Draws them.
        strength: Of the KL charge.

    Example:
        >>> drawn = random_bandits(2, prompts=8, answers=4, features=3, noise=2.0, rng=np.random.default_rng(0))
        >>> drawn.rewards.shape, drawn.rewards.min(axis=(1, 2)).tolist(), drawn.rewards.max(axis=(1, 2)).tolist()
        ((2, 8, 4), [0.0, 0.0], [1.0, 1.0])
    """
    table = rng.standard_normal((count, prompts, answers, features))
    rewards = np.squeeze(table @ rng.standard_normal((count, 1, features, 1)), axis=-1)
    rewards = rewards + noise * rng.standard_normal(rewards.shape)
    least, most = rewards.min(axis=(1, 2), keepdims=True), rewards.max(axis=(1, 2), keepdims=True)
    return BanditBatch(table, (rewards - least) / (most - least), strength)


def ascend(
    bandits: BanditBatch,
    step_sizes: ArrayLike,
    *,
    ambiguity: AmbiguitySet | None = None,
    initial: Array | None = None,
    batch: int | None = None,
    rng: np.random.Generator | None = None,
) -> BatchRun:
    """Run natural policy gradient on all bandits, on the worst mixture of prompts or, without a set, on the mean.

    Args:
        bandits: The problems.
        step_sizes: eta_0 ... eta_{T-1}, positive.
        ambiguity: Set around the prompts, or around those of a minibatch.
        initial: Shape ``(b, d)``; zeros by default, the uniform policy.
        batch: Prompts per minibatch, drawn with replacement; all of them by default.
        rng: Draws the minibatches; needed with ``batch``.

    Raises:
        ValueError: A batch without rng.
    """
    if batch is not None and rng is None:
        raise ValueError("a batch of prompts needs rng, a numpy Generator: pass np.random.default_rng(seed).")
    count, prompts = bandits.rewards.shape[:2]
    even = np.full((count, prompts), 1 / prompts)
    iterates = [np.zeros((count, bandits.features.shape[-1])) if initial is None else np.asarray(initial, float)]
    weights: list[Array] = []
    for step in np.asarray(step_sizes, float):
        q = even if batch is None or rng is None else rng.multinomial(batch, even) / batch
        if ambiguity is not None:
            q = np.asarray(worst_case(-bandits.values(iterates[-1]), ambiguity, reference=q).weights)
        iterates.append(iterates[-1] + step * bandits.direction(iterates[-1], q))
        weights.append(q)
    path = np.array(iterates)
    return BatchRun(path, bandits.values(path), np.reshape(weights, (-1, count, prompts)))
