"""``robust-rlhf report PATH -o report.html``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dro_core.locks import locked_file
from dro_core.messages import check_folder

from ..report import FAMILIES, SMALLEST_GROUP
from .shell import Arguments, Parser, one_sentence_errors, parser_of


def parser() -> Parser:
    """What ``report`` takes."""
    told = parser_of("report", "One page: the story, then tables, tests and figures, of whatever has results.")
    told.add_argument(
        "results",
        metavar="PATH",
        nargs="+",
        help="results of a sweep, or the folder of a demo, an evaluation, a run (finished or not), or a pipeline; "
        "several runs, a plain one among them, are compared",
    )
    told.add_output("the page (default: %(default)s)", default="report.html", metavar="FILE")
    told.add_argument(
        "--inside", nargs="+", default=[], metavar="SUITE",
        help="suites from the distribution of the training data (default: those called id...)",
    )  # fmt: skip
    told.add_argument(
        "--baseline", metavar="SET", help="the set to compare the others with (default: erm, else the first of a demo)"
    )
    told.add_argument(
        "--smallest-group", type=int, default=SMALLEST_GROUP, metavar="N",
        help="questions a category needs to count as the worst group (default: %(default)s)",
    )  # fmt: skip
    told.add_argument(
        "--families", type=int, default=FAMILIES, metavar="N",
        help="how many families of arms get the detailed sections (default: %(default)s)",
    )  # fmt: skip
    told.add_argument(
        "--texts", action=argparse.BooleanOptionalAction, default=True,
        help="show example pairs (default), or none: for data that must not be passed on with the report",
    )  # fmt: skip
    told.add_argument(
        "--where", nargs="+", default=[], metavar="NAME=VALUE", type=_setting,
        help="report the arms with these settings alone: final=last, regime=all, ...",
    )  # fmt: skip
    return told


@one_sentence_errors
def report(argv: Arguments) -> int:
    """Turn whatever was trained or judged into one page; say where it is and what was found."""
    options = parser().parse_args(argv)
    from ..report.page import write_report
    from ..report.screen import render_story
    from ..report.sources.places import content_of
    from ..run.terminal import Terminal

    check_folder(Path(options.output).parent, flag="--output: the folder")
    with locked_file(options.output):
        content = content_of(
            *options.results,
            inside=options.inside,
            baseline=options.baseline,
            smallest=options.smallest_group,
            families=options.families,
            texts=options.texts,
            where=dict(options.where),
        )
        page, folder = write_report(content, Path(options.output))
    console = Terminal(soft_wrap=True, highlight=False)
    for note in content["notes"]:
        console.print(f"note: {note}")
    console.print(render_story(content))
    console.print(f"{page} (figures and tables: {folder})")
    return 0


def _setting(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as final=last, got {text!r}")
    return name, value
