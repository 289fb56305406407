"""Pairs that a sweep can compare its models on: those whose answers every one of them reads as different tokens."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.pairs import DataError, Pair, read_pairs, write_pairs
from ..models.loading import load_reward_model
from ..text.encoding import encode_pairs
from ..training.config import RewardConfig
from .features import load_backbone
from .plan import HeadModel, SweepConfig

_log = logging.getLogger(__name__)
FOLDER = "told-apart"


def told_apart(config: SweepConfig, files: Mapping[str, Path], folder: Path, *, train: str) -> dict[str, Path]:
    """The files, or in place of those with pairs that a model cannot tell apart, files without these in ``folder``.

    Margins of such pairs are 0 whatever is trained. They are left out for all models alike, or models would be compared
    on different pairs. Whole models from scratch learn their tokens from their own training pairs, and are not asked.

    Raises:
        DataError: A file has no pair that all models can read.
    """
    pairs = {name: read_pairs(path).pairs for name, path in files.items()}
    readers = [_reader(config, name, pairs[train]) for name in dict.fromkeys(cell.model for cell in config.cells)]
    found = dict(files)
    for name, own in pairs.items():
        kept = set(range(len(own)))
        for reader in filter(None, readers):
            kept &= set(encode_pairs(own, reader[0], max_length=reader[1]).kept)
        if not kept:
            raise DataError(f"{files[name]}: no pair can be told apart by every model of this sweep")
        if len(kept) < len(own):
            _log.warning(
                "%s: %d of %d pairs cannot be told apart by every model, and are left out for all",
                files[name].name, len(own) - len(kept), len(own),
            )  # fmt: skip
            (folder / FOLDER).mkdir(exist_ok=True)
            found[name] = folder / FOLDER / f"{name}.jsonl"
            write_pairs((own[row] for row in sorted(kept)), found[name])
    return found


def _reader(config: SweepConfig, name: str, train: Sequence[Pair]) -> tuple[Any, int] | None:
    """Tokenizer of a model, and how many tokens it reads."""
    model = config.models[name]
    if isinstance(model, HeadModel):
        return load_backbone(model.model, max_length=model.max_length, train=train).tokenizer, model.max_length
    start = str(model.settings.get("model", RewardConfig.model))
    length = int(model.settings.get("max_length", RewardConfig.max_length))
    if start == "tiny":
        return None
    folds = model.settings.get("system_turns", RewardConfig.system_turns) == "fold"
    remote = bool(model.settings.get("trust_remote_code", RewardConfig.trust_remote_code))
    return load_reward_model(start, fold_system=folds, trust_remote_code=remote)[1], length
