"""Claims about the plug-in estimator: weights computed on a minibatch of n draws (theory.md section 3).

Lbar_n is the expectation of the worst-case value of n draws, L that of the population; both are exact here,
by enumeration of every minibatch. B is the largest loss minus the smallest, the sets being translation
equivariant.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import factorial, prod

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, TotalVariation, worst_case
from proofs_check.claim import (
    Array,
    Assumptions,
    Claim,
    Instances,
    Relation,
    Verdict,
    dyadic,
    mutant,
    shrunk,
    swapped,
)
from synthetic import plugin_bias, plugin_value, sample_counts


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


def plugin_underestimates() -> Claim[SampledLosses]:
    """The minibatch value is too small on average, and less so with more draws.

    Problem: Lbar_n = E worst-case value of n draws, for total variation, CVaR, chi-square and KL.
    Guarantee (tight: CVaR at alpha = 1 is the mean): Lbar_n <= Lbar_{n+1} <= L.
    Source: [L20].
    Example: l = Bernoulli(1/2), total variation of radius 1/2, n = 1: Lbar = 1/2, L = 1.
    """

    def means(x: SampledLosses, n: int) -> Array:
        return np.array([plugin_value(x.losses, x.reference, n, ball) for ball in _balls(x)]) - min(x.losses)

    def populations(x: SampledLosses) -> Array:
        return np.array([_population(x, ball) for ball in _balls(x)]) - min(x.losses)

    claim = Claim[SampledLosses](
        label="plugin-underestimates",
        statement="Lbar_n <= Lbar_{n+1} <= L (TV, CVaR, ChiSquare, KL)",
        reference="L20",
        assumptions={**_MASSES, **_LEVEL},
        instances=_instances(largest=32),
        lhs=lambda x: means(x, x.n),
        rhs=lambda x: np.minimum(means(x, x.n + 1), populations(x)),
        scale=lambda x: x.spread,
        tight=True,
    )
    return claim.with_mutants(shrunk(claim), swapped(claim))


def cvar_bias() -> Claim[SampledLosses]:
    """CVaR has a distribution-free bias bound.

    Problem: bias = L - Lbar_n for CVaR(alpha); alpha n > 9, below which the bound is the trivial B.
    Guarantee (upper): bias <= 3 B / sqrt(alpha n).
    Source: [L20, Prop 1 and its proof].
    Example: l = Bernoulli(1/4), alpha = 1/4, n = 64: bias about .09, bound 3/4.
    """

    def bias(x: SampledLosses) -> float:
        return plugin_bias(x.losses, x.reference, x.n, CVaR(x.level))

    def bound(x: SampledLosses, constant: float = 3.0) -> float:
        return constant * x.spread / float(np.sqrt(x.level * x.n))

    claim = Claim[SampledLosses](
        label="cvar-bias",
        statement="L - Lbar_n <= 3 B / sqrt(alpha n) for CVaR, alpha n > 9",
        reference="L20",
        assumptions={**_MASSES, **_LEVEL, "alpha n > 9": lambda x: x.level * x.n > 9},
        instances=_long_runs(),
        lhs=bias,
        rhs=bound,
        scale=lambda x: x.spread,
    )
    constant = mutant(claim, "constant 0.35", rhs=lambda x: bound(x, constant=0.35))
    rate = mutant(claim, "rate 1/(alpha n)", rhs=lambda x: 3 * x.spread / (x.level * x.n))
    no_alpha = mutant(claim, "alpha forgotten", rhs=lambda x: 3 * x.spread / np.sqrt(x.n))
    return claim.with_mutants(constant, rate, no_alpha, swapped(claim))


def tv_bias_split() -> Claim[SampledLosses]:
    """The total-variation bias is a tail part and a maximum part.

    Problem: bias = L - Lbar_n for TotalVariation(rho), rho < 1.
    Guarantee (exact): bias = (1 - rho) bias of CVaR_{1-rho} + rho (max l - E max_i l_i).
    Source: theory.md section 3, `tv-bias-split`.
    Example: l = Bernoulli(1/2), rho = 1/2, n = 1: 1/2 = 1/2 (1 - 1/2) + 1/2 (1 - 1/2).
    """

    def maximum_part(x: SampledLosses) -> float:
        order = np.argsort(x.losses)
        below = np.cumsum(x.reference[order]) ** x.n  # P(max_i l_i <= each loss)
        return max(x.losses) - float(np.diff(below, prepend=0.0) @ np.array(x.losses)[order])

    def split(x: SampledLosses, tail: float, top: float) -> float:
        bias = plugin_bias(x.losses, x.reference, x.n, CVaR(tail))
        return tail * bias + top * maximum_part(x)

    claim = Claim[SampledLosses](
        label="tv-bias-split",
        statement="TV bias = (1-rho) CVaR_{1-rho} bias + rho (max l - E max_i l_i)",
        reference="theory.md section 3",
        assumptions={**_MASSES, **_RADIUS},
        instances=_instances(largest=64),
        lhs=_tv_bias,
        rhs=lambda x: split(x, 1 - x.level, x.level),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
    )
    no_maximum = mutant(claim, "maximum part forgotten", rhs=lambda x: split(x, 1 - x.level, 0.0))
    exchanged = mutant(claim, "rho and 1 - rho exchanged", rhs=lambda x: split(x, x.level, 1 - x.level))
    return claim.with_mutants(shrunk(claim), no_maximum, exchanged)


def tv_bias_root_n() -> Claim[SampledLosses]:
    """Bounded losses alone do **not** give total variation a 1/sqrt(n) bias.

    Problem: bias = L - Lbar_n for TotalVariation(rho), losses in an interval of length B.
    Guarantee (false): bias <= 3 B / sqrt(n). A loss of B with probability eps is missed by a minibatch with
        probability (1 - eps)^n, and a minibatch that misses it loses rho B: for eps << 1/n the bias is rho B.
    Source: the reading of 2503.00539 that a user would take away; refutation in theory.md section 3.
    Example: eps = 1/1024, rho = 1/2, n = 64: bias 1/2 (1023/1024)^64 = .47 > 3/8.
    """
    claim = Claim[SampledLosses](
        label="tv-bias-root-n",
        statement="L - Lbar_n <= 3 B / sqrt(n) for the TV ball",
        reference="2503.00539, as read",
        assumptions={**_MASSES, **_RADIUS},
        instances=Instances(SampledLosses, (_rare(1024, 0.5, 64), _rare(1024, 0.25, 256)), _draws(64)),
        lhs=_tv_bias,
        rhs=lambda x: 3 * x.spread / np.sqrt(x.n),
        scale=lambda x: x.spread,
        expected=Verdict.REFUTED,
        violates=exceeds_root_n,
    )
    larger = mutant(
        claim,
        "constant 12",
        rhs=lambda x: 12 * x.spread / np.sqrt(x.n),
        instances=Instances(SampledLosses, (_rare(32768, 0.75, 1024),), _draws(64)),
    )
    return claim.with_mutants(larger)


def exceeds_root_n(x: SampledLosses) -> bool:
    """Whether the total-variation bias exceeds 3 B / sqrt(n), in rationals: bias > 0 and n bias^2 > 9 B^2.

    Shares nothing with dro_core but the definition of the set, so rounding and its code are both ruled out.
    """
    losses, masses, radius = (
        [Fraction(v) for v in x.losses],
        [Fraction(m) for m in x.masses],
        Fraction(x.level),
    )
    reference = [m / sum(masses) for m in masses]
    bias = _exact_tv(losses, reference, radius)
    for counts in sample_counts(x.n, len(losses)).tolist():
        ways = factorial(x.n) // prod(map(factorial, counts))
        chance = ways * prod(p**c for p, c in zip(reference, counts, strict=True))
        bias -= chance * _exact_tv(losses, [Fraction(c, x.n) for c in counts], radius)
    return bias > 0 and x.n * bias**2 > 9 * (max(losses) - min(losses)) ** 2


def _exact_tv(losses: list[Fraction], reference: list[Fraction], radius: Fraction) -> Fraction:
    """Take radius of mass from the smallest losses and put it on the largest one present."""
    atoms = sorted((loss, mass) for loss, mass in zip(losses, reference, strict=True) if mass > 0)
    value, left = radius * atoms[-1][0], radius
    for loss, mass in atoms:
        taken = min(mass, left)
        value, left = value + (mass - taken) * loss, left - taken
    return value


_MASSES: Assumptions[SampledLosses] = {
    "every mass positive": lambda x: min(x.masses) > 0,
    # No loss of generality (translation and scaling), but without it rounding errors refute theorems.
    "losses in [-8, 8], spread at least 1/64": lambda x: max(map(abs, x.losses)) <= 8 and x.spread >= 1 / 64,
}
_LEVEL: Assumptions[SampledLosses] = {"1/64 <= level <= 1": lambda x: 1 / 64 <= x.level <= 1}
_RADIUS: Assumptions[SampledLosses] = {"0 < radius < 1": lambda x: 0 < x.level < 1}


def _tv_bias(x: SampledLosses) -> float:
    return plugin_bias(x.losses, x.reference, x.n, TotalVariation(x.level))


def _balls(x: SampledLosses) -> tuple[AmbiguitySet, ...]:
    return TotalVariation(x.level), CVaR(x.level), ChiSquare(x.level), KL(x.level)


def _population(x: SampledLosses, ball: AmbiguitySet) -> float:
    return float(worst_case(np.array(x.losses), ball, reference=x.reference).value)


def _rare(one_in: int, level: float, n: int) -> SampledLosses:
    """A loss of 1 once in `one_in` draws, else 0."""
    return SampledLosses((0.0, 1.0), (float(one_in - 1), 1.0), level, n)


def _instances(largest: int) -> Instances[SampledLosses]:
    corners = tuple(_rare(k, r, n) for k in (2, 16) for r in (0.25, 0.5, 1.0) for n in (1, 2, largest))
    return Instances(SampledLosses, corners, _draws(largest))


def _long_runs() -> Instances[SampledLosses]:
    """Bernoulli losses with eps = alpha, where the CVaR bias is largest; long minibatches."""
    corners = tuple(_rare(k, 1 / k, n) for k in (2, 8, 64) for n in (16 * k, 32 * k, 256, 2048))
    atoms = st.tuples(dyadic(-1, 1), dyadic(-1, 1))
    masses = st.tuples(dyadic(1 / 64, 1), dyadic(1 / 64, 1))
    sizes = st.integers(5, 10).map(lambda k: 2**k)
    return Instances(SampledLosses, corners, st.builds(SampledLosses, atoms, masses, dyadic(1 / 4, 1), sizes))


def _draws(largest: int) -> st.SearchStrategy[SampledLosses]:
    """Two atoms with long minibatches, or three and four with short ones: the enumeration stays small."""

    def sampled(atoms: int, longest: int) -> st.SearchStrategy[SampledLosses]:
        values, masses = (st.tuples(*[d] * atoms) for d in (dyadic(-4, 4), dyadic(1 / 64, 1)))
        return st.builds(SampledLosses, values, masses, dyadic(1 / 64, 1), st.integers(1, longest))

    return st.one_of(sampled(2, largest), sampled(3, 8), sampled(4, 5))
