"""``robust-rlhf report PATH -o report.html``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dro_core.locks import locked_file
from dro_core.messages import check_folder

from ..report.content import FAMILIES
from ..report.judge import SMALLEST_GROUP
from ..report.page import write_report
from ..report.screen import render_story
from ..report.sources.places import content_of
from .shell import Arguments, one_sentence_errors, parser_of


@one_sentence_errors
def report(argv: Arguments) -> int:
    """Turn whatever was trained or judged into one page; say where it is and what was found."""
    parser = parser_of("report", "One page: the story, then tables, tests and figures, of whatever has results.")
    parser.add_argument(
        "results",
        metavar="PATH",
        help="results of a sweep, or the folder of a demo, an evaluation, a run (finished or not), or a pipeline",
    )
    parser.add_argument("-o", "--output", default="report.html", help="the page (default: %(default)s)")
    parser.add_argument(
        "--inside", nargs="+", default=[], metavar="SUITE",
        help="suites from the distribution of the training data (default: those called id...)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", metavar="SET", help="the set to compare the others with (default: erm, else the first of a demo)"
    )
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
    from ..run.terminal import Terminal

    check_folder(Path(options.output).parent, flag="--output: the folder")
    with locked_file(options.output):
        content = content_of(
            options.results,
            inside=options.inside,
            baseline=options.baseline,
            smallest=options.smallest_group,
            families=options.families,
            texts=not options.no_texts,
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
