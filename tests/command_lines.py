"""Command lines as the tests write them: from settings by name."""

from __future__ import annotations

from collections.abc import Mapping


def flags(settings: Mapping[str, object]) -> list[str]:
    """``--name value`` for each of them."""
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]
