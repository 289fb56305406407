"""Raw records of a data file, one dictionary each, with the place they came from.

Everything that can be wrong with the *file* (missing, empty, cut off, wrong encoding, malformed line) ends
here in a :class:`DataError`; what can be wrong with a *record* is the business of ``layouts``.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")
_BOM = b"\xef\xbb\xbf"


class DataError(ValueError):
    """Something is wrong with a data file; the message is one sentence that names the file and the place."""


class Record(NamedTuple):
    """One raw record: where it stands ("line 7", "row 7") and its columns."""

    place: str
    columns: dict[str, Any]


def suffix_of(path: Path) -> str | None:
    """Return the known suffix ``path`` ends with, compression included, or None."""
    name = path.name.lower()
    return max((s for s in SUFFIXES if name.endswith(s) and name != s), key=len, default=None)


def stem_of(path: Path) -> str:
    """Return the file name without its known suffix: ``train.jsonl.gz`` -> ``train``."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.stem


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of ``path`` in file order.

    Raises:
        DataError: The path is no readable data file, or a record in it cannot be decoded.
    """
    suffix = _known_suffix(path)
    if suffix == ".parquet":
        return _parquet(path)
    return {".jsonl": _json_lines, ".json": _json, ".csv": _csv}[suffix.removesuffix(".gz")](path)


def _known_suffix(path: Path) -> str:
    if path.is_dir():
        raise DataError(f"{path} is a folder, but one data file was expected.")
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    suffix = suffix_of(path)
    if suffix is None:
        raise DataError(f"{path} has no known suffix; the known ones are {', '.join(SUFFIXES)}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    return suffix


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
    """Open ``path``, decompressing it, and turn the errors of a damaged file into a DataError."""
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            yield stream
    except EOFError as error:
        raise DataError(f"{path} is cut off: its compressed data end too early; copy it again.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a sound gzip file ({error}); copy it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _text(path: Path) -> str:
    with _readable(path) as stream:
        raw = stream.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _not_utf8(path, line, error.start - (raw.rfind(b"\n", 0, error.start) + 1)) from error


def _not_utf8(path: Path, line: int, offset: int) -> DataError:
    return DataError(f"{path}, line {line}, byte {offset + 1}: not UTF-8 text; save the file as UTF-8.")


def _json_lines(path: Path) -> Iterator[Record]:
    with _readable(path) as stream:
        for number, raw in enumerate(stream, start=1):  # bytes: only \n ends a line, U+2028 does not
            try:
                line = (raw.removeprefix(_BOM) if number == 1 else raw).decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, error.start) from error
            if line.strip():
                yield _parsed_line(path, number, line)


def _parsed_line(path: Path, number: int, line: str) -> Record:
    try:
        columns = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: this is not JSON ({error}).") from error
    return _object(path, f"line {number}", columns)


def _object(path: Path, place: str, columns: object) -> Record:
    if not isinstance(columns, dict):
        raise DataError(f"{path}, {place}: expected a JSON object, found {type(columns).__name__}.")
    return Record(place, columns)


def _json(path: Path) -> Iterator[Record]:
    """Read a JSON array of objects; a file that does not start with "[" is read as JSON lines."""
    if not _starts_an_array(path):
        yield from _json_lines(path)
        return
    try:
        rows = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: this is not JSON ({error.msg}).") from error
    for number, row in enumerate(rows, start=1):
        yield _object(path, f"record {number}", row)


def _starts_an_array(path: Path) -> bool:
    with _readable(path) as stream:
        return stream.read(4096).removeprefix(_BOM).lstrip().startswith(b"[")


def _csv(path: Path) -> Iterator[Record]:
    with _readable(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            yield from _csv_records(path, csv.reader(lines, strict=True))
        except UnicodeDecodeError:
            _text(path)  # reads it again to say where
            raise


def _csv_records(path: Path, rows: Any) -> Iterator[Record]:
    try:
        header = next(rows, [])
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line 1: a column name occurs twice in {header}.")
        for cells in rows:
            if cells:
                yield _csv_record(path, rows.line_num, header, cells)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: this is not CSV ({error}).") from error


def _csv_record(path: Path, line: int, header: list[str], cells: list[str]) -> Record:
    if len(cells) != len(header):
        raise DataError(f"{path}, line {line}: {len(header)} columns expected, {len(cells)} found.")
    columns = {name.strip(): table_cell(cell) for name, cell in zip(header, cells, strict=True)}
    return Record(f"line {line}", columns)


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield Record(f"row {number}", {name: table_cell(value) for name, value in row.items()})
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a sound Parquet file: {str(error).splitlines()[0]}") from error


def table_cell(cell: object) -> object:
    """Return the messages, or the one message, of a table cell that holds them as JSON text; any other cell as it is.

    Other structures are left to the layouts, which know where to expect one.
    """
    if isinstance(cell, str) and (cell[:1], cell[-1:]) in (("[", "]"), ("{", "}")):
        with contextlib.suppress(json.JSONDecodeError, RecursionError):
            value = json.loads(cell)
            if value and all(map(_is_message, value if isinstance(value, list) else [value])):
                return value
    return cell


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())
