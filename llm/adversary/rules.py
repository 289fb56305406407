"""What decides the weights of an effective batch: an ambiguity set, or a published rule to compare with.

A rule is asked for weights exactly where a set is asked for its worst case, so that a comparison changes
nothing else. Dr. DPO tilts towards *small* losses: the opposite adversary, meant for noisy labels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from dro_core import AmbiguitySet, Minibatch, worst_case
from dro_core.sets.ambiguity import in_text

from ..run.stored_arrays import read_array
from .equal_losses import Accuracy, sharing_equals


class Rule(Protocol):
    """A reweighting that is no worst case; the methods are those a trainer also calls on an ambiguity set."""

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Replace the name of a column (``by=source``) by its entries."""
        ...

    def take(self, rows: np.ndarray) -> Self:
        """The rule for the examples ``rows`` of the training set."""
        ...

    def with_strength(self, fraction: float) -> Self:
        """The rule weakened towards uniform weights, fraction in (0, 1]."""
        ...

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """Weights ``(n,)``, sum 1, from losses ``(n,)`` and reference masses ``(n,)``; asking changes nothing."""
        ...


Reweighting = AmbiguitySet | Rule


def reweighted(
    rule: Reweighting,
    losses: Tensor,
    *,
    reference: Tensor | None = None,
    accuracy: Accuracy | None = None,
    asked: Tensor | None = None,
) -> Tensor:
    """Weights ``(n,)`` of the losses ``(n,)`` under a set (its worst case) or a rule.

    Args:
        rule: An ambiguity set or a rule, already bound to the examples.
        losses: Larger is worse; no gradient flows into the weights.
        reference: Masses ``(n,)`` to start from; None means uniform.
        accuracy: Of the losses: what is closer is equal (``sharing_equals``); None takes them as exact.
        asked: Whose losses are known, boolean ``(n,)``: prompts without a mass may be, and tell of others; None: of
            those with a mass.
    """
    there = None if reference is None else reference > 0
    rule, losses = exposed(rule, losses, there if asked is None else asked)
    losses = sharing_equals(losses, accuracy, there)
    if isinstance(rule, Minibatch):
        return _counted(rule, losses, reference)
    if isinstance(rule, AmbiguitySet):
        return worst_case(losses, rule, reference=reference).weights
    masses = torch.full_like(losses, 1 / len(losses)) if reference is None else reference
    return rule.weights(losses, masses)


def _counted(rule: Minibatch, losses: Tensor, reference: Tensor | None) -> Tensor:
    """Weights of a set that counts examples: of those that are there, which must have equal masses.

    A batch that has lost some (the last one of an epoch, prompts without a score) and holds fewer than the set stands
    for is weighed by its own worst case.
    """
    there = torch.ones_like(losses, dtype=torch.bool) if reference is None else reference > 0
    if reference is not None and not torch.allclose(reference[there], reference[there][0]):
        return worst_case(losses, rule, reference=reference).weights  # which says what is wrong
    few = replace(rule, draws=min(rule.draws, int(there.sum())))
    weights = torch.zeros_like(losses)
    weights[there] = worst_case(losses[there], few).weights
    return weights


def layers(rule: object) -> Iterator[object]:
    """The rule and what it is made of, from the outermost."""
    while rule is not None:
        yield rule
        rule = getattr(rule, "inner", None)


def names_in(rule: Reweighting | None, *attributes: str) -> list[str]:
    """The columns that a set or rule names, as it names them: those of its groups, and within which it deals."""
    found = (getattr(part, name, None) for part in layers(rule) for name in attributes or ("groups", "within"))
    return [name for name in found if isinstance(name, str)]


def weakened(rule: Reweighting | None, strength: float) -> Reweighting | None:
    """The rule at a share of its strength, in [0, 1]; None, which is equal weights, at 0 or without a rule."""
    if rule is None or strength == 0.0:
        return None
    return rule if strength == 1.0 else rule.with_strength(strength)


class Shifted(Rule):
    """A rule or set, ``inner``, that is shown something else in place of the losses."""

    inner: Reweighting

    @abstractmethod
    def seen(self, losses: Tensor, there: Tensor | None = None) -> Tensor:
        """What is shown in place of the losses ``(n,)``, of which those ``there`` are examples; None: all."""

    def move(self, losses: Tensor, there: Tensor) -> None:
        """Take the step whose losses these are into what it knows; most know nothing of steps."""


def exposed(rule: Reweighting, losses: Tensor, there: Tensor | None = None) -> tuple[Reweighting, Tensor]:
    """A rule without the layers that shift losses, wherever they stand inside it, and the losses ``(n,)`` it sees."""
    if not any(isinstance(part, Shifted) for part in layers(rule)):
        return rule, losses
    if isinstance(rule, Shifted):
        return exposed(rule.inner, rule.seen(losses, there), there)
    outer: Any = rule
    below, losses = exposed(outer.inner, losses, there)
    return replace(outer, inner=below), losses


class Stateful(Rule):
    """A rule that the losses of every step move; asked for weights, it answers as after the step at hand."""

    @abstractmethod
    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Take the step for which ``weights`` was asked with the same losses and masses."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the state into an existing folder."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Take the state over from a folder that ``save`` wrote."""


def state_of(rule: Reweighting | None) -> Stateful | None:
    """The rule that keeps a state over the run: the given one, or one inside it."""
    if rule is None or isinstance(rule, Stateful):
        return rule
    return state_of(getattr(rule, "inner", None))


def advance(
    rule: Reweighting,
    losses: Tensor,
    *,
    reference: Tensor | None = None,
    accuracy: Accuracy | None = None,
    asked: Tensor | None = None,
) -> None:
    """Move the state inside a rule, if there is one, by the step that was weighed. Arguments: see ``reweighted``."""
    if state_of(rule) is None:
        return
    masses = torch.full_like(losses, 1 / len(losses)) if reference is None else reference
    there = masses > 0 if asked is None else asked
    moving: Any  # itself stateful, or made of one that is
    moving, shown = exposed(rule, losses, there)
    if state_of(moving) is not None:
        moving.advance(sharing_equals(shown, accuracy, None if reference is None else reference > 0), masses)
    for part in layers(rule):
        if isinstance(part, Shifted):
            shown = part.seen(losses, there)  # before it moves
            part.move(losses, there)
            losses = shown


class Placeless(Rule):
    """A rule for which examples have no places and columns no meaning."""

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Nothing is named: the rule itself."""
        del columns
        return self

    def take(self, rows: np.ndarray) -> Self:
        """Examples have no places: the rule itself."""
        del rows
        return self


@dataclass(frozen=True)
class DrDPO(Placeless):
    """Weights q proportional to p exp(-l/b): the gradient of -b log E exp(-l/b), Dr. DPO of 2407.07880.

    Computed as a softmax, so it does not overflow where exp(-l/b) would.
    """

    temperature: float
    spec: ClassVar[str] = "dr_dpo"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"the temperature of dr_dpo must be positive, got {self.temperature}")

    def with_strength(self, fraction: float) -> Self:
        """A temperature that is higher by 1/fraction: infinite temperature means uniform weights."""
        return replace(self, temperature=self.temperature / fraction)

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """The tilted distribution."""
        return torch.softmax(masses.log() - losses / self.temperature, dim=0)

    def __str__(self) -> str:
        return f"{self.spec}:{in_text(self.temperature)}"


@dataclass(frozen=True, eq=False)
class GroupAscent(Stateful):
    """Group weights a by exponentiated gradient over the whole run: GR-DPO of 2405.20304, group DRO of 1911.08731.

        a_g <- a_g exp(rate mean_g(l)) / sum;   q_i = a_g p_i / p_g   (over the groups of the batch, made to sum to 1)

    The state (log a) is shared by every view of the rule and travels in checkpoints. It needs the same losses in the
    same order on every rank, which the gathered effective batch gives.

    Args:
        rate: Step size, at least 0, in 1/nats.
        groups: Name of a column, or integer codes, one per example.
        log_weights: log a, one per group; ``advance`` changes it in place.
    """

    rate: float
    groups: str | np.ndarray
    log_weights: np.ndarray = field(default_factory=lambda: np.zeros(0))
    spec: ClassVar[str] = "gr_dpo"

    def __post_init__(self) -> None:
        if not self.rate >= 0:
            raise ValueError(f"the step size of gr_dpo must be at least 0, got {self.rate}")

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Number the groups of the named column; all start with equal weight."""
        if self.groups not in columns:
            raise ValueError(f"gr_dpo names the column {self.groups!r}; the columns are: {', '.join(sorted(columns))}.")
        names, codes = np.unique(np.asarray(columns[str(self.groups)]), return_inverse=True)
        return replace(self, groups=codes, log_weights=np.full(len(names), -np.log(len(names))))

    def take(self, rows: np.ndarray) -> Self:
        """The rule for these examples; the group weights are shared."""
        return replace(self, groups=self.groups[rows])

    def with_strength(self, fraction: float) -> Self:
        """Slower steps; the group weights are shared."""
        return replace(self, rate=self.rate * fraction)

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """What the examples weigh after one step on the groups present."""
        groups, mass, moved = self._step(losses, masses)
        logs = torch.as_tensor(moved, device=losses.device).masked_fill(mass == 0, -torch.inf)
        share = (logs - logs.max()).exp()  # relative to the heaviest group here, which the batch may lack
        weights = (share / mass.clamp_min(1e-300))[groups] * masses
        return (weights / weights.sum()).to(losses.dtype)

    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Take that step."""
        self.log_weights[:] = self._step(losses, masses)[2]

    def _step(self, losses: Tensor, masses: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
        """Groups of the examples ``(n,)``, masses of the groups ``(k,)``, and log a after a step on those present."""
        groups = torch.as_tensor(self.groups, device=losses.device)
        mass = torch.zeros(len(self.log_weights), dtype=torch.float64, device=losses.device)
        total = mass.clone().index_add_(0, groups, (masses * losses).double())
        mass.index_add_(0, groups, masses.double())
        means = torch.where(mass > 0, total / mass.clamp_min(1e-300), 0.0).cpu().numpy()
        log_weights = self.log_weights + self.rate * means
        return groups, mass, log_weights - np.logaddexp.reduce(log_weights)

    def save(self, folder: Path) -> None:
        """Write the group weights to ``folder/groups.npy``."""
        np.save(folder / "groups.npy", self.log_weights)

    def load(self, folder: Path) -> None:
        """Take the group weights over from ``folder/groups.npy``."""
        self.log_weights[:] = read_array(folder / "groups.npy")

    def __str__(self) -> str:
        return f"{self.spec}:{in_text(self.rate)},by={self.groups if isinstance(self.groups, str) else '(codes)'}"
