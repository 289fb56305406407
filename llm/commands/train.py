"""``train sft|reward|dpo|policy``: one model from a recipe."""

from __future__ import annotations

import sys

from ..run.kinds import KINDS
from .shell import Arguments, one_sentence_errors


@one_sentence_errors
def train(argv: Arguments) -> int:
    """Train one model from a recipe."""
    if not argv or argv[0] not in KINDS:
        sys.stderr.write(
            "usage: robust-rlhf train sft|reward|dpo|policy --config RECIPE [--any-flag value ...]\n\n"
            "RECIPE is a YAML file or a shipped recipe: sft-smollm2, reward-minilm, dpo-smollm2, policy-smollm2, ...\n"
            "`robust-rlhf train reward --help` lists the flags; --dry_run prints the plan of a run and stops.\n"
        )
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    from ..kinds.registry import config_of, run
    from ..run.terminal import Terminal
    from ..training.settings import parse_train

    run(*parse_train(config_of(argv[0]), argv[1:]), Terminal())
    return 0
