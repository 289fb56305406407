"""Where arms are judged: suites, what is known of their pairs, and the parts and mixtures of them that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TEST, ID, TWIN, PLANTED = "test", "id_test", "twin", "planted"
INSIDE = (TEST, ID, TWIN, PLANTED)
CATEGORIES = ("Chat", "Chat-Hard", "Reasoning")
SAME_LENGTH, TOLD_APART = "Reasoning, same length", "Reasoning, told apart"
CLOSE = 0.2
"""Answers whose lengths differ by at most this share of the longer one have the same length."""
PLACES = (TEST, ID, "average", *CATEGORIES, SAME_LENGTH, TOLD_APART, "minority", "shifted")


@dataclass(frozen=True)
class Suite:
    """What is known of the n pairs of a suite.

    Attributes:
        prompts: ``(n,)``, equal where pairs share a prompt.
        categories: ``(n,)``.
        longer: ``(n,)``, 1 where the longer answer is the right one, 0 where it is not, 1/2 for equal lengths.
        close: ``(n,)``, whether the answers have the same length, about.
        apart: ``(n,)``, whether they are told apart also at the length of the first edition.
        parts: By name, weights ``(n,)`` of a mixture of them.
    """

    prompts: NDArray[np.generic]
    categories: NDArray[np.str_]
    longer: Array
    close: NDArray[np.bool_]
    apart: NDArray[np.bool_]
    parts: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)


def parts(place: str, suites: Mapping[str, Suite]) -> list[tuple[str, Array]]:
    """Suites and the weights of their pairs, which sum to 1 over all of them; none where nothing is of that place.

    The average counts every suite out of distribution alike; a category is of all of these together, every pair alike;
    ``shifted`` counts every mixture of the twins alike.
    """
    if place not in PLACES:
        raise ValueError(f"{place!r} is no place; they are: {', '.join(PLACES)}")
    if place in (TEST, ID):
        return _scaled({place: np.ones(len(suites[place]))}) if place in suites else []
    if place == "minority":
        return _scaled({PLANTED: suites[PLANTED].parts["minority"]}) if PLANTED in suites else []
    if place == "shifted":
        mixtures = [] if TWIN not in suites else [part / part.sum() for part in suites[TWIN].parts.values()]
        return _scaled({TWIN: np.sum(mixtures, axis=0)}) if mixtures else []
    outside = {name: suite for name, suite in suites.items() if name not in INSIDE}
    if place == "average":
        return _scaled({name: np.full(len(suite), 1 / len(suite)) for name, suite in outside.items()})
    category = place.partition(",")[0]
    members = {name: (suite.categories == category).astype(float) for name, suite in outside.items()}
    if place == SAME_LENGTH:
        members = {name: kept * outside[name].close for name, kept in members.items()}
    if place == TOLD_APART:
        members = {name: kept * outside[name].apart for name, kept in members.items()}
    return _scaled({name: kept for name, kept in members.items() if kept.any()})


def _scaled(weights: Mapping[str, Array]) -> list[tuple[str, Array]]:
    total = sum(float(one.sum()) for one in weights.values())
    return [(name, one / total) for name, one in weights.items()]
