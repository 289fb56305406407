"""A contextual bandit whose pass rates are known exactly: prompts with a few answers each, of which some are right.

The policy is softmax(base(x, k) + <w, phi(x, k)>) over the K answers of prompt x. ``base`` is what the policy knows
before training: right answers are the less likely the harder the prompt. A right answer has a part of phi along a
direction that all prompts share, one along a skill that only hard prompts need, and one along a direction of its
source; all answers have noise of their own, so that training prompts can also be learnt by heart. Where the relation is
``opposed`` the shared direction leads to wrong answers on the hardest prompts: easy prompts teach a shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ANSWERS, WIDTH, PROMPTS = 12, 56, 300
MIXTURE = np.array([0.4, 0.25, 0.15, 0.12, 0.08])
"""Sources of the training prompts and of the held-out ones, the easiest first."""
SHIFTED = MIXTURE[::-1]
DIFFICULTY = np.array([-1.0, 0.0, 0.5, 1.5, 2.5])
"""By how many nats one right answer begins below a wrong one, on average in each source."""
SPREAD = 1.5
"""Standard deviation of the difficulty inside a source."""
SHARED, SKILL, OWN, NOISE = 1.0, 1.0, 0.5, 2.0
RELATIONS = {"opposed": 1.5, "separate": 1.0, "aligned": 0.0}
"""How far the direction that easy prompts share leaves the hardest: it misleads them, is silent there, or helps."""


class Prompts(NamedTuple):
    """Prompts of S problems, in the layout of the trainer: answers before prompts.

    Attributes:
        features: ``(S, K, n, d)``.
        base: Logits before training, ``(S, K, n)``.
        right: 1 for right answers, else 0, ``(S, K, n)``.
        source: Which source each is of, ``(S, n)``.
    """

    features: np.ndarray
    base: np.ndarray
    right: np.ndarray
    source: np.ndarray

    def rates(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact pass rates and entropies in nats, ``(S, n, R)``, of policies with weights ``(S, d, R)``."""
        problems, answers, prompts, width = self.features.shape
        logits = self.features.reshape(problems, answers * prompts, width) @ weights
        logits = logits.reshape(problems, answers, prompts, -1) + self.base[..., None]
        logits -= logits.max(axis=1, keepdims=True)
        chances = np.exp(logits)
        mass = chances.sum(axis=1)
        right = (chances * self.right[..., None]).sum(axis=1) / mass
        return right, np.log(mass) - (chances * logits).sum(axis=1) / mass


def draw(seeds: Sequence[int], relation: str = "opposed") -> tuple[Prompts, Prompts]:
    """Training and held-out prompts of a problem for each seed.

    Args:
        seeds: One problem each.
        relation: A name in ``RELATIONS``: of the hard prompts to the easy ones.
    """
    both = [_drawn(seed, RELATIONS[relation]) for seed in seeds]
    train, held_out = (Prompts(*map(np.stack, zip(*part, strict=True))) for part in zip(*both, strict=True))
    return train, held_out


def _drawn(seed: int, shortcut: float) -> tuple[Prompts, Prompts]:
    rng = np.random.default_rng([seed, 0])
    directions = rng.normal(size=(2 + len(MIXTURE), WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return _prompts(rng, directions, shortcut), _prompts(rng, directions, shortcut)


def _prompts(rng: np.random.Generator, directions: np.ndarray, shortcut: float) -> Prompts:
    counts = np.diff(np.round(np.concatenate([[0.0], np.cumsum(MIXTURE)]) * PROMPTS)).astype(int)
    source = np.repeat(np.arange(len(MIXTURE)), counts)
    hardness = DIFFICULTY[source] + SPREAD * rng.normal(size=PROMPTS)
    right = np.zeros((ANSWERS, PROMPTS))
    right[0] = 1.0
    right[1] = rng.random(PROMPTS) < 0.5  # one right answer or two
    base = rng.normal(size=right.shape) - right * hardness
    skill = np.clip(hardness / DIFFICULTY.max(), 0.0, 1.0)  # how much of the way needs the skill of hard prompts
    toward = (
        SHARED * (1 - shortcut * skill)[:, None] * directions[0]
        + SKILL * skill[:, None] * directions[1]
        + OWN * directions[2 + source]
    )
    noise = NOISE / np.sqrt(WIDTH) * rng.normal(size=(*right.shape, WIDTH))
    return Prompts(right[..., None] * toward + noise, base, right, source)
