"""The settings of the adversary that are told apart from its numbers: loaded without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dro_core.command_line.settings import setting

LastWindow = Literal["drop", "keep"]


@dataclass
class SliceSettings:
    """How the running radius is measured; a block of the settings of every run on pairs."""

    auto_slice: float = setting(
        256, "adversary", "ambiguity tv:auto=0.5: pairs held out to measure the radius on, or below 1 a share of them"
    )
    auto_every: int = setting(50, "adversary", "ambiguity tv:auto=0.5: steps from one measure to the next")


def check_slice(settings: SliceSettings) -> None:
    """Refuse settings by which nothing could be measured.

    Raises:
        ValueError: Naming it.
    """
    if not settings.auto_slice > 0:
        raise ValueError(
            f"auto_slice is a number of pairs, or below 1 a share, and positive; got {settings.auto_slice}"
        )
    if settings.auto_every < 1:
        raise ValueError(f"auto_every must be at least 1, got {settings.auto_every}")
