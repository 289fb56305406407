"""Data regimes: which training pairs a run sees, how many of their labels are wrong, and how sure the others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..adversary.radius.slices import drawn_apart, places_of
from ..data.grouping.columns import PairColumns, length_gap, longer
from ..data.grouping.named import UNKNOWN
from ..data.overview import prompts_of
from ..data.pairs import Pair
from ..data.trained_on.pairs import check_share
from ..training.config import ConfigError
from ..training.soft.settings import SoftKind, SoftLabels, check_soft_labels

SEED = 0  # of what is drawn and held out: runs are compared on the same pairs
_MADE = {"source", "category", "length_gap", "chosen_is_longer"}


class Selection(NamedTuple):
    """The training pairs of one run: their positions, in order, and which of them have their answers swapped."""

    rows: NDArray[np.int64]
    flipped: NDArray[np.bool_]

    def part(self, kept: NDArray[np.bool_]) -> Selection:
        """Those of the pairs that are ``kept``."""
        return Selection(self.rows[kept], self.flipped[kept])


class Origins(NamedTuple):
    """Where pairs come from, what they are about, and what else they can be grouped by.

    Attributes:
        numbers: One each, which copies of a pair share.
        weights: How much they count.
        gaps: By how many characters the chosen answer is the longer one, before any label is made wrong.
        preferences: The probability that the label is right, before it is made wrong; nan where nothing says.
        prompts: Equal where prompts are, but for white space.
        places: In their order prompts are drawn for a slice.
        further: Columns by name, which labels do not change.
    """

    sources: NDArray[np.str_]
    categories: NDArray[np.str_]
    numbers: NDArray[np.int64]
    weights: NDArray[np.float64]
    gaps: NDArray[np.int64]
    preferences: NDArray[np.float64]
    prompts: NDArray[np.str_]
    places: NDArray[np.str_]
    further: Mapping[str, NDArray[np.generic]]

    @classmethod
    def of(cls, pairs: Sequence[Pair], copies: Mapping[str, str]) -> Self:
        """The groups of these pairs; ``copies`` says which ids repeat which."""
        first = {pair.id: place for place, pair in enumerate(pairs)}
        columns = PairColumns(pairs)
        return cls(
            sources=np.array([pair.source for pair in pairs]),
            categories=np.array([pair.category for pair in pairs]),
            numbers=np.array([first[copies.get(pair.id, pair.id)] for pair in pairs], dtype=np.int64),
            weights=np.array([1.0 if pair.weight is None else pair.weight for pair in pairs]),
            gaps=np.array(list(map(length_gap, pairs)), dtype=np.int64),
            preferences=np.array([np.nan if pair.preference is None else pair.preference for pair in pairs]),
            prompts=prompts_of(pairs),
            places=places_of(pairs, seed=SEED),
            further={name: np.array(columns[name], dtype=object) for name in columns if name not in _MADE},
        )

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Those of the pairs ``rows``."""
        further = {name: column[rows] for name, column in self.further.items()}
        columns: dict[str, object] = {name: getattr(self, name)[rows] for name in self._fields if name != "further"}
        return self._replace(**columns, further=further)

    def joined(self, made: Origins) -> Self:
        """These, and behind them pairs that were made of them."""
        count = len(made.numbers)
        further = {
            name: np.concatenate([column, made.further.get(name, np.full(count, UNKNOWN, dtype=object))])
            for name, column in self.further.items()
        }
        both = {name: (getattr(self, name), getattr(made, name)) for name in self._fields if name != "further"}
        columns: dict[str, object] = {name: np.concatenate(parts) for name, parts in both.items()}
        return self._replace(**columns, further=further)

    def columns(self, flipped: NDArray[np.bool_]) -> dict[str, NDArray[np.generic]]:
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
        soft_labels: How sure labels are: none, data or crossfit, as ``llm.training.soft.settings.SoftLabels`` has it.
        soft_folds: Of crossfit.
        cross_prompt: How many pairs across prompts are made, as a share of those that are trained on.
    """

    sources: tuple[str, ...] = ()
    without_sources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    without_categories: tuple[str, ...] = ()
    max_pairs: int | None = None
    label_noise: float = 0.0
    soft_labels: SoftKind = "none"
    soft_folds: int = SoftLabels.soft_folds
    cross_prompt: float = 0.0

    def __post_init__(self) -> None:
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ConfigError(f"max_pairs of a regime must be at least 1, got {self.max_pairs}")
        if not 0 <= self.label_noise < 0.5:
            raise ConfigError(f"label_noise is a share of wrong labels in [0, 0.5), got {self.label_noise}")
        try:
            check_soft_labels(SoftLabels(self.soft_labels, self.soft_folds))
            check_share(self.cross_prompt)
        except ValueError as error:
            raise ConfigError(f"of a regime, {error}") from None

    @property
    def of_runs(self) -> dict[str, object]:
        """The settings of a run on its pairs that it says, by name."""
        soft: dict[str, object] = {"soft_labels": self.soft_labels} if self.soft_labels != "none" else {}
        folds = {"soft_folds": self.soft_folds} if self.soft_labels == "crossfit" else {}
        return soft | folds | ({"cross_prompt": self.cross_prompt} if self.cross_prompt else {})

    @property
    def decisive(self) -> dict[str, object]:
        """What decides a result: settings that older versions lack are left out where they change nothing."""
        later = ("soft_labels", "soft_folds", "cross_prompt")
        return {name: value for name, value in asdict(self).items() if name not in later} | self.of_runs

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
            raise ConfigError(
                f"the regime {name} leaves no training pair: name other sources or categories, or raise max_pairs"
            )

    def select(self, groups: Origins, *, seed: int) -> Selection:
        """The pairs of the run with this seed."""
        rows = np.flatnonzero(self.keeps(groups))
        if self.max_pairs is not None and self.max_pairs < len(rows):
            rows = np.sort(np.random.default_rng([seed, 1]).permutation(rows)[: self.max_pairs])
        different, copies = np.unique(groups.numbers[rows], return_inverse=True)  # a wrong label is wrong in all copies
        return Selection(rows, flips(len(different), self.label_noise, seed=seed)[copies])


def set_aside(selection: Selection, groups: Origins, auto_slice: float) -> tuple[Selection, Selection]:
    """The pairs to train on and those of the slice that a radius is measured on, whole prompts.

    Args:
        selection: All.
        groups: Of all pairs of the training file.
        auto_slice: As of ``llm.adversary.radius.settings.SliceSettings``.

    Raises:
        ValueError: As ``llm.adversary.radius.slices.set_apart``.
    """
    apart = drawn_apart(groups.places[selection.rows], auto_slice)
    return selection.part(~apart), selection.part(apart)


def labelled(pair: Pair, *, wrong: bool) -> Pair:
    """The pair with the label that a run sees: where it is wrong, the answers are swapped."""
    if not wrong:
        return pair
    sure = None if pair.preference is None else 1 - pair.preference
    return replace(pair, chosen=pair.rejected, rejected=pair.chosen, preference=sure)


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
