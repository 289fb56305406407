"""Command lines as the tests write them: from settings by name."""

from __future__ import annotations

from collections.abc import Mapping


def flags(settings: Mapping[str, object]) -> list[str]:
    """``--name value`` for each of them, ``--name value value`` where it is a list."""
    told = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    return [text for name, values in told.items() for text in (f"--{name}", *map(str, values))]
