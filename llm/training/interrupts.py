"""Ctrl-C and SIGTERM leave a run that can be continued."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .processes import largest_of_all

logger = logging.getLogger(__name__)
_ECHO = 1.0  # seconds in which a launcher passes on what the terminal or the scheduler has sent already


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or SIGTERM after saving a checkpoint.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number
        self.said_by_main_process = not PartialState().is_main_process


class StopRequest:
    """First Ctrl-C or SIGTERM: finish the step, save, stop. Ctrl-C again: stop at once.

    Attributes:
        number: Of the signal that this process got, or, once agreed, another process of the run; 0 for none.
    """

    number = 0

    def __init__(self) -> None:
        self._process, self._since = os.getpid(), 0.0

    def handle(self, number: int, frame: object) -> None:
        """The handler of both signals."""
        if os.getpid() != self._process:  # a forked helper ends as it would without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.number:
            self.number, self._since = number, time.monotonic()
            again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
            if PartialState().is_main_process:
                logger.warning("finishing this step and saving a checkpoint%s", again)
        elif number == signal.SIGINT and time.monotonic() - self._since > _ECHO:
            raise KeyboardInterrupt

    def agreed(self) -> bool:
        """Whether any process of the run was told to stop: all ask at the same place, and hear the same."""
        found = largest_of_all(self.number)
        if found and not self.number:
            self._since = time.monotonic()
        self.number = found
        return found > 0


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Inside, Ctrl-C and SIGTERM make a request, which a loop must heed; ``Interrupted`` is raised at the end if so.

    All processes of a run enter and leave it together. Only a main thread hears signals.
    """
    stop, heard = StopRequest(), (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        heard = ()
    before = {number: signal.signal(number, stop.handle) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if stop.agreed():
        raise Interrupted(stop.number)


class _StopAfterStep(TrainerCallback):
    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.stop.agreed():
            control.should_save = control.should_training_stop = True


@contextmanager
def checkpoint_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """Inside, a signal lets ``trainer`` save a checkpoint; ``Interrupted`` is raised at the end."""
    with listening() as stop:
        trainer.add_callback(_StopAfterStep(stop))
        yield
