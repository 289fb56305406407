"""The risk that minibatches of n train: its density phi_n over quantiles, exactly, and what else has the same.

For a set whose weights q_1 <= ... <= q_n go by rank, the ith smallest of n independent losses lies at a quantile that
is Beta(i, n - i + 1). So the mean of sum_i q_i l_(i) is int F^{-1}(u) phi_n(u) du with phi_n(u) = sum_i n q_i
C(n-1, i-1) u^(i-1) (1-u)^(n-i), a spectral risk of the population.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, gammaln
from scipy.stats import binom

from dro_core import TotalVariation, worst_case
from dro_core.sets.ambiguity import AmbiguitySet
from synthetic.biases.without_enumeration import Layers

Array = np.ndarray


def rank_weights(ambiguity: AmbiguitySet, n: int) -> Array:
    """The weights of n different losses, smallest first, shape ``(n,)``."""
    return np.asarray(worst_case(np.arange(float(n)), ambiguity).weights)


def density(weights: Array, u: Array) -> Array:
    """The density phi at the quantiles u, of weights by rank ``(n,)``; both in any order of u."""
    n = len(weights)
    return sum(n * q * binom.pmf(i, n - 1, u) for i, q in enumerate(weights) if q)  # pyright: ignore[reportReturnType]


def shares(weights: Array, parts: int) -> Array:
    """The integrals of phi over ``parts`` equal shares of the quantiles: what it gives as many equal losses."""
    n, edges = len(weights), np.linspace(0, 1, parts + 1)
    below = sum(q * betainc(i, n - i + 1, edges) for i, q in enumerate(weights, start=1) if q)
    return np.diff(below)


def square(weights: Array) -> float:
    """The integral of phi^2, exactly: one over the share of the losses that an even density would be on.

    The product of two Bernstein polynomials of degree n - 1 is one of degree 2n - 2.
    """
    n = len(weights)
    logs = _log_choose(n - 1)
    pairs = logs[:, None] + logs[None, :] - _log_choose(2 * n - 2)[np.add.outer(np.arange(n), np.arange(n))]
    return float(n * n * (weights @ np.exp(pairs) @ weights) / (2 * n - 1))


def _log_choose(n: int) -> Array:
    k = np.arange(n + 1.0)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def radius_like(radius: float, n: int, batch: int) -> float:
    """The radius of total variation on batches of ``batch`` whose phi^2 has the integral of ``radius`` on n."""
    wanted = square(rank_weights(TotalVariation(radius), n))
    return _solved(lambda other: square(rank_weights(TotalVariation(other), batch)) - wanted)


def radius_of_value(law: Layers, radius: float, n: int, batch: int) -> float:
    """The radius of total variation on batches of ``batch`` with the same risk of this law as ``radius`` on n."""
    wanted = law.plugin_value(n, TotalVariation(radius))
    return _solved(lambda other: law.plugin_value(batch, TotalVariation(other)) - wanted)


def _solved(gap: Callable[[float], float]) -> float:
    """The root in [0, 1] of what rises with the radius; 0 where radius 0 is enough, up to rounding."""
    return 0.0 if gap(0.0) > -1e-9 else float(brentq(gap, 0.0, 1.0, xtol=1e-10))
