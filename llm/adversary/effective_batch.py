"""One optimizer step's examples over all ranks: their losses, their worst-case weights, and the account of both.

The weights couple every example of every data-parallel rank, so each rank gathers all losses, solves the same
small problem, and takes its own share of the weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dro_core import AmbiguitySet, effective_sample_size, largest_multiplier, worst_case

from .equal_losses import Accuracy, rounding_of, sharing_equals
from .ledger import AdversaryLedger
from .rules import Reweighting, advance, reweighted, state_of, weakened

if TYPE_CHECKING:
    from accelerate import Accelerator


class Looked(NamedTuple):
    """The examples of a batch: positions in the training set, losses and, where they were given, margins, ``(n,)``."""

    rows: NDArray[np.int64]
    losses: NDArray[np.float32]
    margins: NDArray[np.float32] | None


@dataclass(frozen=True)
class EffectiveBatch:
    """The examples of all ranks, in rank order; shorter ranks are padded with entries of zero mass.

    Attributes:
        losses: Shape ``(n,)``, without gradient.
        index: Positions in the training set, shape ``(n,)``.
        present: 1 for an example, 0 for padding, shape ``(n,)``.
        mine: Where this rank's examples stand.
        padded: Whether there may be entries that are no examples.
        margins: Those of pairs, shape ``(n,)``, where losses do not tell them.
    """

    losses: Tensor
    index: Tensor
    present: Tensor
    mine: slice
    padded: bool
    margins: Tensor | None = None

    def weights(self, ambiguity: Reweighting | None, strength: float, *, accuracy: Accuracy | None = None) -> Tensor:
        """Worst-case weights, shape ``(n,)``, sum 1, zero on padding; equal ones at strength 0 or without a set.

        Asking changes nothing.

        Args:
            ambiguity: A set or rule over the whole training set; the places of these examples are taken from it.
            strength: Share of the set's strength, in [0, 1].
            accuracy: Of the losses: what is closer is equal; None takes them as exact.
        """
        chosen = weakened(ambiguity, strength)
        if chosen is None:
            return self._equal()
        here = chosen.take(self.index.cpu().numpy())
        return reweighted(here, self.losses, reference=self._reference(), accuracy=accuracy)

    def advance(self, ambiguity: Reweighting | None, strength: float, *, accuracy: Accuracy | None = None) -> None:
        """Move a rule that keeps a state by the step that this batch is. Arguments: see ``weights``."""
        if (chosen := weakened(ambiguity, strength)) is not None:
            here = chosen.take(self.index.cpu().numpy())
            advance(here, self.losses, reference=self._reference(), accuracy=accuracy)

    def _equal(self) -> Tensor:
        return self.present / self.present.sum()

    def _reference(self) -> Tensor | None:
        return self._equal() if self.padded else None

    def examples(self) -> tuple[Tensor, Looked]:
        """Losses without padding, and the same in numpy with all else: on a GPU one transfer for losses and margins."""
        told = [self.losses] if self.margins is None else [self.losses, self.margins]
        values, index = torch.stack(told)[:, self.present > 0], self.index[self.present > 0]
        rows = values.float().cpu().numpy()
        return values[0], Looked(index.cpu().numpy(), rows[0], rows[1] if len(rows) > 1 else None)

    @classmethod
    def gathered(
        cls, accelerator: Accelerator, losses: Tensor, index: Tensor, *, margins: Tensor | None = None
    ) -> Self:
        """Collect what every rank holds: all of shape ``(m,)``, m may differ by rank."""
        n, world = len(losses), accelerator.num_processes
        if world == 1:
            return cls(losses, index, torch.ones_like(losses), slice(0, n), padded=False, margins=margins)
        sizes: Any = accelerator.gather(torch.tensor([n], device=losses.device))
        longest = int(sizes.max())
        parts = [losses, index, torch.ones_like(losses), *([] if margins is None else [margins])]
        rows = torch.zeros(len(parts), longest, dtype=torch.float64, device=losses.device)
        for row, part in zip(rows, parts, strict=True):
            row[:n] = part
        everyone: Any = accelerator.gather(rows[None])  # (world, parts, longest)
        start = accelerator.process_index * longest
        return cls(
            everyone[:, 0].reshape(-1).to(losses.dtype),
            everyone[:, 1].reshape(-1).long(),
            everyone[:, 2].reshape(-1).to(losses.dtype),
            slice(start, start + n),
            padded=True,
            margins=None if margins is None else everyone[:, 3].reshape(-1).to(losses.dtype),
        )


def equal_weights(accelerator: Accelerator, index: Tensor) -> Tensor:
    """This rank's share of equal weights over all ranks, for its examples ``index`` of shape ``(m,)``."""
    total: Any = accelerator.reduce(torch.tensor(float(len(index)), device=index.device), "sum")
    return torch.ones(len(index), device=index.device) / total


_NONE: Mapping[str, float] = MappingProxyType({})


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


class AdversaryAccount:
    """What the adversary did: to every example (``ledger``), and at every optimizer step since the last log.

    Args:
        examples: Size of the training set.
    """

    def __init__(self, examples: int) -> None:
        self.ledger = AdversaryLedger(examples)
        self._looks: dict[int, list[dict[str, float]]] = defaultdict(list)  # by step, one row per look at losses

    def book(
        self, batch: EffectiveBatch, weights: Tensor, *, step: int, strength: float, used: Mapping[str, float] = _NONE
    ) -> Looked:
        """Book one effective batch and its ``weights`` of shape ``(n,)``; what was seen.

        Args:
            batch: The examples.
            weights: Theirs.
            step: Optimizer steps done so far.
            strength: Share of the rule's strength.
            used: What else the log says of the step: the same names at every step of a run.
        """
        (losses, seen), weights = batch.examples(), weights[batch.present > 0]
        given = (weights * len(weights)).cpu().numpy()
        self.ledger.record(seen.rows, given, seen.losses, answered=given if strength > 0 else None)
        self._look(losses, weights, step=step, strength=strength, used=used)
        return seen

    def _look(self, losses: Tensor, weights: Tensor, *, step: int, strength: float, used: Mapping[str, float]) -> None:
        self._looks[step].append(
            {
                "mean_loss": float(losses.mean()),
                "robust_loss": float((weights * losses).sum()),
                "effective_sample_size": float(effective_sample_size(weights)),
                "largest_multiplier": float(largest_multiplier(weights)),
                "zero_share": float((weights == 0).float().mean()),
                "radius_fraction": strength,
                **used,
            }
        )

    def book_equal(
        self, batch: EffectiveBatch, *, step: int, micro_batches: int, used: Mapping[str, float] = _NONE
    ) -> Looked:
        """Book one micro-batch of plain training; the effective batch has known, equal weights."""
        losses, seen = batch.examples()
        self.ledger.record(seen.rows, np.ones(len(losses)), seen.losses)
        mean = float(losses.mean())
        self._looks[step].append(
            {
                "mean_loss": mean,
                "robust_loss": mean,
                "effective_sample_size": float(len(losses) * micro_batches),
                "largest_multiplier": 1.0,
                "zero_share": 0.0,
                "radius_fraction": 0.0,
                **used,
            }
        )
        return seen

    def waiting(self) -> dict[int, list[dict[str, float]]]:
        """The looks at losses since the last summary, by optimizer step."""
        return dict(self._looks)

    def wait_for(self, looks: Mapping[Any, list[dict[str, float]]]) -> None:
        """Take over what ``waiting`` gave."""
        self._looks.update({int(step): list(rows) for step, rows in looks.items()})

    def total(self, name: str) -> float:
        """Sum of an entry over the steps since the last summary."""
        return sum(_mean(rows)[name] for rows in self._looks.values())

    def summary(self) -> dict[str, float]:
        """Means over the steps since the last call; empty if there were none."""
        steps = [_mean(rows) for rows in self._looks.values()]
        self._looks.clear()
        return _mean(steps) if steps else {}


Array = NDArray[np.float64]


_ACCURACY = Accuracy(rounding_of(torch.float64), logistic=True)


def batch_weights(rule: Reweighting | None, losses: Array, batch: NDArray[np.int64], *, strength: float) -> Array:
    """Weights ``(n,)`` of one minibatch: the training pairs ``batch`` with these ``losses``. Asking changes nothing.

    Args:
        rule: Bound to the training pairs; None for equal weights.
        losses: Shape ``(n,)``.
        batch: Positions in the training set, shape ``(n,)``.
        strength: Share of the rule's strength, in [0, 1].
    """
    chosen = weakened(rule, strength)
    if chosen is None:
        return np.full(len(losses), 1 / len(losses))
    here = chosen.take(batch)
    if isinstance(here, AmbiguitySet):
        shared = sharing_equals(torch.from_numpy(losses), _ACCURACY).numpy()
        return worst_case(shared, here).weights
    return reweighted(here, torch.from_numpy(losses), accuracy=_ACCURACY).numpy()


def moved_by(rule: Reweighting | None, losses: Array, batch: NDArray[np.int64], *, strength: float) -> None:
    """Move a rule that keeps a state by the step of one minibatch. Arguments: see ``batch_weights``."""
    if state_of(rule) is not None and (chosen := weakened(rule, strength)) is not None:
        advance(chosen.take(batch), torch.from_numpy(losses), accuracy=_ACCURACY)
