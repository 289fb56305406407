"""Where checkers and functions are asked: in a process of their own each, with a time for every batch.

It is started when it is first needed, serves the whole run, and ends with it. A checker that raises, hangs, ends its
process or gives no scores stops the run with a sentence; what it prints is cut off after some lines.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .names import RewardError, RewardPart, search_path

_log = logging.getLogger(__name__)
_LOADING = 300.0  # seconds for what a file of functions imports
_SHOWN = 2000  # characters of what is printed
_OF_A_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_open: dict[tuple[str, str], Bench] = {}


class BadScores(ArithmeticError):
    """A reward gave scores that nothing can be learned from, or none."""


class Bench:
    """One checker or function in its process."""

    def __init__(self, part: RewardPart) -> None:
        self.part, self.printed = part, ""
        self._start()
        found, _ = self._receive(time.monotonic() + _LOADING)
        if found is None or "ready" not in found:
            said = f"{part.name} cannot be loaded: it {self._silence(_LOADING)}" if found is None else found["unusable"]
            self.close()
            raise RewardError(said)

    def _start(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        reading, writing = os.pipe()
        paths = dict.fromkeys([str(Path(__file__).parents[2]), *search_path()])
        first = f"import sys; sys.path[:] = {[path for path in paths if path]!r}"
        first += "; sys.dont_write_bytecode = True"  # which a file that changes within a second would outlive
        code = f"{first}; from llm.rewards.worker import main; main()"
        environment = {name: value for name, value in os.environ.items() if name not in _OF_A_LAUNCHER}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, self.part.name, str(theirs.fileno())],
            stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, env=environment,
            pass_fds=(theirs.fileno(),), start_new_session=True,
        )  # fmt: skip
        theirs.close()
        os.close(writing)
        threading.Thread(target=self._drain, args=(reading,), daemon=True).start()

    def _drain(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as stream:
            while said := stream.read(65536):
                if len(self.printed) < _SHOWN:
                    self.printed += said.decode(errors="replace")[: _SHOWN - len(self.printed)]

    def lacks(self, rows: Sequence[Mapping[str, object]], seconds: float) -> dict[str, tuple[int, int]]:
        """What prompts lack to be checked -> how many do, and the first of them."""
        found = self._asked({"lacks": rows}, seconds, [str(row.get("id", "")) for row in rows])["lacks"]
        counted = Counter(why for why in found if why)
        return {why: (count, found.index(why)) for why, count in counted.items()}

    def scores(
        self,
        prompts: Sequence[object],
        completions: Sequence[object],
        rows: Sequence[Mapping[str, object]],
        seconds: float,
    ) -> list[float | None]:
        """One score for each completion, None where it is not scored.

        Args:
            prompts: Texts or chats, as TRL has them.
            completions: Texts or lists of one message, likewise.
            rows: The columns of the prompt of each, its ``id`` among them.
            seconds: Within which they must be there.

        Raises:
            BadScores: There are none; the sentence names function and prompt.
        """
        asked = {"prompts": prompts, "completions": completions, "rows": rows}
        return self._asked(asked, seconds, [str(row.get("id", "")) for row in rows])["scores"]

    def _asked(self, message: Mapping[str, object], seconds: float, ids: Sequence[str]) -> dict[str, Any]:
        self.printed = ""
        try:
            self._connection.send_bytes(json.dumps(message, default=str).encode())
            found, at = self._receive(time.monotonic() + seconds)
        except OSError:
            found, at = None, None
        except BaseException:  # Ctrl-C: what was asked would be answered to the next question
            self.close()
            raise
        if found is None:
            said = self._silence(seconds)
            self.close()
            self._refuse(said, at, ids)
        if "refused" in found:
            said = found["refused"]
            self._refuse(said if said.startswith("gave ") else f"raised {said}", found["row"], ids)
        if self.printed:
            _log.info("%s printed: %s", self.part.name, self.printed.rstrip())
        return found

    def _receive(self, end: float) -> tuple[dict[str, Any] | None, int | None]:
        """The next answer, None where there is none; and the row that was looked at last."""
        at = None
        while self._connection.poll(max(end - time.monotonic(), 0)):
            try:
                found = json.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                break
            if "at" not in found:
                return found, at
            at = found["at"]
        return None, at

    def _silence(self, seconds: float) -> str:
        """Why nothing came: the process is at its end, which closes the connection first, or it is still at work."""
        if self._connection.poll(0):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=2)
        status = self._process.poll()
        if status is None:
            return f"did not answer within {seconds:g} s (reward_seconds)"
        return f"ended its process, {f'by {signal.Signals(-status).name}' if status < 0 else f'with status {status}'},"

    def _refuse(self, what: str, row: int | None, ids: Sequence[str]) -> NoReturn:
        shown = list(dict.fromkeys(ids))
        where = (
            f"prompt {ids[row]}" if row is not None else f"prompts {', '.join(shown[:3])}{' ...' * (len(shown) > 3)}"
        )
        printed = " ".join(self.printed.split())[-300:]
        raise BadScores(
            f"{self.part.name} {what} at {where}, and the policy was not updated: correct it, then go on with --resume "
            "(and --force, since its file is part of the run)" + (f" (it printed: {printed})" if printed else "")
        )

    def close(self) -> None:
        """End the process and all that it started in its group."""
        _open.pop(next((key for key, bench in _open.items() if bench is self), ("", "")), None)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()


def bench_of(part: RewardPart) -> Bench:
    """The process of this checker or function, started where none stands; another one where its file changed.

    Raises:
        RewardError: It cannot be loaded.
    """
    place = part.reads()
    content = Path(place).read_text(encoding="utf-8", errors="replace") if place and Path(place).is_file() else ""
    key = (part.name, content)
    if key not in _open:
        _open[key] = Bench(part)
    return _open[key]


os.register_at_fork(after_in_child=_open.clear)  # a child has processes of its own


@atexit.register
def close_all() -> None:
    """End all processes of checkers."""
    for bench in list(_open.values()):
        bench.close()
