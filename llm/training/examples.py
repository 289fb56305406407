"""The pairs that a run trains on and holds out."""

from __future__ import annotations

import numpy as np

from ..data.pairs import Pair, read_pairs
from ..data.suites import describe_file, split_by_prompt
from .config import TrainConfig


def load_training_pairs(config: TrainConfig) -> tuple[list[Pair], list[Pair], dict]:
    """Training pairs, held-out pairs, and a record of the files they come from."""
    source = read_pairs(config.train_file)
    train, held_out = list(source.pairs), []
    files = {"train": describe_file(source)}
    if config.eval_file:
        evaluation = read_pairs(config.eval_file)
        held_out, files["eval"] = list(evaluation.pairs), describe_file(evaluation)
    elif config.validation_share:
        train, held_out = split_by_prompt(train, share=config.validation_share, seed=config.subset_seed)
    if not train:
        raise ValueError(f"{config.train_file}: no pairs are left to train on, lower validation_share")
    if config.max_pairs is not None and config.max_pairs < len(train):
        chosen = np.random.default_rng(config.subset_seed).permutation(len(train))[: config.max_pairs]
        train = [train[i] for i in sorted(chosen)]
    return train, held_out, files
