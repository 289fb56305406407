"""Shifts between training and test whose size is known exactly: total variation and the project's chi-square.

Two ways of making one. On a finite population every reweighting has an exact size. Between mixtures of the same
components the sizes are those of the two vectors of mixture weights if the components live on disjoint sets; where
components overlap these are upper bounds only (data processing), and `mixture_shift` refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from synthetic.pairs.elliptical import SphereBradleyTerry
from synthetic.pairs.populations import FinitePopulation
from synthetic.pairs.preferences import PreferenceProblem, Preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

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


def toward(p: ArrayLike, target: ArrayLike, radius: float) -> Array:
    """The distribution on the segment from p to `target` at total variation `radius` from p.

    Raises:
        ValueError: the target is nearer than that, or the radius is negative.

    Example:
        >>> toward([0.5, 0.5], [1.0, 0.0], 0.125).tolist()
        [0.625, 0.375]
    """
    p, target = _distributions(p, target)
    reach = total_variation(p, target)
    if not 0 <= radius <= reach:
        raise ValueError(
            f"radius must lie in [0, {reach}], the total variation between p and the target, got {radius}: "
            "choose a smaller radius or a target further away."
        )
    return p if radius == 0 else p + radius / reach * (target - p)


@dataclass(frozen=True, eq=False)
class Mixture(PreferenceProblem):
    """Pairs from one of several problems of the same dimension, chosen with probabilities `masses`.

    Args:
        components: the problems.
        masses: nonnegative, summing to 1, one per component.

    Example:
        >>> spheres = [SphereBradleyTerry(np.array([1.0, 0.0]), radius) for radius in (1.0, 2.0)]
        >>> mixture = Mixture(tuple(spheres), np.array([0.5, 0.5]))
        >>> mixture.mean_loss([0.0, 0.0]).__round__(6)
        0.693147
    """

    components: tuple[PreferenceProblem, ...]
    masses: Array

    def __post_init__(self) -> None:
        masses, _ = _distributions(self.masses, self.masses)
        if masses.shape != (len(self.components),) or len({part.dimension for part in self.components}) != 1:
            raise ValueError(
                f"masses must have one entry per component and components one dimension, got {masses.size} masses and "
                f"dimensions {[part.dimension for part in self.components]}."
            )
        object.__setattr__(self, "masses", masses)

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return self.components[0].dimension

    def sample(self, n: int, rng: np.random.Generator) -> Preferences:
        """Draw n independent pairs, in random order."""
        counts = rng.multinomial(n, self.masses)
        drawn = [part.sample(int(count), rng) for part, count in zip(self.components, counts, strict=True) if count]
        order = rng.permutation(n)
        return Preferences(*(np.concatenate(column)[order] for column in zip(*drawn, strict=True)))

    def true_margins(self, differences: ArrayLike) -> Array:
        """Margins of the component that every difference can come from.

        Raises:
            ValueError: components whose supports overlap or are not known to be disjoint.
        """
        rows = np.atleast_2d(np.asarray(differences, float))
        _refuse_overlap(self.components)
        margins = np.full(len(rows), np.nan)
        for part in self.components:
            own = _holds(part, rows)
            margins[own] = part.true_margins(rows[own])
        return margins

    def mean_loss(self, parameters: ArrayLike) -> float:
        """Population mean of `losses`, in nats: the mixture of those of the components."""
        return float(
            sum(mass * part.mean_loss(parameters) for mass, part in zip(self.masses, self.components, strict=True))
        )


@dataclass(frozen=True, eq=False)
class Shift:
    """A training and a test problem, and how far apart they are.

    Attributes:
        train, test: the problems; they differ in masses only.
        train_masses, test_masses: of the atoms or components that both are made of, shape `(m,)`.
    """

    train: PreferenceProblem
    test: PreferenceProblem
    train_masses: Array
    test_masses: Array

    @cached_property
    def total_variation(self) -> float:
        """Total variation between the laws of a (prompt, label) or (component, difference, label): exact."""
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


def mixture_shift(components: Sequence[PreferenceProblem], train: ArrayLike, test: ArrayLike) -> Shift:
    """Two mixtures of the same components, which must live on disjoint sets so that the sizes are exact.

    Accepted: finite populations without a common difference, and spheres of different radii.

    Raises:
        ValueError: components that overlap (Gaussians do: there the sizes of the weights are upper bounds only).

    Example:
        >>> near, far = (SphereBradleyTerry(np.array([1.0, 0.0]), radius) for radius in (1.0, 2.0))
        >>> mixture_shift([near, far], [0.75, 0.25], [0.5, 0.5]).total_variation
        0.25
    """
    parts = tuple(components)
    train, test = _distributions(train, test)
    _refuse_overlap(parts)
    return Shift(Mixture(parts, train), Mixture(parts, test), train, test)


def _refuse_overlap(components: Sequence[PreferenceProblem]) -> None:
    if not all(_disjoint(a, b) for a, b in combinations(components, 2)):
        raise ValueError(
            "components must live on disjoint sets: finite populations without a common difference, or spheres of "
            "different radii. Otherwise the total variation and chi-square of the mixture weights are upper bounds "
            "only; use total_variation on the weights and say so."
        )


def _disjoint(a: PreferenceProblem, b: PreferenceProblem) -> bool:
    if isinstance(a, SphereBradleyTerry) and isinstance(b, SphereBradleyTerry):
        # Far enough apart for the radius of a drawn difference, which is rounded, to tell them.
        return abs(a.radius - b.radius) > 1e-6 * max(a.radius, b.radius)
    if isinstance(a, FinitePopulation) and isinstance(b, FinitePopulation):
        return not (a.differences[:, None, :] == b.differences).all(axis=2).any()
    return False


def _holds(component: PreferenceProblem, rows: Array) -> NDArray[np.bool_]:
    if isinstance(component, SphereBradleyTerry):
        return np.abs(np.linalg.norm(rows, axis=1) - component.radius) <= 4e-7 * component.radius
    if isinstance(component, FinitePopulation):
        return (rows[:, None, :] == component.differences).all(axis=2).any(axis=1)
    return np.zeros(len(rows), dtype=bool)


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
