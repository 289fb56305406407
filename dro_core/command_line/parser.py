"""The parser of every command: one spelling of flags, errors in one sentence that names what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from ..messages import one_line, said

DONE, FOUND, REFUSED = 0, 1, 2
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143  # as of a program that SIGINT, SIGPIPE or SIGTERM ends
STATUSES = {
    DONE: "done",
    FOUND: "done, and what it looked at is not as it should be (the command's help says what); or a fault of ours, "
    "with a traceback",
    REFUSED: "refused or not possible: one sentence says why and what to do; nothing is half done",
    INTERRUPTED: "ended by Ctrl-C (SIGINT); what is finished is kept",
    PIPE_CLOSED: "whoever read the output has left",
    TERMINATED: "ended by SIGTERM; what is finished is kept",
}
"""Exit statuses, of all commands alike."""
_KINDS = {int: "a whole number", float: "a number"}
_TRUE, _FALSE = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0")


class UsageError(ValueError):
    """A command line that makes no sense; the message is one sentence with what to type instead."""


def refused(message: object) -> int:
    """Say on standard error why nothing is done, in one line that ends without a full stop; the status to end with."""
    line = said(message) if isinstance(message, BaseException) else one_line(message)
    sys.stderr.write(f"robust-rlhf: {line if line.endswith('...') else line.removesuffix('.')}\n")
    return REFUSED


def meant(given: str, known: Iterable[str]) -> str:
    """What was probably meant, to be put behind an error; empty where nothing is close.

    >>> meant("--confg", ["--config", "--output"]), meant("xyz", ["sweep"])
    (', did you mean --config?', '')
    >>> meant("swep", ["sweep"])
    ", did you mean 'sweep'?"
    """
    close = difflib.get_close_matches(given, list(known), n=1)
    if not close:
        return ""
    return f", did you mean {close[0] if close[0].startswith('-') else repr(close[0])}?"


def dashed(flag: str) -> str:
    """A flag, with its value or without, as help shows it: ``--max_length=8`` is ``--max-length=8``.

    >>> dashed("--train_file=a_b"), dashed("a_b")
    ('--train-file=a_b', 'a_b')
    """
    name, sign, value = flag.partition("=")
    return name.replace("_", "-") + sign + value if name.startswith("--") else flag


class HelpFormatter(argparse.HelpFormatter):
    """Flags with their value once, ``-o, --output DIR``, in lines that are wide enough for their sentence."""

    def __init__(self, prog: str, indent_increment: int = 2, max_help_position: int = 30, width: int | None = None):
        super().__init__(prog, indent_increment, max_help_position, width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        bare = action.nargs == 0 or action.metavar == ""
        value = "" if bare else " " + self._format_args(action, self._get_default_metavar_for_optional(action))
        first, *more = action.option_strings
        names = f"--[no-]{first[2:]}" if more == [f"--no-{first[2:]}"] else ", ".join(action.option_strings)
        return names + value

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        text = super()._format_args(action, default_metavar)
        return text.partition(" [")[0] + " ..." if action.nargs == "+" else text


class ShortHelp(HelpFormatter):
    """One line for each flag: of many choices the first."""

    def __init__(self, prog: str, indent_increment: int = 2, max_help_position: int = 36, width: int | None = None):
        super().__init__(prog, indent_increment, max_help_position, width)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        whole = super()._format_action_invocation(action)
        first, *others = whole.split("|")
        return f"{first}|..." if others and len(whole) > self._max_help_position - 4 else whole

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [textwrap.shorten(text, width, placeholder=" ...")]


class Switch(argparse.Action):
    """``--x``, ``--x true`` and ``--x false``, and ``--no-x`` where that is the other flag of the action."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs="?", const=True, metavar="", **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set what the flag says."""
        negated = option_string in self.option_strings[1:]
        given = "true" if values is True else str(values).lower()
        if (negated and values is not True) or given not in (*_TRUE, *_FALSE):
            takes = "nothing behind it" if negated else "true or false"
            raise argparse.ArgumentError(self, f"{option_string} takes {takes}, got {values!r}")
        setattr(namespace, self.dest, not negated and given in _TRUE)


class Parser(argparse.ArgumentParser):
    """A parser whose flags are written in full, with dashes or underscores, and whose errors are one sentence.

    Errors show what was typed and never obey it.
    """

    def __init__(self, prog: str | None = None, **options: Any) -> None:
        plain: dict[str, Any] = {"allow_abbrev": False, "formatter_class": HelpFormatter}
        super().__init__(prog=prog, **plain | options)
        self.commands: Mapping[str, Parser] = {}

    @property
    def flags(self) -> dict[str, argparse.Action]:
        """All that begin with a dash, as help shows them."""
        return dict(self._option_string_actions)

    @property
    def actions(self) -> list[argparse.Action]:
        """What it takes, flags or not."""
        return list(self._actions)

    def add_subparsers(self, **options: Any) -> Any:
        """As of argparse; the parsers behind it are kept in ``commands``."""
        actions = super().add_subparsers(**options)
        self.commands = actions.choices
        return actions

    def add_output(self, text: str, **options: Any) -> None:
        """Add ``-o``, ``--output``, spelt alike in all commands that write."""
        self.add_argument("-o", "--output", help=text, **options)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As of argparse; a flag that does not exist is refused first, with the one that was probably meant."""
        words = list(sys.argv[1:] if args is None else args)
        self.refuse_unknown(words)
        return super().parse_args(words, namespace)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As of argparse; flags may be written with underscores."""
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        return super().parse_known_args([*map(self._spelt, words[:end]), *words[end:]], namespace)

    def refuse_unknown(self, words: Sequence[str], *, others: Iterable[str] = ()) -> None:
        """End where a word is a flag that neither the parser of its command nor ``others`` have."""
        parser, others = self, set(others)
        for word in words:
            flag = dashed(word).partition("=")[0]
            if word == "--":
                return
            if word in parser.commands:
                parser = parser.commands[word]
            elif word.startswith("--") and " " not in flag and flag not in parser.flags and flag not in others:
                parser.error(f"there is no flag {word.partition('=')[0]}{meant(flag, {*parser.flags, *others})}")

    def _spelt(self, word: str) -> str:
        spelt = dashed(word)
        return spelt if spelt.partition("=")[0] in self.flags else word

    def error(self, message: str) -> NoReturn:
        """Refuse, and name the command whose help explains more.

        Raises:
            UsageError: Always.
        """
        end = "" if message.endswith("?") else ";"
        message = message.removeprefix("argument ")  # where: its name says
        raise UsageError(one_line(f"{message}{end} `{self.prog} --help` says what it takes"))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError:
            known = [str(choice) for choice in action.choices or ()]
            told = f"{value!r} is none of {', '.join(known)}{meant(str(value), known)}"
            raise argparse.ArgumentError(action, told) from None

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            if action.type not in _KINDS:
                raise
            raise argparse.ArgumentError(action, f"takes {_KINDS[action.type]}, got {arg_string!r}") from None
