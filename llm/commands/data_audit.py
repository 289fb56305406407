"""``data audit``: what a model will see of preference data."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..run.escaping import visible
from .shell import Parser, add_columns, add_max_length, add_trust

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_SCREEN = "-"


def add(actions: _SubParsersAction[Parser]) -> None:
    """Add the action to those of ``data``."""
    parser = actions.add_parser(
        "audit", help="what a model will see of a file, and which suites hold its pairs; status 1 if too little"
    )
    parser.add_argument("file", help="training pairs: file, folder or hf://datasets/OWNER/NAME[/CONFIG]:SPLIT")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="files to look for training pairs in")
    parser.add_argument("--model", required=True, help="whose tokenizer reads them: folder, hub name, alias or tiny")
    add_max_length(parser)
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=32,
        help="pairs that are compared in a step (default: %(default)s)",
    )
    parser.add_argument(
        "--json", nargs="?", const=_SCREEN, metavar="FILE.json", help="print the numbers as JSON, or write them there"
    )
    parser.add_argument("--fold-system", action="store_true", help="read a system turn as part of the first user turn")
    add_trust(parser)
    parser.add_argument("--max-records", metavar="N", type=int, help="read no more than this many records")
    add_columns(parser)


def audit(options: argparse.Namespace) -> int:
    """Show an audit, or its numbers as JSON; status 1 where a run would not begin."""
    from ..api.audits import audit_pairs
    from ..audit.table import lines, render
    from ..run.terminal import Terminal

    target = None if options.json in (None, _SCREEN) else _target(options.json)
    names = ("model", "max_length", "batch_size", "max_records", "columns", "fold_system", "trust_remote_code")
    found = audit_pairs(options.file, options.suites or None, **{name: getattr(options, name) for name in names})
    if options.json == _SCREEN:
        text = json.dumps(found.audit.as_json(), indent=1, ensure_ascii=False)
        sys.stdout.write(visible(text) + "\n")
    else:
        console = Terminal()
        console.print(render(found.audit))
        for line in lines(found.audit, found.concerns):
            console.print(line, soft_wrap=True)
    if target is not None:
        from ..run.files import json_ready, write_json

        write_json(target, json_ready(found.audit.as_json()))
    if found.refusal:
        sys.stderr.write(f"robust-rlhf: {visible(found.refusal)}\n")
    return 1 if found.refusal else 0


def _target(name: str) -> Path:
    """A file that may be written: new, or an earlier audit; never data that were meant to be read."""
    path = Path(name)
    if path.suffix != ".json" or (path.exists() and not _is_audit(path)):
        raise ValueError(f"--json takes a new file FILE.json or an earlier audit, got {name}: name another one")
    return path


def _is_audit(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"same_window", "token_identical"} <= found.keys()
