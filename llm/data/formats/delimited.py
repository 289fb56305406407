"""CSV, and its relatives with semicolons, tabs or bars: the separator is found from the header."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm.data.formats.cells import unpacked_row
from llm.data.formats.opened import DataError, Record, note, readable, whole_text

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LARGEST_CELL = 2**31 - 1  # characters; the module's own limit is 131,072


def csv_records(path: Path, read_as: list[str]) -> Iterator[Record]:
    """Yield the records, one at a time.

    Raises:
        DataError: The separator is not clear, or a line does not fit the header; the message says where.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))
    with readable(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            before, header = _header(lines)
            separator = _told(header)
            if separator is not None:
                before, header = before + 1, lines.readline()
            separator = separator or _separator(path, header)
            if separator != ",":
                note(read_as, f"cells separated by {_SEPARATORS.get(separator, repr(separator))}")
            rows = csv.reader(itertools.chain([header], lines), delimiter=separator, strict=True)
            yield from _records(path, rows, before, read_as)
        except UnicodeDecodeError:
            whole_text(path)  # reads it again to say where
            raise


def _header(lines: io.TextIOWrapper) -> tuple[int, str]:
    """How many empty lines come first, and the first line of the header."""
    for before, line in enumerate(iter(lines.readline, "")):
        if line.strip():
            return before, line
    return 0, ""


def _told(line: str) -> str | None:
    """The separator that a spreadsheet names in a line of its own: ``sep=;``."""
    found = re.fullmatch(r"""["']?sep=(.)["']?\s*""", line, re.IGNORECASE)
    return found[1] if found else None


def _separator(path: Path, header: str) -> str:
    """What splits the header into the most columns; a comma where nothing does."""
    widths = {sign: len(next(csv.reader([header], delimiter=sign), ())) for sign in _SEPARATORS}
    most = max(widths.values())
    found = [sign for sign, width in widths.items() if width == most] if most > 1 else [","]
    if len(found) > 1:
        names = " or ".join(_SEPARATORS[sign] for sign in found)
        raise DataError(
            f"{path}, line 1: the header may be separated by {names}; write the line sep={found[0]} above it."
        )
    return found[0]


def _records(path: Path, rows: Any, before: int, read_as: list[str]) -> Iterator[Record]:
    try:
        header = [name.strip() for name in next(rows, ())]
        if len(set(header)) < len(header):
            raise DataError(f"{path}, line {before + 1}: a column name occurs twice in {header}.")
        names, first = f"line {before + 1}, the header", before + rows.line_num + 1
        for cells in rows:
            if cells:
                yield _record(path, first, header, cells, read_as)._replace(header=names)
            first = before + rows.line_num + 1  # of the next: a cell may hold several lines
    except csv.Error as error:
        raise DataError(f"{path}, line {before + rows.line_num}: this is not CSV ({error}).") from error


def _record(path: Path, line: int, header: list[str], cells: list[str], read_as: list[str]) -> Record:
    place = f"line {line}"
    if len(cells) != len(header):
        raise DataError(f"{path}, {place}: {len(header)} columns expected, {len(cells)} found.")
    return Record(place, unpacked_row(str(path), place, dict(zip(header, cells, strict=True)), read_as))
