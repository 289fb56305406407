"""Minibatches of n draws from a few atoms: the instances, and their means in rational arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb, factorial, lcm, prod
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from proofs_check.claim import Array, Assumptions, Instances, dyadic
from proofs_check.exact.certificates import exact_cvar, exact_tv
from synthetic import sample_counts

if TYPE_CHECKING:
    from collections.abc import Callable

    ExactValue = Callable[[list[Fraction], list[Fraction]], Fraction]


@dataclass(frozen=True)
class SampledLosses:
    """n draws of losses with masses proportional to p; level is the radius, or alpha for CVaR."""

    losses: tuple[float, ...]
    masses: tuple[float, ...]
    level: float
    n: int

    @property
    def reference(self) -> Array:
        """The distribution p."""
        return np.array(self.masses) / sum(self.masses)

    @property
    def spread(self) -> float:
        """Largest loss minus smallest."""
        return max(self.losses) - min(self.losses)

    @property
    def work(self) -> float:
        """How many minibatches there are."""
        return comb(self.n + len(self.losses) - 1, self.n)

    @property
    def exact_losses(self) -> list[Fraction]:
        """The losses as they are stored."""
        return [Fraction(loss) for loss in self.losses]

    @property
    def exact_reference(self) -> list[Fraction]:
        """The distribution p, without rounding."""
        masses = [Fraction(mass) for mass in self.masses]
        return [mass / sum(masses) for mass in masses]

    @property
    def exact_spread(self) -> Fraction:
        """Largest loss minus smallest, without rounding."""
        return max(self.exact_losses) - min(self.exact_losses)


def exact_plugin(x: SampledLosses, n: int, value: ExactValue) -> Fraction:
    """Return the mean of value(losses, minibatch) over n draws: every minibatch, in rationals.

    Shares nothing with dro_core but the definition of the set, so rounding and its code are both ruled out.

    Example:
        >>> x = SampledLosses((0.0, 1.0), (3.0, 1.0), 0.5, 2)
        >>> exact_plugin(x, 2, maximum)
        Fraction(7, 16)
    """
    reference = x.exact_reference
    whole = lcm(*(p.denominator for p in reference))
    parts = [int(p * whole) for p in reference]  # p = parts / whole, so that no big fraction is ever reduced
    total = Fraction(0)
    for counts in sample_counts(n, len(parts)).tolist():
        ways = factorial(n) // prod(map(factorial, counts))
        chance = ways * prod(part**count for part, count in zip(parts, counts, strict=True))
        total += chance * value(x.exact_losses, [Fraction(count, n) for count in counts])
    return total / whole**n


def exact_bias(x: SampledLosses, value: ExactValue) -> Fraction:
    """Return the value of the population less the mean one of x.n draws, in rationals."""
    return value(x.exact_losses, x.exact_reference) - exact_plugin(x, x.n, value)


def tv_value(radius: Fraction | float, max_ratio: Fraction | float | None = None) -> ExactValue:
    """Return the exact value of ``TotalVariation`` as a function of losses and distribution."""
    return lambda losses, p: exact_tv(losses, p, radius, max_ratio)


def cvar_value(alpha: Fraction | float) -> ExactValue:
    """Return the exact value of ``CVaR`` as a function of losses and distribution."""
    return lambda losses, p: exact_cvar(losses, p, alpha)


def maximum(losses: list[Fraction], p: list[Fraction]) -> Fraction:
    """Return the largest loss that has any probability."""
    return max(loss for loss, mass in zip(losses, p, strict=True) if mass)


MASSES: Assumptions[SampledLosses] = {
    "every mass positive": lambda x: min(x.masses) > 0,
    # No loss of generality (translation and scaling), but without it rounding errors refute theorems.
    "losses in [-8, 8], spread at least 1/64": lambda x: max(map(abs, x.losses)) <= 8 and x.spread >= 1 / 64,
}
LEVEL: Assumptions[SampledLosses] = {"1/64 <= level <= 1": lambda x: 1 / 64 <= x.level <= 1}
RADIUS: Assumptions[SampledLosses] = {"0 < radius < 1": lambda x: 0 < x.level < 1}


def rare(one_in: int, level: float, n: int) -> SampledLosses:
    """A loss of 1 once in ``one_in`` draws, else 0."""
    return SampledLosses((0.0, 1.0), (float(one_in - 1), 1.0), level, n)


def short_runs(largest: int) -> Instances[SampledLosses]:
    """Bernoulli corners of up to ``largest`` draws, one of four times as many, and ``draws``."""
    corners = tuple(rare(k, r, n) for k in (2, 16) for r in (0.25, 0.5, 1.0) for n in (1, 2, largest))
    return Instances(SampledLosses, (*corners, rare(64, 0.25, 4 * largest)), draws(largest))


def long_runs(longest: int) -> Instances[SampledLosses]:
    """Bernoulli losses with eps = alpha, where the CVaR bias is largest; minibatches of up to ``longest`` draws."""
    corners = tuple(rare(k, 1 / k, n) for k in (2, 8) for n in (16 * k, 32 * k, longest))
    atoms = st.tuples(dyadic(-1, 1), dyadic(-1, 1))
    masses = st.tuples(dyadic(1 / 64, 1), dyadic(1 / 64, 1))
    sizes = st.integers(5, longest.bit_length() - 1).map(lambda k: 2**k)
    return Instances(SampledLosses, corners, st.builds(SampledLosses, atoms, masses, dyadic(1 / 4, 1), sizes))


def draws(largest: int) -> st.SearchStrategy[SampledLosses]:
    """Two atoms with long minibatches, or three and four with short ones: the enumeration stays small."""

    def sampled(atoms: int, longest: int) -> st.SearchStrategy[SampledLosses]:
        values, masses = (st.tuples(*[d] * atoms) for d in (dyadic(-4, 4), dyadic(1 / 64, 1)))
        return st.builds(SampledLosses, values, masses, dyadic(1 / 64, 1), st.integers(1, longest))

    return st.one_of(sampled(2, largest), sampled(3, min(largest, 8)), sampled(4, min(largest, 5)))
