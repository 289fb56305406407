"""Any readable preference data into one canonical file, without holding them in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from .columns import ColumnMap
from .pairs import DataError, Pair, PairStream, stream_pairs, write_pairs


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` did.

    Attributes:
        written: Pairs in the new file.
        layout: The layout that was read.
        dropped: Why records were left out -> how many.
        passed_over: Pairs of other sources.
        read_as: How the file was read, where that was found out and not told.
        ignored: Columns with text that were not read -> records that have text there.
    """

    written: int
    layout: str
    dropped: dict[str, int]
    passed_over: int
    read_as: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    sources: Collection[str] = (),
    max_pairs: int | None = None,
    max_records: int | None = None,
    where: Mapping[str, str] | None = None,
    columns: str | Mapping[str, str] | ColumnMap | None = None,
) -> Conversion:
    """Write the pairs of ``source`` to ``target`` in the canonical layout, whole or not at all.

    Args:
        source: A file or data set, as :func:`llm.data.pairs.read_pairs` takes it.
        target: A .jsonl or .jsonl.gz file.
        sources: Keep the pairs of these sources only.
        max_pairs: Stop after this many pairs.
        max_records: Read no more than this many records.
        where: Leave out the records whose columns, as text, are not these.
        columns: Which column holds what, as ``read_pairs`` takes it.

    Raises:
        DataError: As :func:`llm.data.pairs.read_pairs` and ``write_pairs``; or no pair is of a wanted source.
    """
    if max_pairs is not None and max_pairs < 1:
        raise DataError(f"max_pairs must be at least 1, got {max_pairs}.")
    stream = stream_pairs(source, max_records=max_records, where=where, columns=columns)
    found = Counter[str]()
    write_pairs(_wanted(stream, frozenset(sources), max_pairs, found), target)
    written = sum(count for name, count in found.items() if not sources or name in sources)
    dropped, passed_over = dict(stream.dropped), found.total() - written
    return Conversion(written, stream.layout, dropped, passed_over, tuple(stream.read_as), stream.ignored)


def _wanted(stream: PairStream, sources: frozenset[str], max_pairs: int | None, found: Counter[str]) -> Iterator[Pair]:
    """Let wanted pairs through and count every pair by its source."""
    written = 0
    for pair in stream:
        found[pair.source] += 1
        if not sources or pair.source in sources:
            yield pair
            written += 1
            if written == max_pairs:
                return
    if not written:
        raise DataError(
            f"{stream.name} has no pair from {', '.join(sorted(sources))}; its sources are {', '.join(sorted(found))}."
        )
