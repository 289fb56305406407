"""How long the report of a thousand runs takes, and how large it is: ``python benchmarks/report_speed.py``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "llm"))

from results_samples import write_sample

from llm.report.content import build_content
from llm.report.page import write_report

SUITES = {
    "id_test": (1600, ("chat", "code")),
    "ood_maths": (600, ("algebra", "counting")),
    "ood_chat": (500, ("open", "hard")),
    "ood_safety": (300, ("refuse", "comply")),
    "ood_plain": (120, ("",)),
}
SETS = (
    "erm",
    "tv:0.1",
    "tv:0.2",
    "tv:0.4",
    "cvar:0.3",
    "chi2:0.5",
    "kl:0.3",
    "tv:0.2,max_ratio=4",
    "tv:0.2,by=source",
    "tv:0.2,trim=0.1",
)


def main() -> None:
    """Write runs, build their report three times, print processor seconds and megabytes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_sample(
            folder / "results", suites=SUITES, ambiguities=SETS, models=("a", "b"), regimes=("all", "small"),
            label_noise=(0.0, 0.1, 0.2), seeds=10, train=5000,
        )  # fmt: skip
        runs = len(list((folder / "results" / "margins").iterdir()))
        for _ in range(3):
            wall, processor = time.perf_counter(), time.process_time()
            write_report(build_content(folder / "results", inside=[]), folder / "report.html")
            size = (folder / "report.html").stat().st_size / 1e6
            taken = f"{time.perf_counter() - wall:.1f} s, {time.process_time() - processor:.1f} s of processor"
            sys.stdout.write(f"{runs} runs: {taken}, {size:.1f} MB\n")


if __name__ == "__main__":
    main()
