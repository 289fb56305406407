"""How often an optimizer step looks at its examples, and what that costs against plain training.

Worst-case weights are known only when all losses of the effective batch are. Where one micro-batch holds it, the pass
that is differentiated has them all; else a first pass without gradients finds them. The cost is told in floating-point
operations, which are the same on every machine. docs/training-cost.md explains it in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from ..adversary.rules import Reweighting, reweighted

Passes = Literal["auto", "single", "two"]
_DROPPED = ("held", "carried")  # values of earlier versions


class Pass(Enum):
    """What one optimizer step does; the value is what the log calls it."""

    SINGLE = "single pass"
    TWO = "two passes"


@dataclass(frozen=True)
class StepCost:
    """Cost of a step in FLOPs, as a multiple of plain training on the same examples.

    With a forward pass of one example as the unit, plain training costs 1 + b + c. The model counts matrix products
    with weights; those inside attention are left out.

    Args:
        backward: b. 2 if all weights are trained (gradients in activations and in weights), 1 if nearly all are
            frozen, one more if activations are computed again on the way back.
        constants: c, forward passes of other models: 1 for an online reference of DPO, which two passes share.

    >>> full = StepCost(backward=2.0)
    >>> round(full.two_passes(skipped=0.0), 2), round(full.two_passes(skipped=0.375), 2), round(full.break_even, 2)
    (1.33, 0.96, 0.33)
    """

    backward: float
    constants: float = 0.0

    def two_passes(self, *, skipped: float) -> float:
        """Factor of a no-grad pass over all examples and a second one without the share ``skipped`` of them."""
        again = (1 - skipped) * (1 + self.backward)
        return (1 + self.constants + again) / (1 + self.backward + self.constants)

    @property
    def break_even(self) -> float:
        """The skipped share from which two passes cost no more than plain training: 1 / (1 + b)."""
        return 1 / (1 + self.backward)

    @classmethod
    def of(cls, model: nn.Module, *, recomputes: bool, constants: float = 0.0) -> StepCost:
        """Count the matrices of a model: each costs a product forward, one back, and one more where it is trained.

        Args:
            model: The model as it is trained, adapters included.
            recomputes: Whether activations are computed again on the way back.
            constants: Forward passes of other models per example.
        """
        matrices = {
            id(weight): weight
            for module in model.modules()
            if not isinstance(module, nn.Embedding)  # looked up, not multiplied
            for weight in module.parameters(recurse=False)
            if weight.ndim > 1
        }
        total = sum(weight.numel() for weight in matrices.values())
        trained = sum(weight.numel() for weight in matrices.values() if weight.requires_grad)
        return cls(1 + (trained / total if total else 1.0) + recomputes, constants)


def expected_zero_share(rule: Reweighting, n: int, *, examples: int) -> float:
    """Share of an effective batch of n that gets weight zero, on losses with normal quantiles.

    For total variation and CVaR every batch of n different losses has the same share, for KL it is zero; for other
    sets it depends on the losses and this is an estimate.

    Args:
        rule: A set or rule bound to the training examples.
        n: Size of the effective batch.
        examples: Size of the training set.
    """
    rows = np.random.default_rng(0).integers(max(examples, 1), size=n)
    losses = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    return float((reweighted(rule.take(rows), losses) == 0).double().mean())


def skipped_share(zero_share: float, n: int, micro_batch: int) -> float:
    """Share of n examples that the second pass leaves out.

    Those of weight zero, but for one row in every micro-batch that would be empty: all ranks run the same number of
    forward passes. With one example per micro-batch nothing is left out.

    >>> skipped_share(0.375, 16, 1), round(skipped_share(0.375, 16, 4), 3)
    (0.0, 0.373)
    """
    zeros = min(round(zero_share * n), n)
    empty = math.comb(zeros, micro_batch) / math.comb(n, micro_batch) if micro_batch <= n else 0.0
    return zeros / n - empty / micro_batch


@dataclass(frozen=True)
class Decision:
    """What the steps of a run do, what they are expected to cost, and why.

    Attributes:
        way: The pass.
        factor: FLOPs against plain training.
        reason: Half a sentence.
    """

    way: Pass
    factor: float
    reason: str

    def __str__(self) -> str:
        return f"{self.way.value}, {self.factor:.2f} x the FLOPs of plain training expected: {self.reason}"


def check_passes(passes: str, *, micro_batches: int = 1, micro_batch: int = 1) -> None:
    """Refuse what there is not, and a single pass over several micro-batches.

    Args:
        passes: The setting.
        micro_batches: Per optimizer step and process.
        micro_batch: Examples in one.

    Raises:
        ValueError: One sentence with the remedy.
    """
    together = f"per_device_train_batch_size {micro_batch * micro_batches} with gradient_accumulation_steps 1"
    if passes in _DROPPED:
        raise ValueError(
            f"passes={passes} is gone: set passes=auto, and where memory allows a larger per_device_train_batch_size "
            "with gradient_accumulation_steps 1, which is one exact pass"
        )
    if passes not in get_args(Passes):
        raise ValueError(f"passes must be one of {', '.join(get_args(Passes))}, got {passes!r}; auto chooses")
    if passes == "single" and micro_batches > 1:
        raise ValueError(
            f"passes=single needs all examples of a step in one micro-batch, and there are {micro_batches}: set "
            f"{together}, or passes=auto"
        )


def decide(passes: str, cost: StepCost, *, skipped: float, micro_batch: int, micro_batches: int) -> Decision:
    """What the steps of a run do.

    Args:
        passes: The setting.
        cost: Of a forward and a backward pass.
        skipped: Expected share of examples that a second pass leaves out.
        micro_batch: Examples in a micro-batch.
        micro_batches: Per optimizer step and process.
    """
    two = cost.two_passes(skipped=skipped)
    if passes == "two" and micro_batches < 2:
        return Decision(Pass.TWO, two, "passes=two")
    if micro_batches < 2:
        return Decision(Pass.SINGLE, 1.0, "there is one micro-batch per step, so its losses give the weights")
    reason = f"{micro_batches} micro-batches share the weights"
    if skipped >= cost.break_even:
        return Decision(
            Pass.TWO, two, f"{reason}, and {skipped:.0%} of the examples skip the second pass, at least the break-even "
            f"{cost.break_even:.0%}"
        )  # fmt: skip
    larger = f"per_device_train_batch_size {micro_batch * micro_batches} with gradient_accumulation_steps 1"
    return Decision(Pass.TWO, two, f"{reason}; where memory allows, {larger} is the same step in a single pass")
