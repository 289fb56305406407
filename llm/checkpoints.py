"""Run folders that survive a kill, a full disk and a second start."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .locks import LOCK

if TYPE_CHECKING:
    from transformers import TrainingArguments

MARKER = "trainer_state.json"  # Trainer writes it last, so a checkpoint that holds a readable one is complete
SETTINGS = "settings.json"  # written when a run starts; what resuming must agree with
_PREPARED = ("reference", "reference.npz")  # what DPO makes before its first step
FORCED = "changed on the way"  # the entry of it that lists what --force let through


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none can be resumed from."""


def is_complete(checkpoint: Path) -> bool:
    """Whether everything that resuming needs was written before the run ended."""
    try:
        json.loads((checkpoint / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return True


def latest_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete checkpoint; half-written ones (a kill, a full disk) are removed."""
    found = {
        int(match[1]): path
        for path in Path(output_dir).glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    for step in sorted(found, reverse=True):
        if is_complete(found[step]):
            return found[step]
        shutil.rmtree(found[step])
    return None


def discard(output_dir: str | Path, step: int) -> None:
    """Remove the checkpoint of ``step`` if it is half-written."""
    folder = Path(output_dir) / f"checkpoint-{step}"
    if not is_complete(folder):
        shutil.rmtree(folder, ignore_errors=True)


def keep_newest(output_dir: Path, limit: int) -> None:
    """Delete all but the ``limit`` newest checkpoints, at least 1."""
    found = sorted(output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for old in found[:-limit]:
        shutil.rmtree(old)


def check_output(folder: str | Path, *, resume: bool, overwrite: bool) -> Path:
    """Refuse to touch an existing run folder without being told how; changes nothing.

    One of a run that ended before its first checkpoint is free.

    Raises:
        FileExistsError: The folder has content and neither ``resume`` nor ``overwrite`` is set.
        ValueError: Both are set.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise ValueError("resume continues a run and overwrite deletes it: give one of them, not both")
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file, a run needs a folder: choose another output folder")
    if resume or not folder.exists() or _only_claimed(folder):
        return folder
    if not overwrite:
        raise FileExistsError(
            f"{folder} already holds a run: continue it with --resume, replace it with --overwrite, "
            "or choose another output folder"
        )
    if not (folder / SETTINGS).exists():
        raise FileExistsError(f"{folder} does not look like a run of ours, so --overwrite will not delete it")
    return folder


def start_output(folder: Path, settings: dict[str, Any], *, overwrite: bool, force: bool = False) -> list[str]:
    """Make the run folder (with ``overwrite`` from nothing) and note the settings; a resumed run must have the same.

    Call it when everything that can be wrong with the input has been looked at: it deletes.

    Returns:
        What was changed on the way with ``force``, in this session or an earlier one.

    Raises:
        ValueError: The folder was started with other settings, which are named, and ``force`` is off.
    """
    if overwrite and folder.exists():
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record, wanted = folder / SETTINGS, json.loads(json.dumps(settings))
    forced: list[str] = []
    if _only_claimed(folder) and not _says(record, wanted):
        _clear(folder)
    if record.exists():
        found = json.loads(record.read_text(encoding="utf-8"))
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed and not force:
            raise ValueError(
                f"{folder} was started with another {', '.join(changed)}: resume with the same, use --overwrite, "
                "or choose another output folder (--force resumes all the same)"
            )
        forced = found.get(FORCED, []) + [f"{name}: {found.get(name)} -> {wanted[name]}" for name in changed]
    write_json(record, wanted | {FORCED: forced})
    return forced


def _only_claimed(folder: Path) -> bool:
    """Whether no step of a run was kept in its folder, nor anything that was not ours."""
    return {path.name.removesuffix(".partial") for path in folder.iterdir()} <= {SETTINGS, LOCK, *_PREPARED}


def _says(record: Path, settings: dict[str, Any]) -> bool:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {name: found.get(name) for name in settings} == settings


def _clear(folder: Path) -> None:
    """Delete all but the lock, which another run could take otherwise."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink()


@contextmanager
def making_no_folder(arguments: TrainingArguments | None) -> Iterator[None]:
    """Inside, a ``Trainer`` that is constructed does not make its ``output_dir``: that is for a run, when it starts."""
    if arguments is None:
        yield
        return
    folder, arguments.output_dir = arguments.output_dir, os.curdir
    try:
        yield
    finally:
        arguments.output_dir = folder


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a new folder beside ``folder``, then let it take that name: a failure leaves the old one."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        fill(partial)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, Exception):
            raise CheckpointError(
                f"could not write {folder} ({error}): make room and continue with --resume"
            ) from error
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_json(path: Path, content: object) -> None:
    """Write JSON through a temporary file, so that no reader ever sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


class TrainingClock:
    """Seconds of training over all sessions of a run."""

    def __init__(self) -> None:
        self.before, self.start = 0.0, time.perf_counter()

    def seconds(self) -> float:
        """Time since the start, with that of the sessions before."""
        return self.before + time.perf_counter() - self.start

    def save(self, folder: Path) -> None:
        """Write the time to ``folder/clock.json``."""
        write_json(folder / "clock.json", {"seconds": self.seconds()})

    def load(self, folder: Path) -> None:
        """Count on from ``folder/clock.json``."""
        self.before = json.loads((folder / "clock.json").read_text())["seconds"]
        self.start = time.perf_counter()
