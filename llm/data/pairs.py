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

import gzip
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dro_core.files import whole
from llm.data.columns import ColumnMap, columns_of
from llm.data.hub import address_of, hub_records
from llm.data.layouts import Message, Pair
from llm.data.layouts.tools import record_of
from llm.data.records import SUFFIXES, DataError, Record, read_records, stem_of, suffix_of
from llm.data.stream import PairStream

__all__ = [
    "DataError", "Message", "Pair", "PairSet", "PairStream", "find_files", "length_baseline", "read_pairs",
    "stream_pairs", "write_pairs",
]  # fmt: skip

_SHOWN = 4  # sources of a set, where it shows itself


@dataclass(frozen=True)
class PairSet:
    """The usable pairs of one file or data set and what became of the rest.

    Attributes:
        pairs: In file order, with unique ids.
        path: The file, or the address of the data set.
        layout: The layout it was found to be in.
        sha256: Of the file's bytes, in hexadecimal; of the pairs as :func:`write_pairs` writes them where a
            data set was read, wherever it lies and however it is cut into files.
        dropped: Why records were left out -> how many.
        read_as: How the file was read, where that was found out and not told ("cells separated by semicolons").
        columns: The mapping it was read by, as text; None: by its own layout.
        noted: What was reinterpreted, or left out of pairs, to read them -> how many pairs.
        ignored: Columns with text that were not read -> records that have text there.
        names: The columns of the file.
    """

    pairs: list[Pair]
    path: str
    layout: str
    sha256: str
    dropped: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    read_as: tuple[str, ...] = ()
    columns: str | None = None
    ignored: dict[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The path without the folders above the file or data set."""
        address = address_of(self.path)
        return Path(self.path).name if address is None else address.name

    def __repr__(self) -> str:
        return set_in_words(self, f"{len(self.pairs):,} pairs", (pair.source for pair in self.pairs), self.path)


def set_in_words(value: object, size: str, sources: Iterable[str], place: str) -> str:
    """A set of pairs or prompts in one line: ``PairSet(400 pairs, sources: 'a' 300, 'b' 100, from 'train.jsonl')``."""
    counts = Counter(sources).most_common()
    shown = [f"{name!r} {count:,}" for name, count in counts[:_SHOWN]]
    more = [f"{len(counts) - _SHOWN:,} more"] if len(counts) > _SHOWN else []
    return f"{type(value).__name__}({size}, sources: {', '.join(shown + more) or 'none'}, from {place!r})"


def stream_pairs(
    source: str | os.PathLike[str],
    *,
    max_records: int | None = None,
    where: Mapping[str, str] | None = None,
    columns: str | Mapping[str, str] | ColumnMap | None = None,
    shared: bool = False,
    keep: Sequence[str] = (),
) -> PairStream:
    """Open a file or data set and give its pairs one by one, as :func:`read_pairs` finds them.

    Only what is being read is held in memory, except for JSON that does not have a record on each line.

    Args:
        source: As in :func:`read_pairs`.
        max_records: Read no more than this many records.
        where: Leave out the records whose columns, as text, are not these.
        columns: As in :func:`read_pairs`.
        shared: As in :func:`read_pairs`.
        keep: As in :func:`read_pairs`.

    Raises:
        DataError: On opening a file that is missing or not readable; on iteration as :func:`read_pairs`.
    """
    mapping, address, path = columns_of(columns), address_of(source), Path(source)
    opened = read_records(path) if address is None else hub_records(address)
    records: Iterator[Record] = opened
    if max_records is not None:
        if max_records < 1:
            raise DataError(f"max_records must be at least 1, got {max_records}.")
        records = islice(records, max_records)
    if where:
        records = (record for record in records if all(str(record.columns.get(n)) == v for n, v in where.items()))
    name, stem = (str(path), stem_of(path)) if address is None else (address.text, address.stem)
    return PairStream(name, stem, records, columns=mapping, shared=shared, read_as=opened.read_as, keep=keep)


def read_pairs(
    source: str | os.PathLike[str],
    *,
    max_records: int | None = None,
    columns: str | Mapping[str, str] | ColumnMap | None = None,
    shared: bool = False,
    keep: Sequence[str] = (),
) -> PairSet:
    """Read preference pairs in any known layout.

    Records that are no comparison (ties, equal answers, an empty prompt or answer, conversations that part
    before the last answer) are dropped and counted. A record that does not fit the layout of its file stops.

    Args:
        source: A .jsonl, .json, .csv (each also .gz) or .parquet file; a data set on the hub,
            ``hf://datasets/OWNER/NAME[@REVISION][/CONFIG]:SPLIT``; or a local folder laid out like one,
            ``FOLDER[/CONFIG]:SPLIT``. SPLIT may end in ``[START:STOP]``, and may be left out if it is the only one.
        max_records: Read no more than this many records, from the beginning.
        columns: Which column holds what, as a mapping or as text, for a file in no known layout:
            ``prompt=question,chosen=good,rejected=bad``; the keys are :data:`llm.data.columns.KEYS`.
        shared: ``columns`` is meant for several files: one that has none of them is read in its own layout.
        keep: Columns beside those of the layout that pairs are to have in ``kept``, where the file has them.

    Raises:
        DataError: The file is missing, empty, damaged or malformed, its columns fit no layout or are not those that
            were named, or more than half of its records were unusable; the data set cannot be opened.
    """
    stream = stream_pairs(source, max_records=max_records, columns=columns, shared=shared, keep=keep)
    if address_of(source) is None:
        pairs = list(stream)
        fingerprint = _sha256(Path(source))
    else:
        digest, pairs = hashlib.sha256(), []
        for pair in stream:
            pairs.append(pair)
            digest.update(line_of(pair))
        fingerprint = digest.hexdigest()
    return pair_set(stream, pairs, fingerprint)


def pair_set(stream: PairStream, pairs: list[Pair], sha256: str) -> PairSet:
    """The pairs of a stream that came to its end, with what it says of them."""
    columns = None if stream.columns is None else str(stream.columns)
    left, noted, read_as = dict(stream.dropped), dict(stream.noted), tuple(stream.read_as)
    return PairSet(
        pairs, stream.name, stream.layout, sha256, left, noted, read_as, columns, stream.ignored, stream.names
    )


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
    with whole(path, unlocked=True, durable=True) as raw:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:  # no name, no time: same bytes
                stream.writelines(map(line_of, pairs))
        else:
            raw.writelines(map(line_of, pairs))


def line_of(pair: Pair) -> bytes:
    """A pair as :func:`write_pairs` writes it."""
    record: dict[str, object] = {
        "id": pair.id, "prompt": list(pair.prompt), "chosen": record_of(pair.chosen),
        "rejected": record_of(pair.rejected),
        "source": pair.source, "category": pair.category,
    }  # fmt: skip
    if pair.question_id is not None:
        record["question_id"] = pair.question_id
    for name in ("margin", "preference", "weight"):
        if (number := getattr(pair, name)) is not None:
            record[name] = number
    record |= {name: value for name, value in pair.kept if name not in record}
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
