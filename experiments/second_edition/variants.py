"""What a cell trains on, and what it is judged on: the same features under other labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from llm.adversary.geometry import COLUMN
from llm.sweep.head_settings import HeadTraining
from llm.sweep.heads import HeadData, HeadSlice
from llm.sweep.regimes import Origins, Selection, flips, set_aside

from .bench import Bench, Seen
from .data import in_minority, planted
from .rules import NOISE

Array = NDArray[np.float64]


class Made(NamedTuple):
    """The pairs of a run, and what every coordinate of their features was divided by, ``(width,)``."""

    data: HeadData
    scale: Array


class _Labelled(NamedTuple):
    """Pairs with the labels of a variant: features ``(n, width)`` before wrong labels, which of these are wrong."""

    differences: Array
    prompts: Array
    groups: Origins
    flipped: NDArray[np.bool_]
    preferences: Array | None = None

    def signed(self, rows: NDArray[np.int64]) -> Array:
        """Features of these rows, with wrong labels in."""
        return self.differences[rows] * np.where(self.flipped[rows], -1.0, 1.0)[:, None]


def made(bench: Bench, variant: str, *, seed: int, measures: bool = False) -> Made:
    """What a run trains on.

    Every coordinate is divided by its root mean square over the training pairs, as in sweeps.

    Args:
        bench: Of the backbone.
        variant: A name in ``data.VARIANTS``.
        seed: Of the run: it draws the wrong labels.
        measures: Whether a slice is set apart for the radius to be measured on.
    """
    labelled = _labelled(bench, variant, seed=seed)
    own = Selection(np.arange(len(labelled.flipped)), labelled.flipped)
    apart = own.part(np.zeros(len(own.rows), dtype=bool))
    if measures:
        own, apart = set_aside(own, labelled.groups, min(HeadTraining.auto_slice, len(own.rows) // 4))
    differences = labelled.signed(own.rows)
    scale = np.sqrt(np.mean(differences**2, axis=0))
    scale[scale == 0] = 1.0
    columns = {**labelled.groups.take(own.rows).columns(own.flipped), COLUMN: labelled.prompts[own.rows]}
    aside = _slice(labelled, apart, scale) if measures else None
    nothing, unnamed = np.zeros((0, len(scale))), np.zeros(0, dtype=np.str_)
    told = {"preferences": labelled.preferences, "aside": aside}
    return Made(HeadData(differences / scale, columns, nothing, unnamed, **told), scale)


def _slice(labelled: _Labelled, apart: Selection, scale: Array) -> HeadSlice:
    groups, sure = labelled.groups.take(apart.rows), np.ones(len(apart.rows))
    columns = groups.columns(apart.flipped)
    return HeadSlice(labelled.signed(apart.rows) / scale, columns, groups.prompts, groups.weights, sure)


def _labelled(bench: Bench, variant: str, *, seed: int) -> _Labelled:
    train, n = bench.train, len(bench.train.pairs)
    members = np.where(in_minority(train.pairs), "minority", "majority").astype(object)
    further = {**bench.origins.further, "topic": bench.topics.astype(str).astype(object), "planted": members}
    right = _Labelled(
        train.differences, train.prompts, bench.origins._replace(further=further), np.zeros(n, dtype=bool)
    )
    if variant == "noise":
        return right._replace(flipped=flips(n, NOISE, seed=seed))
    if variant == "short":
        return right._replace(differences=train.short)
    if variant == "planted":
        return right._replace(differences=np.column_stack([train.differences, bench.planted]))
    if variant == "soft":
        return right._replace(preferences=bench.soft)
    if variant == "cross":
        return _Labelled(
            np.concatenate([train.differences, bench.crossed.differences]),
            np.concatenate([train.prompts, bench.crossed.prompts]),
            right.groups.joined(Origins.of(bench.crossed.pairs, {})),
            np.zeros(n + len(bench.crossed.pairs), dtype=bool),
        )
    if variant in ("twin", "twin pairs"):
        margins = bench.gold.margins(train.differences, train.prompts)
        if variant == "twin":
            return right._replace(preferences=expit(margins))
        return right._replace(flipped=bench.gold.drawn_labels(margins) < 0)
    if variant != "real":
        raise ValueError(f"heads are not trained on {variant!r}")
    return right


def judged_on(bench: Bench, variant: str, pairs: Seen) -> Array:
    """Features of the right answer less those of the wrong one as heads of a variant see them, ``(n, width)``."""
    if variant == "short":
        return pairs.short
    if variant == "planted":
        return np.column_stack([pairs.differences, planted(pairs.pairs)])
    if variant.startswith("twin"):
        return pairs.differences * np.sign(bench.gold.margins(pairs.differences, pairs.prompts))[:, None]
    return pairs.differences
