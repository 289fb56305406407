"""Approximate weights in one pass, for pipelines in which no example can be looked at twice.

The latest n losses, n being the size of the effective batch, are carried from micro-batch to micro-batch. A new
micro-batch is weighed as the newest part of them: its multipliers n q_i are those of the worst case over the losses
carried. Every set and penalty is weighed by its own solver, with its own dual variables at the carried losses, ties
and places included.

What is approximate: an example is compared with losses of up to one effective batch ago, before the latest optimizer
step, and not with the micro-batches that follow. If losses do not change from one effective batch to the next, the
carried ones are the effective batch in another order and the weights are exact. Until n losses were seen, it is
weighed among those seen.

Measured against this, fixed dual variables of the previous effective batch (a threshold, for total variation also a
maximum) are far worse on small batches, because the next maximum seldom is the last one: see docs/training-cost.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..adversary.equal_losses import Accuracy
from ..adversary.rules import Reweighting, reweighted
from ..run.stored_arrays import read_arrays


class CarriedLosses:
    """The latest losses of a run, oldest first; ``Resumable``.

    Args:
        size: How many are carried: the size n of the effective batch.

    Attributes:
        losses: Shape ``(m,)``, m <= size.
        index: Positions of their examples in the training set, shape ``(m,)``.
        weights: Worst-case weights of these losses at the last look, shape ``(m,)``.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.losses, self.index, self.weights = torch.zeros(0), torch.zeros(0, dtype=torch.long), torch.zeros(0)

    def multipliers(
        self, rule: Reweighting, losses: Tensor, index: Tensor, *, accuracy: Accuracy | None = None
    ) -> Tensor:
        """Take in the losses of a micro-batch; what its examples weigh against plain training, shape ``(k,)``.

        Args:
            rule: A set or a stateless rule over the whole training set, at the strength of the moment.
            losses: Of all ranks, without gradient, shape ``(k,)``.
            index: Positions of their examples, shape ``(k,)``.
            accuracy: Of the losses: what is closer is equal; None takes them as exact.
        """
        self.losses = torch.cat([self.losses.to(losses), losses])[-self.size :]
        self.index = torch.cat([self.index.to(index), index])[-self.size :]
        self.weights = reweighted(rule.take(self.index.cpu().numpy()), self.losses, accuracy=accuracy)
        return len(self.losses) * self.weights[-len(losses) :]

    def save(self, folder: Path) -> None:
        """Write the losses to ``folder/carried.npz``."""
        np.savez(folder / "carried.npz", losses=self.losses.cpu().numpy(), index=self.index.cpu().numpy())

    def load(self, folder: Path) -> None:
        """Take the losses over from ``folder/carried.npz``."""
        stored = read_arrays(folder / "carried.npz", "losses", "index")
        self.losses, self.index = torch.from_numpy(stored["losses"]), torch.from_numpy(stored["index"])
