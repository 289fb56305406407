"""argilla's exports: an instruction or input, chosen_response and rejected_response, often with ratings."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, first_of, having
from llm.data.layouts.turns import compared, messages
from llm.data.layouts.verdicts import rated_margin

_NAMES = ("instruction", "input", "prompt", "question")


def _read(columns: Columns) -> Iterator[Comparison]:
    chat = messages(columns, first_of(columns, *_NAMES), role="user")
    pair = compared(columns, chat, "chosen_response", "rejected_response")
    yield pair._replace(margin=rated_margin(columns))


LAYOUT = Layout(
    "argilla",
    "{instruction or input, chosen_response, rejected_response}",
    having("chosen_response", "rejected_response"),
    _read,
)
