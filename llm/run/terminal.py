"""The terminal of the commands: names are shown and never obeyed, neither by it nor by rich."""

from __future__ import annotations

import logging
import os
from typing import Any

from rich.console import Console
from rich.text import Text

from .escaping import log_handlers, visible
from .launch import launched


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


def quiet_libraries() -> None:
    """What libraries say that no user of a command needs; what ours say, with our name and by the first process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    found = launched(os.environ)
    first = found is None or found.rank == 0
    handlers = log_handlers("robust-rlhf: %(message)s")
    handlers[0].setLevel(logging.NOTSET if first else logging.ERROR)  # the others see what it sees
    logging.basicConfig(level=logging.WARNING, handlers=handlers)
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # tied weights are stored once: no news to anyone
    # What takes time, how weights are had, and of what.
    for told in ("llm.training.robust_trainer", "llm.models.contents", "llm.adversary.last_window"):
        logging.getLogger(told).setLevel(logging.INFO)
