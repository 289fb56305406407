"""The pairs of a run: read from its files, some held out, some left out, some made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from dro_core.command_line.settings import setting
from llm.data.formats.opened import DataError
from llm.data.layouts import Pair
from llm.data.mixing import mixed_pairs, names_of, once, split

MOST_CROSSED = 100.0
_log = logging.getLogger(__name__)


@dataclass
class CrossPrompt:
    """How many pairs across prompts are made; a block of the settings of every run on pairs."""

    cross_prompt: float = setting(
        0.0, "data", "pairs to add, as a share of the training pairs: chosen answers against those to other prompts"
    )


def check_share(share: float) -> None:
    """Refuse what is no share of pairs to add.

    Raises:
        DataError: It is negative, nan or beyond reason.
    """
    if not 0 <= share <= MOST_CROSSED:
        raise DataError(
            f"cross_prompt is a share of the training pairs to add, from 0 to {MOST_CROSSED:g}, got {share}."
        )


class Told(Protocol):
    """The settings that decide which pairs a run trains on; see ``llm.training.config.TrainConfig``."""

    train_file: str | list[str]
    columns: str | None
    eval_file: str | list[str]
    validation_share: float
    subset_seed: int
    max_pairs: int | None
    cross_prompt: float


class TrainingPairs(NamedTuple):
    """What a run trains on.

    Attributes:
        train: Its pairs, as often as their files' weights say; behind them those that were made.
        held_out: Those it is judged by while it trains.
        files: A record of the files they come from.
        once: Ids of the pairs without those that a weight repeats, and without those that were made.
        by_file: Ids of the pairs held out -> name of their file, where there are several.
        slice: Those that the radius of the set is measured on, where it is measured.
    """

    train: list[Pair]
    held_out: list[Pair]
    files: dict[str, Any]
    once: frozenset[str]
    by_file: Mapping[str, str] = MappingProxyType({})
    slice: Sequence[Pair] = ()


def weighing(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that count: all but those of weight 0.

    Raises:
        DataError: None does.
    """
    kept = [pair for pair in pairs if pair.weight != 0]
    if pairs and not kept:
        raise DataError(
            f"all {len(pairs)} training pairs have weight 0: give those that should count a weight above 0, or leave "
            "the column weight out"
        )
    if len(kept) < len(pairs):
        _log.info("%d of %d training pairs have weight 0 and are left out", len(pairs) - len(kept), len(pairs))
    return kept


Apart = Callable[[list[Pair]], tuple[list[Pair], list[Pair]]]


def training_pairs(told: Told, *, by: Sequence[str] = (), apart: Apart | None = None) -> TrainingPairs:
    """Read the pairs of a run.

    Args:
        told: Its settings.
        by: Names of groups that it needs (``llm.data.grouping``): the columns of its files that these ask for are kept.
        apart: Parts the pairs that are trained on from those of the slice, before any are made of them; None: none are.

    Raises:
        DataError: A file cannot be read, lacks such a column, or has too few prompts to make pairs across them.
        ValueError: All pairs are held out.
    """
    mixture = mixed_pairs(told.train_file, columns=told.columns, by=by)
    held_out, by_file = list[Pair](), dict[str, str]()
    files = {"train": mixture.describe()}
    if told.eval_file:
        evaluation = mixed_pairs(told.eval_file, columns=told.columns, shared=True, by=by)
        held_out, files["eval"], by_file = evaluation.items, evaluation.describe(), names_of(evaluation)
    elif told.validation_share:
        mixture, held_out = split(mixture, share=told.validation_share, seed=told.subset_seed)
    train = weighing(mixture.drawn(seed=told.subset_seed))
    if not train:
        raise ValueError(f"{files['train']['file']}: no pairs are left to train on, lower validation_share")
    if told.max_pairs is not None and told.max_pairs < len(train):
        chosen = np.random.default_rng(told.subset_seed).permutation(len(train))[: told.max_pairs]
        train = [train[i] for i in sorted(chosen)]
    train, aside = (train, list[Pair]()) if apart is None else apart(train)
    own = frozenset(pair.id for pair in once(train, mixture))
    if told.cross_prompt:
        from .cross_prompt import cross_prompt_pairs

        made = cross_prompt_pairs(train, share=told.cross_prompt, seed=told.subset_seed)
        train, files["train"] = train + made, files["train"] | {"cross_prompt": len(made)}
    return TrainingPairs(train, held_out, files, own, by_file, aside)
