"""One optimizer step's examples over all ranks: their losses, their worst-case weights, and the account of both.

The weights couple every example of every data-parallel rank, so each rank gathers all losses, solves the same
small problem, and takes its own share of the weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
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
    """

    losses: Tensor
    index: Tensor
    present: Tensor
    mine: slice
    padded: bool
    masses: Tensor | None = None
    margins: Tensor | None = None

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
        return reweighted(here, self.losses, reference=self._reference(), accuracy=accuracy)

    def advance(self, ambiguity: Reweighting | None, strength: float, *, accuracy: Accuracy | None = None) -> None:
        """Move a rule that keeps a state by the step that this batch is. Arguments: see ``weights``."""
        if (chosen := weakened(ambiguity, strength)) is not None:
            here = chosen.take(self.index.cpu().numpy())
            advance(here, self.losses, reference=self._reference(), accuracy=accuracy)

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
        sizes: Any = accelerator.gather(torch.tensor([n], device=losses.device))
        longest = int(sizes.max())
        parts = [losses, index, torch.ones_like(losses), *([] if margins is None else [margins])]
        rows = torch.zeros(len(parts), longest, dtype=torch.float64, device=losses.device)
        for row, part in zip(rows, parts, strict=True):
            row[:n] = part
        everyone: Any = accelerator.gather(rows[None])  # (world, parts, longest)
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


_NONE: Mapping[str, float] = MappingProxyType({})


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means of entries over the rows that have them."""
    found = {name: [row[name] for row in rows if name in row] for name in dict.fromkeys(chain.from_iterable(rows))}
    return {name: sum(values) / len(values) for name, values in found.items()}


class AdversaryAccount:
    """What the adversary did: to every example (``ledger``), and at every optimizer step since the last log.

    Args:
        examples: Size of the training set.
    """

    def __init__(self, examples: int) -> None:
        self.ledger = AdversaryLedger(examples)
        self._looks: dict[int, list[dict[str, float]]] = defaultdict(list)  # by step, one row per look at losses

    def book(
        self,
        batch: EffectiveBatch,
        weights: Tensor,
        *,
        step: int,
        strength: float,
        shown: Tensor | None = None,
        used: Mapping[str, float] = _NONE,
    ) -> Looked:
        """Book one effective batch; what was seen.

        Args:
            batch: The examples.
            weights: Their weights, ``(n,)``.
            step: Optimizer steps done so far.
            strength: Share of the rule's strength.
            shown: What the adversary saw in place of the losses, ``(n,)``; None: the losses.
            used: What else the log says of the step: the same names at every step of a run.
        """
        here = batch.present > 0
        (losses, seen), weights = batch.examples(shown), weights[here]
        reference = None if batch.masses is None else batch.reference[here]
        given = (weights * len(weights) if reference is None else weights / reference).cpu().numpy()
        self.ledger.record(seen.rows, given, seen.losses, answered=given if strength > 0 else None)
        self._look(losses, weights, reference, step=step, strength=strength, used=used)
        if shown is not None:
            regrets = shown[here]
            plain = torch.full_like(regrets, 1 / len(regrets)) if reference is None else reference
            self._looks[step][-1] |= {"mean_regret": float(plain @ regrets), "robust_regret": float(weights @ regrets)}
        return seen

    def _look(
        self,
        losses: Tensor,
        weights: Tensor,
        reference: Tensor | None,
        *,
        step: int,
        strength: float,
        used: Mapping[str, float],
    ) -> None:
        self._looks[step].append(
            {
                "mean_loss": float(losses.mean() if reference is None else (reference * losses).sum()),
                "robust_loss": float((weights * losses).sum()),
                "effective_sample_size": float(effective_sample_size(weights)),
                "largest_multiplier": float(largest_multiplier(weights, reference)),
                "zero_share": float((weights == 0).float().mean()),
                "radius_fraction": strength,
                **used,
            }
        )

    def book_plain(
        self,
        batch: EffectiveBatch,
        *,
        step: int,
        micro_batches: int,
        total: Tensor | None = None,
        shown: Tensor | None = None,
        used: Mapping[str, float] = _NONE,
    ) -> Looked:
        """Book one micro-batch of plain training, whose weights in the effective batch are known; what was seen.

        Args:
            batch: The micro-batch.
            step: Optimizer steps done so far.
            micro_batches: How many of them the step has.
            total: Mass of the effective batch, where examples have masses.
            shown: What the adversary would see in place of the losses, ``(n,)``; None: the losses.
            used: As in ``book``.
        """
        losses, seen = batch.examples(shown)
        self.ledger.record(seen.rows, np.ones(len(losses)), seen.losses)
        size, mean = len(losses), float(losses.mean())
        if batch.masses is not None and total is not None:
            mean = float((batch.masses * batch.losses).sum() / total) * micro_batches
            size = float(effective_sample_size(batch.masses))
        self._looks[step].append(
            {
                "mean_loss": mean,
                "robust_loss": mean,
                "effective_sample_size": float(size * micro_batches),
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


def batch_weights(
    rule: Reweighting | None,
    losses: Array,
    batch: NDArray[np.int64],
    *,
    strength: float,
    reference: Array | None = None,
) -> Array:
    """Weights ``(n,)`` of one minibatch: the training pairs ``batch`` with these ``losses``. Asking changes nothing.

    Args:
        rule: Bound to the training pairs; None for the reference.
        losses: Shape ``(n,)``.
        batch: Positions in the training set, shape ``(n,)``.
        strength: Share of the rule's strength, in [0, 1].
        reference: What plain training weighs, ``(n,)``, sum 1; None: equal weights.
    """
    chosen = weakened(rule, strength)
    if chosen is None:
        return np.full(len(losses), 1 / len(losses)) if reference is None else reference
    here = chosen.take(batch)
    if isinstance(here, AmbiguitySet):
        shared = sharing_equals(torch.from_numpy(losses), _ACCURACY).numpy()
        return worst_case(shared, here, reference=reference).weights
    given = None if reference is None else torch.from_numpy(reference)
    return reweighted(here, torch.from_numpy(losses), reference=given, accuracy=_ACCURACY).numpy()


def moved_by(
    rule: Reweighting | None,
    losses: Array,
    batch: NDArray[np.int64],
    *,
    strength: float,
    reference: Array | None = None,
) -> None:
    """Move a rule that keeps a state by the step of one minibatch. Arguments: see ``batch_weights``."""
    if state_of(rule) is not None and (chosen := weakened(rule, strength)) is not None:
        given = None if reference is None else torch.from_numpy(reference)
        advance(chosen.take(batch), torch.from_numpy(losses), reference=given, accuracy=_ACCURACY)
