"""The two biases of tv-bias.md that have no closed form: the chi-square ball and shifts between groups."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from dro_core import ChiSquare, CVaR, TotalVariation, worst_case
from synthetic import Estimate, mean_estimate
from synthetic.biases.without_enumeration import bradley_terry

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LARGEST, BATCHES, ERROR = 4096, 4000, 0.01
SIZES = tuple(2**k for k in range(2, 13))
CLARITIES = np.linspace(0.5, 2.6, 8)  # deviation of the reward difference in each source, in nats


def pair_losses(deviation: Array | float, shape: tuple[int, ...], rng: np.random.Generator, *, trained: bool) -> Array:
    """Draw losses -log sigmoid(h) as ``bradley_terry`` describes them."""
    margin = deviation * rng.standard_normal(shape)
    if trained:
        margin = np.where(rng.random(shape) < expit(margin), margin, -margin)
    return np.logaddexp(0.0, -margin)


@cache
def chi2_biases(deviation: float, ambiguity: ChiSquare, *, trained: bool) -> dict[int, Estimate]:
    """Bias over gap for every size, with 99 % intervals; the minibatch's mean and CVaR are control variates."""
    law, control = bradley_terry(deviation, trained=trained), CVaR(1 / (1 + 2 * ambiguity.radius))
    whole = chi2_population(deviation, ambiguity, trained=trained)
    gap, found = whole - law.mean, {}
    for n in SIZES:
        rng = np.random.default_rng([n, int(trained)])
        losses = pair_losses(deviation, (_batches(n), n), rng, trained=trained)
        value = np.asarray(worst_case(losses, ambiguity).value)
        tail = worst_case(losses, control).value - law.plugin_value(n, control)
        known = np.stack([losses.mean(axis=1) - law.mean, tail])
        slopes = np.linalg.lstsq((known - known.mean(axis=1, keepdims=True)).T, value - value.mean(), rcond=None)[0]
        found[n] = mean_estimate((whole - value + slopes @ known) / gap, ERROR)
    return found


def chi2_population(deviation: float, ambiguity: ChiSquare, *, trained: bool, points: int = 20_001) -> float:
    """Worst-case value of the law, cut into narrow cells."""
    law = bradley_terry(deviation, trained=trained, points=points)
    hard = np.linspace(-12 * deviation, 12 * deviation, points)
    masses = np.append(-np.diff(law.above), law.above[-1])[:-1]
    middles = np.logaddexp(0.0, (hard[1:] + hard[:-1]) / 2)
    return float(worst_case(middles, ambiguity, reference=masses / masses.sum()).value)


def group_means() -> Array:
    """Mean loss of every source under the true reward."""
    return np.array([bradley_terry(float(s), trained=True).mean for s in CLARITIES])


@cache
def grouped_biases(ambiguity: TotalVariation, groups: int) -> dict[int, Estimate]:
    """Bias over gap of sources of unlike clarity; negative where the minibatch overstates."""
    means = group_means()
    whole = float(worst_case(means, ambiguity).value)

    def losses(labels: NDArray[np.int64], rng: np.random.Generator) -> Array:
        return pair_losses(CLARITIES[labels], labels.shape, rng, trained=True)

    return _grouped(ambiguity, groups, losses, whole, whole - float(means.mean()))


@cache
def coin_biases(ambiguity: TotalVariation, groups: int) -> dict[int, Estimate]:
    """Bias of losses that are 0 or 1 with equal chance in every group: the true gap is 0."""

    def losses(labels: NDArray[np.int64], rng: np.random.Generator) -> Array:
        return rng.integers(0, 2, labels.shape).astype(float)

    return _grouped(ambiguity, groups, losses, 0.5, 1.0)


def _grouped(
    ambiguity: TotalVariation,
    groups: int,
    losses: Callable[[Any, np.random.Generator], Array],
    whole: float,
    unit: float,
) -> dict[int, Estimate]:
    found = {}
    for n in SIZES:
        rng = np.random.default_rng([n, groups])
        labels = rng.integers(0, groups, (_batches(n), n))
        drawn, rows = losses(labels, rng), np.arange(len(labels))[:, None]
        counts, sums = np.zeros((len(labels), groups)), np.zeros((len(labels), groups))
        np.add.at(counts, (rows, labels), 1.0)
        np.add.at(sums, (rows, labels), drawn)
        means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)  # empty groups have mass 0
        values = worst_case(means, ambiguity, reference=counts / n).value
        found[n] = mean_estimate((whole - np.asarray(values)) / unit, ERROR)
    return found


def _batches(n: int) -> int:
    """Fewer large minibatches: they vary less."""
    return max(1000, min(BATCHES * 4, BATCHES * 256 // n))
