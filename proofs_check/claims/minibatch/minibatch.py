"""Claims about the plug-in estimator: weights computed on a minibatch of n draws (theory.md section 3).

Lbar_n is the expectation of the worst-case value of n draws, L that of the population; both are exact here,
by enumeration of every minibatch. B is the largest loss minus the smallest, the sets being translation
equivariant.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from dro_core import KL, ChiSquare, ChiSquarePenalty, CVaR, KLPenalty, TotalVariation, bias_bound, worst_case
from proofs_check.claim import Array, Claim, Curve, Instances, Relation, Verdict, mutant, shrunk, stated, swapped
from proofs_check.claims.minibatch.sampled import (
    LEVEL,
    MASSES,
    RADIUS,
    SampledLosses,
    cvar_value,
    draws,
    exact_bias,
    exact_plugin,
    long_runs,
    maximum,
    rare,
    short_runs,
    tv_value,
)
from synthetic import plugin_bias, plugin_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from dro_core import AmbiguitySet

    Sets = Callable[[SampledLosses], tuple[AmbiguitySet, ...]]


@stated
def plugin_underestimates() -> Claim[SampledLosses]:
    """The minibatch value is too small on average, and less so with more draws.

    Problem: Lbar_n = E worst-case value of n draws, for total variation and CVaR.
    Guarantee (tight: CVaR at alpha = 1 is the mean): Lbar_n <= Lbar_{n+1} <= L.
    Source: [L20].
    Example: l = Bernoulli(1/2), total variation of radius 1/2, n = 1: Lbar = 1/2, L = 1.
    """

    def verified(x: SampledLosses) -> bool:
        for value in (tv_value(x.level), cvar_value(x.level)):
            population = value(x.exact_losses, x.exact_reference)
            if not exact_plugin(x, x.n, value) <= exact_plugin(x, x.n + 1, value) <= population:
                return False
        return True

    claim = _underestimates(
        "plugin-underestimates",
        "Lbar_n <= Lbar_{n+1} <= L (TV, CVaR)",
        lambda x: (TotalVariation(x.level), CVaR(x.level)),
    )
    return replace(claim, verifies=verified)


@stated
def plugin_underestimates_divergences() -> Claim[SampledLosses]:
    """The same for the balls and penalties of a divergence.

    Problem: Lbar_n = E worst-case value of n draws, for the chi-square and KL balls and penalties.
    Guarantee (tight, where the spread of the losses is small against the penalty): Lbar_n <= Lbar_{n+1} <= L.
    Source: [L20]: the dual is a minimum of means, and a mean of minima is at most that.
    Example: l = Bernoulli(1/2), n = 1: every set sees one loss, Lbar = 1/2 = E l.
    """
    return _underestimates(
        "plugin-underestimates-divergences",
        "Lbar_n <= Lbar_{n+1} <= L (ChiSquare, KL, their penalties)",
        lambda x: (ChiSquare(x.level), KL(x.level), ChiSquarePenalty(8 * x.level), KLPenalty(8 * x.level)),
    )


def _underestimates(label: str, statement: str, sets: Sets) -> Claim[SampledLosses]:
    def means(x: SampledLosses, n: int) -> Array:
        return np.array([plugin_value(x.losses, x.reference, n, ball) for ball in sets(x)]) - min(x.losses)

    def populations(x: SampledLosses) -> Array:
        losses, p = np.array(x.losses), x.reference
        return np.array([worst_case(losses, ball, reference=p).value for ball in sets(x)]) - min(x.losses)

    claim = Claim[SampledLosses](
        label=label,
        statement=statement,
        reference="L20",
        assumptions={**MASSES, **LEVEL},
        instances=short_runs(largest=16),
        lhs=lambda x: means(x, x.n),
        rhs=lambda x: np.minimum(means(x, x.n + 1), populations(x)),
        scale=lambda x: x.spread,
        tight=True,
        curve=Curve("n", tuple(rare(8, 0.25, n) for n in range(1, 65))),
        effort=0.4,
    )
    return claim.with_mutants(shrunk(claim), swapped(claim))


@stated
def cvar_bias() -> Claim[SampledLosses]:
    """CVaR has a distribution-free bias bound.

    Problem: bias = L - Lbar_n for CVaR(alpha); alpha n > 9, below which the bound is the trivial B.
    Guarantee (upper): bias <= 3 B / sqrt(alpha n).
    Source: [L20, Prop 1 and its proof].
    Example: l = Bernoulli(1/4), alpha = 1/4, n = 64: bias about .09, bound 3/4.
    """

    def bound(x: SampledLosses, constant: float = 3.0) -> float:
        return constant * x.spread / float(np.sqrt(x.level * x.n))

    def verified(x: SampledLosses) -> bool:
        square = _exact_cvar_bias(x) ** 2
        return Fraction(x.level) * x.n * square <= 9 * x.exact_spread**2

    claim = Claim[SampledLosses](
        label="cvar-bias",
        statement="L - Lbar_n <= 3 B / sqrt(alpha n) for CVaR, alpha n > 9",
        reference="L20",
        assumptions={**MASSES, **LEVEL, "alpha n > 9": lambda x: x.level * x.n > 9},
        instances=long_runs(longest=256),
        lhs=_cvar_bias,
        rhs=bound,
        scale=lambda x: x.spread,
        verifies=verified,
        curve=Curve("n", tuple(rare(4, 0.25, 2**k) for k in range(6, 13))),
        effort=0.25,
    )
    constant = mutant(claim, "constant 0.35", rhs=lambda x: bound(x, constant=0.35))
    rate = mutant(
        claim,
        "rate 1/(alpha n)",
        rhs=lambda x: 3 * x.spread / (x.level * x.n),
        instances=Instances(SampledLosses, (rare(8, 1 / 8, 2048),)),
    )
    no_alpha = mutant(
        claim,
        "alpha forgotten",
        rhs=lambda x: 3 * x.spread / np.sqrt(x.n),
        instances=Instances(SampledLosses, (rare(64, 1 / 64, 1024),)),
    )
    return claim.with_mutants(constant, rate, no_alpha, swapped(claim))


@stated
def cvar_bias_sharp() -> Claim[SampledLosses]:
    """The largest bias that CVaR can have, exactly.

    Problem: bias = L - Lbar_n for CVaR(alpha), any n.
    Guarantee (tight, by a loss of B with probability alpha, else 0): bias <= B E (1 - K/(alpha n))_+ with K
        binomial(n, alpha), which is at most B/2 sqrt((1 - alpha)/(alpha n)): a sixth of the bound of [L20].
    Source: ``dro_core.bias_bound`` [derived].
    Example: l = Bernoulli(1/2), alpha = 1/2, n = 1: bias 1/2 = P(K = 0).
    """

    def verified(x: SampledLosses) -> bool:
        alpha = Fraction(x.level)
        bernoulli = SampledLosses((0.0, 1.0), (1 - x.level, x.level), x.level, x.n)
        missing = exact_plugin(bernoulli, x.n, lambda _, p: max(1 - p[1] / alpha, Fraction(0)))
        rooted = 4 * alpha * x.n * missing**2 <= 1 - alpha
        return rooted and _exact_cvar_bias(x) <= x.exact_spread * missing

    claim = Claim[SampledLosses](
        label="cvar-bias-sharp",
        statement="L - Lbar_n <= B E (1 - K/(alpha n))_+ <= B/2 sqrt((1-alpha)/(alpha n)) for CVaR, K binomial",
        reference="L20, sharpened",
        assumptions={**MASSES, **LEVEL, "alpha < 1": lambda x: x.level < 1},
        instances=short_runs(largest=32),
        lhs=lambda x: (_cvar_bias(x), bias_bound(CVaR(x.level), x.n, x.spread)),
        rhs=lambda x: (
            bias_bound(CVaR(x.level), x.n, x.spread),
            x.spread / 2 * np.sqrt((1 - x.level) / (x.level * x.n)),
        ),
        scale=lambda x: x.spread,
        tight=True,
        verifies=verified,
        curve=Curve("n", tuple(rare(8, 0.25, n) for n in range(4, 65, 4))),
        effort=0.4,
    )
    return claim.with_mutants(shrunk(claim), swapped(claim))


@stated
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

    def verified(x: SampledLosses) -> bool:
        tail = 1 - Fraction(x.level)
        split = tail * exact_bias(x, cvar_value(tail)) + (1 - tail) * exact_bias(x, maximum)
        return exact_bias(x, tv_value(x.level)) == split

    claim = Claim[SampledLosses](
        label="tv-bias-split",
        statement="TV bias = (1-rho) CVaR_{1-rho} bias + rho (max l - E max_i l_i)",
        reference="theory.md section 3",
        assumptions={**MASSES, **RADIUS},
        instances=short_runs(largest=32),
        lhs=_tv_bias,
        rhs=lambda x: split(x, 1 - x.level, x.level),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        verifies=verified,
        effort=0.4,
    )
    no_maximum = mutant(claim, "maximum part forgotten", rhs=lambda x: split(x, 1 - x.level, 0.0))
    exchanged = mutant(claim, "rho and 1 - rho exchanged", rhs=lambda x: split(x, x.level, 1 - x.level))
    return claim.with_mutants(shrunk(claim), no_maximum, exchanged)


@stated
def tv_bias_root_n() -> Claim[SampledLosses]:
    """Bounded losses alone do not give total variation a 1/sqrt(n) bias.

    Problem: bias = L - Lbar_n for TotalVariation(rho), losses in an interval of length B.
    Guarantee (false): bias <= 3 B / sqrt(n). A loss of B with probability eps <= 1 - rho is missed by a minibatch
        with probability (1 - eps)^n, and a minibatch that misses it loses rho B: the bias is at least
        rho B (1 - eps)^n, so for eps << 1/n nearly rho B, which is the largest bias there is (`tv-gap`).
    Source: the reading of 2503.00539 that a user would take away; refutation in theory.md section 3.
    Example: eps = 1/1024, rho = 1/2, n = 64: bias 1/2 (1023/1024)^64 = .47 > 3/8.
    """
    claim = Claim[SampledLosses](
        label="tv-bias-root-n",
        statement="L - Lbar_n <= 3 B / sqrt(n) for the TV ball",
        reference="2503.00539, as read",
        assumptions={**MASSES, **RADIUS},
        instances=Instances(SampledLosses, (rare(1024, 0.5, 64), rare(1024, 0.25, 256)), draws(64)),
        lhs=_tv_bias,
        rhs=lambda x: 3 * x.spread / np.sqrt(x.n),
        scale=lambda x: x.spread,
        expected=Verdict.REFUTED,
        violates=exceeds_root_n,
        curve=Curve("n", tuple(rare(65536, 0.5, 2**k) for k in range(3, 13))),
        by_hand=(
            "l = 1 with probability 1/1024, else 0; rho = 1/2, n = 64, B = 1: L = 1/1024 + 1/2 > 1/2.\n"
            "At most 64/1024 = 1/16 of all minibatches hold a 1: their value is <= 1, all others 0, Lbar_n <= 1/16.\n"
            "So the bias is more than 1/2 - 1/16 = 7/16, and the bound 3/sqrt(64) is only 6/16."
        ),
    )
    larger = mutant(
        claim,
        "constant 12",
        rhs=lambda x: 12 * x.spread / np.sqrt(x.n),
        instances=Instances(SampledLosses, (rare(32768, 0.75, 1024),), draws(64)),
    )
    return claim.with_mutants(larger)


def exceeds_root_n(x: SampledLosses) -> bool:
    """Whether the total-variation bias exceeds 3 B / sqrt(n), in rationals: bias > 0 and n bias^2 > 9 B^2."""
    bias = exact_bias(x, tv_value(x.level))
    return bias > 0 and x.n * bias**2 > 9 * x.exact_spread**2


def _tv_bias(x: SampledLosses) -> float:
    return plugin_bias(x.losses, x.reference, x.n, TotalVariation(x.level))


def _cvar_bias(x: SampledLosses) -> float:
    return plugin_bias(x.losses, x.reference, x.n, CVaR(x.level))


def _exact_cvar_bias(x: SampledLosses) -> Fraction:
    return exact_bias(x, cvar_value(x.level))
