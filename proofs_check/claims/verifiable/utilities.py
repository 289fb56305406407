"""Utilities whose prompt weights are the worst case of a known set: risk seeking, the best of k, likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, AmbiguitySet, Burg, BurgPenalty, CressieRead, worst_case
from proofs_check.claim import Array, Assumptions, Claim, Instances, Relation, mutant, shrunk, stated, swapped
from proofs_check.claims.verifiable.rates import ADMITTED, Rates, batches, dot, floats, shares

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOOR = 1 / 64  # where a mutant would divide by 0


@dataclass(frozen=True)
class RiskSeeking(Rates):
    """Prompts, and e^beta - 1 = 1/eta in quarters."""

    quarters: int

    @property
    def eta(self) -> Fraction:
        """1/(e^beta - 1)."""
        return Fraction(4, self.quarters)


@dataclass(frozen=True)
class BestOf(Rates):
    """Prompts, and the number of answers of which the best counts."""

    k: int


_SEEKING: Assumptions[RiskSeeking] = {**ADMITTED, "e^beta - 1 from 1/4 to 64": lambda x: 1 <= x.quarters <= 256}


@stated
def risk_seeking_is_robust() -> Claim[RiskSeeking]:
    """Risk seeking over answers is a worst case over prompts, of the reverse KL divergence.

    Problem: maximise the sum over prompts of 1/beta log E exp(beta r), r in {0, 1} (RS-GRPO, 2509.24261). With p the
        pass rate it is 1/beta log(1 + (e^beta - 1) p), so prompts weigh (e^beta - 1)/(beta (1 + (e^beta - 1) p)).
    Guarantee (exact): normalised, that is q = lambda/(n (p + eta)) with eta = 1/(e^beta - 1) and lambda the harmonic
        mean of p + eta: the worst case of losses 1 - p over the Burg ball E log(1/(n q)) <= log(GM/HM), GM and HM the
        geometric and the harmonic mean of p + eta, and under the Burg penalty of strength lambda. Radius and strength
        depend on the batch. The worst mean loss is 1 + eta - lambda.
    Source: theory.md section 3: for every q' in the ball <q', p + eta> >= exp E log(n q' (p + eta)) >= lambda.
    Example: e^beta = 2, p = 0, 1: eta = 1, lambda = 4/3, q = (2/3, 1/3), radius log(3 sqrt(2)/4) = .059.
    """
    claim = Claim[RiskSeeking](
        label="risk-seeking-is-robust",
        statement="RS-GRPO weighs prompts 1/(p + eta), eta = 1/(e^beta - 1): worst case of a Burg ball, and penalty",
        reference="theory.md section 3",
        assumptions=_SEEKING,
        instances=_seeking(),
        lhs=lambda x: np.concatenate([floats(_seeking_shares(x))] * 2),
        rhs=lambda x: np.concatenate([_worst(x, Burg(_log_ratio(x))), _worst(x, BurgPenalty(float(_harmonic(x))))]),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=_seeking_is_worst,
    )

    def by(name: str, build: Callable[[RiskSeeking], AmbiguitySet]) -> Claim[RiskSeeking]:
        return mutant(claim, name, rhs=lambda x: np.tile(_worst(x, build(x)), 2))

    likelihood = mutant(claim, "1/p, without e^beta", lhs=lambda x: np.tile(_plain_shares(x), 2))
    return claim.with_mutants(
        likelihood,
        by("KL in place of its reverse", lambda x: KL(_log_ratio(x))),
        by("one radius for every batch", lambda x: Burg(0.06)),
        by("strength eta", lambda x: BurgPenalty(float(x.eta))),
    )


@stated
def pass_at_k_is_robust() -> Claim[BestOf]:
    """The gradient of pass@k is a worst case over prompts, of a Cressie-Read divergence.

    Problem: maximise the sum over prompts of 1 - (1 - p)^k, p the pass rate, k >= 2: prompts weigh k (1 - p)^(k-1).
    Guarantee (exact): normalised, q = l^(k-1)/sum l^(k-1) with l = 1 - p, the worst case of losses l over the ball of
        order k/(k-1) that has q on its border: chi-square for k = 2, near KL for large k. The radius depends on the
        batch; the worst mean loss is sum l^k / sum l^(k-1).
    Source: theory.md section 3: Hoelder's inequality for the exponents k/(k-1) and k, equal where (n q)^(k/(k-1)) is
        proportional to l^k.
    Example: k = 2, p = 0, 1/2: q = (2/3, 1/3), the chi-square radius 1/2 E (n q - 1)^2 = 1/18, worst loss 5/6.
    """
    claim = Claim[BestOf](
        label="pass-at-k-is-robust",
        statement="pass@k weighs prompts k (1 - p)^(k-1): the worst case of a Cressie-Read ball of order k/(k-1)",
        reference="theory.md section 3",
        assumptions={
            **ADMITTED,
            "best of 2 to 16": lambda x: 2 <= x.k <= 16,
            "some rate below 1": lambda x: min(x.parts) < x.whole,
        },
        instances=_best_of(),
        lhs=lambda x: floats(_best_shares(x)),
        rhs=lambda x: _worst(x, CressieRead(x.k / (x.k - 1), _power_radius(x))),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=_best_is_worst,
    )
    power = mutant(claim, "order k", rhs=lambda x: _worst(x, CressieRead(min(x.k, 3), _power_radius(x))))
    more = mutant(claim, "(1 - p)^k", lhs=lambda x: floats(shares([(1 - p) ** x.k for p in x.exact])))
    entropy = mutant(claim, "a KL ball", rhs=lambda x: _worst(x, KL(_power_radius(x))))
    return claim.with_mutants(power, more, entropy)


@stated
def maxrl_limit() -> Claim[RiskSeeking]:
    """Maximum likelihood, 1/p, is the limit of risk seeking for beta -> infinity, at a known distance.

    Problem: normalised weights q of 1/(p + eta), eta = 1/(e^beta - 1), and q* of 1/p (MaxRL, 2602.02710), rates p > 0
        between m and M.
    Guarantee (tight: equal rates): q* (1 + eta/M)/(1 + eta/m) <= q <= q* (1 + eta/m)/(1 + eta/M).
    Source: theory.md section 3: 1/(p + eta) = 1/p / (1 + eta/p), and 1 + eta/p lies between 1 + eta/M and 1 + eta/m.
        Where rates may be 0, 1/p weighs nothing else; 1/(p + eta) does not.
    Example: p = 1/4, 1 and eta = 1/4: q = (5/7, 2/7), q* = (4/5, 1/5); 5/7 >= 4/5 * 5/8 and 2/7 <= 1/5 * 8/5.
    """
    claim = Claim[RiskSeeking](
        label="maxrl-limit",
        statement="q* (1 + eta/M)/(1 + eta/m) <= q <= q* (1 + eta/m)/(1 + eta/M) for 1/p and 1/(p + eta), eta -> 0",
        reference="theory.md section 3",
        assumptions={**_SEEKING, "rates above 0": lambda x: min(x.parts) > 0},
        instances=_positive(),
        lhs=lambda x: np.concatenate([floats(side) for side in _limit_sides(x)[0]]),
        rhs=lambda x: np.concatenate([floats(side) for side in _limit_sides(x)[1]]),
        scale=lambda x: 1.0,
        tight=True,
        verifies=lambda x: all(
            low <= high for one, two in zip(*_limit_sides(x), strict=True) for low, high in zip(one, two, strict=True)
        ),
    )
    reached = mutant(claim, "reached at finite beta", rhs=lambda x: np.tile(_plain_shares(x), 2))
    return claim.with_mutants(shrunk(claim), swapped(claim), reached)


def _worst(x: Rates, ambiguity: AmbiguitySet) -> Array:
    return np.asarray(worst_case(x.losses, ambiguity).weights)


def _seeking_shares(x: RiskSeeking) -> list[Fraction]:
    """The derivative of log E exp(beta r) in p, (b - 1)/(1 - p + b p), normalised."""
    b = 1 + Fraction(x.quarters, 4)
    return shares([(b - 1) / (1 - p + b * p) for p in x.exact])


def _plain_shares(x: Rates) -> Array:
    raw = 1 / np.maximum(1 - x.losses, _FLOOR)
    return raw / raw.sum()


def _harmonic(x: RiskSeeking) -> Fraction:
    return len(x.parts) / sum((1 / (p + x.eta) for p in x.exact), Fraction(0))


def _log_ratio(x: RiskSeeking) -> float:
    """The logarithm of the geometric over the harmonic mean of p + eta."""
    shifted = floats([(p + x.eta) / _harmonic(x) for p in x.exact])
    return max(float(np.mean(np.log(shifted))), 0.0)


def _seeking_is_worst(x: RiskSeeking) -> bool:
    """The mean loss of q is the upper bound 1 + eta - lambda, with lambda^n the product of n q (p + eta)."""
    q, n, least = _seeking_shares(x), len(x.parts), _harmonic(x)
    shifted = [p + x.eta for p in x.exact]
    reached = prod(n * weight * far for weight, far in zip(q, shifted, strict=True)) == least**n
    return reached and sum(q) == 1 and dot(q, [1 - p for p in x.exact]) == 1 + x.eta - least


def _best_shares(x: BestOf) -> list[Fraction]:
    return shares([x.k * (1 - p) ** (x.k - 1) for p in x.exact])


def _power_radius(x: BestOf) -> float:
    """E phi(n q) for the phi of order k/(k-1)."""
    ratios, order = len(x.parts) * floats(_best_shares(x)), x.k / (x.k - 1)
    return max(float(np.mean((ratios**order - order * ratios + order - 1) / (order * (order - 1)))), 0.0)


def _best_is_worst(x: BestOf) -> bool:
    """Hoelder with equality: (n q)^k is proportional to (l^k)^(k-1); and the mean loss is what that makes of it."""
    q, losses = _best_shares(x), [1 - p for p in x.exact]
    scale = len(x.parts) / sum((loss ** (x.k - 1) for loss in losses), Fraction(0))
    equal = all(
        (len(x.parts) * weight) ** x.k == scale**x.k * (loss**x.k) ** (x.k - 1)
        for weight, loss in zip(q, losses, strict=True)
    )
    mean = sum((loss**x.k for loss in losses), Fraction(0)) / len(losses)
    return equal and sum(q) == 1 and dot(q, losses) == scale * mean


def _limit_sides(x: RiskSeeking) -> tuple[tuple[list[Fraction], ...], tuple[list[Fraction], ...]]:
    q, limit = _seeking_shares(x), shares([1 / p for p in x.exact])
    factor = (1 + x.eta / min(x.exact)) / (1 + x.eta / max(x.exact))
    return ([w / factor for w in limit], q), (q, [w * factor for w in limit])


def _seeking() -> Instances[RiskSeeking]:
    rates = ((0, 1), 1), ((1, 2, 3), 4), ((0, 0, 8, 16), 16), ((1, 16), 16)
    corners = tuple(RiskSeeking(*given, quarters) for given in rates for quarters in (4, 1, 64))
    draws = st.tuples(batches(), st.integers(1, 256)).map(lambda d: RiskSeeking(d[0].parts, d[0].whole, d[1]))
    return Instances(RiskSeeking, corners, draws)


def _positive() -> Instances[RiskSeeking]:
    corners = tuple(
        RiskSeeking(parts, 16, quarters) for parts in ((4, 16), (1, 1, 9), (5, 5)) for quarters in (16, 256)
    )
    draws = st.tuples(batches(1), st.integers(1, 256)).map(lambda d: RiskSeeking(d[0].parts, d[0].whole, d[1]))
    return Instances(RiskSeeking, corners, draws)


def _best_of() -> Instances[BestOf]:
    four = (0, 2, 3, 4)
    corners = (*(BestOf(four, 4, k) for k in (2, 3, 8)), BestOf((0, 1), 2, 2), BestOf((1, 1), 2, 4))
    drawn = st.tuples(batches(), st.integers(2, 8), st.integers(0, 3))
    return Instances(BestOf, corners, drawn.map(lambda d: BestOf((*d[0].parts, d[2]), d[0].whole, d[1])))
