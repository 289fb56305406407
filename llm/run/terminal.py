"""The terminal of the commands: names are shown and never obeyed, neither by it nor by rich."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from .escaping import visible


class Terminal(Console):
    """A console on which a text means itself: no markup, no emoji names, control characters as escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """The text as ``visible`` shows it; all that is printed, in a cell or a title too, comes through here."""
        return super().render_str(visible(text), **options)


def shown(text: object, style: str = "") -> Text:
    """A cell or title for any console: the text as it stands, whatever markup it seems to hold."""
    return Text(visible(str(text)), style=style)


def shown_title(text: object) -> Text:
    """The title of a table for any console, in the style that rich gives titles."""
    return shown(text, "table.title")
