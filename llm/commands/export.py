"""``export``: a finished model for another evaluation tool."""

from __future__ import annotations

import sys

from .shell import Arguments, Parser, add_columns, add_trust, one_sentence_errors, parser_of


def parser() -> Parser:
    """What ``export`` takes."""
    told = parser_of("export", "A finished model, and preference files, in the format of another evaluation tool.")
    told.add_argument("model", help="run folder, model folder, alias or hub name of a reward model or a policy")
    told.add_argument("--to", required=True, choices=("rewardbench", "lm-eval"), help="the tool")
    told.add_output("a new folder", required=True, metavar="DIR")
    told.add_argument("--suite", nargs="+", default=[], metavar="FILE", help="preference files to take along")
    add_columns(told)
    told.add_argument(
        "--eval-pairs", metavar="N", type=int, help="at most this many pairs of each suite (a fixed subset)"
    )
    told.add_argument("--reference", metavar="MODEL", help="RewardBench: the policy that a policy started from")
    add_trust(told)
    return told


@one_sentence_errors
def export(argv: Arguments) -> int:
    """Write a finished model into a folder that another evaluation tool runs as it is."""
    options = parser().parse_args(argv)
    if options.eval_pairs is not None and options.eval_pairs < 1:
        raise ValueError(f"--eval-pairs must be at least 1, got {options.eval_pairs}")
    from ..data.suites import load_suites, suite_files
    from ..export.export import Tool, export_model

    files = suite_files(options.suite)
    done = export_model(
        options.model,
        Tool(options.to),
        options.output,
        load_suites(files, eval_pairs=options.eval_pairs, columns=options.columns)[0] if files else {},
        reference=options.reference,
        trust_remote_code=options.trust_remote_code,
    )
    sys.stdout.write((done.folder / "README.md").read_text(encoding="utf-8"))
    return 0
