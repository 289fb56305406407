"""The kinds of training by name, for the command line."""

from __future__ import annotations

from typing import Any

from .config import RunConfig
from .dpo import DPOTask
from .reward import RewardTask
from .settings import KINDS
from .sft import SFTTask
from .training import Task

TASKS: dict[str, type[Task[Any]]] = {"sft": SFTTask, "reward": RewardTask, "dpo": DPOTask}


def task_of(config: RunConfig) -> Task[Any]:
    """The task that these settings are for."""
    return next(task(config) for kind, task in TASKS.items() if type(config) is KINDS[kind])
