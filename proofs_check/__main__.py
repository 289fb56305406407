"""`robust-rlhf verify`: check the claims and show the verdicts."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis.configuration import set_hypothesis_home_dir
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from proofs_check import FULL, QUICK, check
from proofs_check.registry import CLAIMS

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from proofs_check.report import Report

_BUDGETS = {"quick": QUICK, "full": FULL}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every verdict is the expected one, 1 if not, 2 if the request makes no sense."""
    arguments = _parser().parse_args(argv)
    errors = Console(stderr=True)
    known = {claim.label: claim for claim in CLAIMS}
    unknown = [label for label in arguments.labels if label not in known]
    if unknown:
        errors.print(f"No claim is called {', '.join(unknown)}; the known labels are {', '.join(known)}.")
        return 2
    if arguments.json is not None and (arguments.json.is_dir() or not arguments.json.parent.is_dir()):
        errors.print(f"--json needs a file in an existing folder, got {arguments.json}: choose another path.")
        return 2
    chosen = [known[label] for label in arguments.labels or known]
    budget = _BUDGETS[arguments.budget]
    with _no_trace():
        reports = [
            check(claim, budget=budget, seed=arguments.seed)
            for claim in track(chosen, "checking", console=errors, transient=True)
        ]
    if arguments.json is not None:
        stored = {
            "budget": arguments.budget,
            "seed": arguments.seed,
            "reports": [r.to_json() for r in reports],
        }
        arguments.json.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    _show(reports)
    return int(any(report.verdict is not report.expected for report in reports))


def _parser() -> argparse.ArgumentParser:
    about = (
        f"Try to refute the theorems that robust RLHF leans on. {len(CLAIMS)} of the claims of the theory "
        f"are in the registry: {', '.join(claim.label for claim in CLAIMS)}."
    )
    parser = argparse.ArgumentParser("robust-rlhf verify", description=about)
    parser.add_argument("labels", nargs="*", metavar="LABEL", help="claims to check (default: all)")
    parser.add_argument("--budget", choices=tuple(_BUDGETS), default="quick", help="how long to search")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the reports, worst instances included")
    return parser


@contextmanager
def _no_trace() -> Generator[None]:
    """Hypothesis keeps a cache in the current folder even without a database: give it one that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


def _show(reports: Sequence[Report]) -> None:
    console = Console()
    table = Table(Column("claim", no_wrap=True), "verdict", "evidence", "tightness", "instances", "seconds")
    for report in reports:
        surprise = "" if report.verdict is report.expected else f" (expected {report.expected.value})"
        tightness = "-" if report.tightness is None else f"{report.tightness:.4g}"
        numbers = tightness, str(report.checked), f"{report.seconds:.1f}"
        table.add_row(report.label, report.verdict.value + surprise, report.evidence.value, *numbers)
    console.print(table)
    for report in reports:
        if report.verdict is not report.expected:
            console.print(f"{report.label}: {report.reason}", markup=False)
    statements = {claim.label: claim.statement for claim in CLAIMS}
    for report in reports:
        console.print(f"{report.label}: {statements[report.label]}", markup=False)
    console.print(
        f"Checked {len(reports)} of the {len(CLAIMS)} claims in the registry. Tightness: the largest ratio of the "
        "left to the right side that the search found. A refuted claim that is expected to be is no failure."
    )


if __name__ == "__main__":
    sys.exit(main())
