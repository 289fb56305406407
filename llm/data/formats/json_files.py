"""JSON: an object per line, an array, objects that stretch over lines, or a list under a key of one object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llm.data.formats.opened import BOM, DataError, Record, not_utf8, note, readable, whole_text

# Of an object with one of these, a list is a part of the record and not where the records stand.
_OF_A_RECORD = {
    "chosen", "context", "conversation", "conversations", "history", "input", "instruction", "messages", "post",
    "prompt", "query", "question", "rejected",
}  # fmt: skip
_SHORT = 100  # characters of what may stand beside the records: a version, a name, a list of tags
_BY_COLUMN = (
    "its columns stand one after another; write one object per record: df.to_json(orient='records', lines=True)"
)


def json_records(path: Path, read_as: list[str]) -> Iterator[Record]:
    """Yield the records. Lines are streamed; anything else is read whole.

    Raises:
        DataError: The file is not JSON, or holds something else than records; the message says where.
    """
    first = _first_line(path)
    if first.startswith(b"["):
        return _array(path)
    return _unwrapped(path, _one_after_another(path) if _goes_on(first) else _lines(path), read_as)


def _first_line(path: Path) -> bytes:
    """The first line that holds anything, without the space around it."""
    with readable(path) as stream:
        return next((line for raw in stream if (line := raw.removeprefix(BOM).strip())), b"")


def _goes_on(line: bytes) -> bool:
    """Whether an object begins on this line and ends on a later one."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return line.startswith(b"{") and error.pos >= len(error.doc)
    except (ValueError, RecursionError):
        return False
    return False


def _lines(path: Path) -> Iterator[Record]:
    with readable(path) as stream:
        yield from lines_of(stream, path)


def lines_of(stream: Iterable[bytes], name: str | Path) -> Iterator[Record]:
    """The records of a stream that has one on each line, each as soon as its line is there.

    Args:
        stream: Lines; only a newline ends one, U+2028 does not.
        name: What messages call it.

    Raises:
        DataError: A line is not UTF-8, not JSON or no object.
    """
    for number, raw in enumerate(stream, start=1):
        try:
            line = (raw.removeprefix(BOM) if number == 1 else raw).decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_utf8(name, number, error.start) from error
        if line.strip():
            yield _record(name, f"line {number}", _parsed(name, number, line))


def _parsed(path: str | Path, line: int | None, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a plain ValueError
        raise _not_json(path, line, error) from error


def _not_json(path: str | Path, line: int | None, error: Exception) -> DataError:
    """What to raise; None: the line is that of the error, where it has one."""
    if line is None and isinstance(error, json.JSONDecodeError):
        line = error.lineno
    place = "" if line is None else f", line {line}"
    return DataError(f"{path}{place}: this is not JSON ({_reason(error)}).")


def _reason(error: Exception) -> str:
    return str(getattr(error, "msg", error))


def _record(path: str | Path, place: str, columns: object) -> Record:
    if not isinstance(columns, dict):
        raise DataError(f"{path}, {place}: expected a JSON object, found {type(columns).__name__}.")
    return Record(place, columns)


def _array(path: Path) -> Iterator[Record]:
    for number, row in enumerate(_parsed(path, None, whole_text(path)), start=1):
        yield _record(path, f"record {number}", row)


def _one_after_another(path: Path) -> Iterator[Record]:
    """Read objects that stretch over lines, with nothing but space between them."""
    text, decoder, end, line = whole_text(path), json.JSONDecoder(), 0, 1
    while (start := _next(text, end)) < len(text):
        line += text.count("\n", end, start)
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, {_place(text, line, error)}: this is not JSON ({_reason(error)}).") from error
        yield _record(path, f"line {line}", value)
        line += text.count("\n", start, end)


def _place(text: str, begins: int, error: Exception) -> str:
    """Where an object that begins on a line is broken: there too, as the break may be an end that never came."""
    if not isinstance(error, json.JSONDecodeError) or error.pos >= len(text.rstrip()):
        return f"line {begins}"
    return f"line {begins}" if error.lineno == begins else f"line {error.lineno}, in the object of line {begins}"


def _next(text: str, place: int) -> int:
    """Where the space that begins at ``place`` ends."""
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _unwrapped(path: Path, records: Iterator[Record], read_as: list[str]) -> Iterator[Record]:
    """The records in a list of the only object, where that is what the file holds; else the records as they are."""
    first = next(records, None)
    if first is None:
        return
    by_column = _is_by_column(first.columns)
    lists = _lists_of_objects(first.columns)
    second = next(records, None) if lists or by_column else None
    if second is None and by_column:
        raise DataError(f"{path} is one object: {_BY_COLUMN}.")
    if second is None and len(lists) > 1:
        raise DataError(
            f"{path} is one object with records under {', '.join(map(repr, lists))}: write each list to a file."
        )
    if second is None and lists:
        note(read_as, f"records under the key {lists[0]!r}")
        for number, row in enumerate(first.columns[lists[0]], start=1):
            yield _record(path, f"record {number} of {lists[0]!r}", row)
        return
    yield first
    if second is not None:
        yield second
    yield from records


def _lists_of_objects(columns: Mapping[str, object]) -> list[str]:
    """The keys under which records stand: lists of objects that are no turns of a chat, in what is no record."""
    if _OF_A_RECORD & {name.lower() for name in columns}:
        return []
    found = [name for name, value in columns.items() if isinstance(value, list) and value and _is_row(value[0])]
    beside = [value for name, value in columns.items() if name not in found]
    if beside and (
        any(isinstance(value, dict) or len(str(value)) > _SHORT for value in beside) or _is_one(columns, found)
    ):
        return []
    return found


def _is_one(columns: Mapping[str, Any], lists: list[str]) -> bool:
    """Whether there is one row in all: it may as well be a part of a record."""
    return sum(len(columns[name]) for name in lists) == 1


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and not ({"role", "from"} & value.keys() and {"content", "value"} & value.keys())


def _is_by_column(columns: Mapping[str, Any]) -> bool:
    """Whether these are whole columns, as pandas and datasets give them: by number, or as lists of text."""
    values = list(columns.values())
    if len(values) < 2:
        return False
    if all(isinstance(value, dict) and value and all(key.isdigit() for key in value) for value in values):
        return True
    texts = all(isinstance(value, list) and value and all(isinstance(v, str) for v in value) for value in values)
    return texts and len({len(value) for value in values}) == 1
