"""Data regimes: which training pairs a run sees, and how many of their labels are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..data.grouping.columns import PairColumns, length_gap, longer
from ..data.pairs import Pair
from ..training.config import ConfigError

_MADE = {"source", "category", "length_gap", "chosen_is_longer"}


class Selection(NamedTuple):
    """The training pairs of one run: their positions, in order, and which of them have their answers swapped."""

    rows: NDArray[np.int64]
    flipped: NDArray[np.bool_]


class Origins(NamedTuple):
    """Where pairs come from, what they are about, and what else they can be grouped by.

    Attributes:
        numbers: One each, which copies of a pair share.
        weights: How much they count.
        gaps: By how many characters the chosen answer is the longer one, before any label is made wrong.
        further: Columns by name, which labels do not change.
    """

    sources: NDArray[np.str_]
    categories: NDArray[np.str_]
    numbers: NDArray[np.int64]
    weights: NDArray[np.float64]
    gaps: NDArray[np.int64]
    further: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, pairs: Sequence[Pair], copies: Mapping[str, str]) -> Self:
        """The groups of these pairs; ``copies`` says which ids repeat which."""
        places = {pair.id: place for place, pair in enumerate(pairs)}
        numbers = [places[copies.get(pair.id, pair.id)] for pair in pairs]
        columns = PairColumns(pairs)
        further = {name: np.array(columns[name], dtype=object) for name in columns if name not in _MADE}
        gaps = np.array(list(map(length_gap, pairs)), dtype=np.int64)
        sources, categories = ([getattr(pair, name) for pair in pairs] for name in ("source", "category"))
        weights = np.array([1.0 if pair.weight is None else pair.weight for pair in pairs])
        return cls(np.array(sources), np.array(categories), np.array(numbers, dtype=np.int64), weights, gaps, further)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Those of the pairs ``rows``."""
        further = {name: column[rows] for name, column in self.further.items()}
        weights, gaps = self.weights[rows], self.gaps[rows]
        return type(self)(self.sources[rows], self.categories[rows], self.numbers[rows], weights, gaps, further)

    def columns(self, flipped: NDArray[np.bool_]) -> dict[str, Any]:
        """What a rule may name, one entry per pair each, where the labels that are ``flipped`` are wrong."""
        gaps = np.where(flipped, -self.gaps, self.gaps)
        made = {"length_gap": np.abs(gaps), "chosen_is_longer": np.array(list(map(longer, gaps)))}
        return {**self.further, "source": self.sources, "category": self.categories, **made}

    def first(self) -> NDArray[np.bool_]:
        """Which pairs repeat no earlier one."""
        found = np.zeros(len(self.numbers), dtype=bool)
        found[np.unique(self.numbers, return_index=True)[1]] = True
        return found


@dataclass(frozen=True)
class Regime:
    """A rule for choosing training pairs; the default takes them all as they are.

    Attributes:
        sources: Keep these sources only; empty for all.
        without_sources: Leave these out.
        categories: Keep these categories only; empty for all.
        without_categories: Leave these out.
        max_pairs: Train on a random subset of this size, another one for every seed.
        label_noise: Share of the labels that are wrong, in [0, 1/2): answers swapped at random, by seed.
    """

    sources: tuple[str, ...] = ()
    without_sources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    without_categories: tuple[str, ...] = ()
    max_pairs: int | None = None
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ConfigError(f"max_pairs of a regime must be at least 1, got {self.max_pairs}")
        if not 0 <= self.label_noise < 0.5:
            raise ConfigError(f"label_noise is a share of wrong labels in [0, 0.5), got {self.label_noise}")

    @property
    def is_partial(self) -> bool:
        """Whether it leaves sources or categories out."""
        return bool(self.sources or self.without_sources or self.categories or self.without_categories)

    def keeps(self, groups: Origins) -> NDArray[np.bool_]:
        """Which pairs belong to the regime."""
        kept = ~np.isin(groups.sources, self.without_sources) & ~np.isin(groups.categories, self.without_categories)
        if self.sources:
            kept &= np.isin(groups.sources, self.sources)
        if self.categories:
            kept &= np.isin(groups.categories, self.categories)
        return kept

    def check(self, name: str, groups: Origins) -> None:
        """Refuse sources and categories that no pair has, and a regime without pairs.

        Raises:
            ConfigError: One of them; the known ones are listed.
        """
        for column, found, wanted in (
            ("source", groups.sources, {*self.sources, *self.without_sources}),
            ("category", groups.categories, {*self.categories, *self.without_categories}),
        ):
            known = set(found.tolist())
            if unknown := sorted(wanted - known):
                raise ConfigError(
                    f"the regime {name} names the {column} {unknown[0]!r}; the training pairs have "
                    f"{', '.join(sorted(known))}"
                )
        if not self.keeps(groups).any():
            raise ConfigError(f"the regime {name} leaves no training pair")

    def select(self, groups: Origins, *, seed: int) -> Selection:
        """The pairs of the run with this seed."""
        rows = np.flatnonzero(self.keeps(groups))
        if self.max_pairs is not None and self.max_pairs < len(rows):
            rows = np.sort(np.random.default_rng([seed, 1]).permutation(rows)[: self.max_pairs])
        different, copies = np.unique(groups.numbers[rows], return_inverse=True)  # a wrong label is wrong in all copies
        return Selection(rows, flips(len(different), self.label_noise, seed=seed)[copies])


def flips(count: int, share: float, *, seed: int) -> NDArray[np.bool_]:
    """Which of ``count`` labels are wrong: exactly ``share`` of them, up to rounding."""
    flipped = np.zeros(count, dtype=bool)
    flipped[np.random.default_rng([seed, 2]).permutation(count)[: round(share * count)]] = True
    return flipped


def read_regime(name: str, settings: Any) -> Regime:
    """A regime from a mapping of YAML; a single source or category may stand without brackets.

    Raises:
        ConfigError: Unknown settings or values out of range.
    """
    known = [field.name for field in fields(Regime)]
    given = {} if settings is None else settings
    unknown = sorted(given.keys() - set(known)) if isinstance(given, dict) else [given]
    if unknown:
        raise ConfigError(f"the regime {name} has {unknown[0]!r}; it takes a mapping of {', '.join(known)}")
    lists = {
        key: (value,) if isinstance(value, str) else tuple(value) for key, value in given.items() if key in known[:4]
    }
    return Regime(**{**given, **lists})
