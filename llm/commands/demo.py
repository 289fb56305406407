"""``demo``: what robust training repairs and where it hurts; or plain and robust models, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shell import Arguments, Parser, add_columns, one_sentence_errors, parser_of

if TYPE_CHECKING:
    from argparse import Namespace

_MODELS = ("data", "columns", "kind", "model", "ambiguity", "max_pairs", "eval_pairs", "set")  # each asks for them


def parser() -> Parser:
    """What ``demo`` takes."""
    told = parser_of(
        "demo",
        "By itself: a shift that plain training fails, a set that repairs it, and wrong labels, in one picture. With "
        "any flag of data or models: plain and robust models on the same data, side by side. Both write a report.",
    )
    told.add_argument(
        "--data", metavar="DIR", help="folder with train.* and suites beside it (else the built-in corpus)"
    )
    add_columns(told)
    told.add_argument("--kind", help="what to train: sft, reward or dpo (else reward)")
    told.add_argument("--model", help="tiny (from scratch, the default), minilm, smollm2, a folder or a hub name")
    told.add_argument("--seeds", metavar="N", type=int, help="runs per ambiguity set (default: 10 by itself, else 1)")
    told.add_argument(
        "--ambiguity", metavar="SET", nargs="+", help="sets to compare (else erm tv:0.2 tv:0.2,max_ratio=4)"
    )
    told.add_argument("--max-pairs", metavar="N", type=int, help="train on a fixed random subset of this size")
    told.add_argument("--eval-pairs", metavar="N", type=int, help="evaluate at most this many pairs of each suite")
    told.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="change any recipe setting")
    told.add_output("folder for models and report (default: %(default)s)", default="runs/demo", metavar="DIR")
    told.add_argument("--resume", action="store_true", help="continue, or do nothing where all is done")
    told.add_argument("--overwrite", action="store_true", help="delete an earlier demo in the output folder")
    return told


@one_sentence_errors
def demo(argv: Arguments) -> int:
    """By itself the built-in lesson, with flags of data or models these; judged, with a report."""
    options = parser().parse_args(argv)
    command = ["robust-rlhf", "demo", *(text for text in argv if text not in ("--resume", "--overwrite"))]
    if any(getattr(options, name) not in (None, []) for name in _MODELS):
        _models(options, command)
    else:
        _lesson(options, command)
    return 0


def _lesson(options: Namespace, command: list[str]) -> None:
    from transformers.utils.logging import disable_progress_bar

    from ..run.terminal import Terminal
    from ..sweep.lesson.run import run_lesson

    disable_progress_bar()
    run_lesson(
        options.seeds,
        Path(options.output),
        resume=options.resume,
        overwrite=options.overwrite,
        console=Terminal(),
        command=command,
    )


def _models(options: Namespace, command: list[str]) -> None:
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
    given: dict[str, Any] = {name: getattr(options, name) for name in ("kind", "model", "seeds")}
    given |= {"ambiguity": options.ambiguity and tuple(options.ambiguity)}
    config = DemoConfig(
        data=options.data,
        columns=options.columns,
        max_pairs=options.max_pairs,
        eval_pairs=options.eval_pairs,
        settings=settings,
        **{name: value for name, value in given.items() if value is not None},
    )
    run_demo(
        config,
        Path(options.output),
        resume=options.resume,
        overwrite=options.overwrite,
        console=Terminal(),
        command=command,
    )
