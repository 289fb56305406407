"""The claim about minibatches of losses without jumps in their quantiles (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from hypothesis import strategies as st
from scipy.special import betainc  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from dro_core import CVaR, TotalVariation, inverse_cdf_bias_bound, worst_case
from proofs_check.claim import Array, Claim, Curve, Instances, dyadic, mutant, shrunk, stated, swapped
from proofs_check.exact.certificates import exact_cvar, exact_tv

if TYPE_CHECKING:
    from collections.abc import Sequence

Real = TypeVar("Real", float, Fraction)


@dataclass(frozen=True)
class QuantileLosses:
    """n draws of losses whose quantile function starts at 0 and has k slopes, each on a k-th of [0, 1].

    level is the radius, or alpha for CVaR.
    """

    slopes: tuple[float, ...]
    level: float
    n: int

    @property
    def steepest(self) -> float:
        """The Lipschitz constant G of the quantile function."""
        return max(self.slopes)

    @property
    def work(self) -> float:
        """How many rational numbers there are to add."""
        return float(self.n**2 * len(self.slopes))


@stated
def icdf_bias() -> Claim[QuantileLosses]:
    """Losses without jumps in their quantiles have a bias of order 1/n, plain total variation included.

    Problem: bias = L - Lbar_n for TotalVariation(rho) and CVaR(alpha); quantile function Q with |Q'| <= G.
    Algorithm: the value is linear in the sorted losses, so Lbar_n is the value of (E l_(1), ..., E l_(n)), where
        E l_(i) is the integral of P(U_(i) > u) over Q: incomplete beta functions, rational for rational slopes.
    Guarantee (tight, by uniform losses and their maximum): bias <= G/(n + 1).
    Source: [L20, Prop 1 and (11)].
    Example: l uniform on [0, 1], rho = 1: L = 1, Lbar_n = E max = n/(n + 1).
    """

    def biases(x: QuantileLosses) -> Array:
        means = order_statistic_means(x)
        plugin = [worst_case(means, ball).value for ball in (TotalVariation(x.level), CVaR(x.level))]
        tail = tail_mean(x.slopes, x.level)
        split = (1 - x.level) * tail_mean(x.slopes, 1 - x.level) if x.level < 1 else 0.0
        return np.array([split + x.level * sum(x.slopes) / len(x.slopes), tail]) - np.array(plugin)

    claim = Claim[QuantileLosses](
        label="icdf-bias",
        statement="L - Lbar_n <= G/(n+1) for TV and CVaR where the quantile function is G-Lipschitz",
        reference="L20",
        assumptions={
            "0 <= slopes <= 8, one at least 1/8": lambda x: min(x.slopes) >= 0 and 1 / 8 <= x.steepest <= 8,
            "1/64 <= level <= 1": lambda x: 1 / 64 <= x.level <= 1,
        },
        instances=_instances(),
        lhs=biases,
        rhs=lambda x: inverse_cdf_bias_bound(TotalVariation(x.level), x.n, x.steepest),
        scale=lambda x: x.steepest,
        tight=True,
        verifies=_verified,
        curve=Curve("n", tuple(QuantileLosses((1.0,), 0.25, n) for n in range(1, 65))),
        effort=0.5,
    )
    average = mutant(claim, "average slope", rhs=lambda x: sum(x.slopes) / len(x.slopes) / (x.n + 1))
    square = mutant(claim, "rate 1/n^2", rhs=lambda x: x.steepest / (x.n + 1) ** 2)
    return claim.with_mutants(shrunk(claim), swapped(claim), average, square)


def order_statistic_means(x: QuantileLosses) -> Array:
    """Return E l_(1), ..., E l_(n), shape ``(n,)``, by incomplete beta functions.

    Example:
        >>> order_statistic_means(QuantileLosses((1.0,), 1.0, 3)).round(12).tolist()
        [0.25, 0.5, 0.75]
    """
    edges = np.linspace(0.0, 1.0, len(x.slopes) + 1)
    m = np.arange(x.n)[:, None]
    pieces = np.diff(betainc(m + 1, x.n - m + 1, edges), axis=1) / (x.n + 1)  # of the integral of P(m draws < u)
    return np.cumsum(pieces, axis=0) @ np.array(x.slopes)


def exact_order_statistic_means(x: QuantileLosses) -> list[Fraction]:
    """Return the same in rationals, the beta functions being binomial tails.

    Example:
        >>> exact_order_statistic_means(QuantileLosses((0.0, 1.0), 1.0, 1))
        [Fraction(1, 8)]
    """
    k, slopes = len(x.slopes), [Fraction(slope) for slope in x.slopes]
    tails = [[_binomial_tail(x.n + 1, m + 1, Fraction(j, k)) for j in range(k + 1)] for m in range(x.n)]
    pieces = [
        sum((slope * (row[j + 1] - row[j]) for j, slope in enumerate(slopes)), Fraction(0)) / (x.n + 1) for row in tails
    ]
    return [sum(pieces[: i + 1], Fraction(0)) for i in range(x.n)]


def tail_mean(slopes: Sequence[Real], alpha: Real) -> Real:
    """Return CVaR(alpha) of the population: sum over the pieces of slope times the integral of min(1, s/alpha) ds.

    Example:
        >>> tail_mean([1.0], 0.5), tail_mean([Fraction(0), Fraction(1)], Fraction(1))
        (0.75, Fraction(1, 8))
    """
    k, whole = len(slopes), alpha * 0

    def filled(s: Real) -> Real:
        return s * s / 2 if s <= alpha else alpha * s - alpha * alpha / 2

    for j, slope in enumerate(slopes):
        top, bottom = (whole * 0 + k - j) / k, (whole * 0 + k - j - 1) / k
        whole += slope * (filled(top) - filled(bottom)) / alpha
    return whole


def _verified(x: QuantileLosses) -> bool:
    slopes, level, means = [Fraction(s) for s in x.slopes], Fraction(x.level), exact_order_statistic_means(x)
    uniform = [Fraction(1, x.n)] * x.n
    tail = tail_mean(slopes, level)
    split = (1 - level) * tail_mean(slopes, 1 - level) if level < 1 else Fraction(0)
    total_variation = split + level * sum(slopes) / len(slopes) - exact_tv(means, uniform, level)
    cvar = tail - exact_cvar(means, uniform, level)
    return max(total_variation, cvar) * (x.n + 1) <= max(slopes)


def _binomial_tail(trials: int, least: int, chance: Fraction) -> Fraction:
    terms = (comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(least, trials + 1))
    return sum(terms, Fraction(0))


def _instances() -> Instances[QuantileLosses]:
    shapes = ((1.0,), (0.0, 1.0), (0.0, 0.0, 0.0, 4.0), (2.0, 0.5, 0.0, 1.0))
    corners = tuple(QuantileLosses(slopes, level, n) for slopes in shapes for level in (0.25, 1.0) for n in (1, 2, 12))
    slopes = st.lists(dyadic(0, 4), min_size=1, max_size=4).map(tuple)
    return Instances(QuantileLosses, corners, st.builds(QuantileLosses, slopes, dyadic(1 / 64, 1), st.integers(1, 12)))
