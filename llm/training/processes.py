"""What one process must do for all: decide, write folders, and fail together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch.distributed.distributed_c10d import _set_pg_timeout

from dro_core.locks import locked

from ..run.resumption import differences
from .config import ConfigError

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
        outcome[1].__dict__["said_by_main_process"] = not state.is_main_process
        raise outcome[1]
    return outcome[0]


@contextmanager
def failing_together(*kinds: type[Exception]) -> Iterator[None]:
    """Inside, an error of one of these kinds on one process is raised by all, at the end; each of them must come here.

    The first process that failed says it.
    """
    state, error = PartialState(), None
    try:
        yield
    except kinds as problem:
        error = problem
    found: Any = [error] if state.num_processes == 1 else gather_object([error])
    first = next((rank for rank, problem in enumerate(found) if problem is not None), None)
    if first is not None:
        raised = found[first] if error is None else error
        raised.__dict__["said_by_main_process"] = first != state.process_index
        raise raised


def check_alike(told: Mapping[str, object]) -> None:
    """Refuse processes of one run that have different settings or files; each of them must call it.

    Args:
        told: What decides the result, by name, as this process has it.

    Raises:
        ConfigError: On all processes; it names what differs.
    """
    state = PartialState()
    rows = [dict(told)] if state.num_processes == 1 else gather_object([dict(told)])
    for rank, row in enumerate(rows):
        if changed := differences(rows[0], row).changed:
            error = ConfigError(
                f"process {rank} of this run has another {', '.join(changed)} than the first: give all of them the "
                "same settings and files"
            )
            error.__dict__["said_by_main_process"] = not state.is_main_process
            raise error


@contextmanager
def locked_for_all(folder: str | Path) -> Iterator[None]:
    """Inside, the first process has the lock of the folder (``dro_core.locks``) for all of this run.

    Raises:
        FolderInUse: Another run has it; on all processes.
    """
    with ExitStack() as stack:
        on_main_process(lambda: stack.enter_context(locked(folder)))
        yield


def largest_of_all(number: int) -> int:
    """The largest of the numbers that the processes give; each of them must call it."""
    state = PartialState()
    if state.num_processes == 1:
        return number
    told = torch.tensor(number, device=state.device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return int(told)


class RankLost(RuntimeError):
    """Another process ended, or did not answer within ``ddp_timeout``.

    Attributes:
        leaves_broken_group: Ending the interpreter in the usual way may abort in the group's destructor.
    """

    leaves_broken_group = True


@contextmanager
def bounded_waiting(seconds: float) -> Iterator[None]:
    """Inside, no process waits for another for longer, and what ends the wait is said in one sentence.

    ``TrainingArguments`` hands ``ddp_timeout`` on for GPUs only: on a CPU torch's half hour would stay.

    Raises:
        RankLost: Another process is gone or silent.
    """
    several, device = PartialState().num_processes > 1, PartialState().device
    if several and device is not None and device.type == "cpu":
        _set_pg_timeout(timedelta(seconds=seconds))
    try:
        yield
    except RuntimeError as error:
        if not (several and _is_communication(error)):
            raise
        raise RankLost(
            f"another process ended or did not answer within ddp_timeout ({seconds:g} s); the last checkpoint is "
            "intact: look for the first error above, then continue with --resume on the same number of processes"
        ) from error


def _is_communication(error: RuntimeError) -> bool:
    """Torch has a type for what NCCL says; gloo's errors are told by the file they name."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
