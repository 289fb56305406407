"""The bias of the plug-in worst-case value, by enumeration of every possible minibatch."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from dro_core import worst_case

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from dro_core import AmbiguitySet

_MOST_SAMPLES = 1_000_000


def plugin_bias(values: ArrayLike, probabilities: ArrayLike, n: int, ambiguity: AmbiguitySet) -> float:
    """Population worst-case value minus the expected one of n draws; exact, never negative [L20].

    Args:
        values: the losses that can occur, shape `(k,)`.
        probabilities: their probabilities, shape `(k,)`, positive, summing to 1.
        n: size of the minibatch.
        ambiguity: the set around the population, and around each minibatch.

    Example:
        A loss of 1 with probability 1 %, else 0, hides from most minibatches of 32:

        >>> from dro_core import TotalVariation
        >>> round(plugin_bias([0.0, 1.0], [0.99, 0.01], 32, TotalVariation(0.2)), 3)
        0.145
    """
    values, probabilities = _distribution(values, probabilities)
    population = worst_case(values, ambiguity, reference=probabilities).value
    return float(population) - plugin_value(values, probabilities, n, ambiguity)


def plugin_value(values: ArrayLike, probabilities: ArrayLike, n: int, ambiguity: AmbiguitySet) -> float:
    """Expected worst-case value of n independent draws, arguments as in `plugin_bias`.

    Example:
        The mean has no bias, whatever n:

        >>> from dro_core import CVaR
        >>> round(plugin_value([0.0, 1.0], [0.75, 0.25], 3, CVaR(1.0)), 12)
        0.25
    """
    values, probabilities = _distribution(values, probabilities)
    counts = sample_counts(n, values.size)
    # A value that was not drawn has mass zero, and worst_case does not see its loss: nor does the estimator.
    worst = worst_case(np.broadcast_to(values, counts.shape), ambiguity, reference=counts / n).value
    return float(sample_chances(counts, probabilities) @ worst)


def sample_counts(n: int, k: int) -> NDArray[np.int64]:
    """Every way to draw n times from k values, as counts of shape `(comb(n + k - 1, k - 1), k)`.

    Example:
        >>> sample_counts(2, 2).tolist()
        [[0, 2], [1, 1], [2, 0]]
    """
    if n < 1 or k < 1:
        raise ValueError(f"n and k must be at least 1, got n={n} and k={k}: enumerate a non-empty minibatch.")
    samples = comb(n + k - 1, k - 1)
    if samples > _MOST_SAMPLES:
        raise ValueError(
            f"n={n} draws of k={k} values make {samples} different minibatches, at most {_MOST_SAMPLES} "
            "are enumerated: take fewer values or a smaller n."
        )
    # k - 1 bars among n + k - 1 places; the stars between two bars are one count.
    bars = np.array(list(combinations(range(n + k - 1), k - 1)), dtype=np.int64).reshape(samples, k - 1)
    return np.diff(bars, axis=-1, prepend=-1, append=n + k - 1) - 1


def sample_chances(counts: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Multinomial probability of every row of ``sample_counts``.

    Example:
        >>> sample_chances(sample_counts(2, 2), [0.5, 0.5]).round(12).tolist()
        [0.25, 0.5, 0.25]
    """
    from scipy.stats import multinomial  # takes as long to load as everything else here together

    counts = np.asarray(counts)
    return multinomial.pmf(counts, counts[0].sum(), np.asarray(probabilities, np.float64))


def _distribution(values: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    values, probabilities = np.asarray(values, np.float64), np.asarray(probabilities, np.float64)
    if values.ndim != 1 or values.shape != probabilities.shape:
        raise ValueError(
            f"values and probabilities must be two vectors of the same length, got shapes {values.shape} "
            f"and {probabilities.shape}: give every value one probability."
        )
    if not (np.all(probabilities > 0) and abs(probabilities.sum() - 1) <= 1e-9):
        raise ValueError(
            f"probabilities must be positive and sum to 1, got {probabilities.tolist()}: "
            "leave out impossible values and divide by the sum."
        )
    return values, probabilities
