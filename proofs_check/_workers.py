"""Processes that check claims, one at a time each; a process that dies takes only its own claim with it."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from proofs_check._tasks import Task, answer, unfinished
from proofs_check.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ATTEMPTS = 2  # a claim whose process dies is checked once more
_PATIENCE = 5.0  # seconds for a process that hung up to leave
_OF_LEARN = "dro_core.learn.classifier"  # loads scikit-learn where it is installed, and draws must not depend on that
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Lost:
    """News that the process which checked a claim died, and that the claim is being checked again."""

    label: str
    why: str


class WorkerDied(Exception):
    """The process ended before it answered; the message says how."""


@dataclass
class Crew:
    """Long-lived worker processes, each with a pipe and a thread of this process that talks to it.

    What a claim's report says depends on the task alone, not on the number of processes or their order.

    Attributes:
        jobs: how many processes.
    """

    jobs: int
    _news: SimpleQueue[Report | Lost | BaseException | None] = field(default_factory=SimpleQueue, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _workers: list[_Worker] = field(default_factory=lambda: [], init=False)
    _closed: bool = field(default=False, init=False)

    def reports(self, tasks: Sequence[Task]) -> Iterator[Report | Lost]:
        """Yield reports as they are finished, and losses as they happen; the processes end with the iterator."""
        waiting: SimpleQueue[Task] = SimpleQueue()
        for task in tasks:
            waiting.put(task)
        with tempfile.TemporaryDirectory(prefix="robust-rlhf-") as folder:
            self._workers = [_Worker(self, folder) for _ in range(min(self.jobs, len(tasks)))]
            threads = [threading.Thread(target=self._drain, args=(w, waiting), daemon=True) for w in self._workers]
            try:
                for thread in threads:
                    thread.start()
                yield from self._until_finished(len(tasks))
            finally:
                self._close()
                for thread in threads:
                    thread.join(_PATIENCE)

    def stop(self) -> None:
        """End the iteration after what is finished already. May be called from a signal handler."""
        self._news.put(None)

    def _until_finished(self, pending: int) -> Iterator[Report | Lost]:
        while pending:
            news = self._news.get()
            if news is None:
                return
            if isinstance(news, BaseException):
                raise news
            pending -= isinstance(news, Report)
            yield news

    def _drain(self, worker: _Worker, waiting: SimpleQueue[Task]) -> None:
        """Hand tasks to one worker until there are none left."""
        try:
            while not self._closed:
                self._news.put(self._attempt(worker, waiting.get_nowait()))
        except Empty:
            pass
        except BaseException as error:  # a thread has nobody else to tell, and the reader would wait for ever
            self._news.put(error)
        finally:
            worker.end()

    def _attempt(self, worker: _Worker, task: Task) -> Report:
        deaths: list[str] = []
        while True:
            try:
                return worker.ask(task)
            except WorkerDied as error:
                deaths.append(str(error))
                if self._closed or len(deaths) == ATTEMPTS:
                    return unfinished(task, f"The process that checked it died {len(deaths)} times: {error}.")
                self._news.put(Lost(task.label, str(error)))

    def launch(self, folder: str) -> subprocess.Popen[bytes]:
        """Start a process, unless the crew has been sent home."""
        with self._lock:
            if self._closed:
                raise WorkerDied("the run was stopped")
            return _start(folder)

    def _close(self) -> None:
        with self._lock:
            self._closed = True
        for worker in self._workers:
            worker.kill()


class _Worker:
    """One process and the pipe to it; started when there is something to ask, and again when it has died."""

    def __init__(self, crew: Crew, folder: str) -> None:
        self._crew, self._folder = crew, folder
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, task: Task) -> Report:
        """Have the task done and wait for the report.

        Raises:
            WorkerDied: if the process ended first.
        """
        process = self._process = self._process or self._crew.launch(self._folder)
        try:
            pickle.dump(task, cast("BinaryIO", process.stdin))
            cast("BinaryIO", process.stdin).flush()
            return cast("Report", pickle.load(cast("BinaryIO", process.stdout)))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            self._process = None
            raise WorkerDied(_last_words(process)) from error

    def kill(self) -> None:
        """Kill the process, if there is one; whoever waits for its report hears that it died."""
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> None:
        """Kill the process and close the pipe; only for the thread that talks to it."""
        if (process := self._process) is not None:
            self._process = None
            process.kill()
            _last_words(process)


def _start(folder: str) -> subprocess.Popen[bytes]:
    """A Python of its own: no fork of our threads, one BLAS thread, and in a session that no Ctrl-C reaches."""
    path = [os.path.abspath(part) for part in sys.path]  # "" is this folder
    own = {"PYTHONPATH": os.pathsep.join(path), "HYPOTHESIS_STORAGE_DIRECTORY": folder}
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from proofs_check._workers import serve; serve()", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | _ONE_THREAD | own,
        start_new_session=True,
    )


def _last_words(process: subprocess.Popen[bytes]) -> str:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # half a task may still be in there
            cast("BinaryIO", pipe).close()
    try:
        status = process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "it hung up"
    if status >= 0:
        return f"exit status {status}"
    why = "; the machine may be out of memory" if -status == getattr(signal, "SIGKILL", 9) else ""
    return f"killed by {signal.Signals(-status).name}{why}"


def serve() -> None:
    """The loop of a worker process: tasks come in by standard input, reports leave by standard output."""
    requests, replies = (os.fdopen(os.dup(number), mode) for number, mode in ((0, "rb"), (1, "wb")))
    with open(os.devnull, "r+b") as nowhere:  # what a solver prints must not end up between two reports
        for number in range(3):
            os.dup2(nowhere.fileno(), number)
    warnings.simplefilter("ignore")
    _load_everything()
    tasks: SimpleQueue[Task] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, tasks), daemon=True).start()
    while True:
        replies.write(answer(tasks.get()))
        replies.flush()


def _listen(requests: Any, tasks: SimpleQueue[Task]) -> None:
    """Leave at once when the other side is gone, even in the middle of a check, and clean up in its place."""
    try:
        while True:
            tasks.put(pickle.load(requests))
    finally:
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        os._exit(0)


def _load_everything() -> None:
    """Load our modules: Hypothesis draws from constants of what is loaded, so order would change the draws."""
    for package in ("dro_core", "synthetic", "proofs_check"):
        folder = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(folder, f"{package}."):
            if module.name == _OF_LEARN:
                continue
            with contextlib.suppress(ImportError):  # an extra is not installed
                importlib.import_module(module.name)
