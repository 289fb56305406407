"""The worst of several groups of test pairs: how accurate an arm is there, and whether it beats another arm's worst.

The worst group is chosen by the data, and each arm may have another one. Testing the group that happens to be the
baseline's worst would favour every other arm: it was chosen because the baseline looked bad on it. The bounds here
hold whichever group is truly the worst [derived]. With a_c and b_c the true accuracies of two arms in K groups,

    min a - min b >= min_c (a_c - b_k)   for every k,    as min b <= b_k,
    min a - min b <= max_c (a_k - b_c)   for every k,    as min a <= a_k.

For one fixed k, the smallest over c of the lower limits of a_c - b_k is a lower limit of their minimum at the same
level: the true minimum is one of them, and its own limit fails with that probability at most. So every k gives a limit
at level alpha/K, and by Bonferroni the best of them holds at alpha. The same for the upper limit, and for one arm:
min_c of the lower limits at level alpha, min_c of the upper limits at level alpha/K.

Limits of single differences are those of ``intervals``: cluster-robust t-limits, here with the degrees of freedom
of the smaller group. A variance is never taken to be below that of one wrong pair in G + 2, G the questions of the
group, so that a group without any error cannot pretend to certainty.

Of few changed questions a paired average is no surer than random signs (``sign_flips``). That test has no place here:
it holds where each question could as well have come out the other way round, which says a_c = b_c in one group, while
equal worst groups may be two different ones, whose questions have no signs to exchange. It is not missed either: all K
limits of a row must hold at level alpha/K. Of arms that differ by random signs alone, in 2 to 5 groups of 10 to 60
questions of which 3 or 4 changed, at most 0.5 % of 1500 draws were called different at level 5 %; a test draws again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special

from .intervals import Interval
from .sign_flips import no_surer

Array = NDArray[np.float64]


class Difference(NamedTuple):
    """An interval and its two-sided p-value, which is below 1 - level where the interval excludes 0."""

    interval: Interval
    p: float


@dataclass(frozen=True)
class Groups:
    """Which group and which question each of ``n`` test pairs belongs to.

    Attributes:
        names: Of the K groups.
        codes: Shape (n,), positions in ``names``; every group has at least two questions.
        questions: Shape (n,), equal integers where pairs share a question, also across groups.
    """

    names: Sequence[str]
    codes: NDArray[np.intp]
    questions: NDArray[np.intp]

    def __post_init__(self) -> None:
        if self.codes.shape != self.questions.shape or self.codes.ndim != 1:
            raise ValueError(
                f"Groups needs one code and question per pair, got {self.codes.shape}, {self.questions.shape}."
            )
        lacking = [name for name, count in zip(self.names, self.counts, strict=True) if count < 2]
        if lacking or not len(self.names):
            raise ValueError(
                f"Every group needs at least two questions: leave out {', '.join(lacking) or 'none of 0'}."
            )

    @cached_property
    def counts(self) -> Array:
        """Questions of each group, shape (K,)."""
        pairs = np.unique(np.stack([self.codes, self.questions]), axis=1)
        return np.bincount(pairs[0], minlength=len(self.names)).astype(float)

    @cached_property
    def sizes(self) -> Array:
        """Pairs of each group, shape (K,)."""
        return np.bincount(self.codes, minlength=len(self.names)).astype(float)

    def means(self, values: ArrayLike) -> Array:
        """Average of ``values``, shape (n,), in each group, shape (K,)."""
        return np.bincount(self.codes, weights=np.asarray(values, float), minlength=len(self.names)) / self.sizes

    def influence(self, values: ArrayLike) -> sparse.csr_array:
        """How far each question moves each group's mean: a sparse array, shape (questions, K)."""
        rows = np.asarray(values, float)
        moved = (rows - self.means(rows)[self.codes]) / self.sizes[self.codes]
        scale = np.sqrt(self.counts / (self.counts - 1))[self.codes]
        question = np.unique(self.questions, return_inverse=True)[1]
        # Nearly every question lies in one group, so hundreds of arms are affordable only without the zeros.
        return sparse.csr_array((moved * scale, (question, self.codes)), (question.max() + 1, len(self.names)))

    @cached_property
    def _floor(self) -> Array:
        share = 1 / (self.counts + 2)
        return share * (1 - share) / self.counts


def worst_accuracy(groups: Groups, correct: ArrayLike, *, level: float = 0.95) -> Interval:
    """The lowest group accuracy, with limits that allow for its having been chosen.

    Args:
        groups: The groups.
        correct: Shape (n,), in [0, 1].
        level: Two-sided confidence level.
    """
    means, moved = groups.means(correct), groups.influence(correct)
    error = np.sqrt(np.maximum(moved.power(2).sum(axis=0), groups._floor))
    freedom, alpha = groups.counts - 1, (1 - level) / 2
    low = np.min(means + special.stdtrit(freedom, alpha) * error)
    high = np.min(means - special.stdtrit(freedom, alpha / len(means)) * error)
    return Interval(float(means.min()), max(float(low), 0.0), min(float(high), 1.0))


def worst_difference(groups: Groups, correct_a: ArrayLike, correct_b: ArrayLike, *, level: float = 0.95) -> Difference:
    """The worst group accuracy of a minus that of b, whichever groups these are; conservative.

    With one group this is :func:`average_difference`, which is ``llm.statistics.intervals.paired_difference`` then.

    Args:
        groups: The groups.
        correct_a: Shape (n,), in [0, 1].
        correct_b: Shape (n,), the same pairs.
        level: Two-sided confidence level.
    """
    if len(groups.names) == 1:
        return average_difference(groups, correct_a, correct_b, level=level)
    a, b = groups.means(correct_a), groups.means(correct_b)
    gaps = a[:, None] - b  # [c, k]: arm a in group c, arm b in group k
    errors = _errors(groups, groups.influence(correct_a), groups.influence(correct_b))
    freedom = np.minimum(groups.counts[:, None], groups.counts) - 1
    reach = -special.stdtrit(freedom, (1 - level) / 2 / len(a)) * errors
    low, high = np.min(gaps - reach, axis=0).max(), np.max(gaps + reach, axis=1).min()
    above = np.max(special.stdtr(freedom, -gaps / errors), axis=0).min()
    below = np.max(special.stdtr(freedom, gaps / errors), axis=1).min()
    p = min(1.0, 2 * len(a) * float(min(above, below)))
    return Difference(Interval(float(a.min() - b.min()), max(float(low), -1.0), min(float(high), 1.0)), p)


def average_difference(
    groups: Groups, correct_a: ArrayLike, correct_b: ArrayLike, *, level: float = 0.95
) -> Difference:
    """The plain average over groups of accuracy a minus accuracy b: every group counts once, however large.

    Of fewer than 25 changed questions it is no surer than an exact test (``sign_flips.no_surer``).

    Args:
        groups: The groups: suites, say.
        correct_a: Shape (n,), in [0, 1].
        correct_b: Shape (n,), the same pairs.
        level: Two-sided confidence level.
    """
    difference = np.asarray(correct_a, float) - np.asarray(correct_b, float)
    mean, count = float(groups.means(difference).mean()), len(groups.names)
    moved = np.asarray(groups.influence(difference).sum(axis=1)) / count
    error = np.sqrt(max(float(moved @ moved), float(groups._floor.sum()) / count**2))
    freedom = groups.counts.sum() - count
    reach = -float(special.stdtrit(freedom, (1 - level) / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(mean) / error))
    question = np.unique(groups.questions, return_inverse=True)[1]
    parts = np.bincount(question, weights=difference / groups.sizes[groups.codes] / count)
    reach, p = no_surer(reach, p, parts, freedom, level)
    return Difference(Interval(mean, max(mean - reach, -1.0), min(mean + reach, 1.0)), p)


def _errors(groups: Groups, moved_a: sparse.csr_array, moved_b: sparse.csr_array) -> Array:
    """Standard errors of a_c - b_k, shape (K, K)."""
    one, two = moved_a.power(2).sum(axis=0), moved_b.power(2).sum(axis=0)
    variance = one[:, None] + two - 2 * (moved_a.T @ moved_b).toarray()
    floor = groups._floor[:, None] + groups._floor
    np.fill_diagonal(floor, groups._floor)
    result: object = np.sqrt(np.maximum(variance, floor))
    return result
