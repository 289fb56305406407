"""Claims that the inner problem and its dual have the same value (theory.md section 3, inner problem).

The left side is the worst case that dro_core finds, the right side the closed form or the dual as theory.md prints it,
minimised here over the points at which alone it bends. Both are shown minus the mean loss. On every instance the primal
and the dual of the definition also meet in rational numbers. For the sets of a divergence see ``divergence_duality``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from dro_core import CVaR, TotalVariation
from proofs_check.claim import Array, Assumptions, Claim, Curve, Instances, Relation, dyadic, mutant, shrunk, stated
from proofs_check.claims.inner.inner_problem import CORNERS, MASSES, Atoms, WeightedLosses, atoms, excess, radius_curve
from proofs_check.exact.certificates import exact_cvar, exact_tv
from proofs_check.exact.enclosures import enclosure


@dataclass(frozen=True)
class CappedLosses(WeightedLosses):
    """Losses, masses and radius with the largest q/p allowed."""

    max_ratio: float


@dataclass(frozen=True)
class TailLosses(Atoms):
    """Losses and masses with a tail mass."""

    alpha: float


@stated
def tv_closed_form() -> Claim[CappedLosses]:
    """Total variation is a tail and the maximum, or two tails if q/p is bounded.

    Problem: L = max <q, l> over 1/2 ||q - p||_1 <= rho, and the same with q <= c p.
    Guarantee (exact, with or without atoms): L = (1 - rho) CVaR_{1-rho} + rho max l; with the bound it is
        (1 - rho) CVaR_{1-rho} + rho CVaR_{rho/(c-1)}, or CVaR_{1/c} once c (1 - rho) <= 1.
    Source: theory.md section 1.
    Example: l = (4, 0, 1, 2), p = 1/4 each, rho = 1/2: L = 1/2 * 3 + 1/2 * 4 = 7/2; with c = 2, CVaR_{1/2} = 3.
    """
    claim = Claim[CappedLosses](
        label="tv-closed-form",
        statement="TV = (1-rho) CVaR_{1-rho} + rho max; with q <= c p, rho CVaR_{rho/(c-1)} for the second part",
        reference="theory.md section 1",
        assumptions=_CAPPED,
        instances=_capped(),
        lhs=_both_tv,
        rhs=lambda x: _two_tails(x, x.radius),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        verifies=_tails_are_exact,
        curve=_capped_curve(),
    )
    doubled = mutant(claim, "norm without its half", rhs=lambda x: _two_tails(x, x.radius / 2))
    no_maximum = mutant(claim, "second part forgotten", rhs=lambda x: (_tail(x, 1 - x.radius),) * 2)
    one_form = mutant(claim, "maximum in spite of the bound", rhs=lambda x: (_two_tails(x, x.radius)[0],) * 2)
    return claim.with_mutants(shrunk(claim), doubled, no_maximum, one_form)


@stated
def tv_dual() -> Claim[CappedLosses]:
    """Total variation by its dual.

    Problem: L = max <q, l> over 1/2 ||q - p||_1 <= rho, and the same with q <= c p.
    Guarantee (exact): L = inf_{eta <= M} rho (M - eta) + eta + E (l - eta)_+, M = max l. Above M the objective is
        rho M + (1 - rho) eta, so that eta <= M may be dropped as long as rho <= 1. With the bound
        L = inf_{eta, t >= 0} rho t + E [max(l, eta) + (c - 1) (l - eta - t)_+].
    Source: theory.md section 3, `tv-dual`; linear programming duality.
    Example: l = (0, 1), p = (1/2, 1/2), rho = 1/4: eta = 0 gives 1/4 + 1/2 = 3/4 = L.
    """
    claim = Claim[CappedLosses](
        label="tv-dual",
        statement="TV = inf_{eta <= M} rho (M - eta) + eta + E (l - eta)_+, and its like for q <= c p",
        reference="theory.md section 3",
        assumptions=_CAPPED,
        instances=_capped(),
        lhs=_both_tv,
        rhs=lambda x: (_least_tv_dual(x, None), _least_tv_dual(x, x.max_ratio)),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        verifies=_tv_meets,
        curve=_capped_curve(),
    )
    half = mutant(claim, "norm without its half", rhs=lambda x: claim.rhs(replace(x, radius=x.radius / 2)))
    above = mutant(claim, "eta >= M", rhs=lambda x: (max(x.seen) - x.mean, excess(x, _cap(x))))
    no_cap = mutant(claim, "bound forgotten", rhs=lambda x: (_least_tv_dual(x, None),) * 2)
    roomy = mutant(
        claim, "room c instead of c - 1", rhs=lambda x: (_least_tv_dual(x, None), _least_tv_dual(x, x.max_ratio + 1))
    )
    return claim.with_mutants(shrunk(claim), half, above, no_cap, roomy)


@stated
def cvar_dual() -> Claim[TailLosses]:
    """The mean of a tail by its dual.

    Problem: L = max <q, l> over q <= p / alpha.
    Guarantee (exact): L = inf_eta eta + E (l - eta)_+ / alpha, at a loss that cuts off a tail of mass alpha.
    Source: [RU00].
    Example: l = (0, 1), p = (1/2, 1/2), alpha = 3/4: eta = 0 gives (1/2) / (3/4) = 2/3 = L.
    """

    def least(x: TailLosses, slope: float) -> float:
        losses = np.array(x.losses)
        return float(np.min(losses + slope * _over(losses, losses) @ x.reference)) - x.mean

    claim = Claim[TailLosses](
        label="cvar-dual",
        statement="CVaR = inf_eta eta + E (l - eta)_+ / alpha",
        reference="RU00",
        assumptions={**MASSES, "1/64 <= alpha <= 1": lambda x: 1 / 64 <= x.alpha <= 1},
        instances=_tails(),
        lhs=lambda x: excess(x, CVaR(x.alpha)),
        rhs=lambda x: least(x, 1 / x.alpha),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        verifies=_cvar_meets,
        curve=_alpha_curve(),
    )
    level = mutant(claim, "1 - alpha for alpha", rhs=lambda x: least(x, 1 / max(1 - x.alpha, 1 / 64)))
    forgotten = mutant(claim, "alpha forgotten", rhs=lambda x: least(x, 1.0))
    return claim.with_mutants(shrunk(claim), level, forgotten)


_CAPPED: Assumptions[CappedLosses] = {
    **MASSES,
    "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1,
    "1 <= max_ratio <= 64": lambda x: 1 <= x.max_ratio <= 64,
}


def _capped() -> Instances[CappedLosses]:
    corners = tuple(CappedLosses(*c, r, ratio) for c in CORNERS for r in (0.125, 0.5, 1.0) for ratio in (1.25, 3.0))
    draws = st.tuples(atoms(), dyadic(0, 1), dyadic(1, 8))
    return Instances(CappedLosses, corners, draws.map(lambda d: CappedLosses(*d[0], d[1], d[2])))


def _capped_curve() -> Curve[CappedLosses]:
    family = radius_curve().instances
    return Curve("radius", tuple(CappedLosses(x.losses, x.masses, x.radius, 2.5) for x in family))


def _alpha_curve() -> Curve[TailLosses]:
    family = radius_curve().instances
    return Curve("alpha", tuple(TailLosses(x.losses, x.masses, x.radius) for x in family))


def _tails() -> Instances[TailLosses]:
    corners = tuple(TailLosses(*corner, alpha) for corner in CORNERS for alpha in (0.125, 0.25, 0.75, 1.0))
    draws = st.tuples(atoms(), dyadic(1 / 64, 1))
    return Instances(TailLosses, corners, draws.map(lambda d: TailLosses(*d[0], d[1])))


def _tv(x: CappedLosses) -> TotalVariation:
    return TotalVariation(x.radius)


def _cap(x: CappedLosses) -> TotalVariation:
    return TotalVariation(x.radius, max_ratio=x.max_ratio)


def _both_tv(x: CappedLosses) -> tuple[float, float]:
    return excess(x, _tv(x)), excess(x, _cap(x))


def _tail(x: CappedLosses, alpha: float) -> float:
    """Return the mean of the worst tail minus the mean, by sorting; the maximum for alpha = 0."""
    order = np.argsort(x.losses)[::-1]
    losses, p = np.array(x.losses)[order], x.reference[order]
    taken = np.clip(alpha - (np.cumsum(p) - p), 0, p)
    return float(taken @ losses / alpha if alpha > 0 else max(x.seen)) - x.mean


def _two_tails(x: CappedLosses, radius: float) -> tuple[float, float]:
    keep, bottom = 1 - radius, (1 - radius) * _tail(x, 1 - radius)
    if x.max_ratio * keep <= 1:
        return bottom + radius * _tail(x, 0.0), _tail(x, 1 / x.max_ratio)
    return bottom + radius * _tail(x, 0.0), bottom + radius * _tail(x, radius / (x.max_ratio - 1))


def _tails_are_exact(x: CappedLosses) -> bool:
    """Decide both equations in rational numbers."""
    radius, ratio = Fraction(x.radius), Fraction(x.max_ratio)
    keep = 1 - radius

    def part(share: Fraction, alpha: Fraction) -> Fraction:
        return share * exact_cvar(x.losses, x.masses, alpha) if share else Fraction(0)

    free = part(keep, keep) + radius * Fraction(max(x.seen))
    capped = part(Fraction(1), 1 / ratio)
    if ratio * keep > 1:
        capped = part(keep, keep) + (part(radius, radius / (ratio - 1)) if radius else 0)
    found = exact_tv(x.losses, x.masses, radius), exact_tv(x.losses, x.masses, radius, ratio)
    return found == (free, capped)


def _over(losses: Array, levels: Array) -> Array:
    """Return (l - level)_+, one row per level."""
    return np.maximum(losses - levels[:, None], 0)


def _least_tv_dual(x: CappedLosses, max_ratio: float | None) -> float:
    """Return the smallest dual value over the losses, at which alone the objective bends, minus the mean."""
    losses, p = np.array(x.losses), x.reference
    kept = losses + _over(losses, losses) @ p  # E max(l, eta)
    if max_ratio is None:
        return float(np.min(x.radius * (max(x.seen) - losses) + kept)) - x.mean
    top = (max_ratio - 1) * _over(losses, losses) @ p  # at the level eta + t
    above = losses - losses[:, None]
    return float(np.min(np.where(above >= 0, x.radius * above + kept[:, None] + top, np.inf))) - x.mean


def _tv_meets(x: CappedLosses) -> bool:
    """Whether exact primal and dual meet (``exact_tv`` raises otherwise), and lie where dro_core's solution says."""
    exact = exact_tv(x.losses, x.masses, x.radius), exact_tv(x.losses, x.masses, x.radius, x.max_ratio)
    bounds = enclosure(x.losses, _tv(x), x.masses), enclosure(x.losses, _cap(x), x.masses)
    return all(low <= value <= high for value, (low, high) in zip(exact, bounds, strict=True))


def _cvar_meets(x: TailLosses) -> bool:
    low, high = enclosure(x.losses, CVaR(x.alpha), x.masses)
    return low <= exact_cvar(x.losses, x.masses, x.alpha) <= high
