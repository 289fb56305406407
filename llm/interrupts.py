"""Ctrl-C leaves a run that can be continued."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C after saving a checkpoint."""


class _StopAfterStep(TrainerCallback):
    """First Ctrl-C: finish the step, save, stop. Second: stop at once."""

    def __init__(self) -> None:
        self.requested = False

    def handle(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning("finishing this step and saving a checkpoint; press Ctrl-C again to stop at once")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.requested:
            control.should_save = control.should_training_stop = True


@contextmanager
def checkpoint_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """Inside, Ctrl-C saves a checkpoint; ``Interrupted`` is raised at the end."""
    stop = _StopAfterStep()
    trainer.add_callback(stop)
    before = signal.signal(signal.SIGINT, stop.handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if stop.requested:
        raise Interrupted
