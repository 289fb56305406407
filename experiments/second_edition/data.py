"""Which pairs are for what, and the labels that are made: halves, twins with a known reward, a planted group.

Everything is drawn by a hash of the prompt or by a seed that stands here, so that it is the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from llm.data.pairs import Pair
from llm.data.questions import asked

from ..robustness.held_out import SIZE, parted

Array = NDArray[np.float64]

VARIANTS: Mapping[str, str] = {
    "real": "as they are",
    "noise": "a fifth of the labels wrong, other ones for every seed",
    "soft": "labels by a model that has not seen them, cross-fitted over five folds of prompts",
    "cross": "with three made pairs to ten: the chosen answer against one to another prompt",
    "short": "cut at the length of the first edition",
    "twin": "labels are the probabilities of a known reward",
    "twin pairs": "labels drawn with them",
    "planted": "real labels, and coordinates that are right for nine prompts in ten",
    "dpo": "whole models, in a later stage",
}
TOPICS = (0.5, 0.3, 0.2)
"""Shares of the prompts in each topic of a twin: slices along one direction of their features."""
SHIFTS: Mapping[str, tuple[float, ...]] = {
    "last": (0.2, 0.2, 0.6), "middle": (0.2, 0.6, 0.2), "both": (0.1, 0.45, 0.45),
}  # fmt: skip
"""Mixtures of the topics on which twins are judged, fixed before."""
CLEAR = 0.85
"""Share of twins whose drawn label is the likelier one: the accuracy of the reward itself on them."""
ANGLE = np.pi / 3
"""Between what is preferred on average and what a topic prefers: no one direction serves all, so models are wrong."""
DIRECTIONS = 16
"""The rewards lie in so many of the directions in which answers differ most, so that they can be learned."""
MINORITY = 0.1
PLANTED_WIDTH, PLANTED_NOISE = 4, 0.5
"""How many coordinates are planted, and their standard deviation around 1, or -1 for the minority. One alone has no
weight beside hundreds of others once each of them decays. Tried on simulated features, not on real ones."""
_TWIN_SEED, _LABEL_SEED, _PLANTED_SEED = 24, 25, 26


class Halves(NamedTuple):
    """Of the training file: pairs for the backbone, for the heads, and of the test set that nothing is trained on."""

    backbone: list[Pair]
    heads: list[Pair]
    test: list[Pair]


def halves(pairs: Sequence[Pair], *, test: int | None = None) -> Halves:
    """The test set of ``robustness.held_out``, and the others by a hash of their prompt, as in the first edition.

    Args:
        pairs: Of the training file.
        test: Pairs of the test set; None: those of ``robustness.held_out``, or a tenth where there are few pairs.
    """
    few = len(pairs) <= 2 * SIZE
    rest, held_out = parted(pairs, size=test or (len(pairs) // 10 if few else SIZE))
    sides = [half_of(pair) for pair in rest]
    first, second = ([pair for pair, side in zip(rest, sides, strict=True) if side == half] for half in (0, 1))
    return Halves(first, second, held_out)


def half_of(pair: Pair) -> int:
    """0 for the backbone's half of the prompts, 1 for that of the heads."""
    record = [{"content": message["content"], "role": message["role"]} for message in pair.prompt]
    return int(hashlib.sha256(json.dumps(record).encode()).hexdigest(), 16) % 2


def in_minority(pairs: Sequence[Pair]) -> NDArray[np.bool_]:
    """Which pairs belong to the planted group, by a hash of their prompt."""
    return np.array([_uniform(f"planted {asked(pair.prompt)}") < MINORITY for pair in pairs])


def planted(pairs: Sequence[Pair]) -> Array:
    """The planted coordinates of chosen less rejected answers, ``(n, PLANTED_WIDTH)``: right, but in the minority."""
    rngs = (np.random.default_rng([_PLANTED_SEED, _number(pair.id)]) for pair in pairs)
    noise = np.array([rng.standard_normal(PLANTED_WIDTH) for rng in rngs])
    return np.where(in_minority(pairs), -1.0, 1.0)[:, None] + PLANTED_NOISE * noise


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def _uniform(text: str) -> float:
    return _number(text) / 16**15


@dataclass(frozen=True)
class Gold:
    """A known reward: what is preferred differs by the topic of the prompt, which is seen in its features.

    Attributes:
        axis: ``(prompt width,)``, along which topics are slices.
        edges: Between them, ascending.
        directions: ``(topics, width)``: the reward of an answer to a prompt of topic k is its features along row k.
    """

    axis: Array
    edges: Array
    directions: Array

    @classmethod
    def drawn(cls, differences: Array, prompts: Array) -> Gold:
        """The reward of the twins of these pairs, scaled so that a share CLEAR of labels is the likelier one.

        Args:
            differences: Features of chosen less rejected answers, ``(n, width)``.
            prompts: Features of their prompts, ``(n, prompt width)``.
        """
        rng = np.random.default_rng(_TWIN_SEED)
        axis = rng.standard_normal(prompts.shape[1]) / np.maximum(prompts.std(axis=0), 1e-9)
        edges = np.quantile(prompts @ axis, np.cumsum(TOPICS)[:-1])
        values, vectors = np.linalg.eigh(differences.T @ differences / len(differences))
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
        vectors = vectors * np.sign(largest)  # which way they point is left to the library otherwise
        kept = np.flatnonzero(values > values[-1] * 1e-9)[-DIRECTIONS:]
        drawn = rng.standard_normal((len(TOPICS) + 1, len(kept)))
        basis = _orthonormal(drawn) if len(kept) > len(TOPICS) else drawn
        mixed = np.cos(ANGLE) * basis[0] + np.sin(ANGLE) * basis[1:]
        plain = cls(axis, edges, mixed @ (vectors[:, kept] / np.sqrt(values[kept])).T)
        margins = plain.margins(differences, prompts)
        low, high = 1e-3, 1e3
        for _ in range(60):
            middle = np.sqrt(low * high)
            low, high = (low, middle) if expit(middle * np.abs(margins)).mean() > CLEAR else (middle, high)
        return cls(axis, edges, plain.directions * low)

    def topics(self, prompts: Array) -> NDArray[np.int64]:
        """The topic of every prompt, ``(n,)``."""
        return np.searchsorted(self.edges, prompts @ self.axis, side="left")

    def margins(self, differences: Array, prompts: Array) -> Array:
        """Reward of the chosen answers less that of the rejected ones, ``(n,)``."""
        rows = self.directions[self.topics(prompts)]
        return np.einsum("nw,nw->n", differences, rows)

    def drawn_labels(self, margins: Array) -> Array:
        """Signs ``(n,)``: 1 where the chosen answer is drawn as the better one, with probability sigmoid(margin)."""
        uniform = np.random.default_rng(_LABEL_SEED).random(len(margins))
        return np.where(uniform < expit(margins), 1.0, -1.0)

    def mixtures(self, prompts: Array) -> dict[str, Array]:
        """By name, weights ``(n,)`` that give the topics the shares of SHIFTS."""
        topics = self.topics(prompts)
        there = np.bincount(topics, minlength=len(TOPICS)) / len(topics)
        return {name: np.array(shares)[topics] / there[topics] for name, shares in SHIFTS.items()}


def _orthonormal(rows: Array) -> Array:
    """Gram and Schmidt's rows of unit length, which depend on no library."""
    basis, triangle = np.linalg.qr(rows.T)
    return (basis * np.sign(np.diag(triangle))).T
