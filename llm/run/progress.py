"""How a run says where it stands and what its steps cost: a bar or lines, a part of its log, a word at its end."""

from __future__ import annotations

import resource
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

MEASURED = ("seconds_per_step", "peak_memory_gib")  # in every row of a log, and other in every run

LINES = 20  # of a whole run, in a log file


class Steps(tqdm):
    """The steps of a run: a bar where a terminal redraws it, elsewhere a line after every twentieth of them."""

    _told = -1

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Redraw the bar, or write the next line if it is due."""
        if self.fp.isatty():
            return super().display(msg, pos)
        part = LINES if self.n == self.total else self.n * LINES // max(self.total or 1, 1)
        if msg is None and part != self._told:
            self._told = part
            self.fp.write(f"{self}\n")
            self.fp.flush()
        return False

    def close(self) -> None:
        """End the bar; lines have ended already."""
        if not self.disable and not self.fp.isatty():
            self.display()
            self.leave = False
        super().close()


class Cost:
    """What steps cost: seconds of each since the last row of the log, and the most memory so far."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, step: int) -> None:
        """Count from here on, where ``step`` steps have been taken."""
        self._step, self._then = step, time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """Something else than steps took so long."""
        self._then += seconds

    def row(self, step: int) -> dict[str, float]:
        """``MEASURED`` for the steps up to ``step``, as a part of their row."""
        taken, seconds = step - self._step, time.perf_counter() - self._then
        self.begin(step)
        rate = {} if taken < 1 else {"seconds_per_step": round(seconds / taken, 4)}
        return rate | {"peak_memory_gib": round(_peak_memory() / 2**30, 3)}


def _peak_memory() -> float:
    """Bytes that torch held at most on this process's GPU; without one, the largest resident set of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def closing_lines(kind: str, model: str, output: Path) -> str:
    """Where the model of a finished run is, and what to do next.

    Args:
        kind: Name of the kind of training.
        model: What the run began with.
        output: The run folder.
    """
    run, trained = (shlex.quote(str(folder)) for folder in (output, output / "model"))
    start = "none" if model == "tiny" else shlex.quote(model)
    reference = "" if kind in ("reward", "dpo") else f" --reference {start}"  # a run of dpo knows its own
    return f"model: {trained}\nnext: robust-rlhf evaluate {trained} --suite FILE{reference}; robust-rlhf doctor {run}"
