"""What a head trains on: the pairs of its regime, less those of a slice, and pairs across prompts made of them.

Whole models set aside and make theirs themselves, with the same seed of the same pairs, so they are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..adversary.geometry import COLUMN
from ..adversary.masses import masses_of
from ..data.pairs import DataError, Pair
from ..data.trained_on.cross_prompt import cross_prompt_pairs
from ..features.features import Backbone, FeatureCache
from ..statistics.crossfit import crossfit
from ..text.encoding import encode_pairs
from ..training.soft.crossfit import check_folds
from ..training.soft.labels import check_given, refuse_unestimated
from .asked import Asked
from .heads import HeadData, HeadSlice
from .plan import Cell, HeadModel, SweepConfig
from .regimes import SEED, Origins, Regime, Selection, flips, labelled, set_aside
from .sources import TRAIN

if TYPE_CHECKING:
    from .context import SweepContext

Floats = NDArray[np.float64]
_MOST_FITS = 64  # that are kept: trainings that differ in their set alone have the same labels
_fits: dict[bytes, Floats] = {}


class Of(NamedTuple):
    """What the pairs depend on of which pairs are made: the name of a regime, a seed, and whether there is a slice."""

    regime: str
    seed: int
    measures: bool

    @classmethod
    def cell(cls, cell: Cell) -> Of:
        """That of a training."""
        return cls(cell.regime, cell.seed, Asked.of(cell.ambiguity).measures)

    @classmethod
    def all(cls, cell: Cell) -> list[Of]:
        """That of a training and, where its set is matched, of the training that it is matched on."""
        first = [] if Asked.of(cell.ambiguity).reference is None else [cls(cell.regime, 0, measures=False)]
        return [cls.cell(cell), *first]


class Crossed(NamedTuple):
    """Pairs that were made: what they can be grouped by, and the files of their features.

    Attributes:
        groups: Of the pairs, all of them right.
        answers: As of ``FeatureCache.pairs``.
        prompts: As of ``FeatureCache.prompts``, where a set has their geometry.
    """

    groups: Origins
    answers: Path
    prompts: Path | None


def drawn(of: Of, config: SweepConfig, groups: Origins, train: NDArray[np.int64]) -> tuple[Selection, Selection]:
    """The pairs that a head trains on, and those of the slice, if there is one; positions are those in ``train``.

    Args:
        of: Of the training.
        config: The sweep.
        groups: Of all pairs of the training file.
        train: Positions there of those that are not held out.

    Raises:
        ValueError: The slice leaves too little.
    """
    groups = groups.take(train)
    selection = config.regimes[of.regime].select(groups, seed=of.seed)
    if not of.measures:
        return selection, selection.part(np.zeros(len(selection.rows), dtype=bool))
    return set_aside(selection, groups, config.head.auto_slice)


def made(own: Selection, share: float, pairs: Sequence[Pair], train: NDArray[np.int64]) -> Sequence[Pair]:
    """The pairs across prompts of a training, after wrong labels; none of them is wrong itself.

    Args:
        own: The pairs that it trains on.
        share: How many to make, as a share of these.
        pairs: All of the training file.
        train: Positions there of those that are not held out.

    Raises:
        DataError: There are no answers to other prompts.
    """
    told = [labelled(pairs[int(train[row])], wrong=bool(wrong)) for row, wrong in zip(*own, strict=True)]
    return cross_prompt_pairs(told, share=share, seed=SEED)


def all_made(
    config: SweepConfig, pairs: Sequence[Pair], groups: Origins, train: NDArray[np.int64]
) -> dict[Of, Sequence[Pair]]:
    """The pairs across prompts of all heads of a sweep. Where none can be made, training says why."""
    heads = [cell for cell in config.cells if isinstance(config.models[cell.model], HeadModel)]
    found: dict[Of, Sequence[Pair]] = {}
    known: dict[tuple[bytes, bytes, float], Sequence[Pair]] = {}
    for of in dict.fromkeys(of for cell in heads for of in Of.all(cell) if config.regimes[of.regime].cross_prompt):
        share = config.regimes[of.regime].cross_prompt
        try:
            own, _ = drawn(of, config, groups, train)
            if (key := (own.rows.tobytes(), own.flipped.tobytes(), share)) not in known:
                known[key] = made(own, share, pairs, train)
        except ValueError:
            continue
        found[of] = known[key]
    return found


def features_of(
    made: Mapping[Of, Sequence[Pair]], backbone: Backbone, cache: FeatureCache, *, geometric: bool
) -> dict[Of, Crossed]:
    """The pairs that were made and that a model can tell apart, with their features.

    Args:
        made: As of ``all_made``; what several trainings share is computed once.
        backbone: Of the model.
        cache: Where features are kept.
        geometric: Whether those of prompts are needed.
    """
    known: dict[int, Crossed | None] = {}
    for of, own in made.items():
        if id(own) not in known:
            kept = encode_pairs(own, backbone.tokenizer, max_length=backbone.max_length).kept
            told, name = [own[row] for row in kept], f"pairs across prompts, {of.regime}, seed {of.seed}"
            prompts = cache.prompts(backbone, told, name=name) if told and geometric else None
            files = cache.pairs(backbone, told, name=name) if told else None
            known[id(own)] = None if files is None else Crossed(Origins.of(told, {}), files, prompts)
    return {of: found for of, own in made.items() if (found := known[id(own)]) is not None}


class HeadPairs(NamedTuple):
    """What a head trains on.

    Attributes:
        data: Its pairs: own ones, and behind them those that were made.
        selection: The own ones.
        scale: What every coordinate of the features was divided by, ``(width,)``.
    """

    data: HeadData
    selection: Selection
    scale: Floats


def head_data(cell: Cell, context: SweepContext) -> HeadPairs:
    """The training and validation pairs of a cell as differences of features.

    Every coordinate is divided by the root mean square it has over the training pairs of the run, so that one learning
    rate suits all of them. Wrong labels turn the sign, of validation pairs and of the slice too: nobody has clean ones
    to choose by. Pairs that were made are as the labels have it, and none is wrong by itself.

    Raises:
        ValueError: A slice that leaves too little, labels that nothing tells, or no answers to other prompts.
    """
    of, regime, files = Of.cell(cell), context.config.regimes[cell.regime], context.features[cell.model]
    own, aside = drawn(of, context.config, context.groups, context.train)
    crossed = _crossed(of, own, context, files.made)
    held_out = context.validation[regime.keeps(context.groups.take(context.validation))]
    differences = features_apart(files.answers[TRAIN])
    rows, sign = context.train[own.rows], np.where(own.flipped, -1.0, 1.0)[:, None]
    groups, train, flipped = context.groups.take(rows), differences[rows] * sign, own.flipped
    if crossed is not None:
        groups, train = groups.joined(crossed.groups), np.concatenate([train, features_apart(crossed.answers)])
        flipped = np.concatenate([flipped, np.zeros(len(train) - len(rows), dtype=bool)])
    scale = np.sqrt(np.mean(train**2, axis=0))
    scale[scale == 0] = 1.0
    columns = groups.columns(flipped)
    if TRAIN in files.prompts:
        more = [] if crossed is None or crossed.prompts is None else [np.load(crossed.prompts)]
        columns[COLUMN] = np.concatenate([np.load(files.prompts[TRAIN], mmap_mode="r")[rows], *more])
    wrong = np.where(flips(len(held_out), regime.label_noise, seed=cell.seed), -1.0, 1.0)[:, None]
    data = HeadData(
        differences=train / scale,
        columns=columns,
        validation=differences[held_out] / scale * wrong,
        validation_categories=context.groups.categories[held_out],
        masses=groups.weights,
        preferences=_soft_labels(cell, regime, groups, flipped, train),
        aside=_slice(aside, context, regime, differences, scale) if of.measures else None,
    )
    return HeadPairs(data, own, scale)


def _crossed(of: Of, own: Selection, context: SweepContext, known: Mapping[Of, Crossed]) -> Crossed | None:
    share = context.config.regimes[of.regime].cross_prompt
    if not share or of in known:
        return known.get(of)
    if made(own, share, context.sources.training().pairs, context.train):  # says why there are none
        raise DataError(
            "no pair across prompts can be told apart by the model: raise max_length, or set cross_prompt to 0"
        )
    return None


def _slice(aside: Selection, context: SweepContext, regime: Regime, differences: Floats, scale: Floats) -> HeadSlice:
    """The pairs that the radius is measured on, wrong labels in."""
    rows = context.train[aside.rows]
    groups, sign = context.groups.take(rows), np.where(aside.flipped, -1.0, 1.0)[:, None]
    sure = np.ones(len(rows)) if regime.soft_labels == "none" else _given(groups, aside.flipped)
    return HeadSlice(
        differences[rows] / scale * sign, groups.columns(aside.flipped), groups.prompts, groups.weights, sure
    )


def _soft_labels(
    cell: Cell, regime: Regime, groups: Origins, flipped: NDArray[np.bool_], differences: Floats
) -> Floats | None:
    """The probabilities that the labels are right, ``(n,)``; None where they are certain.

    Args:
        cell: The training.
        regime: Its regime.
        groups: Of its pairs.
        flipped: Which labels are wrong.
        differences: Of the features, not scaled, wrong labels in.
    """
    if regime.soft_labels == "none":
        return None
    if regime.soft_labels == "data":
        check_given((~np.isnan(groups.preferences)).tolist())
        return _given(groups, flipped)
    if Asked.of(cell.ambiguity).measures:
        refuse_unestimated(cell.ambiguity)
    check_folds(groups.prompts, regime.soft_folds)
    masses = masses_of(groups.weights.tolist())
    return _fitted(differences, groups.prompts, regime.soft_folds, None if masses is None else masses.double().numpy())


def _given(groups: Origins, flipped: NDArray[np.bool_]) -> Floats:
    """What the data say of the labels, ``(n,)``; those of which they say nothing are certain."""
    p = groups.preferences
    return np.where(np.isnan(p), 1.0, np.where(flipped, 1 - p, p))


def _fitted(differences: Floats, prompts: NDArray[np.str_], folds: int, masses: Floats | None) -> Floats:
    """Cross-fitted labels; once for trainings of a process that have the same pairs."""
    clusters = np.unique(prompts, return_inverse=True)[1]
    digest = hashlib.blake2b(repr((folds, differences.shape)).encode())
    for part in (differences, clusters, np.zeros(0) if masses is None else masses):
        digest.update(np.ascontiguousarray(part).tobytes())
    if (key := digest.digest()) not in _fits:
        if len(_fits) >= _MOST_FITS:
            _fits.clear()
        _fits[key] = crossfit(differences, clusters, folds=folds, masses=masses, seed=SEED)
    return _fits[key]


@lru_cache(maxsize=16)
def features_apart(file: Path) -> Floats:
    """Features of chosen minus rejected answers, ``(pairs, width)``; once per worker."""
    answers = np.load(file, mmap_mode="r")
    return answers[0].astype(np.float64) - answers[1]
