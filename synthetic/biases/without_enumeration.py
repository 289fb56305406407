"""Minibatch biases of any distribution of losses, atom by atom or continuous, without enumeration.

The values of ``CVaR`` and ``TotalVariation`` are comonotone additive: a stack of steps that the same scenarios
climb has the sum of the values of its steps [derived: sort once, the same weights serve every step]. So the bias
is the sum, over the steps, of the bias of a loss that is 1 with the probability of exceeding the step, else 0.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.integrate import cumulative_simpson
from scipy.special import expit
from scipy.stats import binom, norm

from dro_core import CVaR, TotalVariation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


class Layers(NamedTuple):
    """Losses as a stack of steps: l = floor + the sum of the heights of the steps below l.

    ``heights`` ``(m,)`` in the units of the losses; ``above`` ``(m,)``, the probability of exceeding each step.
    """

    floor: float
    heights: Array
    above: Array

    @property
    def mean(self) -> float:
        """E l."""
        return self.floor + float(self.heights @ self.above)

    def value(self, ambiguity: CVaR | TotalVariation) -> float:
        """Return the worst-case value of the population; its largest loss counts if it has any probability."""
        steps = sum(mass * _fill(self.above, alpha) for mass, alpha in _tails(ambiguity))
        return self.floor + float(self.heights @ steps)

    def plugin_value(self, n: int, ambiguity: CVaR | TotalVariation) -> float:
        """Return the mean of the worst-case value of n independent draws."""
        steps = sum(mass * expected_fill(self.above, n, alpha) for mass, alpha in _tails(ambiguity))
        return self.floor + float(self.heights @ steps)

    def bias(self, n: int, ambiguity: CVaR | TotalVariation) -> float:
        """Return ``value`` less ``plugin_value``; never negative [L20].

        Example:
            Uniform losses and their maximum attain G/(n + 1):

            >>> edges = np.linspace(0, 1, 20_001)
            >>> uniform = Layers(0.0, np.diff(edges), 1 - (edges[1:] + edges[:-1]) / 2)
            >>> round(uniform.bias(9, TotalVariation(1.0)), 6)
            0.1
        """
        return self.value(ambiguity) - self.plugin_value(n, ambiguity)


def atoms(values: ArrayLike, probabilities: ArrayLike) -> Layers:
    """Stack the steps of a discrete distribution; arguments as in ``plugin_bias``.

    Example:
        >>> atoms([3.0, 1.0], [0.25, 0.75])
        Layers(floor=1.0, heights=array([2.]), above=array([0.25]))
    """
    values, probabilities = np.asarray(values, float), np.asarray(probabilities, float)
    order = np.argsort(values)
    from_top = np.cumsum(probabilities[order][::-1])[::-1]
    return Layers(float(values[order[0]]), np.diff(values[order]), from_top[1:])


def bradley_terry(deviation: float, *, trained: bool, points: int = 4001) -> Layers:
    """Stack the steps of the losses -log sigmoid(h) of a linear reward on normal features.

    The reward difference of the two answers is N(0, deviation^2). Before training it tells nothing about the
    label: h is N(0, deviation^2). ``trained`` means that it is the true one: h then has the density
    2 N(h; 0, deviation^2) sigmoid(h), because the first answer is preferred with probability sigmoid(h).

    The losses have no maximum. The grid ends 12 deviations out, where a tail has probability 2e-33, and Simpson's
    rule errs by a few 1e-6 of the deviation at the kinks of CVaR.

    Args:
        deviation: Standard deviation of the reward difference, in nats.
        trained: Whether the reward is the true one.
        points: Odd number of grid points.

    Example:
        >>> round(bradley_terry(1.0, trained=True).mean, 3), round(bradley_terry(1.0, trained=False).mean, 3)
        (0.599, 0.806)
    """
    if not deviation > 0 or points < 3 or points % 2 == 0:
        raise ValueError(
            f"deviation must be positive and points odd, at least 3, got {deviation} and {points}: "
            "for constant losses there is no bias."
        )
    hard, step = np.linspace(-12 * deviation, 12 * deviation, points, retstep=True)  # -h: the loss rises with it
    above = norm.sf(hard / deviation)
    if trained:
        density = 2 * norm.pdf(hard, scale=deviation) * expit(-hard)
        above = np.append(cumulative_simpson(density[::-1], dx=step)[::-1], 0.0)
    rule = np.full(points, 2.0)
    rule[1::2] = 4.0
    rule[[0, -1]] = 1.0
    return Layers(float(np.logaddexp(0.0, hard[0])), rule * step / 3 * expit(hard), np.clip(above, 0.0, 1.0))


def expected_fill(above: ArrayLike, n: int, alpha: float) -> Array:
    """Return E min(1, K/(alpha n)) for K binomial(n, above): the mean plug-in CVaR of a loss of 0 or 1.

    Exact, by K C(n, K) = n C(n - 1, K - 1); alpha 0 stands for the maximum and gives P(K > 0).

    Example:
        >>> float(expected_fill(0.5, 2, 0.5)), float(expected_fill(0.5, 2, 0.0))
        (0.75, 0.75)
    """
    above = np.asarray(above, float)
    full = int(alpha * n)  # so many draws still fit into the tail
    within = above / alpha * binom.cdf(full - 1, n - 1, above) if full else 0.0
    return within + binom.sf(full, n, above)


def _fill(above: Array, alpha: float) -> Array:
    return np.minimum(above / alpha, 1.0) if alpha else (above > 0).astype(float)


def _tails(ambiguity: CVaR | TotalVariation) -> list[tuple[float, float]]:
    """Write the value as sum_k mass_k CVaR_{alpha_k}; alpha 0 is the maximum."""
    if isinstance(ambiguity, CVaR):
        return [(1.0, ambiguity.alpha)]
    if not isinstance(ambiguity, TotalVariation):
        raise ValueError(f"{ambiguity!r} does not add up over steps: enumerate with plugin_bias, or simulate.")
    radius, ratio = ambiguity.radius, ambiguity.max_ratio or inf
    if ratio < inf and ratio * (1 - radius) <= 1:
        return [(1.0, 1 / ratio)]
    split = [(1 - radius, 1 - radius), (radius, radius / (ratio - 1))]
    return [(mass, alpha) for mass, alpha in split if mass > 0]
