"""Policy gradient on many problems, arms and step sizes at once, in float64: prompts and draws are shared.

Arrays are ``(problems, answers, prompts, runs)``: a run is an arm at a step size. All runs of a problem see the same
prompts in the same order and the same uniform numbers, so that differences between arms are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .problem import Prompts

GROUP, BATCH = 8, 32


class Answers(NamedTuple):
    """What the policies answered to a batch.

    Attributes:
        features: ``(S, K n, d)``.
        chances: Of every answer, ``(S, K, n, R)``.
        counts: How often each was drawn, the same shape.
        right: 1 for right answers, ``(S, K, n, 1)``.
        successes: Right ones among the drawn, ``(S, n, R)``.
    """

    features: np.ndarray
    chances: np.ndarray
    counts: np.ndarray
    right: np.ndarray
    successes: np.ndarray

    def rates(self) -> np.ndarray:
        """The exact pass rates, ``(S, n, R)``."""
        return (self.chances * self.right).sum(axis=1)

    def gradient(self, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """1/(G n) sum over prompts and answers of A grad log pi, ``(S, d, R)``.

        Args:
            right: Advantages of a right answer to each prompt, times its weight, ``(S, n, R)``.
            wrong: Those of a wrong one.
        """
        total = self.successes * right + (GROUP - self.successes) * wrong
        signal = self.counts * np.where(self.right > 0, right[:, None], wrong[:, None])
        signal -= self.chances * total[:, None]
        problems, _, prompts, runs = signal.shape
        return self.features.transpose(0, 2, 1) @ signal.reshape(problems, -1, runs) / (GROUP * prompts)


def answer(prompts: Prompts, chosen: np.ndarray, weights: np.ndarray, uniforms: np.ndarray) -> Answers:
    """Draw GROUP answers to each prompt.

    Args:
        prompts: Of S problems.
        chosen: Which prompts, ``(S, n)``.
        weights: Of the policies, ``(S, d, R)``.
        uniforms: In [0, 1), ``(S, GROUP, n, R)``, or 1 in the place of R: shared.
    """
    rows = np.arange(len(chosen))[:, None]
    features = prompts.features[rows, :, chosen].swapaxes(1, 2)  # (S, K, n, d)
    base, right = (part[rows, :, chosen].swapaxes(1, 2)[..., None] for part in (prompts.base, prompts.right))
    problems, answers, size, width = features.shape
    features = features.reshape(problems, answers * size, width)
    chances = (features @ weights).reshape(problems, answers, size, -1)
    chances += base
    chances -= chances.max(axis=1, keepdims=True)
    np.exp(chances, out=chances)
    chances /= chances.sum(axis=1, keepdims=True)
    below = np.zeros(chances.shape, dtype=np.int8)  # how many uniforms lie below the upper end of an answer
    ends = chances.cumsum(axis=1)
    for place in range(GROUP):
        below += uniforms[:, None, place] < ends
    below[:, -1] = GROUP  # whose upper end is 1 but for rounding
    counts = np.diff(below, axis=1, prepend=np.int8(0)).astype(np.float64)
    return Answers(features, chances, counts, right, (counts * right).sum(axis=1))


def advantages(estimator: Callable[..., object]) -> tuple[np.ndarray, np.ndarray]:
    """Advantages of a right and of a wrong answer by how many of the GROUP are right, each ``(GROUP + 1,)``."""
    import torch

    rewards = torch.tensor([[1.0] * count + [0.0] * (GROUP - count) for count in range(GROUP + 1)]).double()
    table = np.asarray(estimator(rewards))
    right, wrong = table[:, 0].copy(), table[:, -1].copy()
    right[0] = wrong[-1] = 0.0  # there is none
    return right, wrong


class Streams:
    """The random numbers of S problems: each has a generator of its own, whatever problems stand beside it."""

    def __init__(self, seeds: Sequence[int], purpose: int) -> None:
        self.sources = [np.random.default_rng([seed, purpose]) for seed in seeds]

    def batches(self, population: int) -> np.ndarray:
        """BATCH different prompts for each problem, ``(S, BATCH)``."""
        return np.stack([source.permutation(population)[:BATCH] for source in self.sources])

    def uniforms(self, *shape: int) -> np.ndarray:
        """Uniform numbers, ``(S, *shape)``."""
        return np.stack([source.random(shape) for source in self.sources])
