"""The passes of one trainer's steps: the setting checked, the choice made once and said once."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..run.files import write_json
from .carried import CarriedLosses
from .memory import Holding, entries
from .passes import (
    Decision,
    Pass,
    Passes,
    Situation,
    StepCost,
    check_passes,
    decide,
    expected_zero_share,
    skipped_share,
)

if TYPE_CHECKING:
    from .robust_trainer import RobustTrainer

FILE = "passes.json"
_log = logging.getLogger(__name__)


class PassChoice:
    """Decides what the steps of a ``RobustTrainer`` do.

    Args:
        passes: The setting.
        trainer: Whose steps; its ambiguity set and resumable parts must be there already.

    Attributes:
        carried: The losses that ``passes=carried`` keeps; then a resumable part of the trainer.
        decision: What was decided, or None before the first robust step.

    Raises:
        ValueError: The setting is unknown, or impossible here.
    """

    def __init__(self, passes: Passes, trainer: RobustTrainer) -> None:
        self.passes, self.trainer = passes, trainer
        arguments = trainer.args
        self.micro_batches = arguments.gradient_accumulation_steps
        sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
        self.alone = trainer.accelerator.num_processes == 1 and not sharded
        check_passes(passes, trainer.ambiguity, micro_batches=self.micro_batches, alone=self.alone)
        self.effective_batch = trainer.effective_batch
        self.carried = CarriedLosses(self.effective_batch)
        if passes == "carried":
            trainer.resumable.append(self.carried)
        self.decision: Decision | None = None
        trainer.resumable.append(self)

    @property
    def may_look_twice(self) -> bool:
        """Whether an example may run forward twice for one step, so that dropout would disagree with itself."""
        robust = self.trainer.ambiguity is not None
        return robust and self.micro_batches > 1 and self.passes in ("auto", "two")

    def of(self, window: list[dict[str, Tensor]], *, strength: float) -> Pass:
        """What the step with the micro-batches ``window`` does at this strength of the adversary."""
        if len(window) > 1 and strength == 0.0:
            return Pass.EQUAL
        if self.decision is None:
            self.decision = decide(self.passes, self.situation(window[0]), lambda: self._holding(window))
            if self.trainer.is_world_process_zero():
                _log.info("worst-case weights by %s", self.decision)
        if len(window) == 1:  # the last step of an epoch may be shorter than the others
            return Pass.SINGLE
        if self.decision.way is Pass.HELD and entries(window) > self.decision.limit:
            return Pass.TWO
        return self.decision.way

    def save(self, folder: Path) -> None:
        """Write the decision to ``folder/passes.json``: a resumed run must round as the whole one would."""
        made = self.decision
        limit = None if made is None or math.isinf(made.limit) else made.limit
        write_json(folder / FILE, None if made is None else {"way": made.way.name, "limit": limit})

    def load(self, folder: Path) -> None:
        """Take the decision over from ``folder/passes.json``, whatever memory is free now."""
        stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if stored is not None:
            limit = math.inf if stored["limit"] is None else stored["limit"]
            self.decision = Decision(Pass[stored["way"]], math.nan, "as before the interruption", limit)

    def situation(self, inputs: dict[str, Tensor]) -> Situation:
        """What the choice depends on, for steps with micro-batches like ``inputs``."""
        trainer: Any = self.trainer
        arguments, n = trainer.args, self.effective_batch
        cost = StepCost.of(
            trainer.model,
            recomputes=bool(arguments.activation_checkpointing),
            constants=trainer.constant_forwards(inputs),
        )
        zeros = expected_zero_share(trainer.ambiguity, n, examples=len(trainer.ledger.visits))
        skipped = skipped_share(zeros, n, arguments.train_batch_size)
        return Situation(cost, skipped, self.micro_batches, self.alone)

    def _holding(self, window: list[dict[str, Tensor]]) -> Holding:
        trainer: Any = self.trainer
        return Holding.measured(
            lambda: trainer.window_losses(window[:1], differentiable=True),
            window,
            trainer.model.parameters(),
            trainer.args.device,
        )
