"""Races our solver against every PyPI package that solves the same problem, published formulas, and the physical floor.

    python benchmarks/solvers.py               # everything, about a quarter of an hour; then the page
    python benchmarks/solvers.py --quick       # under a minute, to see that it works
    python benchmarks/solvers.py --page        # docs/benchmarks.md again from the JSON of an earlier run

All contestants of a cell run in one process and take turns; see docs/benchmarks.md for what is measured.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "solvers.json"
DOCS = HERE.parent / "docs"


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and few: a smoke test, no evidence")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go (or come from, with --page)")
    parser.add_argument("--sets", nargs="+", metavar="SET", help="only these races, for example: tv kl_penalty")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page and its plots from the JSON")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER", help="where the page goes")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Run the benchmark or write its page."""
    options = _arguments(given)
    # One thread, unless the caller says otherwise, and before any numerical library wakes up.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that measures memory chats
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results = options.json or (HERE.parent / "runs" / "bench-quick.json" if options.quick else RESULTS)
    if not options.page:
        import session

        session.run(results, quick=options.quick, sets=options.sets)
    if options.page or not (options.quick or options.sets):
        import page

        page.write(results, options.docs)


if __name__ == "__main__":
    main()
