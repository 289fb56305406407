"""Claims about the worst-case value as a function of the losses: derivative, convexity (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    CressieRead,
    CVaR,
    Hellinger,
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
    WorstCase,
    worst_case,
)
from proofs_check.claim import Array, Assumptions, Claim, Instances, dyadic, mutant, shrunk, stated, swapped
from proofs_check.claims.inner.inner_problem import CORNERS, MASSES, WeightedLosses, masses


@dataclass(frozen=True)
class TwoLosses(WeightedLosses):
    """Two vectors of losses, and the share of the second in a mixture."""

    others: tuple[float, ...]
    share: float

    @property
    def first(self) -> Array:
        """The losses."""
        return np.array(self.losses)

    @property
    def second(self) -> Array:
        """The other losses."""
        return np.array(self.others)

    @property
    def between(self) -> Array:
        """The mixture."""
        return (1 - self.share) * self.first + self.share * self.second


@stated
def danskin() -> Claim[TwoLosses]:
    """The worst-case weights are a subgradient of the robust loss.

    Problem: L(l) = max <q, l> over an ambiguity set, q* a maximiser at l; l_i(theta) convex in theta.
    Guarantee (tight: L is linear as long as q* stays a maximiser): L(l') >= L(l) + <q*, l' - l> for every l', hence
        L(theta') >= L(theta) + sum q*_i <grad l_i(theta), theta' - theta>.
    Source: theory.md section 3, `danskin`. Nine sets; the convex losses are log(1 + exp(a_i + theta b_i)).
    Example: CVaR(1/2), two equal atoms: at l = (0, 1) q* = (0, 1), and at l' = (3, 0) L = 3 >= 1 + (0 - 1).
    """

    def tangents(x: TwoLosses, *, sign: float = 1.0, plain: bool = False) -> Array:
        d = sign * (x.second - x.first)
        rows, slopes = np.stack([x.first, _softplus(x.first)]), np.stack([d, d / (1 + np.exp(-x.first))])
        worst = _solved(x, rows)
        weights = x.reference if plain else np.stack([w.weights for w in worst])
        return (np.stack([w.value for w in worst]) + np.sum(weights * slopes, axis=-1)).ravel()

    claim = Claim[TwoLosses](
        label="danskin",
        statement="L(l) + <q*, l' - l> <= L(l'), and so with sum q*_i grad l_i for convex l_i(theta)",
        reference="theory.md section 3",
        assumptions=_PAIRS,
        instances=_pairs(),
        lhs=tangents,
        rhs=lambda x: _values(x, x.second, _softplus(x.second)).ravel(),
        scale=_reach,
        tight=True,
        effort=0.3,
    )
    plain = mutant(claim, "p for q*", lhs=lambda x: tangents(x, plain=True))
    wrong_way = mutant(claim, "the other sign", lhs=lambda x: tangents(x, sign=-1.0))
    return claim.with_mutants(swapped(claim), plain, wrong_way)


@stated
def danskin_gradient() -> Claim[TwoLosses]:
    """Where the worst-case weights are unique they are the gradient, with an explicit remainder.

    Problem: how far L(l + d) is above its tangent L(l) + <q*, d>; t is the dual price of the radius at l.
    Guarantee (tight for chi-square): at most Var d / (2 t) for ChiSquare, (max d - min d)^2 / (8 t) for KL. For total
        variation, CVaR and spectral sets not at all, if no two losses are equal and d does not change their order.
    Source: [D]. With the price kept at t, L(l + d) <= t rho + P(l + d), P the value penalised by t D, and L(l) =
        t rho + P(l) with the same gradient q*; D being 1-strongly convex (chi-square in L2(p), KL in the 1-norm), P is
        1/t-smooth, and constants added to d do not matter. The others are linear on losses of one order.
    Example: ChiSquare(1/8), l = (0, 1), p = (1/2, 1/2): t = 1, q* = (1/4, 3/4); d = (1, -1) gives L = 3/4 in place of
        1/4, and Var d / (2 t) = 1/2.
    """

    def reached(x: TwoLosses) -> Array:
        d = x.second - x.first
        curved = [_value(x, ball, x.first + d) for ball in _curved(x.radius)]
        return np.array(curved + [_value(x, ball, x.first + _ordered(x)) for ball in _piecewise_linear(x)])

    def tangents(x: TwoLosses, kl: float = 1 / 8, chi2: float = 1 / 2) -> Array:
        d = x.second - x.first
        sizes = kl * np.ptp(d[x.reference > 0]) ** 2, chi2 * float(x.reference @ (d - x.reference @ d) ** 2)
        curved = [_tangent(x, ball, d, size) for ball, size in zip(_curved(x.radius), sizes, strict=True)]
        return np.array(curved + [_tangent(x, ball, _ordered(x), 0.0) for ball in _piecewise_linear(x)])

    claim = Claim[TwoLosses](
        label="danskin-gradient",
        statement="L(l + d) <= L(l) + <q*, d> + C |d|^2 / t (KL, ChiSquare), or + 0 if d keeps the order (TV, CVaR)",
        reference="theory.md section 3",
        assumptions={**_PAIRS, "losses at least 1/64 apart": lambda x: _least_gap(x) >= 1 / 64},
        instances=_pairs(),
        lhs=reached,
        rhs=tangents,
        scale=_reach,
        tight=True,
        effort=0.5,
    )
    small_kl = mutant(claim, "1/9 for KL", rhs=lambda x: tangents(x, kl=1 / 9))
    small_chi2 = mutant(claim, "0.49 for chi-square", rhs=lambda x: tangents(x, chi2=0.49))
    return claim.with_mutants(swapped(claim), small_kl, small_chi2)


@stated
def robust_convexity() -> Claim[TwoLosses]:
    """The robust loss is convex, and no steeper than the largest change of a loss.

    Problem: L(l) = max <q, l> over an ambiguity set; l_i(theta) convex in theta.
    Guarantee (tight): L((1 - s) l + s l') <= (1 - s) L(l) + s L(l'); with convex l_i(theta) the same in theta, because
        L does not fall when a loss rises; |L(l) - L(l')| <= max_i |l_i - l'_i|.
    Source: theory.md section 3, `robust-convexity`: a maximum of linear functions with weights in the simplex. Nine
        sets; the convex losses are log(1 + exp(a_i + theta b_i)). Trimming is no such maximum, and not convex.
    Example: total variation of radius 1 is the maximum: l = (0, 2), l' = (2, 0), s = 1/2 give 1 <= 2.
    """

    def halfway(x: TwoLosses) -> Array:
        values = _values(x, x.first, x.second, x.between, _softplus(x.between))
        return np.hstack([values[:, 2], values[:, 3], np.abs(values[:, 0] - values[:, 1])])

    def bounds(x: TwoLosses, steepness: float = 1.0) -> Array:
        first, second, soft, other = _values(x, x.first, x.second, _softplus(x.first), _softplus(x.second)).T
        s, moved = x.share, np.abs(x.second - x.first)
        # Transport may fill a scenario without mass.
        kept = (moved if isinstance(ball, Wasserstein) else moved[x.reference > 0] for ball in _sets(x))
        changes = steepness * np.array([np.max(part) for part in kept])
        return np.hstack([(1 - s) * first + s * second, (1 - s) * soft + s * other, changes])

    def trimmed(x: TwoLosses, *rows: Array) -> Array:
        return np.array([_value(x, Trimmed(TotalVariation(x.radius), 0.25), row) for row in rows])

    claim = Claim[TwoLosses](
        label="robust-convexity",
        statement="L is convex in the losses, convex in theta if every loss is, and nonexpansive in the largest change",
        reference="theory.md section 3",
        assumptions=_PAIRS,
        instances=_pairs(),
        lhs=halfway,
        rhs=bounds,
        scale=_reach,
        tight=True,
        effort=0.3,
    )
    not_a_set = mutant(
        claim,
        "after trimming",
        lhs=lambda x: trimmed(x, x.between),
        rhs=lambda x: trimmed(x, x.first, x.second) @ np.array([1 - x.share, x.share]),
    )
    steep = mutant(claim, "0.9 of the largest change", rhs=lambda x: bounds(x, steepness=0.9))
    return claim.with_mutants(shrunk(claim), swapped(claim), not_a_set, steep)


_PAIRS: Assumptions[TwoLosses] = {
    **MASSES,
    "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1,
    "0 <= share <= 1": lambda x: 0 <= x.share <= 1,
    "other losses in [-8, 8]": lambda x: max(map(abs, x.others)) <= 8,
}


def _pairs() -> Instances[TwoLosses]:
    """Return corners with losses turned round, and with moves along which the remainders are largest; draws."""
    corners = [TwoLosses(*c, radius, c[0][::-1], 0.5) for c in CORNERS for radius in (0.125, 0.5, 1.0)]
    corners.append(TwoLosses((-1.0, 0.0, 1.0), (1.0,) * 3, 1 / 32, (0.0, -1.0, 1.0), 0.5))
    corners.append(TwoLosses((0.0, 1.0), (1.0, 1.0), 0.25, (1.0, 2.0), 0.5))  # l' = l + 1: every set sees all of it
    moved = (0.0625, -0.046875, 1.0625, 0.953125)
    corners.append(TwoLosses((0.0, 0.015625, 1.0, 1.015625), (1.0,) * 4, 0.125, moved, 0.5))
    atoms = st.lists(st.tuples(dyadic(-4, 4), masses(), dyadic(-4, 4)), min_size=2, max_size=6)
    draws = st.tuples(atoms, dyadic(0, 1), dyadic(0, 1))
    return Instances(TwoLosses, tuple(corners), draws.map(lambda d: _pair(*d)))


def _pair(atoms: list[tuple[float, float, float]], radius: float, share: float) -> TwoLosses:
    losses, masses, others = zip(*atoms, strict=True)
    return TwoLosses(losses, masses, radius, others, share)


def _sets(x: TwoLosses) -> tuple[AmbiguitySet, ...]:
    """Return nine sets that grow with the radius."""
    r, places = x.radius, np.arange(len(x.losses))
    cost = np.abs(places - places[:, None]) / len(places)
    return (
        *(*_piecewise_linear(x), TotalVariation(r, max_ratio=2.5), Wasserstein(r, cost)),
        *(*_curved(r), CressieRead(order=1.5, radius=r), Hellinger(r)),
    )


def _piecewise_linear(x: TwoLosses) -> tuple[AmbiguitySet, ...]:
    tail, spectrum = max(1 - x.radius, 1 / 64), Spectral((0.1, 0.3, 0.6)).with_strength(x.radius)
    return TotalVariation(x.radius), CVaR(tail), spectrum


def _curved(radius: float) -> tuple[KL, ChiSquare]:
    return KL(radius), ChiSquare(radius)


def _solved(x: TwoLosses, rows: Array) -> list[WorstCase]:
    return [worst_case(rows, ball, reference=x.reference) for ball in _sets(x)]


def _values(x: TwoLosses, *rows: Array) -> Array:
    """Return the values ``(sets, rows)``."""
    return np.stack([worst.value for worst in _solved(x, np.stack(rows))])


def _value(x: TwoLosses, ball: AmbiguitySet, losses: Array) -> float:
    return float(worst_case(losses, ball, reference=x.reference).value)


def _tangent(x: TwoLosses, ball: AmbiguitySet, d: Array, size: float) -> float:
    """Return L(l) + <q*, d> + size / t."""
    worst = worst_case(x.first, ball, reference=x.reference)
    remainder = 0.0 if size == 0 else np.inf
    if worst.dual.multiplier > 0:
        remainder = size / float(worst.dual.multiplier)
    return float(worst.value + worst.weights @ d) + remainder


def _ordered(x: TwoLosses) -> Array:
    """Return the change of the losses, made so short that it does not change their order."""
    d = x.second - x.first
    return d * min(1.0, _least_gap(x) / 2 / max(float(np.ptp(d[x.reference > 0])), 1e-9))


def _least_gap(x: TwoLosses) -> float:
    return float(np.min(np.diff(np.sort(x.seen))))


def _reach(x: TwoLosses) -> float:
    """Return the range of all losses."""
    return max(*x.losses, *x.others) - min(*x.losses, *x.others)


def _softplus(losses: Array) -> Array:
    return np.logaddexp(0.0, losses)
