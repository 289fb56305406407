"""Raw records of a data file, one dictionary each, with the place they came from.

Everything that can be wrong with the *file* (missing, empty, cut off, wrong encoding, malformed line) ends
here in a :class:`DataError`; what can be wrong with a *record* is the business of ``layouts``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from llm.data.formats.json_files import json_records
from llm.data.formats.opened import DataError, Record, Records

__all__ = ["SUFFIXES", "DataError", "Record", "Records", "read_records", "stem_of", "suffix_of"]

SUFFIXES = (
    ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet",
)  # fmt: skip


def suffix_of(path: Path) -> str | None:
    """Return the known suffix ``path`` ends with, compression included, or None."""
    name = path.name.lower()
    return max((s for s in SUFFIXES if name.endswith(s) and name != s), key=len, default=None)


def stem_of(path: Path) -> str:
    """Return the file name without its known suffix: ``train.jsonl.gz`` -> ``train``."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.stem


def read_records(path: Path) -> Records:
    """The records of ``path`` in file order.

    Raises:
        DataError: The path is no readable data file; on iteration, a record in it cannot be decoded.
    """
    return Records(partial(_READERS.get(_known_suffix(path).removesuffix(".gz"), _parquet), path))


def _known_suffix(path: Path) -> str:
    if path.is_dir():
        raise DataError(f"{path} is a folder, but one data file was expected.")
    if not path.exists():
        raise DataError(f"{path} does not exist: {_remedy(path)}.")
    suffix = suffix_of(path)
    if suffix is None:
        raise DataError(f"{path} has no known suffix; the known ones are {', '.join(SUFFIXES)}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: name a file with records.")
    return suffix


def _remedy(path: Path) -> str:
    """What to do about a file that is not there; our pages take the built-in corpus from a folder ``corpus``."""
    if path.parent.name == "corpus" and not path.parent.exists():
        return f"check the path, or make the built-in corpus: robust-rlhf data builtin {shlex.quote(str(path.parent))}"
    return "check the path, or name a data set as hf://datasets/OWNER/NAME:SPLIT"


def _parquet(path: Path, read_as: list[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from llm.data.formats.cells import unpacked_row

    number = 0
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    place = f"row {number}"
                    yield Record(place, unpacked_row(str(path), place, row, read_as))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a sound Parquet file: {str(error).splitlines()[0]}") from error


def _delimited(path: Path, read_as: list[str]) -> Iterator[Record]:
    from llm.data.formats.delimited import csv_records

    return csv_records(path, read_as)


_READERS = {".jsonl": json_records, ".json": json_records, ".csv": _delimited, ".tsv": _delimited}
