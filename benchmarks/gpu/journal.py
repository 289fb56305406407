"""The JSON of a run: written as results come, read again by the run that goes on with it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from gpu_results import SCHEMA, Record, put

_MACHINE = ("device", "versions", "cpu")  # what must not change between the starts of one run


class NoRun(SystemExit):
    """The run cannot start; the message says why."""


def said(text: str) -> None:
    """One line for the person who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Journal:
    """What a run found, in its file after every result; where that cannot be written, elsewhere or on the screen."""

    def __init__(self, path: Path, found: Record) -> None:
        self.path, self.found = path, found
        self.place: Path | None = path  # where it was written last

    def note(self, name: str, stage: Record) -> None:
        """Keep what is known of a stage, and write it down."""
        self.found["stages"][name] = stage
        self.found["seconds"] = spent(self.found)
        text = json.dumps(self.found, indent=1, allow_nan=False) + "\n"
        try:
            put(self.path, text)
            self.place = self.path
        except OSError as error:
            self._elsewhere(text, error)

    def _elsewhere(self, text: str, error: OSError) -> None:
        first, told = self.place == self.path, f"{self.path} could not be written ({error}); the results"
        try:
            if first:
                handle, name = tempfile.mkstemp(prefix="gpu-", suffix=".json")
                os.close(handle)
                self.place = Path(name)
            if self.place is not None:
                put(self.place, text)
        except OSError:
            if first and self.place not in (None, self.path):
                self.place.unlink(missing_ok=True)  # an empty file says nothing
            self.place = None
        if first:
            said(f"{told} are printed at the end" if self.place is None else f"{told} go to {self.place}")

    def close(self) -> None:
        """Print what no disk took."""
        if self.place is None:
            sys.stdout.write(json.dumps(self.found) + "\n")


def spent(found: Record) -> float:
    """Seconds of all stages, those of an earlier start with them."""
    return round(sum(stage["seconds"] for stage in found["stages"].values()), 1)


def earlier(path: Path, *, dry: bool) -> Record:
    """The JSON of a run that this one goes on with.

    Raises:
        NoRun: There is none, or one that this version cannot go on with.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")  # a device may have no end
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise NoRun(f"there is no run to go on with: {path} cannot be read ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("stages", {}), dict):
        raise NoRun(f"{path} is no record of a run: start a new one")
    if found.get("schema") != SCHEMA:
        raise NoRun(f"{path} was written by another version (schema {found.get('schema')}): start a new run")
    if found.get("dry") != dry:
        raise NoRun(f"{path} is {'a dry' if found.get('dry') else 'a real'} run: go on as such, or start a new one")
    return found


def check_same_machine(path: Path, before: Record, now: Record) -> None:
    """Results of two machines do not go into one file.

    Raises:
        NoRun: Device, processor or versions are others than those of the file.
    """
    other = [name for name in _MACHINE if before.get(name) != now.get(name)]
    if other:
        changes = "; ".join(f"{name}: {before.get(name)}, here {now.get(name)}" for name in other)
        raise NoRun(f"{path} was measured elsewhere ({changes}): name another file with --json, or run every stage")


def good(stage: Record) -> list[Record]:
    """The results of a stage that need no second try."""
    return [record for record in stage["records"] if "failed" not in record and "skipped" not in record]


def kept_records(stage: Record | None, revision: str | None) -> list[Record]:
    """What a stage that was begun need not measure again; nothing where the source has changed since."""
    return good(stage) if stage is not None and stage.get("revision") == revision else []


def is_whole(stage: Record | None, *, asked: bool) -> bool:
    """Whether --resume passes over a stage; one that was asked for by name has its failed parts tried again."""
    return stage is not None and stage["status"] == "done" and not (asked and len(good(stage)) < len(stage["records"]))


def say_what_failed(found: Record) -> None:
    """Which stages can be tried again, and how."""
    for name, stage in found["stages"].items():
        if stage["status"] not in ("done", "skipped"):
            said(f"{name} is not whole ({stage['status']}): --resume goes on with it")
        elif lost := sum("failed" in record for record in stage["records"]):
            said(f"{name}: {lost} of its results failed: --resume --stages {name} tries them again")
