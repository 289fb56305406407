"""``demo``: plain and robust models side by side."""

from __future__ import annotations

from pathlib import Path

from .shell import Arguments, add_columns, one_sentence_errors, parser_of


@one_sentence_errors
def demo(argv: Arguments) -> int:
    """Train a plain and robust models over sets and seeds, judge them, write a report."""
    parser = parser_of(
        "demo", "Train plain and robust models on the same data, over seeds, judge them, write a report."
    )
    parser.add_argument("--data", help="folder with train.* and suites beside it (default: the built-in corpus)")
    add_columns(parser)
    parser.add_argument("--kind", default="reward", help="what to train: sft, reward or dpo (default: %(default)s)")
    parser.add_argument("--model", default="tiny", help="tiny (from scratch), minilm, smollm2, a folder or a hub name")
    parser.add_argument("--seeds", type=int, default=1, help="runs per ambiguity set (default: %(default)s)")
    parser.add_argument(
        "--ambiguity",
        nargs="+",
        default=["erm", "tv:0.2", "tv:0.2,max_ratio=4"],
        help="sets to compare (default: %(default)s)",
    )
    parser.add_argument("--max-pairs", type=int, help="train on a fixed random subset of this size")
    parser.add_argument("--eval-pairs", type=int, help="evaluate at most this many pairs of each suite")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="change any recipe setting")
    parser.add_argument("--output", default="runs/demo", help="folder for models and report (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue, or do nothing where all is done")
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier demo in the output folder")
    options = parser.parse_args(argv)
    import yaml

    from ..run.terminal import Terminal
    from ..sweep.demo import DemoConfig, run_demo
    from ..training.config import ConfigError

    if wrong := [text for text in options.set if "=" not in text]:
        raise ConfigError(f"--set takes NAME=VALUE, got {wrong[0]!r}")
    try:
        settings = {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in options.set)}
    except yaml.YAMLError as error:
        raise ConfigError(f"--set holds a value that cannot be read: {' '.join(str(error).split())}") from error
    config = DemoConfig(
        data=options.data,
        columns=options.columns,
        kind=options.kind,
        model=options.model,
        seeds=options.seeds,
        ambiguity=tuple(options.ambiguity),
        max_pairs=options.max_pairs,
        eval_pairs=options.eval_pairs,
        settings=settings,
    )
    run_demo(
        config,
        Path(options.output),
        resume=options.resume,
        overwrite=options.overwrite,
        console=Terminal(),
        command=["robust-rlhf", "demo", *(text for text in argv if text not in ("--resume", "--overwrite"))],
    )
    return 0
