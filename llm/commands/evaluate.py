"""``evaluate``: how good a finished model is on preference files."""

from __future__ import annotations

from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

from dro_core.locks import locked
from dro_core.messages import check_folder

from ..run.finished import check_run
from ..run.run_differences import record_of, remarks
from .shell import Arguments, Parser, add_columns, add_max_length, add_trust, one_sentence_errors, parser_of


def parser() -> Parser:
    """What ``evaluate`` takes."""
    told = parser_of("evaluate", "Accuracy of a reward model or a policy per suite and category, with intervals.")
    told.add_argument("model", help="folder, hub name or alias of a reward model or a policy")
    told.add_argument("--suite", nargs="+", required=True, metavar="FILE", help="preference files")
    add_columns(told)
    told.add_argument("--against", metavar="MODEL", help="second model, compared pair by pair")
    told.add_argument(
        "--reference",
        metavar="MODEL",
        help="a policy's margins are relative to this one (default: a run of dpo has its own); none: plain "
        "log-probabilities, summed over tokens, which are not DPO's margins",
    )
    told.add_argument(
        "--beta",
        metavar="X",
        type=float,
        default=0.1,
        help="scale of margins against a reference (default: %(default)s)",
    )
    told.add_argument(
        "--by",
        nargs="+",
        metavar="GROUPS",
        help="judge these groups too, as a set has them behind by= (default: those that the models' sets weigh)",
    )
    told.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="default: %(default)s"
    )
    add_max_length(told)
    told.add_argument(
        "--batch-size", metavar="N", type=int, help="pairs per forward (default: 32, fewer with a large vocabulary)"
    )
    told.add_argument(
        "--eval-pairs", metavar="N", type=int, help="at most this many pairs of each suite (a fixed subset)"
    )
    told.add_output("folder for metrics.json, metrics.csv, margins.jsonl and what report reads", metavar="DIR")
    add_trust(told)
    return told


@one_sentence_errors
def evaluate(argv: Arguments) -> int:
    """Judge a reward model on preference files, alone or against another one."""
    options = parser().parse_args(argv)
    if options.output:
        check_folder(options.output, flag="--output")
        check_run(Path(options.output))  # whose seal will list the new metrics
    with locked(options.output) if options.output else nullcontext():
        return _judge(options)


def _judge(options: Namespace) -> int:
    from ..api import judged
    from ..data.grouping.columns import weighed
    from ..judging.tables import render_comparison, render_table
    from ..run.terminal import Terminal

    how = {name: getattr(options, name) for name in (
        "reference", "beta", "dtype", "max_length", "batch_size", "eval_pairs", "trust_remote_code", "columns"
    )}  # fmt: skip
    console = Terminal()
    records = [record_of(name) for name in (options.model, options.against) if name]  # before hours of judging
    how["by"] = options.by or weighed(*(record["config"].get("ambiguity") for record in records if record))
    found = []
    for name, record in zip([name for name in (options.model, options.against) if name], records, strict=True):
        found.append(judged.evaluate(name, options.suite, progress=True, record=record or {}, **how))
        title = f"Accuracy of {name}, %{' (log-likelihood, not the margin of DPO)' * (options.reference == 'none')}"
        console.print(render_table(found[-1].result["suites"], title=title))
    comparison = judged.compare(*found) if options.against else None
    if comparison:
        console.print(render_comparison(comparison.suites, names=comparison.names))
    for line in remarks([one.name for one in found], records):
        console.print(line, soft_wrap=True)
    if options.output:
        found[0].write(options.output, comparison=comparison, against=found[1] if options.against else None)
    return 0
