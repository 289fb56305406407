"""A stage as a process of its own: started, followed until its limit, ended with all it started."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gpu_results import Record
from surroundings import Setting

LOOK = 1.0  # seconds: how often the run looks for new records


def written(path: Path, records: list[Record]) -> Path:
    """A file with one record a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def followed(
    command: list[str], told: Path, env: dict[str, str], limit: float, look: Callable[[], None]
) -> tuple[str, str]:
    """Run ``command`` until it ends or its time is over, and look after every new record; how it ended, and why."""
    log = told.with_suffix(".log")
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
        )
        end, seen = time.monotonic() + limit, 0
        try:
            while (left := end - time.monotonic()) > 0:
                with suppress(subprocess.TimeoutExpired):
                    status = child.wait(min(LOOK, left))
                    return ("done", "") if status == 0 else ("failed", last_line(log, status))
                if (size := told.stat().st_size if told.exists() else 0) > seen:
                    seen = size
                    look()
            return "out of time", f"stopped after {limit:.0f} s"
        finally:
            ended(child)


def ended(child: subprocess.Popen[bytes]) -> None:
    """End a stage with all it started; one that hangs in the driver is left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(5)


def last_line(log: Path, status: int) -> str:
    """What a failed stage said last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"ended with status {status}")[:300]


def records_of(told: Path) -> list[Record]:
    """The records of a stage; a last one that was cut off is left out."""
    found: list[Record] = []
    for line in told.read_text().splitlines() if told.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def leave_with(parent: int) -> None:
    """End this stage when the run is gone, so that it does not hold the device."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def stage_of(name: str, told: str, setting: str) -> None:
    """Inside the process of a stage: measure, and write every record down at once."""
    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
    module = importlib.import_module(name)
    with Path(told).open("a", buffering=1) as stream:
        module.measure(
            Setting(**json.loads(setting)), lambda record: stream.write(json.dumps(record, allow_nan=False) + "\n")
        )
