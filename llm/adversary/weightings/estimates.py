"""What an adversary over prompts is shown in place of the mean score of a few answers.

A share of 8 answers has a deviation of up to .18, which a worst case takes for difficulty. Each wrapper shows the rule
or set inside it an estimate with less of it and more bias: the past of the prompt, what all prompts have in common, or
its family. What is trained on and booked stays what was drawn.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from dro_core.sets.ambiguity import in_text

from ...data.grouping.named import NamedGroups
from ..rules import Reweighting, Shifted, Stateful, advance, layers, reweighted, state_of
from .rule import Memory

_SLOW = 0.9  # share of the past in the running mean of all prompts


class Estimate(Shifted):
    """A rule or set that sees estimates of the values of prompts; one of a kind stands in a rule."""

    inner: Reweighting
    spec: ClassVar[str]

    def __post_init__(self) -> None:
        if any(type(part) is type(self) for part in layers(self.inner)):
            raise ValueError(f"{self.spec}: stands twice, and shows one estimate: leave one out")

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Bind the inner rule."""
        made: Any = self
        return replace(made, inner=self.inner.bind(columns))

    def take(self, rows: np.ndarray) -> Self:
        """Take them from the inner rule."""
        made: Any = self
        return replace(made, inner=self.inner.take(rows))

    def with_strength(self, fraction: float) -> Self:
        """The inner rule of that strength; estimates stay what they are."""
        made: Any = self
        return replace(made, inner=self.inner.with_strength(fraction))

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """What the inner rule answers to the estimates."""
        return reweighted(self.inner, self.seen(losses, masses > 0), reference=masses)

    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Move the estimates, and the inner rule by them."""
        advance(self, losses, reference=masses)


class Kept(Estimate, Stateful):
    """An estimate that every step moves; it is asked as after the step at hand."""

    memory: Memory

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Bind the inner rule, and begin."""
        return replace(super().bind(columns), memory=Memory())  # type: ignore[type-var]

    @abstractmethod
    def move(self, losses: Tensor, there: Tensor) -> None:
        """Take the step."""

    def save(self, folder: Path) -> None:
        """Write the memory, and that of the rule inside."""
        self.memory.save(folder / f"{self.spec}.npy")
        if (inner := state_of(self.inner)) is not None:
            inner.save(folder)

    def load(self, folder: Path) -> None:
        """Take both over."""
        self.memory.load(folder / f"{self.spec}.npy")
        if (inner := state_of(self.inner)) is not None:
            inner.load(folder)


@dataclass(frozen=True, eq=False)
class Running(Kept):
    """The running mean of each prompt over the times it was asked.

        m <- decay m + (1 - decay) x, begun at the first x;  shown: m with the x at hand

    Where the policy stays it has no bias, and its variance falls towards (1 - decay)/(1 + decay) of that of x; where
    the policy moves, it lags.

    Args:
        decay: Share of the past, in [0, 1).
        inner: The rule or set.
        memory: Estimated losses of the training set, ``(examples,)``, nan where never asked.
        rows: Which of them; None: the first.
    """

    decay: float
    inner: Reweighting
    memory: Memory = field(default_factory=Memory)
    rows: np.ndarray | None = None
    spec: ClassVar[str] = "running"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1:
            raise ValueError(f"running: takes the share of the past, at least 0 and below 1, got {self.decay:g}")

    def take(self, rows: np.ndarray) -> Self:
        """The rule for these examples; what is known of them is shared."""
        return replace(super().take(rows), rows=rows if self.rows is None else self.rows[rows])

    def seen(self, losses: Tensor, there: Tensor | None = None) -> Tensor:
        """The running means ``(n,)``; of a prompt that stands twice the mean of both counts."""
        rows, asked, past = self._known(losses, there)
        found = losses.double().cpu().numpy().copy()
        new = np.bincount(asked, found[rows >= 0]) / np.maximum(np.bincount(asked), 1)
        moved = np.where(np.isnan(past), new, self.decay * past + (1 - self.decay) * new)
        found[rows >= 0] = moved[asked]
        return torch.as_tensor(found).to(losses)

    def move(self, losses: Tensor, there: Tensor) -> None:
        """Keep the means that were shown."""
        rows, _, _ = self._known(losses, there)
        kept, most = self._all(), int(rows.max(initial=-1)) + 1
        if most > len(kept):
            kept = np.concatenate([kept, np.full(most - len(kept), np.nan)])
        kept[rows[rows >= 0]] = self.seen(losses, there).double().cpu().numpy()[rows >= 0]
        self.memory.state = kept

    def _all(self) -> np.ndarray:
        return np.zeros(0) if self.memory.state is None else np.array(self.memory.state)

    def _known(self, losses: Tensor, there: Tensor | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row of every entry, -1 of padding; for those that are none the place among different rows; their past."""
        rows = np.arange(len(losses)) if self.rows is None else np.array(self.rows)
        if there is not None:
            rows = np.where(there.cpu().numpy(), rows, -1)
        different, asked = np.unique(rows[rows >= 0], return_inverse=True)
        kept, past = self._all(), np.full(len(different), np.nan)
        past[different < len(kept)] = kept[different[different < len(kept)]]
        return rows, asked, past

    def __str__(self) -> str:
        return f"{self.spec}:{in_text(self.decay)}:{self.inner}"


@dataclass(frozen=True, eq=False)
class Shrunk(Kept):
    """The mean score drawn towards that of all prompts, as by a Beta prior that counts as ``pseudo`` answers.

        (G x + a m)/(G + a),   x the mean of the G answers at hand, m the running mean of all prompts

    Its bias is a (m - p)/(G + a), its variance that of x times (G/(G + a))^2. m begins at the mean of the first batch
    and keeps nine tenths of itself at every step, the one at hand included.

    Args:
        pseudo: a, at least 0.
        inner: The rule or set.
        answers: G; the trainer tells it.
        memory: m, as a loss, ``(1,)``.
    """

    pseudo: float
    inner: Reweighting
    answers: int | None = None
    memory: Memory = field(default_factory=Memory)
    spec: ClassVar[str] = "shrunk"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.pseudo < np.inf:
            raise ValueError(f"shrunk: takes a number of pseudo-answers, at least 0, got {self.pseudo:g}")

    def seen(self, losses: Tensor, there: Tensor | None = None) -> Tensor:
        """The posterior means ``(n,)``."""
        if self.answers is None:
            raise ValueError(f"{self} has to know how many answers a prompt gets: hand it through with_answers")
        common = self._mean(losses, there)
        return (self.answers * losses + self.pseudo * common.to(losses)) / (self.answers + self.pseudo)

    def move(self, losses: Tensor, there: Tensor) -> None:
        """Keep the running mean."""
        self.memory.state = self._mean(losses, there).cpu().numpy()

    def _mean(self, losses: Tensor, there: Tensor | None) -> Tensor:
        mean = (losses if there is None else losses[there]).double().mean().reshape(1)
        past = self.memory.state
        return mean if past is None else _SLOW * torch.as_tensor(past).to(mean) + (1 - _SLOW) * mean

    def __str__(self) -> str:
        return f"{self.spec}:{in_text(self.pseudo)}:{self.inner}"


@dataclass(frozen=True, eq=False)
class Pooled(Estimate):
    """The mean of all prompts of its group in the batch, in place of each prompt's own.

    With k prompts of the group there, the variance is that of their mean, about a k-th; the bias is how far the prompt
    is from its group.

    Args:
        inner: The rule or set.
        groups: Name of a column, or integer codes, one per example.
    """

    inner: Reweighting
    groups: str | np.ndarray
    spec: ClassVar[str] = "pooled"

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Bind the inner rule, and number the groups of the named column."""
        columns = NamedGroups.of(columns)
        if self.groups not in columns:
            known = ", ".join(sorted(columns))
            raise ValueError(f"pooled names the column {self.groups!r}; the columns are: {known}.")
        codes = np.unique(np.asarray(columns[str(self.groups)], dtype=str), return_inverse=True)[1]
        return replace(super().bind(columns), groups=codes)

    def take(self, rows: np.ndarray) -> Self:
        """The rule for these examples."""
        return replace(super().take(rows), groups=self.groups[rows])

    def seen(self, losses: Tensor, there: Tensor | None = None) -> Tensor:
        """The means of the groups ``(n,)``, of what is there."""
        codes = torch.as_tensor(self.groups, device=losses.device)
        counted = torch.ones_like(losses) if there is None else there.to(losses)
        total, count = losses.new_zeros(2, int(codes.max()) + 1)
        total, count = total.index_add(0, codes, counted * losses), count.index_add(0, codes, counted)
        return (total / count)[codes].where(counted > 0, losses)

    def __str__(self) -> str:
        groups = self.groups if isinstance(self.groups, str) else f"({len(self.groups)} labels)"
        return f"{self.spec}:{self.inner},by={groups}"


def with_answers(rule: Reweighting | None, answers: int) -> Reweighting | None:
    """The rule, told how many answers the value of a prompt is the mean of, wherever ``shrunk:`` stands inside it."""
    if not any(isinstance(part, Shrunk) for part in layers(rule)):
        return rule
    outer: Any = rule
    if isinstance(rule, Shrunk):
        return replace(rule, answers=answers)
    return replace(outer, inner=with_answers(outer.inner, answers))
