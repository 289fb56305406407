"""What a run adds up between its logs and over all its sessions, so that its history is that of a run in one go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..run.files import write_json
from ..run.folder import TrainingClock

_FILE = "sums.json"


class Sums(TrainerCallback):
    """Sums of losses, steps and seconds of a run, which ``Trainer`` begins anew whenever it is resumed.

    Args:
        trainer: Gets this as a callback and as a part of its checkpoints.
        clock: Counts the seconds over all sessions.
    """

    def __init__(self, trainer: Any, clock: TrainingClock) -> None:
        self.trainer, self.clock = trainer, clock
        self._found: dict[str, Any] | None = None
        trainer.resumable.append(self)
        trainer.add_callback(self)

    def save(self, folder: Path) -> None:
        """Write the sums to ``folder/sums.json``."""
        trainer, account = self.trainer, self.trainer.adversary.account
        several = trainer.args.world_size > 1  # then Trainer's own is the part of this process
        sums = {
            "logged": trainer._globalstep_last_logged,
            "losses": trainer._total_loss_scalar,
            "since": account.total("robust_loss") if several else float(trainer._tr_loss),
            "looks": account.waiting(),
        }
        write_json(folder / _FILE, sums)

    def load(self, folder: Path) -> None:
        """Take the sums over; checkpoints of earlier versions have none."""
        file = folder / _FILE
        self._found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Go on counting where the last session stopped."""
        if (found := self._found) is None:
            return
        trainer = self.trainer
        trainer._total_loss_scalar, trainer._globalstep_last_logged = found["losses"], found["logged"]
        trainer._tr_loss += found["since"]
        trainer._initial_global_step, trainer.seconds_before = 0, self.clock.before
        trainer.adversary.account.wait_for(found["looks"])

    def conclude(self) -> None:
        """Log the last row of a run that was finished but for its export, as ``Trainer`` does for others."""
        state, found = self.trainer.state, self._found
        if found is not None and not any("train_loss" in row for row in state.log_history):
            loss = (found["losses"] + found["since"]) / max(state.global_step, 1)
            self.trainer.log({"train_runtime": round(self.clock.before, 4), "train_loss": loss})
