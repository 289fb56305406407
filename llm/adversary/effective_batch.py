"""One optimizer step's examples over all ranks: their losses, their worst-case weights, and the account of both.

The weights couple every example of every data-parallel rank, so each rank gathers all losses, solves the same
small problem, and takes its own share of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dro_core import AmbiguitySet, worst_case

from .equal_losses import Accuracy, rounding_of, sharing_equals
from .rules import Reweighting, advance, reweighted, state_of, weakened

if TYPE_CHECKING:
    from accelerate import Accelerator


class Looked(NamedTuple):
    """The examples of a batch, ``(n,)`` each: positions in the training set, losses and, where given, margins."""

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
        masses: What each counts before it is reweighted, relative to others, 0 for padding; None: examples count alike.
        margins: Those of pairs, shape ``(n,)``, where losses do not tell them.
        asked: Whose losses are known, boolean ``(n,)``, though some may have no mass; None: of those that have.
    """

    losses: Tensor
    index: Tensor
    present: Tensor
    mine: slice
    padded: bool
    masses: Tensor | None = None
    margins: Tensor | None = None
    asked: Tensor | None = None

    def weights(self, ambiguity: Reweighting | None, strength: float, *, accuracy: Accuracy | None = None) -> Tensor:
        """Worst-case weights, shape ``(n,)``, sum 1, zero on padding; the reference at strength 0 or without a set.

        Asking changes nothing.

        Args:
            ambiguity: A set or rule over the whole training set; the places of these examples are taken from it.
            strength: Share of the set's strength, in [0, 1].
            accuracy: Of the losses: what is closer is equal; None takes them as exact.
        """
        chosen = weakened(ambiguity, strength)
        if chosen is None:
            return self.reference
        here = chosen.take(self.index.cpu().numpy())
        return reweighted(here, self.losses, reference=self._reference(), accuracy=accuracy, asked=self.asked)

    def advance(self, ambiguity: Reweighting | None, strength: float, *, accuracy: Accuracy | None = None) -> None:
        """Move a rule that keeps a state by the step that this batch is. Arguments: see ``weights``."""
        if (chosen := weakened(ambiguity, strength)) is not None:
            here = chosen.take(self.index.cpu().numpy())
            advance(here, self.losses, reference=self._reference(), accuracy=accuracy, asked=self.asked)

    @property
    def reference(self) -> Tensor:
        """What plain training weighs, shape ``(n,)``, sum 1: equal weights of the examples, or their masses."""
        masses = self.present if self.masses is None else self.masses
        return masses / masses.sum()

    def _reference(self) -> Tensor | None:
        return self.reference if self.padded or self.masses is not None else None

    def examples(self, shown: Tensor | None = None) -> tuple[Tensor, Looked]:
        """Losses without padding, and what is seen in numpy: on a GPU one transfer for losses and margins.

        ``shown`` ``(n,)`` is what the adversary sees in place of the losses.
        """
        shown = self.losses if shown is None else shown
        told = [shown] if self.margins is None else [shown, self.margins]
        here = self.present > 0
        rows = torch.stack(told)[:, here].float().cpu().numpy()
        seen = Looked(self.index[here].cpu().numpy(), rows[0], rows[1] if len(rows) > 1 else None)
        return self.losses[here], seen

    @classmethod
    def gathered(
        cls,
        accelerator: Accelerator,
        losses: Tensor,
        index: Tensor,
        *,
        masses: Tensor | None = None,
        margins: Tensor | None = None,
    ) -> Self:
        """Collect what every rank holds: all but ``masses`` of shape ``(m,)``, m may differ by rank.

        Args:
            accelerator: Knows the ranks.
            losses: Of this rank's examples.
            index: Their positions in the training set.
            masses: Of the whole training set; None: examples count alike.
            margins: Of this rank's pairs, where losses do not tell them.
        """
        n, world = len(losses), accelerator.num_processes
        if world == 1:
            here = None if masses is None else masses.to(losses)[index]
            one = torch.ones_like(losses)
            return cls(losses, index, one, slice(0, n), padded=False, masses=here, margins=margins)
        sizes = gather(accelerator, torch.tensor([n], device=losses.device))
        longest = int(sizes.max())
        parts = [losses, index, torch.ones_like(losses), *([] if margins is None else [margins])]
        rows = torch.zeros(len(parts), longest, dtype=torch.float64, device=losses.device)
        for row, part in zip(rows, parts, strict=True):
            row[:n] = part
        everyone = gather(accelerator, rows[None])  # (world, parts, longest)
        start = accelerator.process_index * longest
        index, present = everyone[:, 1].reshape(-1).long(), everyone[:, 2].reshape(-1).to(losses.dtype)
        return cls(
            everyone[:, 0].reshape(-1).to(losses.dtype),
            index,
            present,
            slice(start, start + n),
            padded=True,
            masses=None if masses is None else masses.to(losses)[index] * present,
            margins=None if margins is None else everyone[:, 3].reshape(-1).to(losses.dtype),
        )


def gather(accelerator: Accelerator, own: Tensor) -> Tensor:
    """The tensors of all processes, joined along the first axis."""
    everyone: Any = accelerator.gather(own)
    return everyone


def plain_weights(accelerator: Accelerator, index: Tensor, *, masses: Tensor | None = None) -> Tensor:
    """What plain training weighs this rank's examples ``index`` ``(m,)`` of the window of all ranks.

    Args:
        accelerator: Knows the ranks.
        index: Positions in the training set.
        masses: Of the whole training set; None: examples count alike.
    """
    own = torch.ones(len(index), device=index.device)
    own = own if masses is None else masses.to(own)[index]
    total: Any = accelerator.reduce(own.sum(), "sum")
    return own / total


Array = NDArray[np.float64]


def _accuracy(*, logistic: bool) -> Accuracy:
    return Accuracy(rounding_of(torch.float64), logistic=logistic)


def batch_weights(
    rule: Reweighting | None,
    losses: Array,
    batch: NDArray[np.int64],
    *,
    strength: float,
    reference: Array | None = None,
    logistic: bool = True,
) -> Array:
    """Weights ``(n,)`` of one minibatch: the training pairs ``batch`` with these ``losses``. Asking changes nothing.

    Args:
        rule: Bound to the training pairs; None for the reference.
        losses: Shape ``(n,)``.
        batch: Positions in the training set, shape ``(n,)``.
        strength: Share of the rule's strength, in [0, 1].
        reference: What plain training weighs, ``(n,)``, sum 1; None: equal weights.
        logistic: Whether losses are -log sigmoid(margin).
    """
    accuracy = _accuracy(logistic=logistic)
    chosen = weakened(rule, strength)
    if chosen is None:
        return np.full(len(losses), 1 / len(losses)) if reference is None else reference
    here = chosen.take(batch)
    if isinstance(here, AmbiguitySet):
        shared = sharing_equals(torch.from_numpy(losses), accuracy).numpy()
        return worst_case(shared, here, reference=reference).weights
    given = None if reference is None else torch.from_numpy(reference)
    return reweighted(here, torch.from_numpy(losses), reference=given, accuracy=accuracy).numpy()


def moved_by(
    rule: Reweighting | None,
    losses: Array,
    batch: NDArray[np.int64],
    *,
    strength: float,
    reference: Array | None = None,
    logistic: bool = True,
) -> None:
    """Move a rule that keeps a state by the step of one minibatch. Arguments: see ``batch_weights``."""
    if state_of(rule) is not None and (chosen := weakened(rule, strength)) is not None:
        given = None if reference is None else torch.from_numpy(reference)
        advance(chosen.take(batch), torch.from_numpy(losses), reference=given, accuracy=_accuracy(logistic=logistic))
