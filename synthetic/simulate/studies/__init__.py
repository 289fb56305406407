"""The convergence studies behind `robust-rlhf simulate`, one file each; `studies` imports the one that is asked for."""

from __future__ import annotations

from importlib import import_module

from .study import Choices, Study

NAMES = ("bias", "reward", "dpo", "npg", "shift", "when")


def study(name: str) -> Study:
    """Return a study by its name.

    Example:
        >>> study("bias").options
        ('ambiguity', 'n', 'radius')
    """
    if name not in NAMES:
        raise ValueError(f"unknown study {name!r}: choose from {', '.join(NAMES)}.")
    return import_module(f".{name}", __name__).STUDY


__all__ = ["NAMES", "Choices", "Study", "study"]
