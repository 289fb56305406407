"""The account of what an adversary did: to every example, and at every optimizer step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from dro_core import effective_sample_size, largest_multiplier

from .effective_batch import EffectiveBatch, Looked
from .ledger import AdversaryLedger

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
                "largest_multiplier": float(largest_multiplier(weights)),
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
        size, mean, largest = len(losses), float(losses.mean()), 1.0
        if batch.masses is not None and total is not None:
            mean = float((batch.masses * batch.losses).sum() / total) * micro_batches
            size = float(effective_sample_size(batch.masses))
            largest = float(batch.masses.max() / total) * len(losses) * micro_batches
        self._looks[step].append(
            {
                "mean_loss": mean,
                "robust_loss": mean,
                "effective_sample_size": float(size * micro_batches),
                "largest_multiplier": largest,
                "zero_share": 0.0,
                "radius_fraction": 0.0,
                **used,
            }
        )
        return seen

    def waiting(self) -> dict[int, list[dict[str, float]]]:
        """The looks at losses since the last summary, by optimizer step."""
        return dict(self._looks)

    def wait_for(self, looks: Mapping[int, list[dict[str, float]]] | Mapping[str, list[dict[str, float]]]) -> None:
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
