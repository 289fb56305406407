"""Claims about the gradient of the plug-in estimator (theory.md section 3).

A draw is a loss with the derivative of that loss in one parameter; |derivative| <= G. The plug-in gradient is
sum_i q_i g_i, q the worst-case weights of the minibatch. Every minibatch is enumerated, none is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, cast

import numpy as np
from hypothesis import strategies as st

from dro_core import CVaR, TotalVariation, effective_sample_size, gradient_variance_bound, worst_case
from proofs_check.claim import Claim, Curve, Instances, dyadic, mutant, shrunk, stated, swapped
from proofs_check.claims.minibatch.sampled import LEVEL, MASSES, SampledLosses
from synthetic.biases.bias import sample_chances, sample_counts

if TYPE_CHECKING:
    from dro_core import AmbiguitySet


@dataclass(frozen=True)
class SampledGradients(SampledLosses):
    """The same with a derivative for every loss."""

    gradients: tuple[float, ...]

    @property
    def norm(self) -> float:
        """G."""
        return max(map(abs, self.gradients))


@dataclass(frozen=True)
class DistinctLosses:
    """n losses of which no two are equal, and a radius."""

    n: int
    radius: float

    @property
    def work(self) -> float:
        """How many losses there are."""
        return float(self.n)


@stated
def cvar_gradient_variance() -> Claim[SampledGradients]:
    """The plug-in gradient of CVaR has a variance like that of alpha n draws.

    Problem: Var = E (g - E g)^2, g = sum_i q_i g_i, for CVaR(alpha); |g_i| <= G.
    Guarantee (upper): Var <= C G^2/(alpha n) with C = 4. No smaller C will do: losses of 1 with derivative G and
        probability alpha (1 - s/sqrt(alpha n)), else 0 with derivative -G, come to 4 (1 - alpha) as s and
        alpha n/s^2 grow.
    Source: [L20, Proposition 2'] for the rate, ``dro_core.gradient_variance_bound`` for the constant [derived].
    Example: alpha = 1/16, n = 65536, probability 15/256: Var is 3.5 G^2/(alpha n).
    """

    def variance(x: SampledGradients) -> float:
        return plugin_gradient(x, x.n, CVaR(x.level))[1]

    claim = Claim[SampledGradients](
        label="cvar-gradient-variance",
        statement="Var sum_i q_i g_i <= 4 G^2/(alpha n) for CVaR(alpha)",
        reference="L20, sharpened",
        assumptions={**MASSES, **LEVEL, "1/64 <= G <= 8": lambda x: 1 / 64 <= x.norm <= 8},
        instances=_gradient_runs(),
        lhs=variance,
        rhs=lambda x: gradient_variance_bound(CVaR(x.level), x.n, x.norm),
        scale=lambda x: x.norm**2,
        curve=Curve("n", tuple(_two_signs(60.0, 1 / 16, 2**k) for k in range(6, 17))),
        effort=0.5,
    )

    def constant(x: SampledGradients, c: float) -> float:
        return c * x.norm**2 / (x.level * x.n)

    smaller = mutant(
        claim,
        "C = 3",
        rhs=lambda x: constant(x, 3.0),
        instances=Instances(SampledGradients, (_two_signs(60.0, 1 / 16, 65536),)),
    )
    no_alpha = mutant(claim, "alpha forgotten", rhs=lambda x: 4 * x.norm**2 / x.n)
    rate = mutant(claim, "rate 1/(alpha n)^2", rhs=lambda x: constant(x, 4.0) / (x.level * x.n))
    return claim.with_mutants(smaller, no_alpha, rate, swapped(claim))


@stated
def tv_gradient_variance_floor() -> Claim[DistinctLosses]:
    """No minibatch is large enough to average out the gradient of plain total variation.

    Problem: n distinct losses (atomless), derivatives +-G by fair coins that do not depend on the losses,
        TotalVariation(rho) with rho <= 1 - 1/n. Then E [g | losses] = 0 and Var g = G^2 sum_i q_i^2.
    Guarantee (exact): sum q^2 = rho^2 + (1 + rho)/n - f (1 - f)/n^2, f = ceil(rho n) - rho n. So Var g >= rho^2 G^2
        at every n, and the effective sample size 1/sum q^2 tends to 1/rho^2 from below.
    Source: theory.md section 3; the exact form derived: the largest loss gets rho + 1/n, floor(rho n) losses 0,
        one more f/n if f > 0, the others 1/n.
    Example: n = 64, rho = 1/4: sum q^2 = 1/16 + 5/256 = .082, an effective sample size of 12.2 < 16.
    """

    def sides(x: DistinctLosses, formula: float) -> tuple[float, float]:
        weights = worst_case(np.arange(float(x.n)), TotalVariation(x.radius)).weights
        return float(1 / effective_sample_size(weights)), formula

    def formula(x: DistinctLosses) -> float:
        rest = ceil(x.radius * x.n) - x.radius * x.n
        return x.radius**2 + (1 + x.radius) / x.n - rest * (1 - rest) / x.n**2

    claim = Claim[DistinctLosses](
        label="tv-gradient-variance-floor",
        statement="sum q^2 = rho^2 + (1+rho)/n - f(1-f)/n^2 >= rho^2 for TV weights: Var g >= rho^2 G^2 for every n",
        reference="theory.md section 3",
        assumptions={"1/64 <= radius <= 1 - 1/n": lambda x: 1 / 64 <= x.radius <= 1 - 1 / x.n},
        instances=_distinct_runs(),
        lhs=lambda x: (*sides(x, formula(x)), x.radius**2),
        rhs=lambda x: (*reversed(sides(x, formula(x))), formula(x)),
        scale=lambda x: 1.0,
        tight=True,
        verifies=_floor_verified,
        curve=Curve("n", tuple(DistinctLosses(2**k, 0.25) for k in range(2, 17))),
    )

    def instead(x: DistinctLosses, other: float) -> tuple[float, float]:
        return cast("tuple[float, float]", tuple(reversed(sides(x, other))))

    decays = mutant(claim, "1/n decay", rhs=lambda x: (*instead(x, (1 + x.radius) / x.n), np.inf))
    doubled = mutant(claim, "both halves of the norm counted", lhs=lambda x: (0.0, 0.0, 4 * x.radius**2))
    whole = mutant(claim, "rho n taken as whole", lhs=lambda x: (0.0, x.radius**2 + (1 + x.radius) / x.n, 0.0))
    return claim.with_mutants(shrunk(claim), decays, doubled, whole)


def plugin_gradient(x: SampledGradients, n: int, ambiguity: AmbiguitySet) -> tuple[float, float]:
    """Return mean and variance of the plug-in gradient of n draws, by enumeration.

    Example:
        The mean of two fair coins of +-1:

        >>> coins = SampledGradients((0.0, 1.0), (1.0, 1.0), 1.0, 2, (-1.0, 1.0))
        >>> mean, variance = plugin_gradient(coins, 2, CVaR(1.0))
        >>> mean, round(variance, 12)
        (0.0, 0.5)
    """
    counts = sample_counts(n, len(x.losses))
    chances = sample_chances(counts, x.reference)
    losses = np.broadcast_to(np.array(x.losses), counts.shape)
    gradients = worst_case(losses, ambiguity, reference=counts / n).weights @ np.array(x.gradients)
    mean = float(chances @ gradients)
    return mean, float(chances @ (gradients - mean) ** 2)


def _floor_verified(x: DistinctLosses) -> bool:
    """Drain the smallest losses one by one, in rationals, and compare with the formula."""
    radius, share, left, square = Fraction(x.radius), Fraction(1, x.n), Fraction(x.radius), Fraction(0)
    for _ in range(x.n - 1):
        taken = min(share, left)
        left, square = left - taken, square + (share - taken) ** 2
    square += (share + radius) ** 2
    rest = ceil(radius * x.n) - radius * x.n
    return left == 0 and square == radius**2 + (1 + radius) / x.n - rest * (1 - rest) / x.n**2 >= radius**2


def _two_signs(mass: float, level: float, n: int) -> SampledGradients:
    """Losses of 1 with derivative 1 and a mass in 1024, else 0 with derivative -1."""
    return SampledGradients((0.0, 1.0), (1024 - mass, mass), level, n, (-1.0, 1.0))


def _gradient_runs() -> Instances[SampledGradients]:
    corners = (
        *(_two_signs(60.0, 1 / 16, n) for n in (16, 256, 4096)),
        SampledGradients((0.0, 1.0, 2.0), (2.0, 1.0, 1.0), 0.5, 8, (1.0, -1.0, 0.5)),
        SampledGradients((0.0, 0.0, 1.0), (1.0, 1.0, 1.0), 1.0, 8, (1.0, -1.0, 0.0)),
    )

    def drawn(atoms: int, longest: int) -> st.SearchStrategy[SampledGradients]:
        losses, masses = (st.tuples(*[d] * atoms) for d in (dyadic(-4, 4), dyadic(1 / 64, 1)))
        slopes = st.tuples(*[dyadic(-1, 1)] * atoms)
        return st.builds(SampledGradients, losses, masses, dyadic(1 / 64, 1), st.integers(1, longest), slopes)

    return Instances(SampledGradients, corners, st.one_of(drawn(2, 256), drawn(3, 12), drawn(4, 6)))


def _distinct_runs() -> Instances[DistinctLosses]:
    corners = tuple(DistinctLosses(n, radius) for n in (3, 64, 500) for radius in (0.1875, 0.25, 0.5))
    return Instances(DistinctLosses, corners, st.builds(DistinctLosses, st.integers(2, 500), dyadic(1 / 64, 1)))
