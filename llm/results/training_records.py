"""What one training of a sweep leaves in the results folder, and whether it is still what was written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dro_core.files import whole

from ..run.files import JsonObject
from ..run.sealed import checksum, read_sealed, write_sealed
from .findings import Caveat


def write_training(
    folder: Path,
    training: str,
    rows: Sequence[Mapping[str, object]],
    *,
    files: Iterable[str] = (),
    kept: Iterable[str] = (),
) -> None:
    """Keep the rows of one training by themselves, so that they survive whatever happens to the table.

    Args:
        folder: Of the results.
        training: Its identity.
        rows: Of the table.
        files: What else the training left, within ``folder``, and is made again if it is damaged.
        kept: What is not: the records of whole models, which would take hours.
    """
    (folder / "runs").mkdir(exist_ok=True)
    common = {name: value for name, value in rows[0].items() if all(row.get(name) == value for row in rows)}
    own = [{name: value for name, value in row.items() if name not in common} for row in rows]
    sums = {
        part: {name: checksum(folder / name) for name in names} for part, names in (("files", files), ("kept", kept))
    }
    write_sealed(folder / "runs" / f"{training}.json", {"common": common, "rows": own, **sums})


def write_arrays(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Write a compressed .npz file, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with whole(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_training(folder: Path, training: str) -> list[JsonObject] | None:
    """The rows of a training as ``write_training`` kept them; None where they are missing or damaged."""
    stored = _stored(folder, training)
    try:
        return None if stored is None else [{**stored["common"], **row} for row in stored["rows"]]
    except (KeyError, TypeError):
        return None


def _stored(folder: Path, training: str) -> JsonObject | None:
    return read_sealed(folder / "runs" / f"{training}.json", earlier={"common", "rows"})


def read_arrays(path: Path) -> dict[str, Any] | None:
    """What ``write_arrays`` wrote; None where the file is missing or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return dict(stored)
    except Exception:  # zipfile, zlib, pickle and numpy each have their own for a damaged file
        return None


def damaged_files(folder: Path, training: str, *, kept: bool = False) -> list[str]:
    """The files of a finished training, or those only ``kept``, that are missing or not what was written."""
    stored = _stored(folder, training) or {}
    sums = stored.get("kept" if kept else "files")
    if sums is None and not kept:  # of an earlier version: what can be read is as good as it was
        rows = read_training(folder, training) or []
        runs = sorted({f"margins/{row['run']}.npz" for row in rows if row["status"] == "done"})
        return [
            name
            for name in (*runs, *(f"weights/{training}.npz" for _ in runs[:1]))
            if read_arrays(folder / name) is None
        ]
    return [name for name, known in (sums or {}).items() if checksum(folder / name) != known]


def damage(folder: Path, trainings: Iterable[str]) -> list[Caveat]:
    """What is no longer as a finished sweep left it.

    Args:
        folder: Of the results.
        trainings: Those of the table; the others in ``runs/`` are looked at too. Nothing is said where there is none.
    """
    if not (folder / "runs").is_dir():
        return []
    names = sorted({*trainings, *(part.stem for part in folder.glob("runs/*.json"))})
    again = [f"runs/{name}.json" for name in names if read_training(folder, name) is None]
    again += [file for name in names for file in damaged_files(folder, name)]
    kept = [file for name in names for file in damaged_files(folder, name, kept=True)]
    return [
        Caveat("damaged files", f"{len(files)} files are missing, cut off or changed: {_few(files)}; {outcome}.")
        for files, outcome in (
            (again, "the sweep makes them again when it is started again"),
            (kept, "the results do not depend on them, and they are not made again"),
        )
        if files
    ]


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
