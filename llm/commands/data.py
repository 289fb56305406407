"""``data``: preference data described, audited, measured, converted, or generated."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dro_core.locks import locked
from dro_core.messages import check_folder

from ..run.escaping import visible
from .data_audit import add as add_audit
from .data_audit import audit
from .data_ceiling import add as add_ceiling
from .data_ceiling import ceiling
from .shell import Arguments, Parser, add_columns, one_sentence_errors, parser_of


def parser() -> Parser:
    """What ``data`` takes."""
    told = parser_of("data", "Describe, audit or convert preference data, or generate the built-in corpus.")
    actions = told.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="layout, counts, dropped pairs and the first pair of a file or data set")
    change = actions.add_parser("convert", help="write a file or data set as canonical JSON lines")
    for action in (show, change):
        action.add_argument("file", help="file, folder or hf://datasets/OWNER/NAME[/CONFIG]:SPLIT")
        add_columns(action)
        action.add_argument("--max-records", metavar="N", type=int, help="read no more than this many records")
    _add_target(change, "target", "FILE", "a .jsonl or .jsonl.gz file")
    change.add_argument("--source", nargs="+", default=[], metavar="NAME", help="keep the pairs of these sources only")
    change.add_argument("--where", nargs="+", default=[], metavar="COLUMN=VALUE", help="read these records only")
    change.add_argument("--max-pairs", metavar="N", type=int, help="stop after this many pairs")
    add_audit(actions)
    add_ceiling(actions)
    make = actions.add_parser("builtin", help="write train.jsonl and its suites into a folder")
    _add_target(make, "folder", "DIR", "where the files go")
    make.add_argument("--train", metavar="N", type=int, default=6400, help="training pairs (default: %(default)s)")
    make.add_argument("--test", metavar="N", type=int, default=800, help="pairs per suite (default: %(default)s)")
    make.add_argument(
        "--label-noise", metavar="X", type=float, default=0.0, help="share of flipped labels (default: %(default)s)"
    )
    make.add_argument(
        "--length-bias",
        metavar="X",
        type=float,
        default=0.6,
        help="share of longer chosen answers (default: %(default)s)",
    )
    make.add_argument("--seed", metavar="N", type=int, default=0, help="of what is drawn (default: %(default)s)")
    return told


def _add_target(action: Parser, name: str, metavar: str, text: str) -> None:
    """What is written, behind the other words or as ``--output``."""
    action.add_argument(name, nargs="?", default=argparse.SUPPRESS, metavar=metavar, help=f"as --output: {text}")
    action.add_output(text, dest=name, metavar=metavar)


def _target(options: argparse.Namespace, name: str) -> str:
    if (found := getattr(options, name)) is None:
        raise ValueError(f"data {options.action} lacks what it writes: name it behind --output")
    return found


@one_sentence_errors
def data(argv: Arguments) -> int:
    """Describe, audit or convert preference data, or generate the built-in corpus."""
    options = parser().parse_args(argv)
    if options.action == "show":
        return _show_data(options.file, options.max_records, options.columns)
    if options.action == "audit":
        return audit(options)
    if options.action == "ceiling":
        return ceiling(options)
    if options.action == "convert":
        return _convert_data(options)
    from ..data.corpus.corpus import write_corpus

    folder = _target(options, "folder")
    check_folder(folder, flag="--output")
    knobs = {name: getattr(options, name) for name in ("train", "test", "label_noise", "length_bias", "seed")}
    with locked(folder):
        sys.stdout.write(visible(f"{write_corpus(folder, **knobs)}\n"))
    return 0


def _convert_data(options: argparse.Namespace) -> int:
    from ..data.conversion import convert

    target = _target(options, "target")
    check_folder(Path(target).parent, flag="--output: the folder")
    if wrong := [text for text in options.where if "=" not in text]:
        raise ValueError(f"--where takes COLUMN=VALUE, got {wrong[0]!r}")
    done = convert(
        options.file,
        target,
        sources=options.source,
        where=dict(text.split("=", 1) for text in options.where),
        max_pairs=options.max_pairs,
        max_records=options.max_records,
        columns=options.columns,
    )
    dropped = ", ".join(f"{count} {why}" for why, count in done.dropped.items()) or "nothing"
    said = [f"{target}: {done.written} pairs from the {done.layout} layout, dropped: {dropped}"]
    said += _read_as(done.read_as, done.ignored)
    sys.stdout.write("".join(f"{visible(line)}\n" for line in said))
    return 0


def _read_as(read_as: Sequence[str], ignored: Mapping[str, int]) -> list[str]:
    """What was found out about a file, and what of it was left aside."""
    texts = ", ".join(f"{name} ({count:,} records)" for name, count in ignored.items())
    return [*(f"read: {note}" for note in read_as), *([f"ignored columns with text: {texts}"] if texts else [])]


def _show_data(file: str, max_records: int | None, columns: str | None) -> int:
    from rich.table import Table

    from ..data.overview import overview
    from ..data.pairs import stream_pairs
    from ..run.terminal import Terminal, shown, shown_title

    source = stream_pairs(file, max_records=max_records, columns=columns)
    seen = overview(source)
    table = Table(title=shown_title(f"{file}: {seen.groups['all'].pairs} pairs, {source.layout} layout"))
    for heading in ("group", "pairs", "chosen is longer, %"):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    for name, summary in seen.groups.items():
        table.add_row(shown(name), str(summary.pairs), f"{100 * summary.chosen_longer:.1f}")
    console = Terminal()
    console.print(table)
    for line in (
        *([f"columns: {source.columns}"] if source.columns else []),
        *_read_as(source.read_as, source.ignored),
        *(f"noted in {count:,} pairs: {what}" for what, count in source.noted.items()),
        "dropped: " + (", ".join(f"{n} {why}" for why, n in source.dropped.items()) or "nothing"),
        f"prompts: {seen.prompts:,} different ones",
        f"duplicates, pairs that stand there before: {seen.duplicates}",
        f"contradictions, comparisons labelled both ways: {seen.contradictions}",
        f"negative margins, of {seen.margins:,} pairs with one: {seen.negative_margins}",
        *([f"preferences (soft_labels: data): {seen.preferences:,} pairs"] if seen.preferences else []),
        *([f"weights: {seen.weights:,} pairs"] if seen.weights else []),
    ):
        console.print(shown(line), soft_wrap=True)
    first = seen.first
    assert first is not None  # a stream without pairs is refused
    for name, text in (("prompt", first.prompt[-1]["content"]), ("chosen", first.chosen), ("rejected", first.rejected)):
        console.print(f"{name}: {text[:400]}")
    return 0
