"""The settings of soft labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dro_core.command_line.settings import setting

SoftKind = Literal["none", "data", "crossfit"]
LEAST_FOLDS = 3  # one is held out, one chooses the penalty, and one is left to learn from


@dataclass
class SoftLabels:
    """How sure labels are; a block of the settings of runs whose losses are those of labels."""

    soft_labels: SoftKind = setting(
        "none",
        "data",
        "how sure labels are: none, they are certain; data, the column preference says; crossfit, a "
        "calibrated model of frozen features that has not seen the prompt",
    )
    soft_folds: int = setting(5, "data", "folds of soft_labels=crossfit; a prompt is in one of them")


def check_soft_labels(settings: object) -> None:
    """Refuse what there is not; other settings than ``SoftLabels`` have nothing to check.

    Raises:
        ValueError: Naming the setting.
    """
    if not isinstance(settings, SoftLabels):
        return
    if settings.soft_labels not in get_args(SoftKind):
        raise ValueError(f"soft_labels must be one of {', '.join(get_args(SoftKind))}, got {settings.soft_labels!r}")
    if settings.soft_folds < LEAST_FOLDS:
        raise ValueError(f"soft_folds must be at least {LEAST_FOLDS}, got {settings.soft_folds}")
