"""``completion``: a script that makes a shell complete commands, flags and values."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from .parser import Parser

SHELLS = ("bash", "zsh")


def parser() -> Parser:
    """What ``completion`` takes."""
    told = Parser(
        "robust-rlhf completion",
        description="Print what makes a shell complete commands, flags and values; again after an update. bash: "
        "robust-rlhf completion bash > ~/.local/share/bash-completion/completions/robust-rlhf; zsh: robust-rlhf "
        "completion zsh > _robust-rlhf, in a folder of $fpath.",
    )
    told.add_argument("shell", choices=SHELLS, help="which shell")
    return told


def script(shell: str, whole: Parser) -> str:
    """The script for a shell.

    It holds all names, so that no Python starts when a key is pressed.

    Args:
        shell: One of ``SHELLS``.
        whole: The parser of the command line, with those of its commands.

    Raises:
        ModuleNotFoundError: shtab is not installed.
    """
    shtab: Any = import_module("shtab")
    _complete_files(whole, shtab.FILE)
    return shtab.complete(whole, shell=shell)


def _complete_files(parser: Parser, how: dict[str, str]) -> None:
    """What takes any text is most often a file or a folder."""
    for action in parser.actions:
        if action.nargs != 0 and action.choices is None and not isinstance(action, argparse.BooleanOptionalAction):
            action.complete = how  # pyright: ignore[reportAttributeAccessIssue]
    for command in parser.commands.values():
        _complete_files(command, how)
