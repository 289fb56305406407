"""Controls of a worst case over groups: what balancing alone gains, and what groups without a meaning would.

``Balanced`` gives every group the same weight and never looks at a loss. ``PermutedGroups`` leaves the set, the number
of groups and their sizes as they are, and deals who belongs to which anew: what it gains, groups as such gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ..data.grouping.named import NamedGroups
from .rules import Reweighting, Rule, advance, reweighted


@dataclass(frozen=True, eq=False)
class Balanced(Rule):
    """Equal weight for every group that is present, shared inside a group in proportion to p.

        q_i = (1 - s) p_i + s p_i / (p_g G),   G the groups of the batch with p_g > 0

    Args:
        groups: Name of a column, or integer codes, one per example.
        share: s, how far from p, in (0, 1]; below 1 while a schedule lets the adversary grow.
    """

    groups: str | np.ndarray
    share: float = 1.0
    spec: ClassVar[str] = "balanced"

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Number the groups of the named column."""
        columns = NamedGroups.of(columns)
        if self.groups not in columns:
            raise ValueError(
                f"balanced names the column {self.groups!r}; the columns are: {', '.join(sorted(columns))}."
            )
        return replace(self, groups=np.unique(np.asarray(columns[str(self.groups)], dtype=str), return_inverse=True)[1])

    def take(self, rows: np.ndarray) -> Self:
        """The rule for these examples."""
        return replace(self, groups=self.groups[rows])

    def with_strength(self, fraction: float) -> Self:
        """That share of the way from the masses to equal groups."""
        return replace(self, share=self.share * fraction)

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """The balanced distribution, whatever the losses are."""
        codes = torch.as_tensor(self.groups, device=losses.device)
        p = masses.double()
        mass = torch.zeros(int(codes.max()) + 1, dtype=p.dtype, device=p.device).index_add(0, codes, p)
        equal = p / mass.where(mass > 0, 1.0)[codes] / (mass > 0).sum()
        return ((1 - self.share) * p + self.share * equal).to(losses.dtype)

    def __str__(self) -> str:
        return f"{self.spec},by={self.groups if isinstance(self.groups, str) else f'({len(self.groups)} labels)'}"


@dataclass(frozen=True, eq=False)
class PermutedGroups(Rule):
    """Another set or rule over groups whose labels are dealt anew, once for the run, among the training examples.

    The groups keep their sizes; who belongs to which is drawn by the seed of the columns that it is bound to.
    """

    inner: Reweighting
    spec: ClassVar[str] = "permuted_groups"

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Bind the inner rule to the labels dealt anew."""
        return replace(self, inner=self.inner.bind(NamedGroups.of(columns).permuted()))

    def take(self, rows: np.ndarray) -> Self:
        """Take them from the inner rule."""
        return replace(self, inner=self.inner.take(rows))

    def with_strength(self, fraction: float) -> Self:
        """The inner rule of that strength."""
        return replace(self, inner=self.inner.with_strength(fraction))

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """Those of the inner rule."""
        return reweighted(self.inner, losses, reference=masses)

    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Move the inner rule."""
        advance(self.inner, losses, reference=masses)

    def __str__(self) -> str:
        return f"{self.spec}:{self.inner}"
