"""How often an optimizer step looks at its examples, and what that costs against plain training.

Worst-case weights are known only when all losses of the effective batch are. The gradient can then be had in three
exact ways and an approximate one (``Pass``). The choice goes by floating-point operations, which are the same on
every machine, and by memory; never by a clock. docs/training-cost.md explains it in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from ..adversary.rules import Reweighting, reweighted, state_of
from .memory import Holding

Passes = Literal["auto", "two", "held", "carried"]

_GIB = 2.0**30


class Pass(Enum):
    """What one optimizer step does; the value is what the log calls it."""

    EQUAL = "one pass, equal weights"
    SINGLE = "single pass"
    TWO = "two passes"
    HELD = "one pass, graphs held"
    CARRIED = "one pass, APPROXIMATE weights"


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
    if state_of(rule) is not None:  # weighs all, and asking it for weights would move it
        return 0.0
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
class Situation:
    """What the choice depends on.

    Attributes:
        cost: Of a forward and a backward pass.
        skipped: Expected share of examples that a second pass leaves out.
        micro_batches: Per optimizer step and process.
        alone: Whether one process holds the whole, unsharded model and the whole effective batch.
    """

    cost: StepCost
    skipped: float
    micro_batches: int
    alone: bool


@dataclass(frozen=True)
class Decision:
    """What the steps of a run do, what they are expected to cost, and why.

    Attributes:
        way: The pass.
        factor: FLOPs against plain training.
        reason: Half a sentence.
        limit: Entries of a window's tensors up to which its graphs are held; larger windows take two passes.
    """

    way: Pass
    factor: float
    reason: str
    limit: float = math.inf

    def __str__(self) -> str:
        return f"{self.way.value}, {self.factor:.2f} x the FLOPs of plain training expected: {self.reason}"


def check_passes(passes: str, rule: Reweighting | None, *, micro_batches: int, alone: bool) -> None:
    """Refuse what cannot be done.

    Raises:
        ValueError: One sentence with the remedy.
    """
    if passes not in get_args(Passes):
        raise ValueError(f"passes must be one of {', '.join(get_args(Passes))}, got {passes!r}; auto chooses")
    if passes == "held" and not alone:
        raise ValueError("passes=held keeps the graphs of one unsharded process: with ranks or shards use passes=auto")
    if passes == "carried" and micro_batches < 2:
        raise ValueError(
            "passes=carried approximates weights across micro-batches, and with gradient_accumulation_steps 1 "
            "the exact ones cost nothing: use passes=auto"
        )
    if passes == "carried" and state_of(rule) is not None:
        raise ValueError(
            "passes=carried shows a rule most losses twice, and gr_dpo moves its group weights at every look: "
            "use passes=auto, or an ambiguity set"
        )


def decide(passes: str, at: Situation, probe: Callable[[], Holding] | None = None) -> Decision:
    """Choose what the steps do.

    Args:
        passes: The setting.
        at: What it depends on.
        probe: Measures what holding the graphs takes and what memory there is; None where nothing runs yet.
    """
    two = at.cost.two_passes(skipped=at.skipped)
    if at.micro_batches < 2:
        return Decision(Pass.SINGLE, 1.0, "there is one micro-batch per step, so its losses give the weights")
    if passes == "carried":
        return Decision(Pass.CARRIED, 1.0, "passes=carried weighs each micro-batch among the latest losses")
    if passes == "held":
        return Decision(Pass.HELD, 1.0, "passes=held keeps the activations of the whole effective batch")
    if passes == "two":
        return Decision(Pass.TWO, two, "passes=two")
    if not at.alone:
        return Decision(Pass.TWO, two, "several processes or shards hold the effective batch")
    if at.skipped >= at.cost.break_even:
        share = (
            f"{at.skipped:.0%} of the examples skip the second pass, at least the break-even {at.cost.break_even:.0%}"
        )
        return Decision(Pass.TWO, two, share)
    return _by_memory(two, probe)


def _by_memory(two: float, probe: Callable[[], Holding] | None) -> Decision:
    """Hold the graphs where half of the free memory is enough for them."""
    if probe is None:
        return Decision(Pass.HELD, 1.0, f"if memory suffices for all activations of a step, else {two:.2f} x")
    holding = probe()
    if holding.available is None:
        return Decision(Pass.TWO, two, "how much memory is free cannot be read here, so graphs are not held")
    need, free = holding.needed / _GIB, holding.available / _GIB
    memory = f"the activations of a step take {need:.2f} GiB of {free:.2f} GiB free"
    if holding.needed > holding.available / 2:
        return Decision(Pass.TWO, two, f"{memory}, more than half")
    return Decision(Pass.HELD, 1.0, memory, holding.limit)
