"""What a process of a sweep does: it gets the context once, then one training after the other."""

from __future__ import annotations

from transformers.utils.logging import disable_progress_bar

from ..run.terminal import quiet_libraries
from .context import SweepContext
from .plan import Cell
from .runs import Outcome, run_training

_contexts: list[SweepContext] = []


def begin(context: SweepContext) -> None:
    """The first call in every process."""
    quiet_libraries()
    disable_progress_bar()
    _contexts[:] = [context]


def train(cell: Cell) -> Outcome:
    """Carry out one training of the context that the process began with."""
    return run_training(cell, _contexts[0])
