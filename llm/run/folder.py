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
from typing import TYPE_CHECKING, Any, NamedTuple

from dro_core.messages import check_folder, said

from .files import JsonObject, write_json

if TYPE_CHECKING:
    from transformers import TrainingArguments

from .finished import is_whole, unseal
from .manifest import MANIFEST
from .resumption import ANEW, FORCED, LISTED, compared, continued
from .states import SETTINGS, Holds, clear, clear_beginnings, holds, is_settings, may_be_overwritten

MARKER = "trainer_state.json"  # where a run stands; of the parts of a checkpoint the last one


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none can be resumed from."""


class Started(NamedTuple):
    """A run folder that is ready.

    Attributes:
        checkpoint: Where the run goes on; None at the beginning.
        forced: What was changed on the way with ``--force``, in this session or an earlier one.
        finished: Whether the run has come to its end there and is whole: nothing was written, nothing is to be done.
    """

    checkpoint: Path | None
    forced: list[str]
    finished: bool = False


def is_complete(checkpoint: Path) -> bool:
    """Whether everything that resuming needs was written before the run ended; not whether it still is as written."""
    return (checkpoint / MANIFEST).exists() or is_earlier(checkpoint)


def is_earlier(checkpoint: Path) -> bool:
    """Whether it is a complete checkpoint of an earlier version, which wrote the state last and no manifest."""
    try:
        if (checkpoint / MANIFEST).exists():
            return False
        step = int(checkpoint.name.rpartition("-")[2])
        json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    try:
        settings = json.loads((checkpoint.parent / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(settings, dict) or step <= settings.get(LISTED, step)


def by_step(output_dir: str | Path) -> dict[int, Path]:
    """The checkpoints of a run folder, complete or not, the newest first."""
    found = {
        int(match[1]): path
        for path in Path(output_dir).glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    return dict(sorted(found.items(), reverse=True))


def latest_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete checkpoint, not verified; half-written ones (a kill, a full disk) are removed."""
    for path in by_step(output_dir).values():
        if is_complete(path):
            return path
        remove(path)
    return None


@contextmanager
def writing(output: Path, step: int) -> Iterator[None]:
    """Inside, a checkpoint is written: a failure removes what there is of it.

    Raises:
        CheckpointError: In place of whatever else was raised.
    """
    try:
        yield
    except Exception as error:
        discard(output, step)
        reason = said(error)
        raise CheckpointError(
            f"could not save the checkpoint of step {step} ({reason}); earlier checkpoints in {output} are intact: "
            "make room and continue with --resume"
        ) from error


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint; a kill meanwhile leaves it half-written, not damaged."""
    for mark in (MANIFEST, MARKER):
        (checkpoint / mark).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def discard(output_dir: str | Path, step: int) -> None:
    """Remove the checkpoint of ``step`` if it is half-written."""
    folder = Path(output_dir) / f"checkpoint-{step}"
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)


def keep_newest(output_dir: str | Path, limit: int | None, *, best: str | None = None) -> None:
    """Delete the oldest checkpoints until ``limit`` are left; the newest and the ``best`` stay whatever it says."""
    if limit is None or limit <= 0:
        return
    found = list(by_step(output_dir).values())
    kept = [path for path in found if path in found[:1] or (best and path.name == Path(best).name)]
    others = [path for path in found if path not in kept]
    for old in others[max(limit - len(kept), 0) :]:
        remove(old)


def check_output(folder: str | Path, *, resume: bool, overwrite: bool) -> Path:
    """Refuse to touch an existing run folder without being told how; changes nothing.

    One of a run that ended before its first checkpoint is free; what counts as a run says ``llm.run.states``.

    Raises:
        FileExistsError: The folder holds a run and neither ``resume`` nor ``overwrite`` is set; or it holds something
            else.
        NotADirectoryError, PermissionError: There can be no such folder, or nothing written to it.
        ValueError: Both are set.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise ValueError("resume continues a run and overwrite deletes it: give one of them, not both")
    check_folder(folder)
    found = holds(folder)
    if found in (Holds.NOTHING, Holds.BEGINNINGS) or (resume and found is Holds.RUN):
        return folder
    if overwrite and not may_be_overwritten(folder):
        raise FileExistsError(f"{folder} does not look like a run of ours, so --overwrite will not delete it")
    if not overwrite and found is Holds.RUN:
        raise FileExistsError(
            f"{folder} already holds a run: continue it with --resume, replace it with --overwrite, "
            "or choose another output folder"
        )
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds files and no run of ours{', so there is nothing to resume' if resume else ''}: choose "
            "another output folder, or empty this one"
        )
    return folder


def start_output(
    folder: Path,
    settings: dict[str, Any],
    *,
    overwrite: bool,
    force: bool | None = None,
    choose: Callable[[], Path | None] = lambda: None,
) -> Started:
    """Make the run folder (with ``overwrite`` from nothing) and note the settings; a resumed run must have the same.

    Call it when everything that can be wrong with the input has been looked at: it deletes. A finished run that is
    resumed with the same settings, and is as it was left, stays so.

    Args:
        folder: Of the run.
        settings: Its notes.
        overwrite: Whether to begin from nothing.
        force: Go on with other settings; None where nobody can ask for that.
        choose: Asked for the checkpoint of a run that may go on, before anything is noted: where that refuses, the
            record stays that of the steps which were taken.

    Raises:
        ValueError: The folder was started with other settings, which are named, and ``force`` is not on.
        CheckpointError: What the folder was started with cannot be read, and ``force`` is not on.
    """
    if overwrite and holds(folder) in (Holds.RUN, Holds.OTHER):  # of which check_output lets through what was a run
        clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record, notes, listed = folder / SETTINGS, json.loads(json.dumps(settings)), 0
    if holds(folder) is Holds.BEGINNINGS and (overwrite or not _says(record, notes)):
        clear_beginnings(folder)
    checkpoint = None
    if record.exists() or holds(folder) is Holds.RUN:
        found = _started_with(record, notes if force else None, forcible=force is not None)
        apart = compared(folder, found, notes, force=force)
        if is_whole(folder) and not apart.changed:
            return Started(None, found.get(FORCED, []), finished=True)
        notes = continued(folder, found, notes, apart)
        checkpoint = choose()
        earlier = (step for step, path in by_step(folder).items() if is_earlier(path))
        listed = found.get(LISTED, next(earlier, 0))
    unseal(folder)
    write_json(record, {FORCED: []} | notes | {LISTED: listed})
    return Started(checkpoint, notes.get(FORCED, []))


def check_resumed(folder: Path, settings: JsonObject, *, force: bool = False) -> None:
    """Refuse to go on with other settings, before what they name is read; ``start_output`` compares that as well.

    Args:
        folder: Of the run; one without a run is free.
        settings: Notes of a run that take no reading.
        force: Say what has changed instead.

    Raises:
        ValueError: The folder was started with other settings, which are named.
        CheckpointError: What it was started with cannot be read.
    """
    if holds(folder) is Holds.RUN:
        notes = json.loads(json.dumps(settings))
        found = _started_with(folder / SETTINGS, notes if force else None, forcible=True)
        compared(folder, {name: found[name] for name in found if name in notes}, notes, force=force)


def _started_with(record: Path, otherwise: JsonObject | None, *, forcible: bool) -> JsonObject:
    """What a run was started with; ``otherwise``, if given, where that is lost."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        if is_settings(found):
            return found
    except (OSError, ValueError, RecursionError):
        pass
    if otherwise is not None:
        return {**otherwise, FORCED: [f"{record.name} was lost, so that nothing was compared"]}
    raise CheckpointError(
        f"{record} is {'damaged' if record.exists() else 'missing'}, so nothing tells what this run was started with: "
        f"put a whole copy of it back, or {'resume all the same with --force' if forcible else ANEW}"
    )


def _says(record: Path, settings: dict[str, object]) -> bool:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {name: found.get(name) for name in settings} == settings


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
