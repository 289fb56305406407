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


class StopRequest:
    """First Ctrl-C: finish the step, save, stop. Second: stop at once.

    Attributes:
        made: Whether there was a first one.
    """

    made = False

    def handle(self, number: int, frame: Any) -> None:
        """The handler of SIGINT."""
        if self.made:
            raise KeyboardInterrupt
        self.made = True
        logger.warning("finishing this step and saving a checkpoint; press Ctrl-C again to stop at once")


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Inside, Ctrl-C makes a request, which a loop must heed; ``Interrupted`` is raised at the end if it was made."""
    stop = StopRequest()
    before = signal.signal(signal.SIGINT, stop.handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
    if stop.made:
        raise Interrupted


class _StopAfterStep(TrainerCallback):
    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.stop.made:
            control.should_save = control.should_training_stop = True


@contextmanager
def checkpoint_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """Inside, Ctrl-C lets ``trainer`` save a checkpoint; ``Interrupted`` is raised at the end."""
    with listening() as stop:
        trainer.add_callback(_StopAfterStep(stop))
        yield
