"""``data ceiling``: what a head on frozen features can reach and bear, before any training."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ..run.escaping import visible
from .shell import Parser, add_columns, add_max_length

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from ..features.ceiling import Ceiling


def add(actions: _SubParsersAction[Parser]) -> None:
    """Add the action to those of ``data``."""
    parser = actions.add_parser("ceiling", help="how large a set the pairs can bear, from a model's frozen features")
    parser.add_argument("file", help="training pairs: file, folder or hf://datasets/OWNER/NAME[/CONFIG]:SPLIT")
    parser.add_argument(
        "--model",
        required=True,
        help="the backbone: folder, run folder, hub name, alias, tiny, or static:NAME: embeddings alone, seconds",
    )
    parser.add_argument("--sets", nargs="+", metavar="SET", help="tv, cvar, chi2, kl, burg (default: all)")
    parser.add_argument(
        "--by",
        nargs="*",
        metavar="GROUPS",
        help="groups, as after by= (default: source category length_gap)",
    )
    add_max_length(parser)
    parser.add_argument(
        "--max-pairs",
        metavar="N",
        type=int,
        default=14_000,
        help="pairs to look at, chosen by a hash (default: %(default)s)",
    )
    parser.add_argument("--folds", metavar="N", type=int, default=5, help="parts of the prompts (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="the backbone computes in (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    add_columns(parser)


def ceiling(options: argparse.Namespace) -> int:
    """Show the table, or its numbers as JSON."""
    from ..api import ceilings

    names = ("model", "by", "max_length", "max_pairs", "folds", "columns", "dtype")
    asked = {name: getattr(options, name) for name in names}
    if options.sets:
        asked["sets"] = options.sets
    found = ceilings.ceiling(options.file, progress=not options.json, **asked).ceiling
    if options.json:
        sys.stdout.write(visible(json.dumps(found.as_json(), indent=1, ensure_ascii=False)) + "\n")
    else:
        _show(found)
    return 0


def _show(found: Ceiling) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ..run.terminal import Terminal, shown, shown_title

    console = Terminal()
    table = Table(title=shown_title(f"{found.file}, features of {found.model}"), box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("set", "sample", "sample, noise", "held out [95 %]", "held out, noise"):
        table.add_column(heading, justify="left" if heading == "set" else "right", no_wrap=True)
    before = None
    for one in found.bearings:
        if one.by != before:
            before = one.by
            table.add_row(shown(f"{f'by {one.by}' if one.by else 'pairs'} ({one.scenarios:,})"))
        held_out = f"{one.held_out:.2g} [{one.low:.2g}, {one.high:.2g}]"
        table.add_row(f"  {one.set}", f"{one.in_sample:.3g}", f"{one.null:.3g}", held_out, f"{one.null_held_out:.2g}")
    mean, low, high = (100 * value for value in found.accuracy)
    first = (
        *found.verdicts(),
        f"{found.pairs:,} pairs of {found.prompts:,} prompts, {found.width:,} features",
        *(f"left out: {count:,} pairs: {reason}" for reason, count in found.left_out.items()),
        f"plain heads rank {mean:.1f} % [{low:.1f}, {high:.1f}] of unseen pairs right; "
        f"the longer answer was chosen in {100 * found.longer_wins:.1f} %",
    )
    for line in first:
        console.print(shown(line), soft_wrap=True)
    console.print(table)
    for line in (
        "how large a set these pairs bear: decide by what is held out; noise: of labels that say nothing",
        "radii, inf where no set is too large; of cvar its alpha, where a smaller one is a larger set",
    ):
        console.print(shown(line), soft_wrap=True)
