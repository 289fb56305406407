"""``export``: a finished model for another evaluation tool."""

from __future__ import annotations

import sys

from .shell import Arguments, add_columns, one_sentence_errors, parser_of


@one_sentence_errors
def export(argv: Arguments) -> int:
    """Write a finished model into a folder that another evaluation tool runs as it is."""
    parser = parser_of("export", "A finished model, and preference files, in the format of another evaluation tool.")
    parser.add_argument("model", help="run folder, model folder, alias or hub name of a reward model or a policy")
    parser.add_argument("--to", required=True, choices=("rewardbench", "lm-eval"), help="the tool")
    parser.add_argument("-o", "--output", required=True, help="a new folder")
    parser.add_argument("--suite", nargs="+", default=[], metavar="FILE", help="preference files to take along")
    add_columns(parser)
    parser.add_argument("--eval-pairs", type=int, help="at most this many pairs of each suite (a fixed subset)")
    parser.add_argument("--reference", metavar="MODEL", help="RewardBench: the policy that a policy started from")
    parser.add_argument("--trust-remote-code", action="store_true", help="let a hub repository run its own code")
    options = parser.parse_args(argv)
    if options.eval_pairs is not None and options.eval_pairs < 1:
        raise ValueError("--eval-pairs must be at least 1")
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
