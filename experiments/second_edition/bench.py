"""What a backbone says of all pairs, kept in a folder: the heads see nothing else.

The test set is no part of it. Its pairs are set aside when the training file is read, and their features are made by
``judged.read_test``, once everything is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from dro_core.files import whole
from llm.data.grouping.columns import length_gap
from llm.data.pairs import Pair, length_baseline, read_pairs, write_pairs
from llm.data.questions import questions
from llm.data.trained_on.cross_prompt import cross_prompt_pairs
from llm.features.features import Backbone, FeatureCache, load_backbone
from llm.statistics.crossfit import crossfit
from llm.sweep.regimes import Origins
from llm.text.encoding import encode_pairs

from .data import Gold, Halves, halves, planted
from .places import CLOSE, ID, TWIN, Suite
from .rules import CROSSED, MAX_LENGTH, SHORT

Array = NDArray[np.float64]

TRAIN = "train.jsonl.gz"
FOLDS = 5
CLUSTERS = 8
"""Topics of H6: clusters of the features of prompts."""


@dataclass(frozen=True)
class Sizes:
    """How much is looked at; another size than the full one is for trying out.

    Attributes:
        max_length: Tokens of prompt and answer together.
        short: The same in the first edition.
        most: Pairs of a file or part of it that are looked at; None: all. The test set is set aside before.
    """

    max_length: int = MAX_LENGTH
    short: int = SHORT
    most: int | None = None


@dataclass(frozen=True)
class Seen:
    """Pairs and what the backbone says of them.

    Attributes:
        pairs: That it can tell apart, n.
        differences: Features of chosen less rejected answers, ``(n, width)``.
        short: The same at the length of the first edition; 0 where it cannot tell them apart.
        prompts: Features of the prompts, ``(n, prompt width)``.
    """

    pairs: Sequence[Pair]
    differences: Array
    short: Array
    prompts: Array

    def suite(self) -> Suite:
        """What is known of the pairs."""
        clusters = [f"own {row}" if name is None else name for row, name in enumerate(questions(self.pairs))]
        lengths = [max(len(pair.chosen), len(pair.rejected), 1) for pair in self.pairs]
        gaps = np.array([abs(length_gap(pair)) for pair in self.pairs])
        return Suite(
            np.unique(np.array(clusters), return_inverse=True)[1],
            np.array([pair.category or "" for pair in self.pairs]),
            np.array([length_baseline(pair) for pair in self.pairs]),
            gaps <= CLOSE * np.array(lengths),
            np.array([bool(row.any()) for row in self.short]),
        )

    def keep(self, folder: Path, name: str) -> None:
        """Write them; the arrays last, so that what is there is whole."""
        write_pairs(list(self.pairs), folder / f"{name}.jsonl")
        with whole(folder / f"{name}.npz") as stream:
            np.savez(stream, differences=self.differences, short=self.short, prompts=self.prompts)

    @classmethod
    def kept(cls, folder: Path, name: str) -> Seen:
        """Read them."""
        arrays = np.load(folder / f"{name}.npz")
        pairs = read_pairs(folder / f"{name}.jsonl").pairs
        return cls(pairs, *(arrays[key].astype(np.float64) for key in ("differences", "short", "prompts")))


def seen(backbone: Backbone, pairs: Sequence[Pair], sizes: Sizes, cache: FeatureCache, *, name: str) -> Seen:
    """What a backbone says of the pairs that it can tell apart."""
    cut = replace(backbone, max_length=sizes.short)
    kept = [pairs[row] for row in encode_pairs(pairs, backbone.tokenizer, max_length=backbone.max_length).kept]
    apart = list(encode_pairs(kept, cut.tokenizer, max_length=cut.max_length).kept)
    differences = _apart(cache.pairs(backbone, kept, name=name))
    short = np.zeros_like(differences)
    short[apart] = _apart(cache.pairs(cut, [kept[row] for row in apart], name=f"{name}, short"))
    return Seen(kept, differences, short, np.load(cache.prompts(backbone, kept, name=name)).astype(np.float64))


def _apart(file: Path) -> Array:
    chosen, rejected = np.load(file, mmap_mode="r")
    return np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)


@dataclass(frozen=True)
class Bench:
    """A folder of what a backbone says."""

    folder: Path

    @cached_property
    def train(self) -> Seen:
        """The half of the heads."""
        return Seen.kept(self.folder, "train")

    @cached_property
    def crossed(self) -> Seen:
        """Pairs made of the training pairs."""
        return Seen.kept(self.folder, "crossed")

    @cached_property
    def origins(self) -> Origins:
        """What the training pairs can be grouped by."""
        return Origins.of(self.train.pairs, {})

    @cached_property
    def gold(self) -> Gold:
        """The reward of the twins."""
        return Gold.drawn(self.train.differences, self.train.prompts)

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """Codes of the training prompts."""
        return np.unique(self.origins.prompts, return_inverse=True)[1]

    @cached_property
    def soft(self) -> Array:
        """Cross-fitted labels of the training pairs."""
        return crossfit(self.train.differences, self.clusters, folds=FOLDS)

    @cached_property
    def topics(self) -> NDArray[np.int64]:
        """Clusters of the training prompts."""
        count = min(CLUSTERS, len(self.train.pairs))
        return KMeans(count, random_state=0).fit_predict(self.train.prompts)

    @cached_property
    def planted(self) -> Array:
        """The planted coordinates of the training pairs."""
        return planted(self.train.pairs)

    def suites(self) -> list[str]:
        """Names of what is judged on, without the test set."""
        return sorted(path.stem for path in self.folder.glob("*.npz") if path.stem not in ("train", "crossed"))

    def suite(self, name: str) -> Seen:
        """One of them."""
        return Seen.kept(self.folder, name)


def build(data: Path, folder: Path, model: str, sizes: Sizes, cache: FeatureCache) -> None:
    """Fill the folder; what is there stays.

    Args:
        data: Of ``train.jsonl.gz`` and suites.
        folder: Of the bench.
        model: Of the backbone.
        sizes: See ``Sizes``.
        cache: Of features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = _parts(data, sizes)
    backbone = load_backbone(model, max_length=sizes.max_length, train=parts.heads, dtype="bfloat16")
    wanted = {"train": parts.heads, "crossed": cross_prompt_pairs(parts.heads, share=CROSSED), TWIN: parts.backbone}
    suites = sorted(path for path in data.glob("*.jsonl.gz") if not path.name.startswith("train"))
    wanted |= {path.name.removesuffix(".jsonl.gz"): _some(read_pairs(path).pairs, sizes.most) for path in suites}
    if ID not in wanted:
        raise ValueError(f"{data} needs {ID}.jsonl.gz: arms are chosen on it")
    for name, pairs in wanted.items():
        if not (folder / f"{name}.npz").exists():
            seen(backbone, pairs, sizes, cache, name=name).keep(folder, name)


def test_pairs(data: Path, sizes: Sizes) -> tuple[list[Pair], list[Pair]]:
    """The test set, and the pairs of the heads, which an untrained backbone has its tokens from."""
    parts = _parts(data, sizes)
    return parts.test, parts.heads


def _parts(data: Path, sizes: Sizes) -> Halves:
    return Halves(*(_some(part, sizes.most) for part in halves(read_pairs(data / TRAIN).pairs)))


def _some(pairs: list[Pair], most: int | None) -> list[Pair]:
    """Evenly, so that all categories stay."""
    return pairs if most is None else pairs[:: max(len(pairs) // most, 1)]
