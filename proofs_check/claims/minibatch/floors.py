"""The claim about plain total variation on minibatches whose largest loss is not rare; notation of ``minibatch``."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np

from dro_core import CVaR, TotalVariation, bias_bound
from proofs_check.claim import Claim, Curve, mutant, shrunk, stated, swapped
from proofs_check.claims.minibatch.sampled import (
    MASSES,
    RADIUS,
    SampledLosses,
    exact_bias,
    rare,
    short_runs,
    tv_value,
)
from synthetic import plugin_bias


@stated
def tv_floor_bias() -> Claim[SampledLosses]:
    """Plain total variation has a bias that vanishes with n where the largest loss has a probability to speak of.

    Problem: bias = L - Lbar_n for TotalVariation(rho), e = P(l = max l).
    Guarantee (tight, by a loss of B with probability e = 1 - rho, else 0): bias <= B [(1 - rho) b(1 - rho) +
        rho (1 - e)^n], b(alpha) the largest bias of CVaR(alpha) (`cvar-bias-sharp`). So n has to be large against 1/e:
        what `tv-bias-root-n` goes wrong on is rare losses, and nothing else.
    Source: `tv-bias-split`, whose maximum part is at most B times the chance that n draws miss the largest loss.
    Example: l = Bernoulli(1/2), rho = 1/2, n = 2: L = 1, Lbar = 3/4, bias 1/4 = 1/2 (1/4 + 1/4).
    """

    def bound(x: SampledLosses, top: float = 1.0, power: int = 1) -> float:
        tails = (1 - x.level) * bias_bound(CVaR(1 - x.level), x.n, 1.0)
        return x.spread * (tails + top * x.level * (1 - _chance(x)) ** (power * x.n))

    claim = Claim[SampledLosses](
        label="tv-floor-bias",
        statement="L - Lbar_n <= B [(1-rho) E (1 - K/((1-rho) n))_+ + rho (1 - e)^n] for TV, e = P(l = max l)",
        reference="theory.md section 3",
        assumptions={**MASSES, **RADIUS},
        instances=short_runs(largest=32),
        lhs=lambda x: plugin_bias(x.losses, x.reference, x.n, TotalVariation(x.level)),
        rhs=bound,
        scale=lambda x: x.spread,
        tight=True,
        verifies=_verified,
        curve=Curve("n", tuple(rare(16, 0.25, 2**k) for k in range(9))),
        effort=0.4,
    )
    return claim.with_mutants(
        shrunk(claim),
        swapped(claim),
        mutant(claim, "the maximum forgotten", rhs=lambda x: bound(x, top=0.0)),
        mutant(claim, "half of it", rhs=lambda x: bound(x, top=0.5)),
        mutant(claim, "(1 - e)^2n", rhs=lambda x: bound(x, power=2)),
    )


def _chance(x: SampledLosses) -> float:
    return float(x.reference @ (np.array(x.losses) == max(x.losses)))


def _verified(x: SampledLosses) -> bool:
    alpha = 1 - Fraction(x.level)
    terms = (comb(x.n, k) * alpha**k * (1 - alpha) ** (x.n - k) * max(1 - k / (alpha * x.n), 0) for k in range(x.n + 1))
    rarest = sum(p for loss, p in zip(x.losses, x.exact_reference, strict=True) if loss == max(x.losses))
    bound = alpha * sum(terms, Fraction(0)) + (1 - alpha) * (1 - rarest) ** x.n
    return exact_bias(x, tv_value(x.level)) <= x.exact_spread * bound
