"""Train the bandits of verifiable.md, write its numbers, figures and tables: make rlvr.

About five minutes on two cores. Units of ten problems are kept in FOLDER and not trained again, unless the code of the
training has changed. With ``--transformer`` transformers are trained from scratch, which takes hours; it goes on where
it was, and writes what is finished.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import rules
from .publish import publish, publish_transformers
from .transformer import Sizes, finished
from .units import bandits


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, then write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/verifiable"), help="where finished units are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    parser.add_argument("--transformer", action="store_true", help="train transformers, too: hours, and it goes on")
    told = parser.parse_args(arguments)
    begun = time.monotonic()
    sizes, found = bandits(told.folder, rules.SEEDS, told.workers)
    sys.stderr.write(f"trained in {time.monotonic() - begun:.0f} s\n")
    publish(sizes, found, told.folder)
    if told.transformer:
        cells = told.folder / "transformer"
        finished(cells, Sizes(), told.workers, lambda: publish_transformers(cells))


if __name__ == "__main__":
    main()
