"""What a folder holds: a run, the beginnings of one, what is not ours, or nothing.

A run is what can be continued or used: a checkpoint, or the record of a finished one, at its place. Before its first
checkpoint a run has only begun, whatever trackers and schedulers have put beside its settings; its folder is free. A
demo or a pipeline is a run when one of those in it is, or a head in it was trained. Logs and hidden files count for
nothing and stay.
"""

from __future__ import annotations

import json
import re
import shutil
from enum import Enum
from pathlib import Path
from typing import Any

from dro_core.locks import LOCK

from .finished import RECORD, SEAL
from .manifest import MANIFEST
from .resumption import FORCED, LISTED, OPTIONAL

SETTINGS = "settings.json"  # written when a run starts; what resuming must agree with
NOTE = "stage.json"  # what a pipeline notes of a stage, before it starts
_PREPARED = ("reference", "reference.npz", "soft_labels.jsonl")  # what runs on pairs make before their first step
_LOGS, _LOG_FOLDERS = (".log", ".out", ".err"), ("log", "logs")
_HEADS = "results/runs/*.json"  # as sweeps leave them
_CHECKPOINT = re.compile(r"(skipped-)?checkpoint-\d+")
_OF_OURS = {FORCED, LISTED, OPTIONAL, "ambiguity"}  # one of them is in every settings.json


class Holds(Enum):
    """What a folder is, to whoever wants to train into it."""

    NOTHING = "nothing"
    BEGINNINGS = "a run before its first checkpoint"
    RUN = "a run"
    OTHER = "something else"


def holds(folder: Path) -> Holds:
    """What an existing folder holds, or that of a missing one: nothing."""
    names = _names(folder)
    if not names:
        return Holds.NOTHING
    if {RECORD, SEAL} & names or any(map(_CHECKPOINT.fullmatch, names)):
        return Holds.RUN
    ours = _ours(folder / SETTINGS)
    if ours:
        return Holds.RUN if _keeps_something(folder) else Holds.BEGINNINGS
    begun = {name.removesuffix(".partial") for name in names} <= {SETTINGS, NOTE, *_PREPARED}
    return Holds.BEGINNINGS if begun and ours is None else Holds.OTHER


def may_be_overwritten(folder: Path) -> bool:
    """Whether what is there is a run of ours beyond doubt, or was one: its settings alone may be lost or damaged."""
    if (folder / SETTINGS).exists() and _ours(folder / SETTINGS) is not False:
        return True
    record = _read(folder / RECORD)
    of_a_run = isinstance(record, dict) and "config" in record
    return of_a_run or (folder / SEAL).exists() or any(folder.glob(f"checkpoint-*/{MANIFEST}"))


def clear(folder: Path) -> None:
    """Delete a run; last what tells that the rest is one. Not the lock, which another could take, nor logs."""
    found = [path for path in folder.iterdir() if not _counts_for_nothing(path)]
    for path in sorted(found, key=lambda path: path.name == SETTINGS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def clear_beginnings(folder: Path) -> None:
    """Delete what a run leaves that ends before its first checkpoint, and nothing else."""
    for name in (*_PREPARED, SETTINGS):
        for path in (folder / name, folder / f"{name}.partial"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {path.name for path in folder.iterdir() if not _counts_for_nothing(path)}


def _counts_for_nothing(path: Path) -> bool:
    is_log = path.suffix in _LOGS if path.is_file() else path.name in _LOG_FOLDERS
    return is_log or path.name == LOCK or path.name.startswith(".")


def _keeps_something(folder: Path) -> bool:
    """Whether a step of a run or a trained head was kept there, or in a folder below."""
    return any(
        path.name in (RECORD, SEAL, "model") or _CHECKPOINT.fullmatch(path.name) or path.match(_HEADS)
        for path in folder.rglob("*")
        if "reference" not in path.relative_to(folder).parts
    )


def _ours(settings: Path) -> bool | None:
    """Whether these are settings of a run of ours; None where there are none, or they cannot be read."""
    found = _read(settings)
    return None if found is None else is_settings(found)


def is_settings(found: object) -> bool:
    """Whether this, which a settings.json holds, are settings of a run of ours."""
    return isinstance(found, dict) and not _OF_OURS.isdisjoint(found)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
