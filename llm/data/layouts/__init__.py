"""From a raw record to comparisons: the layouts of preference data, told apart by their columns."""

from __future__ import annotations

from llm.data.layouts import benchmarks, chats, ratings
from llm.data.layouts.base import (
    Columns,
    Comparison,
    Dropped,
    Layout,
    Malformed,
    Message,
    Pair,
    Undecided,
    number,
    unless_nan,
)

__all__ = [
    "KNOWN_LAYOUTS", "LAYOUTS", "Columns", "Comparison", "Dropped", "Layout", "Malformed", "Message", "Pair",
    "Undecided", "check", "layout_of", "number", "unless_nan",
]  # fmt: skip

# The plain layouts last: their columns are part of some of the others.
LAYOUTS = (*ratings.LAYOUTS, *benchmarks.LAYOUTS, *chats.LAYOUTS)
_PLAIN_FIRST = (*chats.LAYOUTS[1:], *ratings.LAYOUTS, *benchmarks.LAYOUTS, chats.LAYOUTS[0])
KNOWN_LAYOUTS = "; ".join(f"{layout.name} {layout.shape}" for layout in _PLAIN_FIRST if layout.shape)


def layout_of(columns: Columns) -> Layout | None:
    """Return the layout of a record, or None.

    Raises:
        Dropped: The columns of a known layout are there, but one is null here: the next record must decide.
    """
    return next((layout for layout in LAYOUTS if layout.fits(columns)), None)


def check(comparison: Comparison) -> None:
    """Let only comparisons pass that can be trained on.

    Raises:
        Dropped: The prompt or an answer is empty, the answers are equal, or the text is not valid Unicode.
    """
    prompt, chosen, rejected = comparison[:3]
    if not any(message["content"].strip() for message in prompt):
        raise Dropped("empty prompt")
    if not chosen.strip() or not rejected.strip():
        raise Dropped("empty answer")
    if chosen.strip() == rejected.strip():
        raise Dropped("chosen equals rejected")
    try:
        "".join((chosen, rejected, *(message["content"] for message in prompt))).encode()
    except UnicodeEncodeError:  # a lone surrogate from a \ud83d escape: no tokenizer takes it
        raise Dropped("text is not valid Unicode") from None
