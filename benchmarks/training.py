"""What robust training costs against plain training: FLOPs, time and memory of a step, and gradient errors.

    python benchmarks/training.py            # eight minutes on two busy cores; then the tables of docs/training-cost.md
    python benchmarks/training.py --quick    # one table, one round: to see that it works
    python benchmarks/training.py --page     # the tables again from the JSON of an earlier run

All contestants run in one process and take turns; docs/training-cost.md says what is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "training.json"
PAGE = HERE.parent / "docs" / "training-cost.md"
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "numpy", "scipy")
_log = logging.getLogger(__name__)


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one table, one round: a smoke test, no evidence")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go (or come from, with --page)")
    parser.add_argument("--page", action="store_true", help="run nothing; write the tables from the JSON")
    return parser.parse_args(given)


def about(*, rounds: int) -> dict[str, Any]:
    """Describe machine, versions, date and shape."""
    import machine
    import torch
    from training_contestants import ANSWER, MICRO, PROMPT, SHAPE, WINDOW

    return machine.about(_PACKAGES) | {
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "shape": {**SHAPE, "tokens": PROMPT + ANSWER + 1, "micro": MICRO, "window": WINDOW, "rounds": rounds},
    }


def run(target: Path, *, quick: bool) -> None:
    """Measure everything and write the JSON."""
    import training_contestants
    import training_errors
    import training_steps

    training_contestants.quiet()
    start, rounds = time.perf_counter(), 1 if quick else 3

    def say(text: str) -> None:
        _log.info("%4.0f s  %s", time.perf_counter() - start, text)

    found = about(rounds=rounds)
    with contextlib.redirect_stdout(io.StringIO()):  # Trainer prints its logs
        found["solver"] = training_errors.solver_share()
        say("solver measured")
        found["errors"] = _errors(training_errors.gradient_errors, ("reward",) if quick else ("reward", "dpo"), say)
        cases = [("reward", "full")] if quick else training_steps.CASES
        found["steps"] = [row for case in cases for row in training_steps.race(*case, rounds=rounds, log=say)]
    found["minutes"] = round((time.perf_counter() - start) / 60, 1)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1) + "\n")
    _log.info("wrote %s", target)


def _errors(measure: Callable[[str], list[Any]], kinds: tuple[str, ...], say: Callable[[str], None]) -> list[Any]:
    records = []
    for kind in kinds:
        records += measure(kind)
        say(f"{kind}: gradient errors measured")
    return records


def main(given: list[str] | None = None) -> None:
    """Run the benchmark or write its tables."""
    options = _arguments(given)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that measures memory chats
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    results = options.json or (HERE.parent / "runs" / "bench-training-quick.json" if options.quick else RESULTS)
    if not options.page:
        run(results, quick=options.quick)
    if options.page or not options.quick:
        import training_page

        training_page.write(results, PAGE)


if __name__ == "__main__":
    main()
