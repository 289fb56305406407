"""What one process must do for all: decide, write folders, and fail together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

Result = TypeVar("Result")


def on_main_process(action: Callable[[], Result]) -> Result:
    """Run ``action`` on the first process only; every process gets its result, or raises its error.

    A check that every rank made for itself could see what another rank has just written, and an error on one rank
    alone would leave the others waiting.
    """
    state = PartialState()
    if state.num_processes == 1:
        return action()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]
