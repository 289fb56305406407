"""Conversations and two answers, as LLaMA-Factory's sharegpt and axolotl's chat_template.default have them."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, Undecided, first_of
from llm.data.layouts.turns import after_a_question, explicit, messages
from llm.data.layouts.verdicts import rated_margin

_NAMES = ("conversations", "conversation", "messages")


def _fits(columns: Columns) -> bool:
    return after_a_question(columns) and bool(columns.keys() & set(_NAMES))


def _read(columns: Columns) -> Iterator[Comparison]:
    chat = messages(columns, first_of(columns, *_NAMES))
    if chat and chat[-1]["role"] == "assistant":
        raise Undecided("conversation that is answered already")
    yield explicit(columns, chat)._replace(margin=rated_margin(columns))


LAYOUT = Layout(
    "sharegpt",
    "{conversations or messages: [{from, value} or {role, content}], chosen and rejected: a message or text}",
    _fits,
    _read,
)
