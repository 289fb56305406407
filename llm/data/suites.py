"""Which pairs a run trains on, holds out and is judged by, and where they came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .columns import ColumnMap, columns_of
from .grouping.columns import columns_for
from .pairs import DataError, Pair, PairSet, read_pairs


def split_by_prompt(pairs: Sequence[Pair], *, share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Hold out a share of the prompts: pairs with the same prompt never stand on both sides."""
    rest: list[Pair] = []
    held_out: list[Pair] = []
    for pair in pairs:
        text = f"{seed}" + "".join(message["content"] for message in pair.prompt)
        fraction = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        (held_out if fraction < share else rest).append(pair)
    return rest, held_out


def describe_file(source: PairSet) -> dict:
    """What a report must say about a data file: also the mapping it was read by, what was found out, and left aside."""
    read = {"columns": source.columns, "read_as": list(source.read_as)}
    read |= {"noted": source.noted, "ignored": source.ignored}
    return {
        "file": source.name,
        "sha256": source.sha256,
        "layout": source.layout,
        "pairs": len(source.pairs),
        "dropped": source.dropped,
        **{name: value for name, value in read.items() if value},
    }


def content_of(record: Mapping[str, Any]) -> str:
    """What tells the pairs of a described file from others: its hash, and where there is one, the mapping."""
    columns = record.get("columns")
    return record["sha256"] if columns is None else f"{record['sha256']} by {columns}"


def check_mapped(columns: str | ColumnMap | None, read: Mapping[str, str | None]) -> None:
    """Refuse a mapping by which none of the files was read.

    Args:
        columns: The mapping.
        read: Names of the files -> the mapping that each was read by.

    Raises:
        DataError: There is no file with these columns.
    """
    if (mapping := columns_of(columns)) and not any(read.values()):
        raise DataError(f"columns: none of {', '.join(read)} has the columns of {mapping}; correct it or leave it out.")


def suite_files(files: Sequence[str]) -> dict[str, Path]:
    """Suites named by their stem, by the whole path where two stems are the same."""
    stems = [Path(file).name.split(".")[0] for file in files]
    return {stem if stems.count(stem) == 1 else file: Path(file) for stem, file in zip(stems, files, strict=True)}


def subset_of(pairs: Sequence[Pair], size: int | None) -> list[Pair]:
    """A fixed random subset of at most that size, in the order of the pairs; None: all."""
    if size is None or size >= len(pairs):
        return list(pairs)
    return [pairs[i] for i in sorted(np.random.default_rng(0).permutation(len(pairs))[:size])]


def load_suites(
    files: dict[str, Path],
    *,
    eval_pairs: int | None = None,
    columns: str | ColumnMap | None = None,
    used: bool = False,
    by: Sequence[str] = (),
) -> tuple[dict[str, list[Pair]], dict[str, dict]]:
    """Read every suite; with ``eval_pairs``, a fixed random subset of at most that size each.

    Args:
        files: By name.
        eval_pairs: None: all.
        columns: Which column holds what, in the files that have these; the others are read in their own layout.
        used: The mapping serves another file already, so that no suite need have these columns.
        by: Names of groups whose columns the pairs are to keep, where the file has them.

    Raises:
        DataError: There is no suite, one cannot be read, or none has the columns.
    """
    if not files:
        raise DataError("there is no suite to judge the models by: put at least one test file beside the training file")
    suites, records = {}, {}
    for name, path in files.items():
        source = read_pairs(path, columns=columns, shared=True, keep=columns_for(by))
        suites[name] = pairs = subset_of(source.pairs, eval_pairs)
        records[name] = describe_file(source) | {"evaluated": len(pairs)}
    if not used:
        check_mapped(columns, {name: record.get("columns") for name, record in records.items()})
    return suites, records
