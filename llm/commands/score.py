"""``score``: rewards of pairs or answers, as a stream of JSON lines."""

from __future__ import annotations

import json
import sys

from .shell import Arguments, Parser, add_columns, add_reading, one_sentence_errors, parser_of


def parser() -> Parser:
    """What ``score`` takes."""
    told = parser_of("score", "Rewards of pairs, or of answers to prompts, as JSON lines in the order of the input.")
    told.add_argument("model", help="run folder, model folder, alias or hub name of a reward model")
    told.add_argument("file", help="pairs or answers: file, folder, hf://..., or - for JSON lines on standard input")
    add_columns(told)
    add_reading(told)
    return told


@one_sentence_errors
def score(argv: Arguments) -> int:
    """Write what a reward model says of pairs or answers, in their order."""
    options = parser().parse_args(argv)
    from ..api.scores import scores_of
    from ..serving.items import STDIN

    names = ("columns", "max_length", "batch_size", "dtype", "trust_remote_code")
    slow = options.file == STDIN
    rows = scores_of(
        options.model,
        options.file,
        stdin=sys.stdin.buffer,
        slow=slow,
        **{name: getattr(options, name) for name in names},
    )
    left_out = 0
    for row in rows:
        left_out += "reason" in row
        sys.stdout.write(json.dumps(row) + "\n")
        if slow:
            sys.stdout.flush()
    if left_out:
        sys.stderr.write(f"robust-rlhf: {left_out} of the lines have no reward or margin, and say why\n")
    return 0
