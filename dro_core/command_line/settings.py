"""Settings of a command as fields of a dataclass, each with its group in the help and what it is for."""

from __future__ import annotations

from dataclasses import field
from typing import Any, cast


def setting(default: Any, group: str, text: str, *, alias: str = "", rare: bool = False) -> Any:
    """A field of settings.

    Args:
        default: Its value where none is given; a list is copied.
        group: The part of the help where its flag stands.
        text: What it is for.
        alias: A second name, by which users of another program know it; taken, and not shown.
        rare: Whether the short help leaves it out.
    """
    metadata = {"group": group, "help": text, "alias": alias, "rare": rare}
    if isinstance(default, list):
        items = cast("list[Any]", default)
        return field(default_factory=items.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
