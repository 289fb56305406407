"""Chatbot Arena: two conversations and a winner, or one column for each way it can end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm.data.layouts.base import (
    Chat,
    Columns,
    Comparison,
    Dropped,
    Layout,
    Malformed,
    Undecided,
    field,
    having,
    number,
    question,
    reply,
    unpacked,
)
from llm.data.layouts.turns import DIFFER, messages, parted
from llm.data.layouts.verdicts import first_wins

_WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")


def _conversations(columns: Columns) -> Iterator[Comparison]:
    first = first_wins(columns, "winner", ("model_a",), ("model_b",))
    yield _parted(*(messages(columns, name) for name in ("conversation_a", "conversation_b")), wins=first)


def _tables(columns: Columns) -> Iterator[Comparison]:
    """lmsys/lmsys-arena-human-preference-55k: JSON lists of questions and of answers, the winner marked 1."""
    marks = [number(columns, name) for name in _WINNERS]
    if sorted(mark or 0 for mark in marks) != [0, 0, 1]:
        raise Malformed(f"one of {', '.join(_WINNERS)} should be 1, found {', '.join(map(str, marks))}")
    if marks[2]:
        raise Undecided("tie")
    yield _parted(*(_turns(columns, name) for name in ("response_a", "response_b")), wins=bool(marks[0]))


def _turns(columns: Columns, name: str) -> Chat:
    asked, answers = (_list(columns, column) for column in ("prompt", name))
    if len(asked) != len(answers):
        raise Malformed(f"'prompt' has {len(asked)} turns, but {name!r} has {len(answers)}")
    exchanges = zip(asked, answers, strict=True)
    return tuple(turn for said, answered in exchanges for turn in (*question(said or ""), reply(answered or "")))


def _list(columns: Columns, name: str) -> Sequence[str | None]:
    value = unpacked(field(columns, name))
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str | None) for text in found):
        raise Malformed(f"{name!r} should be a list of texts, found {value!r:.40}")
    return found


def _parted(first: Chat, second: Chat, *, wins: bool) -> Comparison:
    """Later turns answer after other answers of their own: such a comparison has no common prompt."""
    try:
        return parted(first, second) if wins else parted(second, first)
    except Dropped as reason:
        raise (Undecided(str(reason)) if str(reason) == DIFFER else reason) from None


LAYOUT = Layout(
    "arena",
    "{conversation_a and conversation_b: [messages], winner}",
    having("conversation_a", "conversation_b", "winner"),
    _conversations,
)
WINNERS = Layout(
    "arena-winners",
    "{prompt, response_a and response_b: [texts], winner_model_a, winner_model_b, winner_tie}",
    having("prompt", "response_a", "response_b", *_WINNERS),
    _tables,
)
