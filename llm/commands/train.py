"""``train sft|reward|dpo|policy``: one model from a recipe."""

from __future__ import annotations

from ..run.kinds import KINDS
from .shell import Arguments, Parser, one_sentence_errors, parser_of

_ABOUT = "Train one model from a recipe: a YAML file, or a shipped one such as reward-minilm, dpo-smollm2 or sft-tiny."


def parser() -> Parser:
    """What ``train`` takes: a parser for each kind, with the settings of transformers."""
    from ..kinds.settings import config_of
    from ..training.flags.ours import settings_parser

    told = parser_of("train", _ABOUT)
    actions = told.add_subparsers(dest="kind", required=True, parser_class=lambda parser, **_: parser)
    for name, kind in KINDS.items():
        actions.add_parser(name, help=kind.result, parser=settings_parser(config_of(name), everything=True))
    return told


@one_sentence_errors
def train(argv: Arguments) -> int:
    """Train one model from a recipe."""
    if not argv or argv[0] not in KINDS:
        return _no_kind(argv)
    from ..kinds.settings import config_of
    from ..training.settings import parse_train

    told = parse_train(config_of(argv[0]), argv[1:])
    from ..kinds.registry import run
    from ..run.terminal import Terminal

    run(*told, Terminal())
    return 0


def _no_kind(argv: Arguments) -> int:
    """Help, or what is missing."""
    told = parser_of("train", _ABOUT)
    text = f"{', '.join(KINDS)}; `robust-rlhf train KIND --help` explains its flags, among them --dry-run"
    told.add_argument("kind", metavar="KIND", choices=tuple(KINDS), help=text)
    told.parse_args([word for word in argv[:1] if word in told.flags or not word.startswith("-")])
    return 0
