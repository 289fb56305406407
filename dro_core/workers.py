"""Calls side by side in processes of their own; a process that dies takes its own call with it, and nothing else.

There is a pipe for every process: a pool breaks as a whole when one of it dies, and cannot say whose call it was. The
other packages build on this one, so it stands here; it needs joblib, and nothing of the solvers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Generic, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")
Setup = tuple[Callable[..., object], tuple[Any, ...]]

_LIBRARIES = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "NUMBA")
_LOOKS = 0.5  # seconds between two looks at whether the process that started us is still there
_LEAVING = 2.0  # seconds for a process to leave that has nothing more to do
_INTERRUPTED = 130
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows both end a process at once


class WorkerDied(RuntimeError):
    """The process ended before it answered; the message says how."""


@dataclass(frozen=True)
class Answer(Generic[Item, Result]):
    """What came of a call.

    Attributes:
        item: What it was called with.
        value: What it returned; None after an error.
        error: What it raised, or ``WorkerDied``; None if all went well.
    """

    item: Item
    value: Result | None
    error: Exception | None = None


def side_by_side(
    call: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    jobs: int,
    setup: Setup | None = None,
    threads: int | None = None,
    patience: float | None = 0.0,
) -> Generator[Answer[Item, Result]]:
    """Yield the answers as they come, in any order; there is one for every item, however its process ended.

    The processes are in sessions of their own, so a Ctrl-C at the terminal reaches the caller alone. When the iteration
    ends early, calls that are under way are interrupted as by Ctrl-C and given ``patience``; its end, or a second
    Ctrl-C, kills them. They leave by themselves when this process is gone.

    Args:
        call: Called in another process. What it prints goes where this process prints.
        items: What it is called with; taken one by one, when a process is free.
        jobs: Processes, at least 1.
        setup: A function and its arguments, called first in every process, also in one that follows a dead one.
        threads: That numerical libraries may use in each; None leaves it to them.
        patience: Seconds for calls that are interrupted; 0 kills them, None waits.
    """
    waiting = iter(items)
    hands = [_Hand(setup, threads) for _ in range(jobs)]
    asked: dict[Connection, tuple[_Hand, Item]] = {}
    try:
        for hand, item in zip(hands, waiting, strict=False):  # hands first: it takes no item too many
            asked[hand.ask(call, item)] = hand, item
        while asked:
            for pipe in cast("list[Connection]", wait(list(asked))):
                hand, item = asked.pop(pipe)
                value, error = hand.answer()
                for following in islice(waiting, 1):
                    asked[hand.ask(call, following)] = hand, following
                yield Answer(item, value, error)
    finally:
        _dismiss(hands, asked, patience)


class _Hand:
    """One process; started with the first call, and again when it has died."""

    def __init__(self, setup: Setup | None, threads: int | None) -> None:
        self._setup, self._environment = setup, {f"{name}_NUM_THREADS": str(threads) for name in _LIBRARIES if threads}
        self._pipe: Any = None
        self.process: Any = None

    def ask(self, call: Callable[[Any], Any], item: Any) -> Connection:
        """Hand a call over; the pipe is readable when there is an answer, or the process is dead."""
        request = packed((call, item))
        if self._pipe is not None and not self.process.is_alive():  # it was killed while it waited
            self._bury()
        with contextlib.suppress(OSError):  # or just now
            return self._sent(request)
        self._bury()
        return self._sent(request)

    def answer(self) -> tuple[Any, Exception | None]:
        """Value and error of the call."""
        try:
            return pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            return None, WorkerDied(self._bury())
        except Exception as error:  # an answer that cannot be read here
            return None, error

    def interrupt(self) -> None:
        """Send what Ctrl-C sends."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGINT)

    def let_go(self) -> None:
        """Tell the process that nothing more will come."""
        if self._pipe is not None:
            self._pipe.close()

    def end(self, patience: float) -> None:
        """Make sure that the process is gone."""
        if self.process is not None:
            self.process.join(patience)
            if self.process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.process.pid, _KILL)
            self.process.join()

    def _sent(self, request: bytes) -> Connection:
        self._pipe = self._pipe or self._start()
        self._pipe.send_bytes(request)
        return self._pipe

    def _start(self) -> Any:
        from joblib.externals.loky.backend.context import get_context  # pyright: ignore

        context: Any = get_context()
        ours, theirs = Pipe()
        own = {"env": self._environment} if context.get_start_method() == "loky" else {}
        self.process = context.Process(target=_serve, args=(theirs,), **own)
        self.process.start()
        theirs.close()
        ours.send_bytes(packed(self._setup))
        return ours

    def _bury(self) -> str:
        """What became of the process, in words."""
        self.let_go()
        self._pipe = None
        self.process.join(_LEAVING)
        if (status := self.process.exitcode) is None:
            self.end(0)
            return "its process hung up"
        if status >= 0:
            return f"its process ended with status {status}"
        why = "; the machine may be out of memory" if -status == _KILL else ""
        return f"its process was ended by {signal.Signals(-status).name}{why}"


def _dismiss(hands: Iterable[_Hand], asked: dict[Connection, tuple[_Hand, Any]], patience: float | None) -> None:
    try:
        if patience != 0:
            for hand, _ in asked.values():
                hand.interrupt()
            end = None if patience is None else time.monotonic() + patience
            for hand, _ in asked.values():
                hand.process.join(None if end is None else max(end - time.monotonic(), 0))
    finally:
        busy = [hand for hand, _ in asked.values()]
        for hand in hands:
            hand.let_go()
        for hand in hands:
            hand.end(0 if hand in busy else _LEAVING)


def cores() -> int:
    """The cores this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def packed(content: Any) -> bytes:
    """Functions of a script or a notebook by value; everything else as pickle does."""
    from joblib.externals.loky.backend.reduction import dumps  # pyright: ignore

    return bytes(dumps(content))


def _serve(pipe: Connection) -> None:
    """The loop of a process."""
    if hasattr(os, "setsid"):
        with contextlib.suppress(OSError):  # it leads a session already
            os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in its background ignores it
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    try:
        if setup := pickle.loads(pipe.recv_bytes()):
            setup[0](*setup[1])
        while True:
            call, item = pickle.loads(pipe.recv_bytes())
            pipe.send_bytes(reply(call, item))
    except (EOFError, ConnectionError):  # reset, too: of one that lets go while an answer lies unread
        return
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def reply(call: Callable[[Any], Any], item: Any) -> bytes:
    """Value and error of the call, packed; in words, where an error cannot be."""
    try:
        return packed((call(item), None))
    except Exception as error:
        with contextlib.suppress(Exception):
            return packed((None, error))
        return packed((None, RuntimeError(f"{type(error).__name__}: {error}")))


def _leave_with(parent: int) -> None:
    """A call may take hours: nobody would hear its end, and a second start would find its folder in use."""
    while os.getppid() == parent:
        time.sleep(_LOOKS)
    os._exit(1)
