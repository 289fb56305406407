"""How a run says where it stands: a bar on a terminal, lines in a log file, and what it leaves at its end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tqdm import tqdm

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
