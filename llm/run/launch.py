"""What a launcher says it started, against the processes that found each other."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from .files import JsonObject

if TYPE_CHECKING:
    from transformers import TrainingArguments

_NEAREST = "WORLD_SIZE"  # torchrun and accelerate launch, within whatever started them
_LAUNCHERS = (  # how many processes there are, and which of them this is: a size alone may be left from elsewhere
    (_NEAREST, ("RANK", "LOCAL_RANK")),
    ("LOCAL_WORLD_SIZE", ("LOCAL_RANK",)),
    ("OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_RANK",)),
    ("MV2_COMM_WORLD_SIZE", ("MV2_COMM_WORLD_RANK",)),
    ("PMI_SIZE", ("PMI_RANK",)),  # MPICH, Intel MPI, srun --mpi=pmi2
    # SLURM_NTASKS is the size of the allocation, in which a shell is one process; a step has as many as it has tasks.
    ("SLURM_STEP_NUM_TASKS", ("SLURM_PROCID",)),
)
_BY_TORCH = (_NEAREST, "LOCAL_WORLD_SIZE")
_NO_GPU = "there is no GPU here, so add --use_cpu true"
_OF_THE_STEP = ("PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_TERMINAL = "SLURM_PTY_PORT"  # srun --pty: task 0 got the terminal, the others have ended
_AGENT = "TORCHELASTIC_RUN_ID"
_FIRST_WORD = 10.0  # seconds that the first process may start later than another


class LaunchError(ValueError):
    """The processes that were started do not know of each other.

    Attributes:
        said_by_main_process: Whether another of them tells the user.
    """

    said_by_main_process = False


class Launched(NamedTuple):
    """What a launcher says.

    Attributes:
        processes: How many it started.
        rank: Which of them this is.
        variable: The name of the environment variable that says how many.
    """

    processes: int
    rank: int
    variable: str


def launched(environment: Mapping[str, str]) -> Launched | None:
    """What the nearest launcher says; None where there is none.

    >>> launched({"WORLD_SIZE": "2", "RANK": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"})
    Launched(processes=2, rank=1, variable='WORLD_SIZE')
    >>> launched({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"})
    """
    for size, ranks in _LAUNCHERS:
        if size in _OF_THE_STEP and _TERMINAL in environment:
            continue
        count, rank = (
            _number(environment, size),
            next((_number(environment, r) for r in ranks if r in environment), None),
        )
        if size == _NEAREST and count == 1:  # whoever set it says that this process is alone
            return Launched(1, 0, size)
        if count is not None and rank is not None:
            return Launched(count, rank, size)
    return None


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None


def said_of_processes(found: JsonObject) -> str:
    """A record of ``llm.models.sharding.distribution`` in words.

    >>> said_of_processes({"kind": "ddp", "processes": 2, "device": "cpu", "asked": "fsdp2"})
    '2 processes on cpu, ddp: fsdp2 was asked for and did not run'
    >>> said_of_processes({"kind": "single", "processes": 1, "device": "cuda", "asked": None})
    '1 process on cuda'
    """
    if found["processes"] == 1:
        return f"1 process on {found['device']}"
    asked = f": {found['asked']} was asked for and did not run" if found["asked"] else ""
    return f"{found['processes']} processes on {found['device']}, {found['kind']}{asked}"


def check_devices(*, use_cpu: bool) -> None:
    """Refuse processes that look for a GPU where there is none, before they connect to each other.

    ``TrainingArguments`` connects them, and the first to be refused would tear the others out of it. Told of a
    backend (``ddp_backend``) they would even count each other, and still train apart.

    Raises:
        LaunchError: One sentence with the remedy.
    """
    found = launched(os.environ)
    if found is None or found.processes == 1 or found.variable not in _BY_TORCH or use_cpu:
        return
    import torch  # a command that trains nothing starts without it
    from accelerate.utils import is_torch_xla_available, parse_flag_from_env

    devices = torch.accelerator.is_available() or is_torch_xla_available()
    if not devices and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        raise _copies(found, 1, _NO_GPU)


def check_launch(arguments: TrainingArguments) -> None:
    """Refuse a run of which the launcher started more copies than there are processes in it.

    Raises:
        LaunchError: One sentence with the remedy.
    """
    check_devices(use_cpu=arguments.use_cpu)
    world, found = arguments.world_size, launched(os.environ)
    if found is None or found.processes <= world:
        return
    if arguments.device.type == "cpu" and not arguments.use_cpu and found.variable != "SLURM_STEP_NUM_TASKS":
        remedy = _NO_GPU
    elif found.variable in _BY_TORCH:
        remedy = "every process needs LOCAL_RANK, which torchrun and accelerate launch set"
    else:
        remedy = "start torchrun or accelerate launch, or set WORLD_SIZE=1 where each is a run of its own"
    raise _copies(found, world, remedy)


def _copies(found: Launched, world: int, remedy: str) -> LaunchError:
    return _told(
        found,
        f"the launcher started {found.processes} processes ({found.variable}), but this run has {world}: they would "
        f"train {found.processes // world} separate runs into one folder; {remedy}",
    )


def check_alone(command: str) -> None:
    """Refuse a command of one process that a launcher started several times.

    Raises:
        LaunchError: One sentence with the remedy.
    """
    found = launched(os.environ)
    if found is not None and found.processes > 1:
        raise _told(
            found,
            f"{command} is the work of one process, and the launcher started {found.processes} ({found.variable}): "
            "start it without a launcher, or set WORLD_SIZE=1 where each has work of its own",
        )


def _told(found: Launched, sentence: str) -> LaunchError:
    """Every process fails, the first one says why, before an agent that saw another fail ends it."""
    if found.rank > 0 and _AGENT in os.environ:
        time.sleep(_FIRST_WORD)
    error = LaunchError(sentence)
    error.said_by_main_process = found.rank > 0
    return error
