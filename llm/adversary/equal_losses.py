"""Losses that differ by less than they are accurate are equal, and an adversary must not choose among them.

A worst case is a maximum, so it turns rounding into whole weights: at the first step of DPO every loss is log 2 up to
4e-7, and ``tv:0.4`` would give 7.4 of 16 to whichever pair rounding made the largest. The solvers are exact and cannot
know that; the trainer knows how accurate its losses are and puts their mean in their place before it asks for weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

_ROUNDINGS = 32  # a loss is the end of a long sum: so many units in the last place of 1 were seen, and a few to spare


@dataclass(frozen=True)
class Accuracy:
    """How far apart two computations of the same loss may end.

    Args:
        absolute: At least 0; relative to the loss where that is above 1.
        logistic: Whether that is the accuracy of the margin h of -log sigmoid(h), whose small losses are far better
            known: their order decides which pairs have weight zero.
    """

    absolute: float
    logistic: bool = False

    def of(self, losses: Tensor) -> Tensor:
        """The accuracy of every loss, shape ``(n,)``: that of what it is computed from, times the slope there."""
        spread = self.absolute * losses.abs().clamp(min=1.0)
        return -torch.expm1(-losses.clamp(min=0.0)) * spread if self.logistic else spread


def rounding_of(precision: torch.dtype) -> float:
    """What the rounding of a forward pass leaves in a loss or margin of size 1.

    >>> f"{rounding_of(torch.float32):.1e}", f"{rounding_of(torch.bfloat16):.1e}"
    ('3.8e-06', '7.8e-03')
    """
    roundings = 1 if precision.itemsize < 4 else _ROUNDINGS  # what follows the model is computed in float32
    return roundings * torch.finfo(precision).eps


def log_ratio_rounding(precision: torch.dtype, *, tokens: int) -> float:
    """The same in log pi/pi_ref of a whole answer, in nats: a small difference of two long sums.

    Its error is that of the sums, up to some eight nats a token kept in float32, and what the forward passes leave in
    every token, which adds up like noise.

    Args:
        precision: Of the forward passes.
        tokens: Of the longest answer.

    >>> f"{log_ratio_rounding(torch.float32, tokens=500):.1e}"
    '9.6e-04'
    """
    sums, each = 2 * 8.0 * tokens * torch.finfo(torch.float32).eps, torch.finfo(precision).eps * tokens**0.5
    return sums + each


def precision_of(arguments: TrainingArguments, model: nn.Module) -> torch.dtype:
    """What losses are known in, float32 at best, which they are kept in; TF32 has as many digits as float16."""
    if arguments.bf16:
        return torch.bfloat16
    if arguments.fp16 or arguments.tf32:
        return torch.float16
    kinds = (part.dtype for part in model.parameters() if part.is_floating_point())
    kind = next(kinds, torch.float32)
    return kind if kind.itemsize < 4 else torch.float32


def sharing_equals(losses: Tensor, accuracy: Accuracy | None, present: Tensor | None = None) -> Tensor:
    """The losses, with those that are closer than they are accurate replaced by their mean.

    From the smallest on, a group is what lies within the accuracy of its smallest loss: a chain of small steps is cut,
    and no loss moves further than that. Losses further apart stay as they are, to the bit.

    Args:
        losses: Shape ``(n,)``.
        accuracy: None leaves everything as it is.
        present: Which entries are examples, boolean ``(n,)``; the others are left alone. None means all.

    >>> sharing_equals(torch.tensor([0.5, 2.0, 0.5000001, 2.1]), Accuracy(1e-6))
    tensor([0.5000, 2.0000, 0.5000, 2.1000])
    """
    if accuracy is None:
        return losses
    rows = torch.arange(len(losses), device=losses.device) if present is None else torch.nonzero(present).flatten()
    ordered, order = losses[rows].double().sort(stable=True)
    leads = _leads(ordered, ordered + accuracy.of(ordered))
    group = leads.cumsum(0) - 1
    counts = torch.zeros_like(ordered).index_add_(0, group, torch.ones_like(ordered))
    if not (counts > 1).any():
        return losses
    # Relative to the smallest, so that the mean of equal losses is that loss to the bit.
    lead = ordered[leads][group]
    means = lead + (torch.zeros_like(ordered).index_add_(0, group, ordered - lead) / counts.clamp(min=1))[group]
    shared = losses.clone()
    shared[rows[order]] = torch.where(counts[group] > 1, means, ordered).to(losses.dtype)
    return shared


def _leads(ordered: Tensor, reach: Tensor) -> Tensor:
    """Which of the sorted losses begin a group, boolean ``(n,)``; ``reach`` is where a group begun there ends."""
    leads = torch.ones_like(ordered, dtype=torch.bool)
    leads[1:] = ordered[1:] > reach[:-1]  # a gap that ends every group
    place = torch.arange(len(ordered), device=ordered.device)
    while True:  # once for every cut inside a chain without gaps, in all chains together
        begun = torch.where(leads, place, 0).cummax(0).values
        beyond = ordered > reach[begun]
        if not beyond.any():
            return leads
        leads[1:] |= beyond[1:] & ~beyond[:-1]  # the first of those that their group does not reach
