"""Pairs from what a notebook holds: pairs, rows of a data frame or data set, or a path after all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .columns import ColumnMap, columns_of
from .pairs import DataError, Pair, PairSet, line_of, pair_set, read_pairs
from .records import Record
from .stream import PairStream

NAME = "objects"


def pairs_of(
    source: object,
    *,
    name: str = NAME,
    columns: str | Mapping[str, str] | ColumnMap | None = None,
    shared: bool = False,
    keep: Sequence[str] = (),
) -> PairSet:
    """The pairs of a source, in its order and with unique ids.

    Args:
        source: What :func:`llm.data.pairs.read_pairs` takes; a ``PairSet``; pairs; or rows in any layout that files
            have: a ``datasets.Dataset``, a data frame, mappings.
        name: What messages and records call objects.
        columns: Which column of the file or the rows holds what, as ``read_pairs`` takes it.
        shared: ``columns`` is meant for several sources: one that has none of them, as pairs, is read without.
        keep: As ``read_pairs``; pairs have what they have.

    Raises:
        DataError: As ``read_pairs``; or the source is none of these.

    >>> rows = [{"prompt": "2 + 2?", "chosen": "4", "rejected": "five"}]
    >>> pairs_of(rows).pairs[0].chosen
    '4'
    """
    if isinstance(source, str | os.PathLike):
        return read_pairs(source, columns=columns, shared=shared, keep=keep)
    mapping = columns_of(columns)
    rows = [] if isinstance(source, PairSet) else rows_of(source)
    if not any(not isinstance(row, Pair) for row in rows):
        if mapping and not shared:
            raise DataError(f"columns: pairs have no columns that could be mapped, leave out {mapping}.")
        return source if isinstance(source, PairSet) else PairSet(rows, name, "pairs", _sha256(rows))
    stream = PairStream(name, name, record_rows(rows, name), columns=mapping, shared=shared, keep=keep)
    pairs = list(stream)
    return pair_set(stream, pairs, _sha256(pairs))


def rows_of(source: Any) -> list[Any]:
    """The rows of objects, whatever they are; raises ``DataError`` where there are none."""
    if hasattr(source, "to_dict") and hasattr(source, "iterrows"):  # a data frame, without importing pandas
        return source.to_dict("records")
    if not isinstance(source, Iterable) or isinstance(source, Mapping | bytes):
        raise DataError(f"pairs are a path, pairs, a data frame, a data set or mappings, got {type(source).__name__}.")
    rows = list(source)
    if not rows:
        raise DataError("there are no pairs: the data are empty.")
    return rows


def record_rows(rows: Iterable[object], name: str) -> Iterator[Record]:
    """Mappings as records; raises ``DataError`` for a row that is none."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}: row {number} is a {type(row).__name__}, a pair or a mapping was expected.")
        yield Record(f"row {number}", dict(row))


def _sha256(pairs: Iterable[Pair]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(line_of(pair))
    return digest.hexdigest()
