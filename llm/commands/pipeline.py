"""``pipeline``: all stages of RLHF from one file."""

from __future__ import annotations

from .shell import Arguments, Parser, add_columns, one_sentence_errors, parser_of


def parser() -> Parser:
    """What ``pipeline`` takes."""
    told = parser_of("pipeline", "Supervised fine-tuning, reward models, policies: what is left to do of one file.")
    told.add_argument("--config", required=True, metavar="rlhf.yaml", help="a section per stage")
    told.add_output("folder of all stages, instead of the output_dir that the file names", metavar="DIR")
    add_columns(told)
    told.add_argument("--dry-run", action="store_true", help="check everything, print the stages and stop")
    return told


@one_sentence_errors
def pipeline(argv: Arguments) -> int:
    """Run all stages of RLHF from one file."""
    options = parser().parse_args(argv)
    from ..pipeline.plan import read_pipeline
    from ..pipeline.run import render_stages, run_pipeline
    from ..run.terminal import Terminal

    stages = read_pipeline(options.config, columns=options.columns, output_dir=options.output)
    if options.dry_run:
        Terminal().print(render_stages(stages))
    else:
        run_pipeline(stages, Terminal())
    return 0
