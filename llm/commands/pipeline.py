"""``pipeline``: all stages of RLHF from one file."""

from __future__ import annotations

from .shell import Arguments, add_columns, one_sentence_errors, parser_of


@one_sentence_errors
def pipeline(argv: Arguments) -> int:
    """Run all stages of RLHF from one file."""
    parser = parser_of("pipeline", "Supervised fine-tuning, reward models, policies: what is left to do of one file.")
    parser.add_argument("--config", required=True, metavar="rlhf.yaml", help="a section per stage")
    add_columns(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the stages and stop")
    options = parser.parse_args(argv)
    from ..pipeline.plan import read_pipeline
    from ..pipeline.run import render_stages, run_pipeline
    from ..run.terminal import Terminal

    stages = read_pipeline(options.config, columns=options.columns)
    if options.dry_run:
        Terminal().print(render_stages(stages))
    else:
        run_pipeline(stages, Terminal())
    return 0
