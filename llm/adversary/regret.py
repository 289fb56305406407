"""An adversary that looks at what a model could still gain: the losses less the least that uncertain labels allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from .rules import Reweighting, Shifted, advance, layers, reweighted


@dataclass(frozen=True, eq=False)
class Regret(Shifted):
    """Another rule or set on the regrets l_i - H_i, H_i the least loss that the label of example i allows.

    Under the sigmoid loss with labels that are right with probability p, H is the entropy of p and the regret is
    KL(p, sigmoid(margin)) >= 0: a coin that is called a coin costs log 2 and no regret, so weight goes to pairs that
    the model has wrong, not to those that nobody can know. Of certain labels H = 0, and it is the inner set.

    Args:
        inner: The rule or set.
        least: H of every example, ``(n,)``, in nats; None: labels are certain.
    """

    inner: Reweighting
    least: np.ndarray | None = None
    spec: ClassVar[str] = "regret"

    def __post_init__(self) -> None:
        if any(isinstance(part, Regret) for part in layers(self.inner)):
            raise ValueError("regret: stands twice, and losses have one least value: leave one out")

    def bind(self, columns: Mapping[str, Sequence[object]]) -> Self:
        """Bind the inner rule."""
        return replace(self, inner=self.inner.bind(columns))

    def take(self, rows: np.ndarray) -> Self:
        """The rule for these examples."""
        return replace(self, inner=self.inner.take(rows), least=None if self.least is None else self.least[rows])

    def with_strength(self, fraction: float) -> Self:
        """The inner rule of that strength."""
        return replace(self, inner=self.inner.with_strength(fraction))

    def seen(self, losses: Tensor, there: Tensor | None = None) -> Tensor:
        """The regrets ``(n,)``."""
        del there
        return losses if self.least is None else losses - torch.as_tensor(self.least).to(losses)

    def weights(self, losses: Tensor, masses: Tensor) -> Tensor:
        """What the inner rule answers to the regrets."""
        return reweighted(self.inner, self.seen(losses), reference=masses)

    def advance(self, losses: Tensor, masses: Tensor) -> None:
        """Move the inner rule by the regrets."""
        advance(self.inner, self.seen(losses), reference=masses)

    def __str__(self) -> str:
        return f"{self.spec}:{self.inner}"


def with_least(rule: Reweighting | None, least: np.ndarray) -> Reweighting | None:
    """The rule, told the least loss of every example ``(n,)`` wherever ``regret:`` stands inside it."""
    if not any(isinstance(part, Regret) for part in layers(rule)):
        return rule
    if isinstance(rule, Regret):
        return replace(rule, least=least)
    outer: Any = rule
    return replace(outer, inner=with_least(outer.inner, least))
