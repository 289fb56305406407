"""Finite populations of prompts, for which every loss is an exact sum; and wrappers that bend any problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import pi, sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from dro_core import worst_case
from synthetic.pairs.preferences import LinearBradleyTerry, PreferenceProblem, Preferences, fit_preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from dro_core import AmbiguitySet, WorstCase
    from dro_core.learn.linear import LinearFit
    from synthetic.pairs.preferences import Array


@dataclass(frozen=True, eq=False)
class FinitePopulation(PreferenceProblem):
    """Finitely many prompts, each with one pair of answers: prompt j has mass m_j and P(label = +1) = first_j.

    The distribution that an adversary reweights has 2k atoms, (prompt, +1) then (prompt, -1), with masses
    m_j first_j and m_j (1 - first_j). For an adversary that moves prompts only, give `by_prompt(inner)`.

    Args:
        differences: features of the first answer less those of the second, shape `(k, d)`.
        masses: nonnegative, summing to 1, shape `(k,)`.
        first: in [0, 1], shape `(k,)`; any values, so the true reward need not be linear.

    Raises:
        ValueError: shapes that do not agree, or probabilities that are none.

    Example:
        One prompt, whose first answer wins three times in four; a shift of 0.2 may turn to the losses:

        >>> from dro_core import TotalVariation
        >>> coin = FinitePopulation(np.array([[1.0]]), np.array([1.0]), np.array([0.75]))
        >>> best = coin.minimiser().coefficients
        >>> round(float(best[0]), 4), round(coin.mean_loss(best), 4)
        (1.0986, 0.5623)
        >>> round(float(coin.worst_case(best, TotalVariation(0.2)).value), 4)
        0.7821
    """

    differences: Array
    masses: Array
    first: Array

    def __post_init__(self) -> None:
        for name in ("differences", "masses", "first"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), float))
        k = self.masses.size
        if self.differences.ndim != 2 or self.differences.shape[0] != k or self.first.shape != (k,):
            raise ValueError(
                "differences, masses and first must have shapes (k, d), (k,) and (k,), got "
                f"{self.differences.shape}, {self.masses.shape} and {self.first.shape}: give every prompt one of each."
            )
        if not (np.all(self.masses >= 0) and abs(self.masses.sum() - 1) <= 1e-9):
            raise ValueError(
                f"masses must be nonnegative and sum to 1, got a sum of {self.masses.sum()}: divide by it."
            )
        if not (np.all(self.first >= 0) and np.all(self.first <= 1)):
            raise ValueError(
                f"first must lie in [0, 1], got {self.first.min()} to {self.first.max()}: give P(first preferred)."
            )

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return self.differences.shape[1]

    @cached_property
    def atoms(self) -> Preferences:
        """The 2k (prompt, label) pairs that can occur, labels +1 before labels -1."""
        ones = np.ones(self.masses.size)
        return Preferences(np.vstack([self.differences] * 2), np.hstack([ones, -ones]))

    @cached_property
    def atom_masses(self) -> Array:
        """Their probabilities, shape `(2k,)`."""
        return np.hstack([self.masses * self.first, self.masses * (1 - self.first)])

    def by_prompt(self, inner: AmbiguitySet, groups: Sequence[int] | NDArray[np.int64] | None = None) -> AmbiguitySet:
        """The set `inner` over prompts, or over `groups` of them: it leaves the labels of a prompt as they fall."""
        from dro_core import Grouped

        labels = np.arange(self.masses.size) if groups is None else np.asarray(groups)
        return Grouped(inner, np.hstack([labels, labels]))

    def sample(self, n: int, rng: np.random.Generator) -> Preferences:
        """Draw n independent pairs."""
        rows = rng.choice(self.atom_masses.size, size=n, p=self.atom_masses)
        return Preferences(self.atoms.differences[rows], self.atoms.labels[rows])

    def sample_counts(self, n: int, rng: np.random.Generator, size: int = 1) -> NDArray[np.int64]:
        """How often each atom occurs among n draws, for `size` samples at once: shape `(size, 2k)`."""
        return rng.multinomial(n, self.atom_masses, size=size)

    def true_margins(self, differences: ArrayLike) -> Array:
        """Log odds of the first answer over the prompts with these very differences, shape `(n,)`.

        Raises:
            ValueError: differences that no prompt of positive mass has.
        """
        rows = np.atleast_2d(np.asarray(differences, float))
        same = (rows[:, None, :] == self.differences).all(axis=2) * self.masses
        if not np.all(same.sum(axis=1) > 0):
            raise ValueError("differences must be those of prompts of the population; elsewhere it has no margins.")
        return logit(np.clip(same @ self.first / same.sum(axis=1), 0, 1))

    def mean_loss(self, parameters: ArrayLike) -> float:
        """Population mean of `losses`, in nats: a sum."""
        return float(self.atom_masses @ self.losses(parameters, self.atoms))

    def worst_case(self, parameters: ArrayLike, ambiguity: AmbiguitySet) -> WorstCase:
        """The population's worst case over `ambiguity` around the 2k atoms; its value is exact, in nats."""
        return worst_case(self.losses(parameters, self.atoms), ambiguity, reference=self.atom_masses)

    def minimiser(
        self, ambiguity: AmbiguitySet | None = None, *, penalty: float = 0.0, tolerance: float = 1e-9
    ) -> LinearFit:
        """The parameters with the smallest mean loss, or the smallest worst case, with a certificate."""
        return fit_preferences(self.atoms, ambiguity, penalty=penalty, reference=self.atom_masses, tolerance=tolerance)

    def with_noise(self, flip: float) -> FinitePopulation:
        """The population whose labels are turned round with probability `flip`."""
        checked_flip(flip)
        return replace(self, first=(1 - flip) * self.first + flip * (1 - self.first))

    def seeing(self, visible: Sequence[int]) -> FinitePopulation:
        """The population to a learner who sees only the features `visible`: in general no linear reward fits it."""
        return replace(self, differences=self.differences[:, list(visible)])

    def with_masses(self, masses: ArrayLike) -> FinitePopulation:
        """The same prompts and labels under other masses: a covariate shift."""
        return replace(self, masses=np.asarray(masses, float))


def linear_population(differences: ArrayLike, masses: ArrayLike, weights: ArrayLike) -> FinitePopulation:
    """A well-specified population: first = sigmoid(<weights, difference>).

    Example:
        >>> population = linear_population([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5], [2.0, -1.0])
        >>> population.minimiser().coefficients.round(3).tolist()
        [2.0, -1.0]
    """
    rows = np.asarray(differences, float)
    return FinitePopulation(rows, np.asarray(masses, float), expit(rows @ np.asarray(weights, float)))


def reward_population(features: ArrayLike, rewards: ArrayLike, masses: ArrayLike) -> FinitePopulation:
    """Bradley-Terry labels from any reward: `features` `(k, 2, d)` and `rewards` `(k, 2)` of the two answers.

    Example:
        A quadratic reward, and two prompts with one difference between them but not one margin (1 and 3):

        >>> features = np.array([[[1.0], [0.0]], [[2.0], [1.0]]])
        >>> population = reward_population(features, features[:, :, 0] ** 2, [0.5, 0.5])
        >>> population.true_margins(population.differences[:1]).round(3).tolist()
        [1.672]
    """
    features, rewards = np.asarray(features, float), np.asarray(rewards, float)
    if features.ndim != 3 or features.shape[1] != 2 or rewards.shape != features.shape[:2]:
        raise ValueError(
            f"features and rewards must have shapes (k, 2, d) and (k, 2), got {features.shape} and {rewards.shape}: "
            "give both answers of every prompt."
        )
    first = expit(rewards[:, 0] - rewards[:, 1])
    return FinitePopulation(features[:, 0] - features[:, 1], np.asarray(masses, float), first)


@dataclass(frozen=True, eq=False)
class NoisyLabels(PreferenceProblem):
    """A problem whose labels are turned round with probability `flip`, whatever the pair.

    Args:
        problem: the problem before the noise.
        flip: in [0, 1/2].

    Example:
        >>> clean = LinearBradleyTerry(np.array([2.0]), np.eye(1))
        >>> noisy = NoisyLabels(clean, flip=0.5)
        >>> round(noisy.mean_loss([0.0]), 6), noisy.mean_loss([1.0]) > noisy.mean_loss([0.0])
        (0.693147, True)
    """

    problem: PreferenceProblem
    flip: float

    def __post_init__(self) -> None:
        checked_flip(self.flip)

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return self.problem.dimension

    def sample(self, n: int, rng: np.random.Generator) -> Preferences:
        """Draw n independent pairs."""
        pairs = self.problem.sample(n, rng)
        return pairs._replace(labels=np.where(rng.random(n) < self.flip, -1.0, 1.0) * pairs.labels)

    def true_margins(self, differences: ArrayLike) -> Array:
        """Those of the problem before the noise."""
        return self.problem.true_margins(differences)

    def mean_loss(self, parameters: ArrayLike) -> float:
        """Population mean of `losses`: a turned label is a right one for the opposite parameters."""
        w = np.asarray(parameters, float)
        return (1 - self.flip) * self.problem.mean_loss(w) + self.flip * self.problem.mean_loss(-w)


@dataclass(frozen=True, eq=False)
class HiddenFeatures(PreferenceProblem):
    """A Gaussian problem to a learner who sees only the features `visible`: misspecified.

    Args:
        problem: with all features.
        visible: their indices, at least one.

    Example:
        >>> full = LinearBradleyTerry(np.array([1.0, 2.0]), np.eye(2))
        >>> hidden = HiddenFeatures(full, visible=(0,))
        >>> hidden.sample(5, np.random.default_rng(0)).differences.shape
        (5, 1)
        >>> bool(0 < hidden.true_margins([[1.0]])[0] < 1)  # what is not seen makes labels less sure
        True
    """

    problem: LinearBradleyTerry
    visible: tuple[int, ...]

    def __post_init__(self) -> None:
        d = self.problem.dimension
        if not self.visible or not all(0 <= i < d for i in self.visible) or len(set(self.visible)) < len(self.visible):
            raise ValueError(
                f"visible must be different indices in [0, {d - 1}], at least one, got {self.visible}: name the "
                "features that the learner sees."
            )

    @property
    def dimension(self) -> int:
        """Number of visible features."""
        return len(self.visible)

    def sample(self, n: int, rng: np.random.Generator) -> Preferences:
        """Draw n independent pairs and keep the visible features."""
        pairs = self.problem.sample(n, rng)
        return pairs._replace(differences=pairs.differences[:, list(self.visible)])

    def true_margins(self, differences: ArrayLike) -> Array:
        """Log odds given the visible features: logit E sigmoid(margin), the hidden part being Gaussian."""
        seen = list(self.visible)
        sigma, weights = self.problem.feature_covariance, self.problem.weights
        slopes = np.linalg.pinv(sigma[np.ix_(seen, seen)]) @ (sigma @ weights)[seen]
        variance = weights @ sigma @ weights - slopes @ (sigma @ weights)[seen]
        deviation = sqrt(max(float(variance), 0.0))
        # The trapezoidal rule converges geometrically for integrands that are smooth on the scale of the step.
        z = np.arange(-10, 10, min(0.05, 0.5 / max(deviation, 1e-9)))
        normal = np.exp(-z * z / 2) * (z[1] - z[0]) / sqrt(2 * pi)
        first = expit((np.asarray(differences, float) @ slopes)[..., None] + deviation * z) @ normal
        return logit(np.clip(first, 0, 1))

    def mean_loss(self, parameters: ArrayLike) -> float:
        """Population mean of `losses`: that of the full problem with nothing on the hidden features."""
        full = np.zeros(self.problem.dimension)
        full[list(self.visible)] = np.asarray(parameters, float)
        return self.problem.mean_loss(full)


def checked_flip(flip: float) -> None:
    """Refuse a flip probability that is none, or that turns the meaning of the labels round."""
    if not 0 <= flip <= 0.5:
        raise ValueError(
            f"flip must lie in [0, 1/2], got {flip}: it is the probability of a wrong label; above 1/2 negate labels."
        )
