"""``doctor``: what is wrong with a training run."""

from __future__ import annotations

import sys

from ..run.escaping import visible
from .shell import Arguments, Parser, one_sentence_errors, parser_of


def parser() -> Parser:
    """What ``doctor`` takes."""
    told = parser_of(
        "doctor", "What is wrong with a training run, the evidence, and what to try; status 1 if it is bad."
    )
    told.add_argument("run", help="folder of a training run, finished or not")
    told.add_argument("--json", action="store_true", help="print the diagnosis as JSON")
    return told


@one_sentence_errors
def doctor(argv: Arguments) -> int:
    """Say what is wrong with a training run; status 1 where something is."""
    options = parser().parse_args(argv)
    import json

    from ..doctor.doctor import as_json, diagnose, render
    from ..doctor.record import read_run
    from ..run.terminal import Terminal

    diagnosis = diagnose(read_run(options.run))
    if options.json:
        sys.stdout.write(visible(json.dumps(as_json(diagnosis), indent=1, ensure_ascii=False)) + "\n")
    else:
        render(diagnosis, Terminal(soft_wrap=True))
    return 1 if diagnosis.problems else 0
