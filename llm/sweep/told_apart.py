"""Pairs that a sweep can compare its models on: those whose answers every one of them reads as different tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.pairs import DataError, Pair, write_pairs
from ..features.features import load_backbone
from ..models.tokenizers import load_tokenizer
from ..text.encoding import encode_pairs
from ..training.config import RewardConfig
from .plan import HeadModel, SweepConfig
from .sources import TRAIN, Sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)
FOLDER = "told-apart"


def told_apart(config: SweepConfig, sources: Sources, folder: Path) -> Sources:
    """The sources; where a model cannot tell pairs apart, canonical files without these in ``folder``.

    Margins of such pairs are 0 whatever is trained. They are left out for all models alike, or models would be compared
    on different pairs. Whole models from scratch learn their tokens from their own training pairs, and are not asked.

    Raises:
        DataError: A file has no pair that all models can read.
        ModelError: A model has no tokenizer.
    """
    pairs = {TRAIN: sources.training().pairs, **sources.suites()[0]}
    readers = [_reader(config, name, pairs[TRAIN]) for name in dict.fromkeys(cell.model for cell in config.cells)]
    kept = {name: _kept(own, readers) for name, own in pairs.items()}
    if all(len(kept[name]) == len(own) for name, own in pairs.items()):
        return sources
    (folder / FOLDER).mkdir(exist_ok=True)
    for name, own in pairs.items():
        if not kept[name]:
            raise DataError(f"{sources.files[name]}: no pair can be told apart by every model of this sweep")
        if len(kept[name]) < len(own):
            _log.warning(
                "%s: %d of %d pairs cannot be told apart by every model, and are left out for all",
                sources.files[name].name, len(own) - len(kept[name]), len(own),
            )  # fmt: skip
        write_pairs((own[row] for row in kept[name]), folder / FOLDER / f"{name}.jsonl")
    return replace(sources, files={name: folder / FOLDER / f"{name}.jsonl" for name in pairs}, columns=None)


def _kept(pairs: Sequence[Pair], readers: Sequence[tuple[PreTrainedTokenizerBase, int] | None]) -> list[int]:
    kept = set(range(len(pairs)))
    for tokenizer, length in filter(None, readers):
        kept &= set(encode_pairs(pairs, tokenizer, max_length=length).kept)
    return sorted(kept)


def _reader(config: SweepConfig, name: str, train: Sequence[Pair]) -> tuple[PreTrainedTokenizerBase, int] | None:
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
    return load_tokenizer(start, fold_system=folds, trust_remote_code=remote), length
