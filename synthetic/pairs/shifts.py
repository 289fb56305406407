"""Shifts of finite populations, whose size is known exactly: total variation and the project's chi-square."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from synthetic.pairs.populations import FinitePopulation
from synthetic.pairs.preferences import PreferenceProblem

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from synthetic.pairs.preferences import Array


def total_variation(p: ArrayLike, q: ArrayLike) -> float:
    """Half the l1 distance of two distributions on the same n atoms; `TotalVariation.radius` is in this unit.

    Example:
        >>> total_variation([0.5, 0.5], [0.75, 0.25])
        0.25
    """
    p, q = _distributions(p, q)
    return float(np.abs(q - p).sum() / 2)


def chi_square(q: ArrayLike, p: ArrayLike) -> float:
    """`1/2 sum p (q/p - 1)^2`, with the 1/2 of `ChiSquare.radius`; infinite if q has an atom that p has not.

    Example:
        >>> chi_square([0.75, 0.25], [0.5, 0.5]), chi_square([0.5, 0.5], [1.0, 0.0])
        (0.125, inf)
    """
    q, p = _distributions(q, p)
    if np.any((p == 0) & (q > 0)):
        return float("inf")
    seen = p > 0
    return float(((q[seen] - p[seen]) ** 2 / p[seen]).sum() / 2)


@dataclass(frozen=True, eq=False)
class Shift:
    """A training and a test problem, and how far apart they are.

    Attributes:
        train, test: the problems; they differ in masses only.
        train_masses, test_masses: of the atoms that both are made of, shape `(m,)`.
    """

    train: PreferenceProblem
    test: PreferenceProblem
    train_masses: Array
    test_masses: Array

    @cached_property
    def total_variation(self) -> float:
        """Total variation between the laws of a (prompt, label): exact."""
        return total_variation(self.train_masses, self.test_masses)

    @cached_property
    def chi_square(self) -> float:
        """Chi-square divergence of the test law from the training law, with the 1/2: exact."""
        return chi_square(self.test_masses, self.train_masses)


def covariate_shift(population: FinitePopulation, test_masses: ArrayLike) -> Shift:
    """Other prompt masses, the same labels given a prompt; the size is that of the change of the masses.

    Example:
        >>> from synthetic.pairs.populations import linear_population
        >>> population = linear_population([[1.0], [2.0]], [0.5, 0.5], [1.0])
        >>> covariate_shift(population, [0.75, 0.25]).total_variation
        0.25
    """
    test = population.with_masses(test_masses)
    return Shift(population, test, population.masses, test.masses)


def group_shift(population: FinitePopulation, groups: ArrayLike, test_masses: ArrayLike) -> Shift:
    """Other group masses, the same prompts within a group.

    q/p is constant on a group, so total variation and chi-square are those between the vectors of group masses.

    Args:
        population: where to train.
        groups: integers 0 to g - 1, one per prompt, shape `(k,)`; every group must have positive mass.
        test_masses: of the groups at test, shape `(g,)`.

    Example:
        >>> from synthetic.pairs.populations import linear_population
        >>> population = linear_population([[1.0], [2.0], [3.0]], [0.25, 0.25, 0.5], [1.0])
        >>> shift = group_shift(population, [0, 0, 1], [0.25, 0.75])
        >>> shift.test.masses.tolist(), shift.total_variation, shift.chi_square
        ([0.125, 0.125, 0.75], 0.25, 0.125)
    """
    labels = np.asarray(groups)
    if labels.shape != population.masses.shape or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(
            f"groups must be one integer from 0 on per prompt, shape {population.masses.shape}, got {labels.dtype} "
            f"of shape {labels.shape}: number the groups with np.unique(groups, return_inverse=True)."
        )
    train = np.bincount(labels, weights=population.masses)
    if np.any(train == 0):
        raise ValueError(
            f"every group needs prompts of positive mass, got group masses {train.tolist()}: renumber them."
        )
    train, test = _distributions(train / train.sum(), test_masses)
    return replace(
        covariate_shift(population, population.masses * (test / train)[labels]), train_masses=train, test_masses=test
    )


def _distributions(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    pair = np.asarray(first, float), np.asarray(second, float)
    if pair[0].ndim != 1 or pair[0].shape != pair[1].shape:
        raise ValueError(f"both distributions must be vectors of one length, got shapes {[x.shape for x in pair]}.")
    for masses in pair:
        if not (np.all(masses >= 0) and abs(masses.sum() - 1) <= 1e-9):
            raise ValueError(
                f"a distribution must be nonnegative and sum to 1, got {masses.tolist()}: divide by the sum."
            )
    return pair
