"""What a model is to score: pairs, or chats with answers, in the order in which they stand.

Example:
    >>> found = answered_of({"prompt": "2 + 2?", "responses": ["4", "five"]}, "q")
    >>> found.chat[0]["content"], found.answers
    ('2 + 2?', ('4', 'five'))
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.columns import ColumnMap, columns_of
from ..data.formats.json_files import lines_of
from ..data.hub import address_of, hub_records
from ..data.layouts import Dropped, Malformed, Message, Pair, layout_of, prompt_alone, unless_nan
from ..data.layouts.base import unpacked
from ..data.layouts.formats.alpaca import asked
from ..data.layouts.mapped import renamed, with_history
from ..data.layouts.tools import beside_text, with_tools
from ..data.layouts.turns import messages, only_answer
from ..data.objects import NAME, record_rows, rows_of
from ..data.records import DataError, Record, read_records, stem_of
from ..data.stream import PairStream

STDIN, STDIN_NAME = "-", "stdin"
SPELLING = "a 'prompt' with a 'response' or a list of 'responses', or 'messages' that end with the answer"
_CHATS = ("messages", "conversations", "conversation")
_ANSWERS = ("response", "responses", "completion", "completions", "output", "outputs", "answer", "answers")


@dataclass(frozen=True)
class Answered:
    """A chat with its answers.

    Attributes:
        id: As its record says, else by its place.
        chat: What is answered.
        answers: At least one, unless there is a reason.
        reason: Why they cannot be read; "" where they can.
    """

    id: str
    chat: tuple[Message, ...] = ()
    answers: tuple[str, ...] = ()
    reason: str = ""


def answered_of(row: Mapping[str, object], name: str) -> Answered:
    """The chat and the answers of one record.

    Args:
        row: ``prompt`` (a text or messages) or ``instruction`` with an answer or a list of answers, each a text or
            messages; or whole conversations.
        name: Its id, where it has none.

    Raises:
        Malformed: There is no prompt or no answer, or it is something else.
    """
    name = str(unless_nan(row.get("id")) or name)
    try:
        chat, answers = _parts(row)
        _check_text(chat, answers)
    except Dropped as reason:
        return Answered(name, reason=str(reason))
    return Answered(name, chat, answers)


def items_of(
    source: object, columns: str | Mapping[str, str] | ColumnMap | None = None, *, stdin: Iterable[bytes] = ()
) -> Iterator[Pair | Answered]:
    """The pairs of a source, or its chats with answers: whichever its first record is; only what is read is held.

    Args:
        source: What :func:`llm.data.objects.pairs_of` takes, with answers in place of pairs too; ``-`` for ``stdin``.
        columns: Which column holds what. ``prompt`` and ``answer`` are enough for answers.
        stdin: Lines of JSON.

    Raises:
        DataError: As ``read_pairs``; or a record holds neither.
    """
    mapping = columns_of(columns)
    records, name, stem, read_as = _opened(source, stdin)
    if mapping is not None:
        _, begun = mapping.looked_for(records, file=name, shared=False)
        records = itertools.chain(begun, records)
    first = next(records, None)
    if first is None:
        raise DataError(f"{name} is empty: it holds no record.")
    records = itertools.chain([first], records)
    if isinstance(first, Pair):
        return _pairs(records, name)
    if _is_of_pairs(first, mapping):
        return iter(PairStream(name, stem, records, columns=mapping, read_as=read_as, numbered=False))
    return _answered(records, name, stem, mapping)


def _opened(source: object, stdin: Iterable[bytes]) -> tuple[Iterator[Any], str, str, list[str]]:
    """Records or pairs, the name and the stem of what holds them, and how it was read."""
    if not isinstance(source, str | os.PathLike):
        rows = rows_of(getattr(source, "pairs", source))
        return iter(rows if isinstance(rows[0], Pair) else record_rows(rows, NAME)), NAME, NAME, []
    if os.fspath(source) == STDIN:
        return lines_of(stdin, STDIN_NAME), STDIN_NAME, STDIN_NAME, []
    if (address := address_of(source)) is not None:
        opened = hub_records(address)
        return opened, address.text, address.stem, opened.read_as
    opened = read_records(Path(source))
    return opened, str(source), stem_of(Path(source)), opened.read_as


def _pairs(rows: Iterable[object], name: str) -> Iterator[Pair]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Pair):
            raise DataError(f"{name}: row {number} is a {type(row).__name__}, a pair was expected.")
        yield row


def _is_of_pairs(first: Record, mapping: ColumnMap | None) -> bool:
    if mapping is not None:
        names = renamed(mapping, first.columns).keys()
        return names >= {"chosen", "rejected"} or names >= {"first", "second"}
    try:
        layout = layout_of(first.columns)
    except Dropped:
        return True
    if layout is None:
        return "chosen" in first.columns or "rejected" in first.columns
    return not layout.alone


def _answered(records: Iterable[Record], name: str, stem: str, mapping: ColumnMap | None) -> Iterator[Answered]:
    for number, record in enumerate(records):
        row = record.columns if mapping is None else renamed(mapping, record.columns)
        try:
            yield answered_of(row, f"{stem}-{number}")
        except Malformed as problem:
            raise DataError(f"{name}, {record.place}: {problem}, or pairs in a known layout.") from problem


def _parts(row: Mapping[str, object]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    named = _answer_name(row)
    if "prompt" in row or "instruction" in row:
        chat = (
            with_history(prompt_alone(row), row) if "prompt" in row else prompt_alone({**row, "prompt": [*asked(row)]})
        )
        if not named:
            raise Malformed(f"there is no answer to score beside the prompt; give {SPELLING}")
        return chat, _answers(row, named, chat)
    whole = next((name for name in _CHATS if unless_nan(row.get(name)) is not None), "")
    if not whole:
        raise Malformed(f"found {', '.join(row) or 'nothing'}; give {SPELLING}")
    turns = with_tools(messages(row, whole), row.get("tools"))
    if named == whole or (turns and turns[-1]["role"] == "assistant"):
        return turns[:-1], (only_answer(turns[-1:]),)
    return turns, _answers(row, named, turns)


def _answer_name(row: Mapping[str, object]) -> str:
    """The column that holds what is scored; "" where there is none."""
    return next((name for name in (*_ANSWERS, *_CHATS) if unless_nan(row.get(name)) is not None), "")


def _answers(row: Mapping[str, Any], name: str, chat: Sequence[Message]) -> tuple[str, ...]:
    """One answer, or as many as there are in a list of texts or of lists of messages."""
    value = row[name]
    listed = unpacked(value) if name.endswith("s") and isinstance(value, str) else value
    several = isinstance(listed, list) and not any(isinstance(item, Mapping) for item in listed)
    if several and not listed:
        raise Malformed(f"{name!r} holds no answer")
    return tuple(_answer({name: item}, name, chat) for item in (listed if several else [value]))


def _answer(row: Mapping[str, Any], name: str, chat: Sequence[Message]) -> str:
    turns = messages(row, name, role="assistant")
    return only_answer(turns[len(chat) :] if len(turns) > 1 and turns[: len(chat)] == tuple(chat) else turns)


def _check_text(chat: Sequence[Message], answers: Sequence[str]) -> None:
    """Raise ``Dropped`` for what no pair may hold either.

    An empty prompt, or a lone surrogate, as from an escape of half a character: no tokenizer takes it.
    """
    if not any(message["content"].strip() for message in chat):
        raise Dropped("empty prompt")
    try:
        "".join((*answers, *(message["content"] for message in chat))).encode()
        json.dumps([beside_text(message) for message in chat], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Dropped("text is not valid Unicode") from None
