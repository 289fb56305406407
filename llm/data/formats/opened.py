"""What all file formats share: records with their place, the error that names it, and files opened with care."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

BOM = b"\xef\xbb\xbf"


class DataError(ValueError):
    """Something is wrong with a data file; the message is one sentence that names the file and the place."""


class Record(NamedTuple):
    """One raw record.

    Attributes:
        place: Where it stands ("line 7", "row 7").
        columns: Its values by name.
        header: Where the names of the columns stand, if not in the record itself ("line 1, the header").
    """

    place: str
    columns: dict[str, Any]
    header: str = ""

    @property
    def names(self) -> str:
        """Where the names of its columns stand: what is wrong with them is wrong there."""
        return self.header or self.place


class Records(Iterator[Record]):
    """The records of one file or data set, in order.

    Attributes:
        read_as: How the file was read, where that was found out and not told ("cells separated by semicolons");
            complete once the records are.
    """

    def __init__(self, read: Callable[[list[str]], Iterator[Record]]) -> None:
        """``read`` gives the records and adds to the list it is handed."""
        self.read_as: list[str] = []
        self._records = read(self.read_as)

    def __next__(self) -> Record:
        return next(self._records)


def note(read_as: list[str], said: str) -> None:
    """Add a note once."""
    if said not in read_as:
        read_as.append(said)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[gzip.GzipFile | io.BufferedReader]:
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


def whole_text(path: Path) -> str:
    """The text of a file, without its byte-order mark; DataError with line and byte where it is not UTF-8."""
    with readable(path) as stream:
        raw = stream.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise not_utf8(path, line, error.start - (raw.rfind(b"\n", 0, error.start) + 1)) from error


def not_utf8(path: str | Path, line: int, offset: int) -> DataError:
    """What to raise for a byte, counted from 0, that is not UTF-8."""
    return DataError(f"{path}, line {line}, byte {offset + 1}: not UTF-8 text; save the file as UTF-8.")
