"""The kinds of training by name, for the command line."""

from __future__ import annotations

from typing import Any

from .config import TrainConfig
from .dpo import DPOTask
from .reward import RewardTask
from .settings import KINDS
from .training import Task

TASKS: dict[str, type[Task[Any]]] = {"reward": RewardTask, "dpo": DPOTask}


def task_of(config: TrainConfig) -> Task[Any]:
    """The task that these settings are for."""
    return next(TASKS[kind](config) for kind, settings in KINDS.items() if type(config) is settings)
