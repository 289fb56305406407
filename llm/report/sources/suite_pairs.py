"""The pairs of a suite as arrays: what they ask, how long their answers are, and which groups they are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...results.store import read_suite
from ...statistics.arms import Array


class Suite(NamedTuple):
    """The test pairs of a suite, all arrays of shape (n,).

    ``questions`` are integers, equal where pairs share a question; ``longer`` is the score of the rule "the longer
    answer wins"; ``categories`` are names of groups, all "" where the suite has none; ``lengths`` are those of chosen
    minus rejected, in characters; ``kind`` says what the groups are: ``category``, ``source``, or what a set weighs.
    """

    name: str
    questions: NDArray[np.intp]
    categories: NDArray[np.str_]
    longer: Array
    lengths: Array
    kind: str = "category"

    @property
    def has_categories(self) -> bool:
        """Whether there are at least two of them."""
        return len(np.unique(self.categories)) > 1


def suite_of(folder: Path, name: str, kinds: Mapping[str, str]) -> Suite | None:
    """The pairs of a suite of results; None where they are missing or damaged.

    Args:
        folder: Of the results.
        name: Of the suite.
        kinds: What the groups of a suite are, where something else than categories was written in their place.
    """
    pairs = read_suite(folder, name)
    if pairs is None or not len(pairs) or not {"question_id", "category", "chosen_chars"} <= set(pairs.columns):
        return None
    labels = pairs["question_id"].fillna("").astype(str)
    alone = pd.Series([f"\0{row}" for row in range(len(pairs))])
    questions = pd.factorize(labels.where(labels.to_numpy() != "", alone.to_numpy()))[0]
    difference = (pairs["chosen_chars"] - pairs["rejected_chars"]).to_numpy()
    longer = np.where(difference == 0, 0.5, (difference > 0).astype(float))
    groups = pairs["category"].fillna("").astype(str).to_numpy(dtype=str)
    kind = kinds.get(name, "category")
    return Suite(name, questions.astype(np.intp), groups, longer, difference.astype(float), kind)
