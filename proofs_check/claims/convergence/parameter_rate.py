"""Claims about how fast a robust parameter is learnt from n observations (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb

import numpy as np
from hypothesis import strategies as st
from scipy.stats import binom  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from dro_core import TotalVariation, worst_case
from proofs_check.claim import Array, Assumptions, Claim, Curve, Instances, Verdict, mutant, shrunk, stated, swapped
from proofs_check.exact.certificates import exact_tv


@dataclass(frozen=True)
class Located:
    """n throws of a coin that shows 1 with probability part/64; a radius and a cap on q/p, in 16ths."""

    part: int
    n: int
    parts: int
    cap: int

    @property
    def chance(self) -> Fraction:
        """P(z = 1)."""
        return Fraction(self.part, 64)

    @property
    def ball(self) -> TotalVariation:
        """Total variation with the cap."""
        return TotalVariation(self.parts / 16, max_ratio=self.cap / 16)


@stated
def robust_parameter_rate() -> Claim[Located]:
    """With a cap on the weights a robust parameter is learnt as fast as a mean.

    Problem: theta minimises the worst case of (theta - z)^2/2 over q in TV(rho), q <= c p, around n throws z of a
        coin, or around the coin: theta_n and theta*.
    Guarantee (tight: theta = c p): E (theta_n - theta*)^2 <= c^2 p (1 - p)/n at every n, so the error is of order
        n^(-1/2). Plain total variation has no such bound: a coin that has shown one side only has theta_n = 0 or 1.
    Source: derived. theta is the mean under the worst q, the chance nearest to 1/2 that the ball allows, which moves
        at most c times as fast as the share. Every number of ones is counted.
    Example: p = 1/4, c = 3/2, rho = 1/4: theta* = 3/8.
    """
    claim = Claim[Located](
        label="robust-parameter-rate",
        statement="E (theta_n - theta*)^2 <= c^2 p (1-p)/n for the mean under capped TV, at every n",
        reference="theory.md section 3",
        assumptions=_COINS,
        instances=_throws(),
        lhs=lambda x: _squared_error(x, x.ball),
        rhs=_rate,
        scale=lambda x: float(x.chance * (1 - x.chance)) / x.n,
        tight=True,
        verifies=lambda x: _exact_error(x) <= Fraction(x.cap, 16) ** 2 * x.chance * (1 - x.chance) / x.n,
        curve=Curve("n", tuple(Located(8, 2**k, 4, 24) for k in range(11))),
        effort=0.5,
    )
    plain = mutant(claim, "without the cap", lhs=lambda x: _squared_error(x, TotalVariation(x.parts / 16)))
    faster = mutant(claim, "rate 1/n", rhs=lambda x: _rate(x) / x.n)
    mean = mutant(claim, "the rate of the mean", rhs=lambda x: _rate(x) / (x.cap / 16) ** 2)
    return claim.with_mutants(shrunk(claim), swapped(claim), plain, faster, mean)


@stated
def robust_parameter_rate_quarter() -> Claim[Located]:
    """The rate of a robust parameter is not n^(-1/4).

    Problem: as `robust-parameter-rate`.
    Guarantee (false): E (theta_n - theta*)^2 >= p (1 - p)/(4 sqrt n) at every n, the square of a rate n^(-1/4).
    Source: bounds of order n^(-1/4) in the literature (2502.01930, Theorem 1), read as if they were attained.
    Example: see by hand.
    """
    claim = Claim[Located](
        label="robust-parameter-rate-quarter",
        statement="E (theta_n - theta*)^2 >= p (1-p)/(4 sqrt n) for the mean under capped TV, at every n",
        reference="2502.01930, as read",
        assumptions=_COINS,
        instances=Instances(Located, (Located(16, 256, 4, 24), Located(4, 1024, 4, 24))),
        lhs=lambda x: float(x.chance * (1 - x.chance)) / (4 * np.sqrt(x.n)),
        rhs=lambda x: _squared_error(x, x.ball),
        scale=lambda x: float(x.chance * (1 - x.chance)),
        expected=Verdict.REFUTED,
        violates=lambda x: 16 * x.n * _exact_error(x) ** 2 < (x.chance * (1 - x.chance)) ** 2,
        by_hand=(
            "p = 1/4, rho = 1/4, c = 3/2, n = 256: theta moves at most 3/2 times as fast as the share of ones.\n"
            "So E (theta_n - theta*)^2 <= 9/4 * p (1 - p)/256 < p (1 - p)/113.\n"
            "The bound from below is p (1 - p)/(4 * 16) = p (1 - p)/64."
        ),
    )
    return claim.with_mutants(mutant(claim, "an eighth of it more", rhs=lambda x: 1.125 * _squared_error(x, x.ball)))


_COINS: Assumptions[Located] = {
    "0 < p < 1": lambda x: 0 < x.part < 64,
    "0 < radius < 1/2, 1 <= cap <= 4": lambda x: 0 < x.parts < 8 and 16 <= x.cap <= 64,
    "n >= 1": lambda x: x.n >= 1,
}


def _rate(x: Located) -> float:
    return (x.cap / 16) ** 2 * float(x.chance * (1 - x.chance)) / x.n


def _minimisers(shares: Array, ball: TotalVariation) -> Array:
    """Theta for each share of ones, where the subgradient theta - q_1 of the worst case changes its sign."""
    reference = np.stack([1 - shares, shares], axis=1)
    low, high = np.zeros(len(shares)), np.ones(len(shares))
    for _ in range(50):
        theta = (low + high) / 2
        weights = worst_case(np.stack([theta**2, (1 - theta) ** 2], axis=1), ball, reference=reference).weights
        rising = theta > weights[:, 1]
        low, high = np.where(rising, low, theta), np.where(rising, theta, high)
    return (low + high) / 2


def _squared_error(x: Located, ball: TotalVariation) -> float:
    ones = np.arange(x.n + 1)
    truth = _minimisers(np.array([float(x.chance)]), ball)
    chances = np.asarray(binom.pmf(ones, x.n, float(x.chance)))  # pyright: ignore[reportUnknownMemberType]
    return float(chances @ (_minimisers(ones / x.n, ball) - truth) ** 2)


def exact_minimiser(x: Located, share: Fraction) -> Fraction:
    """Return theta, proved: it is the mean under a q that is a worst case at theta.

    Raises:
        ArithmeticError: It is not, which would be a mistake in this module.

    Example:
        >>> exact_minimiser(Located(16, 1, 4, 24), Fraction(1, 4))
        Fraction(3, 8)
    """
    radius, cap = Fraction(x.parts, 16), Fraction(x.cap, 16)
    least = min(share, 1 - share)
    moved = min(Fraction(1, 2), least + radius, cap * least)
    theta = moved if share <= Fraction(1, 2) else 1 - moved
    losses = [theta**2, (1 - theta) ** 2]
    if exact_tv(losses, [1 - share, share], radius, cap) != (1 - theta) * losses[0] + theta * losses[1]:
        raise ArithmeticError("the mean is not one of a worst case")
    return theta


def _exact_error(x: Located) -> Fraction:
    p, truth = x.chance, exact_minimiser(x, x.chance)
    errors = ((exact_minimiser(x, Fraction(k, x.n)) - truth) ** 2 for k in range(x.n + 1))
    terms = (comb(x.n, k) * p**k * (1 - p) ** (x.n - k) * e for k, e in enumerate(errors))
    return sum(terms, Fraction(0))


def _throws() -> Instances[Located]:
    corners = (Located(4, 128, 7, 24), Located(32, 9, 4, 24), Located(1, 16, 7, 32), Located(16, 64, 4, 16))
    drawn = st.builds(Located, st.integers(1, 63), st.integers(1, 64), st.integers(1, 7), st.integers(16, 64))
    return Instances(Located, corners, drawn)
