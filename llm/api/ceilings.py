"""What a head on frozen features can reach and bear, from Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.grouping.columns import PairColumns, asked_of_file, check_known
from ..data.grouping.named import NamedGroups
from ..data.objects import pairs_of
from ..data.pairs import Pair
from ..data.trained_on.pairs import weighing
from ..features.ceiling import MOST_PAIRS, SETS, Ceiling, ceiling_of, drawn
from ..features.features import STATIC, Backbone, FeatureCache, default_cache, load_backbone
from ..models.tokenizers import LONGEST, length_of
from ..text.encoding import encode_pairs
from .frames import Shown, frame
from .runs import Run

if TYPE_CHECKING:
    import pandas as pd

BY = ("source", "category", "length_gap")
"""Groups that are looked at where nothing is said and there are several."""


@dataclass(frozen=True, repr=False)
class PairCeiling(Shown):
    """What a head on frozen features can reach and bear: ``table`` has a row per set and grouping.

    Attributes:
        ceiling: All numbers.
    """

    ceiling: Ceiling

    @property
    def table(self) -> pd.DataFrame:
        """The collapse radii, with what they suggest."""
        return frame({**asdict(one), "suggestion": one.suggestion} for one in self.ceiling.bearings)

    def caption(self) -> str:
        """The accuracy of plain heads, and whether a worst case can pay."""
        found = self.ceiling
        mean, low, high = (100 * value for value in found.accuracy)
        reached = f"{found.file}: plain heads rank {mean:.1f} % [{low:.1f}, {high:.1f}] of unseen pairs right"
        return ". ".join([reached, *found.verdicts()]) + "."


def ceiling(
    data: object,
    *,
    model: str | Path | Run,
    sets: Sequence[str] = SETS,
    by: Sequence[str] | None = None,
    max_length: int | None = None,
    max_pairs: int = MOST_PAIRS,
    folds: int = 5,
    columns: str | Mapping[str, str] | None = None,
    dtype: str = "float32",
    progress: bool = False,
) -> PairCeiling:
    """Say before training what a head on a model's frozen features can reach, and how large a set it can bear.

    Features are means of the last hidden states, kept in the cache of the sweeps. Weights of pairs are the reference;
    labels are taken as certain.

    Args:
        data: A path, or pairs, a data frame, a data set, mappings.
        model: Alias, folder or hub name, or a ``Run``; ``tiny`` is untrained, ``static:NAME`` the
            embeddings of a model's tokens alone.
        sets: Names that ``dro_core.collapse_radius`` knows: tv, cvar, chi2, kl, burg.
        by: Groups that an adversary may weigh, by name as after ``by=``: columns of the file, ``length_gap``, bins,
            products; None: source, category and length gap, where there are several.
        max_length: Tokens per answer with its prompt; None: as the tokenizer says.
        max_pairs: Look at no more than this many pairs, chosen by a hash.
        folds: Parts of the prompts, each judged by heads and directions of the others.
        columns: Which column of the data holds what.
        dtype: Precision the backbone computes in.
        progress: Show a bar while features are computed.

    Raises:
        DataError: The data cannot be read, or hold fewer different prompts than folds.
        ModelError: There is no such model.
        ValueError: A number makes no sense, an unknown set or column.
    """
    if max_pairs < 1:
        raise ValueError("max_pairs must be at least 1")
    read = pairs_of(data, columns=columns, keep=asked_of_file(by or (), PairColumns))
    pairs, name = drawn(weighing(read.pairs), max_pairs), str(model.folder if isinstance(model, Run) else model)
    backbone = _backbone(name, max_length, pairs, dtype)
    pairs, left_out = _readable(pairs, backbone)
    file = FeatureCache(default_cache(), progress=progress).pairs(backbone, pairs, name=read.name)
    chosen, rejected = np.load(file, mmap_mode="r")
    differences = np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)
    groups = _groups(pairs, by, read.names)
    found = ceiling_of(
        differences, pairs, file=read.name, model=name, sets=sets, by=groups, folds=folds, left_out=left_out
    )
    return PairCeiling(found)


def _backbone(name: str, max_length: int | None, pairs: Sequence[Pair], dtype: str) -> Backbone:
    if max_length is not None and max_length < 1:
        raise ValueError("max_length must be at least 1")
    if max_length is None:
        from ..models.tokenizers import load_tokenizer

        max_length = LONGEST if name == "tiny" else length_of(load_tokenizer(name.removeprefix(STATIC)))
    return load_backbone(name, max_length=max_length, train=pairs, dtype=dtype)


def _readable(pairs: list[Pair], backbone: Backbone) -> tuple[list[Pair], dict[str, int]]:
    """The pairs whose answers the backbone tells apart, and why the others are left out."""
    encoded = encode_pairs(pairs, backbone.tokenizer, max_length=backbone.max_length)
    return [pairs[row] for row in encoded.kept], dict(Counter(encoded.left_out.values()))


def _groups(pairs: Sequence[Pair], by: Sequence[str] | None, in_file: Sequence[str]) -> dict[str, list[str]]:
    """Name -> the group of every pair.

    Raises:
        DataError: A column that is not there.
        ValueError: Groups that were asked for, of which there is one.
    """
    known = NamedGroups(PairColumns(pairs))
    check_known(by or (), known, in_file)
    found = {name: list(map(str, known[name])) for name in (BY if by is None else by)}
    if alone := [name for name in by or () if len(set(found[name])) == 1]:
        raise ValueError(
            f"by {alone[0]}: all pairs are of one group ({found[alone[0]][0]}), which leaves an adversary nothing to "
            "choose: leave it out"
        )
    return {name: labels for name, labels in found.items() if by is not None or len(set(labels)) > 1}
