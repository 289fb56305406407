"""Adversaries that move weight between similar prompts: transport and mean discrepancy in embedding space.

Both need the embeddings of the training prompts, bound as the column ``prompt_embedding``, which the head runs of a
sweep have. The geometry is that of the minibatch: mass can only move to prompts that are in it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dro_core import MeanDiscrepancy, Wasserstein, worst_case
from dro_core.sets.ambiguity import in_text

COLUMN = "prompt_embedding"
Array = NDArray[np.float64]
_PROBED = 512  # prompts whose distances give the bandwidth


@dataclass(frozen=True, eq=False)
class _PromptGeometry:
    """A ball around the uniform weights whose shape is given by prompts.

    Args:
        radius: At least 0, in the unit of the ball.
        embeddings: Of unit length, ``(n, dimension)``; empty until bound.
    """

    radius: float
    embeddings: Array = field(default_factory=lambda: np.zeros((0, 0)), repr=False)
    spec: ClassVar[str]

    def __post_init__(self) -> None:
        if not self.radius >= 0:
            raise ValueError(f"the radius of {self.spec}: must be at least 0, got {self.radius}")

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Take the embeddings in, scaled to unit length."""
        if COLUMN not in columns:
            raise ValueError(
                f"{self.spec}:{self.radius:g} measures distances between prompts and needs their embeddings, which "
                "only the head runs of a sweep have: use it there, or choose a set without geometry"
            )
        vectors = np.asarray(columns[COLUMN], dtype=np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return replace(self, embeddings=vectors / np.where(lengths > 0, lengths, 1.0))

    def take(self, rows: np.ndarray) -> Self:
        """The rule for these prompts."""
        return replace(self, embeddings=self.embeddings[rows])

    def with_strength(self, fraction: float) -> Self:
        """A radius of that share."""
        return replace(self, radius=self.radius * fraction)

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """The worst case ``(n,)``; entries of zero mass stay at zero."""
        present = np.flatnonzero(masses.detach().cpu().numpy() > 0)
        found = self.take(present).worst(
            losses.detach().double().cpu().numpy()[present], masses.detach().double().cpu().numpy()[present]
        )
        weights = torch.zeros_like(losses)
        weights[torch.as_tensor(present, device=losses.device)] = torch.as_tensor(found).to(losses)
        return weights

    @abstractmethod
    def worst(self, losses: Array, masses: Array) -> Array:
        """Weights ``(n,)`` of the worst case, from losses and masses ``(n,)``, all of them positive."""

    def __str__(self) -> str:
        return f"{self.spec}:{in_text(self.radius)}"


@dataclass(frozen=True, eq=False)
class PromptTransport(_PromptGeometry):
    """Mass moves between the prompts of the batch at a mean cost of at most ``radius``: ``dro_core.Wasserstein``.

    The cost of a move is the cosine distance 1 - <e_i, e_j>, between 0 for equal directions and 2.
    """

    spec: ClassVar[str] = "wasserstein"

    def worst(self, losses: Array, masses: Array) -> Array:
        """As in the class docstring."""
        cost = np.maximum(1 - self.embeddings @ self.embeddings.T, 0.0)
        cost = (cost + cost.T) / 2
        np.fill_diagonal(cost, 0.0)
        return worst_case(losses, Wasserstein(self.radius, cost), reference=masses).weights


@dataclass(frozen=True, eq=False)
class PromptDiscrepancy(_PromptGeometry):
    """Weights within mean discrepancy ``radius``, ``dro_core.MeanDiscrepancy``: mass moves between prompts alike.

    The kernel is Gaussian; its bandwidth is the median distance between training prompts, fixed for the whole run.
    """

    bandwidth: float = 1.0
    spec: ClassVar[str] = "mmd"

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Take the embeddings in, and the median distance between some of them."""
        bound = super().bind(columns)
        step = max(len(bound.embeddings) // _PROBED, 1)
        squares = _squared_distances(bound.embeddings[::step])
        median = float(np.median(np.sqrt(squares[np.triu_indices(len(squares), 1)]))) if len(squares) > 1 else 0.0
        return replace(bound, bandwidth=median or 1.0)

    def worst(self, losses: Array, masses: Array) -> Array:
        """As in the class docstring."""
        kernel = np.exp(-_squared_distances(self.embeddings) / (2 * self.bandwidth**2))
        return worst_case(losses, MeanDiscrepancy(self.radius, kernel), reference=masses).weights


def _squared_distances(unit: Array) -> Array:
    return np.maximum(2 - 2 * unit @ unit.T, 0.0)


GEOMETRIES = frozenset({PromptTransport.spec, PromptDiscrepancy.spec})
