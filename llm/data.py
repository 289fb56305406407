"""Preference pairs on disk: one canonical record, read from several layouts and file formats.

Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "train.jsonl")
    ...     pair = Pair("a", ({"role": "user", "content": "2 + 2?"},), chosen="4", rejected="five")
    ...     write_pairs([pair], path)
    ...     data = read_pairs(path)
    >>> data.layout, data.pairs == [pair], length_baseline(pair)
    ('canonical', True, 0.0)
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm._layouts import KNOWN_LAYOUTS, Dropped, Malformed, Message, Pair, layout_of, texts_of
from llm._records import SUFFIXES, DataError, Record, read_records, stem_of, suffix_of

__all__ = [
    "DataError", "Message", "Pair", "PairSet", "find_files", "length_baseline", "read_pairs", "write_pairs",
]  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairSet:
    """The usable pairs of one file and what became of the rest.

    Attributes:
        pairs: In file order, with unique ids.
        path: The file.
        layout: The layout it was found to be in.
        sha256: Of the file's bytes, in hexadecimal.
        dropped: Why records were left out -> how many.
    """

    pairs: list[Pair]
    path: str
    layout: str
    sha256: str
    dropped: dict[str, int] = field(default_factory=dict)


def read_pairs(path: str | os.PathLike[str]) -> PairSet:
    """Read a .jsonl, .json, .csv (each also .gz) or .parquet file in any known layout.

    Records that are no comparison (equal answers, an empty prompt or answer, conversations that part before
    the last answer) are dropped and counted. A record that does not fit the layout of its file stops.

    Raises:
        DataError: The file is missing, empty, damaged or malformed, its columns fit no layout, or more than
            half of its records had to be dropped.
    """
    path = Path(path)
    layout, pairs, dropped = "", [], Counter[str]()
    for number, record in enumerate(read_records(path)):
        try:
            layout = layout or _layout(path, record)
            pairs.append(_pair(record.columns, layout, f"{stem_of(path)}-{number}"))
        except Dropped as reason:
            dropped[str(reason)] += 1
        except Malformed as problem:
            raise DataError(f"{path}, {record.place}: {problem}.") from problem
    _enough(path, len(pairs), dropped)
    return PairSet(_with_unique_ids(path, pairs), str(path), layout, _sha256(path), dict(dropped))


def _layout(path: Path, record: Record) -> str:
    layout = layout_of(record.columns)
    if layout is None:
        raise DataError(
            f"{path}, {record.place}: found the columns {', '.join(record.columns) or 'none'}, expected "
            "'chosen' and 'rejected' with a 'prompt', or both as whole conversations; "
            f"known layouts: {KNOWN_LAYOUTS}."
        )
    return layout


def _pair(columns: Mapping[str, Any], layout: str, default_id: str) -> Pair:
    texts = texts_of(columns, layout)

    def text(name: str, default: str) -> str:
        value = columns.get(name)
        return default if value is None or value == "" else str(value)

    return Pair(
        text("id", default_id),
        *texts,
        source=text("source", "unknown"),
        category=text("category", "unknown"),
        question_id=text("question_id", "") or None,
    )


def _enough(path: Path, kept: int, dropped: Counter[str]) -> None:
    total = kept + dropped.total()
    reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.most_common())
    if total == 0:
        raise DataError(f"{path} is empty: it holds no record.")
    if 2 * dropped.total() > total:
        raise DataError(f"{path}: {dropped.total()} of {total} records are unusable ({reasons}).")
    if dropped:
        _log.warning("%s: dropped %d of %d records (%s)", path, dropped.total(), total, reasons)


def _with_unique_ids(path: Path, pairs: list[Pair]) -> list[Pair]:
    """Number the later pairs of a repeated id ("q7", "q7#2"): reports and error messages name pairs by id."""
    taken = {pair.id for pair in pairs}
    if len(taken) == len(pairs):
        return pairs
    _log.warning("%s: %d ids are not unique; later ones get a number", path, len(pairs) - len(taken))
    seen: Counter[str] = Counter()
    return [_renamed(pair, seen, taken) for pair in pairs]


def _renamed(pair: Pair, seen: Counter[str], taken: set[str]) -> Pair:
    seen[pair.id] += 1
    if seen[pair.id] == 1:
        return pair
    while (name := f"{pair.id}#{seen[pair.id]}") in taken:
        seen[pair.id] += 1
    taken.add(name)
    return replace(pair, id=name)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_pairs(pairs: Iterable[Pair], path: str | os.PathLike[str]) -> None:
    """Write canonical JSON lines to a .jsonl or .jsonl.gz file, whole or not at all.

    The same pairs give the same bytes, compressed or not.

    Raises:
        DataError: Another suffix.
    """
    path = Path(path)
    if suffix_of(path) not in (".jsonl", ".jsonl.gz"):
        raise DataError(f"{path}: pairs are written as .jsonl or .jsonl.gz; choose one of these suffixes.")
    with _replacing(path) as raw:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:  # no name, no time: same bytes
                stream.writelines(map(_line, pairs))
        else:
            raw.writelines(map(_line, pairs))


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[io.BufferedWriter]:
    """Open a file beside ``path`` that takes its place once everything is on the disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _line(pair: Pair) -> bytes:
    record: dict[str, Any] = {
        "id": pair.id, "prompt": list(pair.prompt), "chosen": pair.chosen, "rejected": pair.rejected,
        "source": pair.source, "category": pair.category,
    }  # fmt: skip
    if pair.question_id is not None:
        record["question_id"] = pair.question_id
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def find_files(folder: str | os.PathLike[str]) -> tuple[Path, dict[str, Path]]:
    """Return the training file of a data folder and its suites, by name.

    The training file is ``train`` with any readable suffix; every other data file is a suite named by its
    stem. Hidden files, ``MANIFEST*`` and ``README*`` are left aside.

    Raises:
        DataError: No such folder, no training file, or two files of one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one that holds train.jsonl or the like.")
    entries = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    data = [p for p in entries if suffix_of(p) and not p.name.upper().startswith(("MANIFEST", "README"))]
    files: dict[str, Path] = {}
    for path in data:
        if stem_of(path) in files:
            raise DataError(f"{folder} holds {files[stem_of(path)].name} and {path.name}; keep one of them.")
        files[stem_of(path)] = path
    if "train" not in files:
        found = ", ".join(p.name for p in entries) or "nothing"
        raise DataError(f"{folder} has no training file train.* ({', '.join(SUFFIXES)}); found {found}.")
    return files.pop("train"), files


def length_baseline(pair: Pair) -> float:
    """Score the rule "the longer answer wins": 1 right, 0 wrong, 0.5 for equal lengths in characters."""
    chosen, rejected = len(pair.chosen), len(pair.rejected)
    return 0.5 if chosen == rejected else float(chosen > rejected)
