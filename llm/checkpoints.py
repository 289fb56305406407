"""Run folders that survive a kill, a full disk and a second start."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

MARKER = "trainer_state.json"  # Trainer writes it last, so a checkpoint that holds a readable one is complete


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
    """Remove the half-written checkpoint of ``step``."""
    shutil.rmtree(Path(output_dir) / f"checkpoint-{step}", ignore_errors=True)


def prepare_output(folder: str | Path, *, resume: bool, overwrite: bool) -> Path:
    """The run folder, new or continued; refuses to touch an existing one without being told how.

    Raises:
        FileExistsError: The folder has content and neither ``resume`` nor ``overwrite`` is set.
        ValueError: Both are set.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise ValueError("resume continues a run and overwrite deletes it: give one of them, not both")
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file, a run needs a folder: choose another output folder")
    if folder.exists() and any(folder.iterdir()) and not resume:
        if not overwrite:
            raise FileExistsError(
                f"{folder} already holds a run: continue it with --resume, replace it with --overwrite, "
                "or choose another output folder"
            )
        if not (any(folder.glob("checkpoint-*")) or (folder / "run.json").exists() or (folder / "demo.json").exists()):
            raise FileExistsError(f"{folder} does not look like a run of ours, so --overwrite will not delete it")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Fill a new folder beside ``folder``, then let it take that name: a failure leaves the old one."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        fill(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_json(path: Path, content: object) -> None:
    """Write JSON through a temporary file, so that no reader ever sees half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
