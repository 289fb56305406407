"""Processes of their own that start at once: forked from one that has loaded torch, transformers and this project.

A fresh interpreter spends 4 to 13 seconds on imports. Use one only where the imports themselves are the matter.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import traceback
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "llm.commands.train",
        "llm.kinds.reward",
        "llm.kinds.dpo",
        "llm.kinds.sft",
        "llm.policy.run",
        "peft",
        "safetensors.torch",
    ]
)


class Forked:
    """A call in a process of its own, with the face of ``subprocess.Popen``: its exit status is what the call returns.

    Errors are written to the same place as output unless ``split``.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        *arguments: Any,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        split: bool = False,
        new_session: bool = False,
    ) -> None:
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._places = [Path(folder, name) for name in (("out", "err") if split else ("out", "out"))]
        surroundings = (dict(os.environ if env is None else env), str(cwd or os.getcwd()), new_session)
        self._process = _SERVER.Process(target=_run, args=(self._places, surroundings, call, arguments))
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it wrote to standard output and, if split, to standard error."""
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutExpired(str(self.pid), timeout or 0, self.said())
        return self.said(), self._places[1].read_text() if self._places[1] != self._places[0] else ""

    def said(self) -> str:
        """What it wrote so far."""
        return self._places[0].read_text() if self._places[0].exists() else ""


def start_ranks(call: Callable[..., Any], *arguments: Any, world: int = 2) -> list[Forked]:
    """Start the processes of one run as a launcher would, without an agent that ends the one when the other ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    return [Forked(call, *arguments, env={**os.environ, **shared, **rank}) for rank in ranks]


def finished(processes: list[Forked], timeout: float = 300) -> list[str]:
    """Wait for all to end well; what each of them said."""
    said = [process.communicate(timeout)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)[-5000:]
    return said


def script(path: Path, *arguments: object) -> None:
    """Run a file as ``python PATH ARGUMENTS`` would."""
    sys.argv = [str(path), *map(str, arguments)]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")


def _run(
    places: list[Path], surroundings: tuple[dict[str, str], str, bool], call: Callable[..., Any], arguments: Any
) -> None:
    gc.freeze()  # every training collects garbage, and would look through all of torch and transformers
    environment, cwd, new_session = surroundings
    for place, stream in zip(places, (1, 2), strict=True):
        file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(k), "w", buffering=1) for k in (1, 2))
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in a shell's background ignores interrupts
    sys.exit(_status(call, arguments))


def _status(call: Callable[..., Any], arguments: Any) -> int:
    """Return what an interpreter would exit with."""
    try:
        status = call(*arguments)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        return 1
    return status if isinstance(status, int) else 0
