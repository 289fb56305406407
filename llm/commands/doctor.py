"""``doctor``: what is wrong with a training run."""

from __future__ import annotations

import sys

from ..run.escaping import visible
from .shell import Arguments, one_sentence_errors, parser_of


@one_sentence_errors
def doctor(argv: Arguments) -> int:
    """Say what is wrong with a training run; status 1 where something is."""
    parser = parser_of(
        "doctor", "What is wrong with a training run, the evidence, and what to try; status 1 if it is bad."
    )
    parser.add_argument("run", help="output_dir of a training run, finished or not")
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")
    options = parser.parse_args(argv)
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
