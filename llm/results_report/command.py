"""``robust-rlhf report RESULTS -o report.html``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dro_core.messages import check_folder

from ..locks import locked_file
from .content import FAMILIES, build_content
from .judge import SMALLEST_GROUP
from .page import write_report


def run_report(argv: Sequence[str], parser: argparse.ArgumentParser) -> int:
    """Read the arguments, write the report, say where it is and what it found."""
    parser.add_argument("results", help="results folder of a sweep")
    parser.add_argument("-o", "--output", default="report.html", help="the page (default: %(default)s)")
    parser.add_argument(
        "--inside", nargs="+", default=[], metavar="SUITE",
        help="suites from the distribution of the training data (default: those called id...)",
    )  # fmt: skip
    parser.add_argument(
        "--smallest-group", type=int, default=SMALLEST_GROUP, metavar="N",
        help="questions a category needs to count as the worst group (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--families", type=int, default=FAMILIES, metavar="N",
        help="how many families of arms get the detailed sections (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--no-texts", action="store_true", help="no example pairs: for data that must not be passed on with the report"
    )
    parser.add_argument(
        "--where", nargs="+", default=[], metavar="NAME=VALUE", type=_setting,
        help="report the arms with these settings alone: final=last, regime=all, ...",
    )  # fmt: skip
    options = parser.parse_args(argv)
    from ..terminal import Terminal

    check_folder(Path(options.output).parent, flag="--output: the folder")
    with locked_file(options.output):
        report = build_content(
            options.results,
            inside=options.inside,
            smallest=options.smallest_group,
            families=options.families,
            texts=not options.no_texts,
            where=dict(options.where),
        )
        page, folder = write_report(report, Path(options.output))
    console = Terminal(soft_wrap=True, highlight=False)
    for note in report["notes"]:
        console.print(f"note: {note}")
    console.print(report["claims"][0]["text"])
    console.print(f"{page} (figures and tables: {folder})")
    return 0


def _setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as final=last, got {text!r}")
    return name, value
