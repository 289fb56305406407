"""Code that a policy wrote, run in a process of its own: what it prints, writes, takes and starts has limits.

The process has an empty environment and an empty temporary folder to work in, its output goes nowhere, and it is
killed with its group when its time is over. Limits of the system bound processor time, memory, files and their sizes.
On Linux (x86-64, ARM) it can also start no process and open no connection, signal nobody, and write nowhere but in its
folder. What it may read is not limited. This keeps a training alive beside code that is wrong or careless; it is no
sandbox against code that attacks the kernel or Python itself, nor against code that looks for the verdict in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

_INSIDE = Path(__file__).with_name("inside.py")
_FOLDER = 2**24  # bytes of all files together
_LOOK = 0.05  # seconds between looks at the folder


class Limits(NamedTuple):
    """What one run may take: ``seconds`` of time, and of processor time; ``memory`` in MB."""

    seconds: float
    memory: float


def passes(code: str, tests: str, limits: Limits) -> bool:
    """Whether the code runs and then the tests, without an exception, an exit or a limit that was reached."""
    token = secrets.token_hex(16)
    verdict, inner = os.pipe()
    told = {"code": code, "tests": tests, "token": token, "seconds": limits.seconds, "memory": limits.memory}
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, tempfile.TemporaryFile() as program:
            program.write(json.dumps(told | {"verdict": inner}).encode())
            program.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_INSIDE)],
                stdin=program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env={},
                pass_fds=(inner,), start_new_session=True,
            )  # fmt: skip
            _wait(process, Path(folder), limits.seconds)
        os.set_blocking(verdict, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(verdict, 64) == token.encode()
        return False
    finally:
        os.close(verdict)
        os.close(inner)


def _wait(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> None:
    """Until it ends, its time is over or its folder is full; nothing of its group is left then."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and _size(folder) <= _FOLDER:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=min(_LOOK, max(end - time.monotonic(), 0.001)))
                return
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(Path(place, name)).st_size + 4096
    return total
