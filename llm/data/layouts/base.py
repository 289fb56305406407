"""What every layout shares: pairs, comparisons, the reasons to drop one, and the reading of single fields."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NotRequired, TypedDict

from llm.data.records import Record

Columns = Mapping[str, Any]


class Message(TypedDict):
    """One turn of a chat.

    Attributes:
        role: Who speaks: system, user, assistant, tool, or a role of the data's own.
        content: What is said; "" where a turn only calls tools.
        tool_calls: The calls of an assistant's turn, ``{"type": "function", "function": {"name", "arguments"}}`` each.
        tool_call_id: Which call a tool answers.
        name: Of the tool or the speaker.
        tools: Definitions of the tools that the chat may use, on one of its turns.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    tools: NotRequired[list[dict[str, Any]]]


Chat = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One comparison: after ``prompt``, the answer ``chosen`` was preferred to ``rejected``.

    Attributes:
        id: Unique inside its file.
        prompt: The chat up to, and without, the answers.
        chosen: The preferred answer; a ``tools.CallingAnswer`` where it calls tools.
        rejected: The other answer.
        source: Where the pair comes from; the unit of a mixture.
        category: What it is about; the unit of a report.
        question_id: Pairs with the same one share a question, and intervals cluster on it.
        margin: How much better ``chosen`` was rated, in the units of its data set.
        preference: The probability, in [0, 1], that ``chosen`` is the better answer; None where nothing says how sure
            the label is.
        weight: Reference mass relative to other pairs, at least 0; None counts as 1.
        kept: Further columns that were asked for, by name, as text: what groups can be made by.
    """

    id: str
    prompt: Chat
    chosen: str
    rejected: str
    source: str = "unknown"
    category: str = "unknown"
    question_id: str | None = None
    margin: float | None = None
    preference: float | None = None
    weight: float | None = None
    kept: tuple[tuple[str, str], ...] = ()


class Comparison(NamedTuple):
    """A pair as its layout knows it: where a field is None, the column of that name counts, if there is one.

    ``noted`` says what was reinterpreted, or left out, to read the record; every entry is counted.
    """

    prompt: Chat
    chosen: str
    rejected: str
    id: str | None = None
    source: str | None = None
    category: str | None = None
    question_id: str | None = None
    margin: float | None = None
    preference: float | None = None
    weight: float | None = None
    noted: tuple[str, ...] = ()


class Dropped(Exception):
    """The record is sound but no usable comparison; the message is the reason it is counted under."""


class Undecided(Dropped):
    """The data say so themselves (a tie): counted like the others, but no sign of a wrong or broken file."""


class Malformed(Exception):
    """The record does not fit the layout of its file; the message says how."""


class Lacking(Malformed):
    """A column that its layout needs is not there."""


def one_by_one(records: Iterator[Record]) -> Iterator[Record]:
    """Leave the records as they are."""
    return records


def joined(first: Record, second: Record) -> Record:
    """One record of two: ``rows`` holds the columns of both, and beside it stand those in which they agree."""
    theirs = dict(second.columns)  # a copy: a look at a column would count as reading it
    shared = {name: value for name, value in first.columns.items() if theirs.get(name) == value}
    rows = {"rows": (first.columns, second.columns)}
    return Record(f"{first.place} and {second.place}", _Joined({**shared, **rows}))


class _Joined(dict[str, Any]):
    """Columns of two rows: who reads one here reads it in the first."""

    def __getitem__(self, name: str) -> Any:
        if name != "rows":
            self["rows"][0].get(name)
        return super().__getitem__(name)

    def get(self, name: str, default: object = None) -> object:
        try:
            return self[name]
        except KeyError:
            return default


@dataclass(frozen=True)
class Layout:
    """One way to write comparisons down.

    Attributes:
        name: What reports call it.
        shape: Its columns, for error messages.
        fits: Whether these columns are in this layout; Dropped if the next record must decide.
        read: The comparisons of one record; Dropped if it has none, Malformed if it breaks the layout.
        join: Makes one record of those that only together hold a comparison.
        alone: Whether a record is one answer to one prompt, of which ``join`` makes comparisons.
    """

    name: str
    shape: str
    fits: Callable[[Columns], bool]
    read: Callable[[Columns], Iterable[Comparison]]
    join: Callable[[Iterator[Record]], Iterator[Record]] = one_by_one
    alone: bool = False


def having(*names: str) -> Callable[[Columns], bool]:
    """Recognise a layout by the columns it cannot do without."""
    return lambda columns: columns.keys() >= set(names)


def field(columns: Columns, name: str) -> Any:
    """Return a column, which must be there.

    Raises:
        Malformed: It is not.
    """
    if name not in columns:
        raise Lacking(f"no {name!r} here, found {', '.join(columns) or 'nothing'}")
    return columns[name]


def answer(columns: Columns, name: str) -> str:
    """Return an answer that must be plain text; null counts as empty.

    Raises:
        Malformed: It is something else.
    """
    value = present(columns, name)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"{name!r} should be text, found {said(value)}")
    return value or ""


def present(columns: Columns, name: str) -> Any:
    """A column, which must be there; NaN is null."""
    return unless_nan(field(columns, name))


def first_of(columns: Columns, *names: str) -> str:
    """The first of these names that is a column; the first where none is."""
    return next((name for name in names if name in columns), names[0])


def unless_nan(value: object) -> Any:
    """A value as it is; NaN, which is how tables write that a text is missing, is null."""
    return None if isinstance(value, float) and math.isnan(value) else value


def said(value: object) -> str:
    """What stands where a text should: of a number, what to do about it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value}: put it in quotes"
    return type(value).__name__


def text_of(value: object) -> str:
    """An answer inside a list, null as an empty one; raises ``Malformed`` for what is no text."""
    if value is not None and not isinstance(value, str):
        raise Malformed(f"an answer should be text, found {type(value).__name__}")
    return value or ""


def number(columns: Columns, name: str) -> float | None:
    """Return a number, which a CSV file holds as text; None where it is null, empty or NaN.

    Raises:
        Malformed: It is no number.
    """
    value = field(columns, name)
    try:
        read = math.nan if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        raise Malformed(f"{name!r} should be a number, found {value!r:.40}") from None
    return None if math.isnan(read) else read


def items(columns: Columns, name: str) -> list[Any]:
    """Return a list, which a CSV file holds as JSON text; null counts as empty.

    Raises:
        Malformed: It is no list.
    """
    value = unpacked(field(columns, name))
    if value in (None, ""):
        return []
    if not isinstance(value, list):
        raise Malformed(f"{name!r} should be a list, found {type(value).__name__}")
    return value


def unpacked(value: object) -> Any:
    """Decode a cell that holds its structure as JSON text; anything else stays as it is."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return value
    return value


def reply(text: str) -> Message:
    """Return the turn of an assistant that says this."""
    return {"role": "assistant", "content": text}


def question(text: str) -> Chat:
    """Return the chat that consists of one question."""
    return ({"role": "user", "content": text},)
