"""The flags of a kind of training, made from the fields of its settings: name, type, default, group and help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from dro_core.command_line.parser import HelpFormatter, Parser, ShortHelp, Switch, UsageError, dashed

from ..config import ConfigError, RunConfig
from .theirs import declared

GROUPS = {
    "data": "what is trained on",
    "model": "what is trained, and how it reads",
    "adversary": "which reweighting of the examples is trained against, and from when on",
    "reward": "what scores answers",
    "answers": "what is asked and answered in a step",
    "update": "what is learned from the answers",
    "reference": "the policy not to stray from, and what straying costs",
    "adapter": "low-rank training",
    "judging": "held-out data, what is exported, and what it is judged by in the end",
    "audit": "which faults of the data are told, and from when on they stop a run",
    "run": "where it is kept, and what becomes of an earlier one",
}
"""Groups of the fields, as their metadata name them, in the order of the help."""
EVERYDAY = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "seed",
)  # fmt: skip
_METAVARS = {int: "N", float: "X", str: "TEXT"}


class SettingsParser(Parser):
    """The flags of one kind of training, whose settings are ``kind``."""

    kind: type[RunConfig] = RunConfig

    def error(self, message: str) -> NoReturn:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        try:
            super().error(message)
        except UsageError as error:
            raise ConfigError(str(error)) from None


def settings_parser(kind: type[RunConfig], *, everything: bool = False) -> SettingsParser:
    """What ``train KIND`` takes: ours in groups; with ``everything`` also the settings of transformers."""
    parser = SettingsParser(
        f"robust-rlhf train {kind.kind}",
        usage=f"robust-rlhf train {kind.kind} [--config RECIPE] [--flag value ...]",
        description=f"{(kind.__doc__ or '').splitlines()[0]} Flags are shown with their default, of several "
        "values the first.",
        epilog=None if everything else _others(),
        formatter_class=HelpFormatter if everything else ShortHelp,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    groups = {name: parser.add_argument_group(f"{name} ({text})") for name, text in GROUPS.items()}
    run = groups["run"]
    run.add_argument("--config", metavar="RECIPE", help="a YAML file, or the name of a shipped recipe")
    run.add_argument("-o", "--output", "--output-dir", dest="output_dir", metavar="DIR", help="the run folder")
    hints = get_type_hints(kind)
    for field in fields(kind):
        _add(groups[field.metadata["group"]].add_argument, field, hints[field.name])
    if everything:
        _add_theirs(parser.add_argument_group("transformers (settings of TrainingArguments)").add_argument)
    text = "this; all, or --help-all: whole sentences, and the settings of transformers"
    run.add_argument("-h", "--help", nargs="?", const="", metavar="all", action=_Help, help=text)
    run.add_argument("--help-all", nargs=0, action=_Help, help=argparse.SUPPRESS)
    parser.kind = kind
    return parser


def divided(parser: Parser, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of flags that the parser has, with their values, and those of other flags.

    >>> ours = Parser(); _ = ours.add_argument("--model")
    >>> divided(ours, ["--model", "m", "--learning_rate", "1", "--model=n"])
    (['--model', 'm', '--model=n'], ['--learning_rate', '1'])
    """
    ours, theirs = list[str](), list[str]()
    part = ours
    for word in words:
        if word.startswith("--") or word in parser.flags:
            part = ours if dashed(word).partition("=")[0] in parser.flags else theirs
        part.append(word)
    return ours, theirs


def flags_of(name: str, *, negated: bool = False) -> list[str]:
    """How a setting is spelt on the command line.

    >>> flags_of("lambda_"), flags_of("merge_adapter", negated=True)
    (['--lambda'], ['--merge-adapter', '--no-merge-adapter'])
    """
    flag = name.rstrip("_").replace("_", "-")
    return [f"--{flag}", *([f"--no-{flag}"] if negated else [])]


def _add(add: Callable[..., object], field: Field[object], hint: object) -> None:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    taken = _taken(hint, default)
    if taken.get("metavar") == "TEXT" and "file" in field.name:
        taken["metavar"] = "FILE"
    add(
        *flags_of(field.name, negated=hint is bool and default is True),
        dest=field.name,
        help=field.metadata["help"].replace("%", "%%"),
        **taken,
    )
    if field.name.endswith("_"):  # a word of Python: its field has the mark, its flag need not
        add(f"--{dashed('--' + field.name)[2:]}", dest=field.name, **taken | {"help": argparse.SUPPRESS})


def _taken(hint: object, default: object) -> dict[str, object]:
    """What argparse is told of a type: whether it is a switch, a choice, a list, a number or a text."""
    kinds = (
        [kind for kind in get_args(hint) if kind is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    )
    if bool in kinds:
        return {"action": Switch}
    if get_origin(kinds[0]) is Literal:
        choices = get_args(kinds[0])
        return {"choices": choices, "metavar": "|".join(sorted(choices, key=lambda choice: choice != default))}
    many = [kind for kind in kinds if get_origin(kind) is list]
    [kind] = get_args(many[0]) if many else kinds
    shown = " ".join(default) if isinstance(default, list) else default
    metavar = _METAVARS[kind] if shown in (None, "") else f"{shown:g}" if isinstance(shown, float) else str(shown)
    return {"type": kind, "metavar": metavar, **({"nargs": "+"} if many else {})}


def _others() -> str:
    count = len(declared())
    return (
        f"The {count} settings of transformers' TrainingArguments are flags as well, and --help all explains them: "
        + ", ".join(flags_of(name)[0] for name in EVERYDAY)
        + ", ..."
    )


def _add_theirs(add: Callable[..., object]) -> None:
    for setting in declared().values():
        if setting.name == "output_dir":
            continue
        shown = {"action": Switch} if setting.is_switch else {"metavar": setting.shown}
        add(
            *flags_of(setting.name, negated=setting.is_switch and setting.default is True),
            dest=setting.name,
            help=setting.text.replace("%", "%%"),
            **shown,
        )


class _Help(argparse.Action):
    def __call__(self, parser: object, namespace: object, values: object, option_string: str | None = None) -> None:
        assert isinstance(parser, SettingsParser)
        everything = values == "all" or option_string == "--help-all"
        if isinstance(values, str) and values not in ("", "all"):
            parser.error(f"--help takes all or nothing, got {values!r}")
        settings_parser(parser.kind, everything=everything).print_help()
        parser.exit()
