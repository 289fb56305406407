"""Rules to compare an adversary with: is it the adversary, or the noise, or any weight on large losses?

Each answers one objection. ``Shuffled`` hands an adversary's own weights to random examples, ``RandomSubset`` has no
adversary at all, ``Hardest`` and ``Focal`` favour large losses without a worst case, ``PerMicroBatch`` is the adversary
of a trainer that solves each micro-batch by itself.

What is random here is drawn from a hash of the losses: the same on every rank and after a resume, without a state, and
for every practical purpose independent of them.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from dro_core import CVaR, worst_case
from dro_core.sets.ambiguity import in_text

from .rules import Placeless, Reweighting, Rule, advance, reweighted, state_of


def _draws(losses: Tensor) -> np.random.Generator:
    digest = hashlib.blake2b(losses.double().cpu().numpy().tobytes(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


@dataclass(frozen=True)
class RandomSubset(Placeless):
    """Equal weights on a random subset, one example in it with less, so that the effective size is ``share`` of all.

    Args:
        share: Effective sample size 1 / sum q^2 as a share of the batch, in (0, 1]; never below one example.
    """

    share: float
    spec: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"random: takes the effective share of the batch, in (0, 1], got {self.share}")

    def with_strength(self, fraction: float) -> Self:
        """A share nearer to 1."""
        return replace(self, share=1 - fraction * (1 - self.share))

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """Weights ``(n,)`` of the subset."""
        present = torch.nonzero(masses > 0).flatten()
        size = max(self.share * len(present), 1.0)
        whole = int(size)
        # m examples of weight 1 and one of weight w: (m + w)^2 = size (m + w^2).
        rest = 1 - size
        part = 0.0 if rest == 0 else (-whole + (whole**2 - rest * (whole**2 - size * whole)) ** 0.5) / rest
        order = torch.as_tensor(_draws(losses).permutation(len(present)), device=losses.device)
        weights = torch.zeros_like(masses)
        weights[present[order[:whole]]] = 1.0
        weights[present[order[whole : whole + 1]]] = part
        return weights / weights.sum()

    def __str__(self) -> str:
        return f"{self.spec}:{in_text(self.share)}"


@dataclass(frozen=True)
class Hardest(Placeless):
    """The ``share`` of the batch with the largest losses counts ``factor`` times as much as the rest.

    A mixture of mean and CVaR, hence a worst case too, of a set that does not depend on how far the losses lie apart.
    """

    share: float
    factor: float
    spec: ClassVar[str] = "hardest"

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and self.factor >= 1):
            raise ValueError(
                f"hardest: takes a share in (0, 1] and a factor of at least 1, got {self.share} and {self.factor}"
            )

    def with_strength(self, fraction: float) -> Self:
        """A factor nearer to 1."""
        return replace(self, factor=1 + fraction * (self.factor - 1))

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """Weights ``(n,)``; equal losses share."""
        tail = worst_case(losses, CVaR(self.share), reference=masses).weights
        extra = (self.factor - 1) * self.share
        return (masses + extra * tail) / (1 + extra)

    def __str__(self) -> str:
        return f"{self.spec}:{in_text(self.share)},factor={in_text(self.factor)}"


@dataclass(frozen=True)
class Focal(Placeless):
    """The focal loss (1 - p)^gamma (-log p) of 1708.02002, p = sigmoid(margin), by its true gradient.

    Its derivative in the margin is that of l = -log p times w = (1 - p)^gamma (1 + gamma p l / (1 - p)), so that
    weights proportional to w give its gradient up to a factor per batch, which makes them sum to 1. Weights
    (1 - p)^gamma alone, held constant, are the gradient of no loss. Needs losses that are -log sigmoid.
    """

    gamma: float
    spec: ClassVar[str] = "focal"

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise ValueError(f"focal: takes a gamma of at least 0, got {self.gamma}")

    def with_strength(self, fraction: float) -> Self:
        """A smaller gamma."""
        return replace(self, gamma=fraction * self.gamma)

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """Weights ``(n,)`` proportional to w."""
        exact = losses.double().clamp_min(1e-12)
        miss = -torch.expm1(-exact)
        # Relative to the largest: a power of tiny misses would underflow.
        log_weights = self.gamma * miss.log() + torch.log1p(self.gamma * torch.exp(-exact) * exact / miss)
        weights = torch.softmax(masses.double().log() + log_weights, dim=0)
        return weights.to(losses.dtype)

    def __str__(self) -> str:
        return f"{self.spec}:{in_text(self.gamma)}"


@dataclass(frozen=True, eq=False)
class Shuffled(Rule):
    """The weights of another rule or set, dealt to random examples of the batch.

    The same weights, hence the same effective sample size, without a look at whose they are. With ``within`` they are
    dealt among examples of one group, which keeps the mass of every group: what the adversary does to the mixture
    stays, what it does inside a category goes.

    Args:
        inner: The rule or set.
        within: Name of a column, or integer codes, one per example.
    """

    inner: Reweighting
    within: str | np.ndarray | None = None
    spec: ClassVar[str] = "shuffled"

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Bind the inner rule, and number the groups."""
        inner = self.inner.bind(columns)
        if not isinstance(self.within, str):
            return replace(self, inner=inner)
        if self.within not in columns:
            known = ", ".join(sorted(columns))
            raise ValueError(f"shuffled: names the column {self.within!r}; the columns are: {known}.")
        return replace(self, inner=inner, within=np.unique(np.asarray(columns[self.within]), return_inverse=True)[1])

    def take(self, rows: np.ndarray) -> Self:
        """The rule for these examples."""
        within = self.within[rows] if isinstance(self.within, np.ndarray) else self.within
        return replace(self, inner=self.inner.take(rows), within=within)

    def with_strength(self, fraction: float) -> Self:
        """The inner rule of that strength."""
        return replace(self, inner=self.inner.with_strength(fraction))

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """The inner weights, dealt anew; the examples must have equal masses, or none."""
        inner = reweighted(self.inner, losses, reference=masses)
        present = torch.nonzero(masses > 0).flatten()
        group = np.zeros(len(present)) if self.within is None else np.asarray(self.within)[present.cpu().numpy()]
        to, by = np.argsort(group, kind="stable"), np.lexsort((_draws(losses).random(len(present)), group))
        weights = torch.zeros_like(inner)
        weights[present[torch.as_tensor(to)]] = inner[present[torch.as_tensor(by)]]
        return weights

    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Move the inner rule."""
        advance(self.inner, losses, reference=masses)

    def __str__(self) -> str:
        inner = str(self.inner)
        within = self.within if isinstance(self.within, str) else ""
        named = within or ",within=" in inner  # else this one would take what the inner one says
        return f"{self.spec}:{inner},within={within}" if named else f"{self.spec}:{inner}"


@dataclass(frozen=True, eq=False)
class PerMicroBatch(Rule):
    """Another rule or set solved on consecutive parts of ``size`` examples, each with its share of the mass.

    What accumulation does to an adversary that looks at one micro-batch at a time: not the gradient of the batch.
    """

    inner: Reweighting
    size: int
    spec: ClassVar[str] = "micro"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"micro: takes the size of a micro-batch, at least 1, got {self.size}")

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Bind the inner rule."""
        return replace(self, inner=self.inner.bind(columns))

    def take(self, rows: np.ndarray) -> Self:
        """Take them from the inner rule."""
        return replace(self, inner=self.inner.take(rows))

    def with_strength(self, fraction: float) -> Self:
        """The inner rule of that strength."""
        return replace(self, inner=self.inner.with_strength(fraction))

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """Weights ``(n,)``, part by part; an inner rule with a state has seen the parts before."""
        weights = torch.zeros_like(masses)
        inner = self.inner if state_of(self.inner) is None else copy.deepcopy(self.inner)
        for rows, mass in self._parts(masses):
            here, share = inner.take(rows), masses[rows] / mass
            weights[rows] = mass * reweighted(here, losses[rows], reference=share)
            advance(here, losses[rows], reference=share)
        return weights

    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Move the inner rule by one part after the other."""
        for rows, mass in self._parts(masses):
            advance(self.inner.take(rows), losses[rows], reference=masses[rows] / mass)

    def _parts(self, masses: Tensor) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Rows and mass of every part that has any."""
        for start in range(0, len(masses), self.size):
            rows = np.arange(start, min(start + self.size, len(masses)))
            if (mass := masses[rows].sum()) > 0:
                yield rows, mass

    def __str__(self) -> str:
        return f"{self.spec}:{self.size}:{self.inner}"
