"""The claim about multilevel Monte Carlo (theory.md section 3), checked by running the estimator on every sample."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, cast

import numpy as np
from hypothesis import strategies as st

from dro_core import CVaR, TotalVariation
from dro_core.sampling.estimators import multilevel_cost, multilevel_estimate
from proofs_check.claim import Array, Claim, Instances, Relation, dyadic, mutant, shrunk, stated
from proofs_check.claims.minibatch.minibatch_gradients import SampledGradients, plugin_gradient
from proofs_check.claims.minibatch.sampled import LEVEL, MASSES
from synthetic import plugin_value

if TYPE_CHECKING:
    from dro_core import AmbiguitySet


@dataclass(frozen=True)
class Levels(SampledGradients):
    """Multilevel Monte Carlo from n to n 2^levels draws."""

    levels: int

    @property
    def largest(self) -> int:
        """n_max."""
        return self.n << self.levels

    @property
    def work(self) -> float:
        """How many sequences of draws there are, each of which is estimated from, slowly."""
        return 8.0 * float(len(self.losses)) ** self.largest


@stated
def mlmc_unbiased() -> Claim[Levels]:
    """Multilevel Monte Carlo has the mean of a large minibatch at the cost of a small one.

    Problem: value, gradient and number of draws of ``multilevel_estimate`` from n0 to n_max draws.
    Algorithm: the estimator itself is run on every level and every sequence of draws, so the mean is exact.
    Guarantee (exact): value and gradient have the means of the plug-in estimate of n_max draws, and the mean cost
        is n0 (1 + log2(n_max/n0)). For TotalVariation and CVaR.
    Source: [L20, section 4].
    Example: n0 = 1, n_max = 4: levels 1 and 2 with chance 1/2 each, cost (2 + 4)/2 = 3 = 1 + log2 4.
    """

    def expected(x: Levels, n: int, cost: float) -> Array:
        values = [plugin_value(x.losses, x.reference, n, ball) for ball in _sets(x)]
        return np.array([*values, *(plugin_gradient(x, n, ball)[0] for ball in _sets(x)), cost / x.largest])

    def simulated(x: Levels) -> Array:
        means = np.array([multilevel_mean(x, ball) for ball in _sets(x)])
        return np.hstack([means[:, 0], means[:, 1], means[0, 2] / x.largest])

    claim = Claim[Levels](
        label="mlmc-unbiased",
        statement="MLMC has the mean of the n_max plug-in estimate, at expected cost n0 (1 + log2(n_max/n0))",
        reference="L20",
        assumptions={**MASSES, **LEVEL, "|g| <= 8": lambda x: x.norm <= 8, "levels <= 3": lambda x: 1 <= x.levels <= 3},
        instances=_level_runs(),
        lhs=simulated,
        rhs=lambda x: expected(x, x.largest, multilevel_cost(x.n, x.largest)),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        effort=0.05,
    )
    truncated = mutant(claim, "mean of n0 draws", rhs=lambda x: expected(x, x.n, multilevel_cost(x.n, x.largest)))
    half = mutant(
        claim, "mean of n_max/2 draws", rhs=lambda x: expected(x, x.largest // 2, multilevel_cost(x.n, x.largest))
    )
    dear = mutant(claim, "cost n_max", rhs=lambda x: expected(x, x.largest, x.largest))
    return claim.with_mutants(shrunk(claim), truncated, half, dear)


def multilevel_mean(x: Levels, ambiguity: AmbiguitySet) -> Array:
    """Return the mean value, gradient and number of draws of ``multilevel_estimate``, ``(3,)``, by enumeration.

    Example:
        >>> x = Levels((0.0, 1.0), (1.0, 1.0), 0.5, 1, (-1.0, 1.0), 2)
        >>> multilevel_mean(x, CVaR(1.0)).round(12).tolist()
        [0.5, 0.0, 3.0]
    """
    total = np.zeros(3)
    for level in range(1, x.levels + 1):
        chance = 2.0 ** -min(level, x.levels - 1)  # a geometric variable, cut off at the last level
        for drawn in product(range(len(x.losses)), repeat=x.n << level):
            estimate = multilevel_estimate(
                lambda rng, size, drawn=drawn: _rows(x, drawn[:size]),
                ambiguity,
                cast("np.random.Generator", _Level(level)),
                n_min=x.n,
                n_max=x.largest,
            )
            chance_of_draws = prod(x.reference[list(drawn)].tolist())
            total += chance * chance_of_draws * np.hstack([estimate.value, estimate.gradient, estimate.draws])
    return total


class _Level:
    """A source of chance that always draws one level."""

    def __init__(self, level: int) -> None:
        self._level = level

    def geometric(self, p: float) -> int:
        """Return the level, whose chance the caller counts for success probability 1/2."""
        if p != 0.5:
            raise ValueError(f"levels have chances 1/2, 1/4, ..., got success probability {p}: weigh them anew.")
        return self._level


def _rows(x: Levels, drawn: tuple[int, ...]) -> tuple[Array, Array]:
    chosen = list(drawn)
    return np.array(x.losses)[chosen], np.array(x.gradients)[chosen][:, None]


def _sets(x: Levels) -> tuple[TotalVariation, CVaR]:
    return TotalVariation(x.level), CVaR(x.level)


def _level_runs() -> Instances[Levels]:
    corners = (
        Levels((0.0, 1.0), (3.0, 1.0), 0.25, 1, (-1.0, 1.0), 3),
        Levels((0.0, 1.0), (3.0, 1.0), 0.5, 2, (1.0, 3.0), 1),
        Levels((-1.0, 0.5, 2.0), (1.0, 2.0, 1.0), 0.375, 1, (1.0, -1.0, 2.0), 2),
    )
    pairs = [st.tuples(d, d) for d in (dyadic(-4, 4), dyadic(1 / 64, 1), dyadic(-1, 1))]
    drawn = st.builds(Levels, pairs[0], pairs[1], dyadic(1 / 64, 1), st.just(1), pairs[2], st.integers(1, 2))
    return Instances(Levels, corners, drawn)
