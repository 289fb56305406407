"""The settings of a kind of training by its name; nothing that trains is loaded."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dro_core.command_line.parser import meant

from ..run.kinds import KINDS
from ..training.config import ConfigError


def config_of(name: str) -> Any:
    """The class of settings of a kind of training.

    Raises:
        ConfigError: There is no such kind.
    """
    if name not in KINDS:
        raise ConfigError(f"there is no kind of training {name!r}: choose from {', '.join(KINDS)}{meant(name, KINDS)}")
    module, _, settings = KINDS[name].settings.partition(":")
    return getattr(import_module(f"llm.{module}"), settings)
