"""Claims about the inner problem: one distribution, one worst case (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, AmbiguitySet, ChiSquare, TotalVariation, worst_case
from proofs_check.claim import Array, Assumptions, Claim, Instances, dyadic, mutant, shrunk, swapped


@dataclass(frozen=True)
class WeightedLosses:
    """Losses l with masses proportional to p, and a radius."""

    losses: tuple[float, ...]
    masses: tuple[float, ...]
    radius: float

    @property
    def reference(self) -> Array:
        """The distribution p."""
        return np.array(self.masses) / sum(self.masses)

    @property
    def mean(self) -> float:
        """E l under p."""
        return float(self.reference @ np.array(self.losses))

    @property
    def spread(self) -> float:
        """Largest loss minus smallest."""
        return max(self.losses) - min(self.losses)


@dataclass(frozen=True)
class TwoRadii(WeightedLosses):
    """The same with a second radius."""

    wider: float


def tv_gap() -> Claim[WeightedLosses]:
    """How much worse than the mean a total-variation ball can be.

    Problem: L_rho = max <q, l> over 1/2 ||q - p||_1 <= rho.
    Guarantee (tight): 0 <= L_rho - E l <= rho (max l - min l).
    Source: theory.md section 3, `tv-gap`.
    Example: l = (0, 1), p = (1/2, 1/2), rho = 1/4 gives L = 3/4, gap 1/4 = rho.
    """
    claim = Claim[WeightedLosses](
        label="tv-gap",
        statement="0 <= L_rho - E l <= rho (max l - min l)",
        reference="theory.md section 3",
        assumptions={**_MASSES, "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1},
        instances=_one_radius(top=1.0),
        lhs=lambda x: (-_gap(x, TotalVariation(x.radius)), _gap(x, TotalVariation(x.radius))),
        rhs=lambda x: (0.0, x.radius * x.spread),
        scale=lambda x: x.spread,
        tight=True,
    )
    half = mutant(claim, "both halves of the norm counted", rhs=lambda x: (0.0, x.radius * x.spread / 2))
    return claim.with_mutants(shrunk(claim), swapped(claim), half)


def chi2_variance() -> Claim[WeightedLosses]:
    """The chi-square ball penalises the standard deviation.

    Problem: L_rho = max <q, l> over 1/2 sum p (q/p - 1)^2 <= rho.
    Guarantee (tight): L_rho - E l <= sqrt(2 rho Var l), with equality while every weight is positive.
    Source: [DN19].
    Example: l = (0, 1), p = (1/2, 1/2), rho = 1/8 gives L = 3/4, gap 1/4 = sqrt(2/8 * 1/4).
    """

    def bound(x: WeightedLosses) -> float:
        return float(np.sqrt(2 * x.radius * _variance(x)))

    def bound_if_positive(x: WeightedLosses) -> float:
        weights = worst_case(np.array(x.losses), ChiSquare(x.radius), reference=x.reference).weights
        return bound(x) if np.all(weights > 0) else 0.0

    claim = Claim[WeightedLosses](
        label="chi2-variance",
        statement="L_rho - E l <= sqrt(2 rho Var l), equal while every weight is positive",
        reference="DN19",
        assumptions={**_MASSES, "0 <= radius <= 8": lambda x: 0 <= x.radius <= 8},
        instances=_one_radius(top=8.0),
        lhs=lambda x: (_gap(x, ChiSquare(x.radius)), bound_if_positive(x)),
        rhs=lambda x: (bound(x), _gap(x, ChiSquare(x.radius))),
        scale=lambda x: x.spread,
        tight=True,
    )
    without_half = mutant(claim, "1/2 of the ball forgotten", rhs=lambda x: (bound(x) / np.sqrt(2), np.inf))
    always_equal = mutant(claim, "equality always", lhs=bound, rhs=lambda x: _gap(x, ChiSquare(x.radius)))
    return claim.with_mutants(shrunk(claim), without_half, always_equal)


def ball_nesting() -> Claim[WeightedLosses]:
    """Chi-square and KL balls of radius 2 rho^2 lie inside the total-variation ball of radius rho.

    Problem: closed convex sets are nested exactly if their worst-case values are ordered for all losses.
    Guarantee (tight, at two equal atoms, for chi-square): L_ChiSquare(2 rho^2), L_KL(2 rho^2) <= L_TV(rho).
    Source: Cauchy-Schwarz and Pinsker; theory.md section 3, `ball-nesting`.
    Example: l = (0, 1), p = (1/2, 1/2), rho = 1/4: chi-square and total variation both give 3/4.
    """

    def inner(x: WeightedLosses, factor: float = 2.0) -> tuple[float, float]:
        radius = factor * x.radius**2
        return _gap(x, ChiSquare(radius)), _gap(x, KL(radius))

    claim = Claim[WeightedLosses](
        label="ball-nesting",
        statement="ChiSquare(2 rho^2) and KL(2 rho^2) lie inside TotalVariation(rho)",
        reference="theory.md section 3",
        assumptions={**_MASSES, "1/64 <= radius <= 1": lambda x: 1 / 64 <= x.radius <= 1},
        instances=_one_radius(top=1.0),
        lhs=inner,
        rhs=lambda x: (_gap(x, TotalVariation(x.radius)),) * 2,
        scale=lambda x: x.spread,
        tight=True,
    )
    larger = mutant(claim, "radius 2.1 rho^2", lhs=lambda x: inner(x, factor=2.1))
    same_radius = mutant(claim, "radius rho", lhs=lambda x: (_gap(x, ChiSquare(x.radius)), 0.0))
    return claim.with_mutants(shrunk(claim), swapped(claim), larger, same_radius)


def radius_concave() -> Claim[TwoRadii]:
    """The worst-case value as a function of the radius.

    Problem: V(rho) = worst-case value over the total-variation, KL or chi-square ball of radius rho.
    Guarantee (tight: V is linear in rho for small total-variation radii): V is nondecreasing and concave.
    Source: theory.md section 3, `radius-concave`.
    Example: l = (0, 1), p = (1/2, 1/2): total variation gives V = min(1/2 + rho, 1).
    """

    def values(x: TwoRadii, radius: float) -> Array:
        return np.array([_gap(x, ball(radius)) for ball in (TotalVariation, KL, ChiSquare)])

    def end_and_chord(x: TwoRadii) -> Array:
        end = values(x, x.radius)
        return np.hstack([end, (end + values(x, x.wider)) / 2])

    claim = Claim[TwoRadii](
        label="radius-concave",
        statement="the value is nondecreasing and concave in the radius (TV, KL, ChiSquare)",
        reference="theory.md section 3",
        assumptions={**_MASSES, "0 <= radius <= wider <= 1": lambda x: 0 <= x.radius <= x.wider <= 1},
        instances=_two_radii(),
        lhs=end_and_chord,
        rhs=lambda x: np.tile(values(x, (x.radius + x.wider) / 2), 2),
        scale=lambda x: x.spread,
        tight=True,
    )
    return claim.with_mutants(shrunk(claim), swapped(claim))


_MASSES: Assumptions[WeightedLosses] = {
    "every mass at least 1/64": lambda x: min(x.masses) >= 1 / 64,
    # No loss of generality, each set being translation equivariant and positively homogeneous; without it the
    # optimiser runs to losses that differ in their last digits and refutes theorems by rounding errors.
    "losses in [-8, 8], spread at least 1/64": lambda x: max(map(abs, x.losses)) <= 8 and x.spread >= 1 / 64,
}
_CORNERS = (((0.0, 1.0), (1.0, 1.0)), ((0.0, 0.0, 1.0), (1.0, 2.0, 1.0)), ((-1.0, 0.0, 2.0), (1.0, 1.0, 1.0)))
_RADII = (0.125, 0.25, 0.5, 1.0)


def _one_radius(top: float) -> Instances[WeightedLosses]:
    corners = tuple(WeightedLosses(*corner, radius) for corner in _CORNERS for radius in _RADII)
    draws = st.tuples(_atoms(), dyadic(0, top)).map(lambda drawn: WeightedLosses(*drawn[0], drawn[1]))
    return Instances(WeightedLosses, corners, draws)


def _two_radii() -> Instances[TwoRadii]:
    corners = tuple(TwoRadii(*corner, radius / 4, radius) for corner in _CORNERS for radius in _RADII)
    draws = st.tuples(_atoms(), dyadic(0, 1), dyadic(0, 1))
    return Instances(TwoRadii, corners, draws.map(lambda d: TwoRadii(*d[0], min(d[1:]), max(d[1:]))))


def _atoms() -> st.SearchStrategy[tuple[tuple[float, ...], tuple[float, ...]]]:
    pairs = st.lists(st.tuples(dyadic(-4, 4), dyadic(1 / 64, 1)), min_size=2, max_size=6)
    return pairs.map(lambda atoms: (tuple(a for a, _ in atoms), tuple(m for _, m in atoms)))


def _gap(x: WeightedLosses, ambiguity: AmbiguitySet) -> float:
    """Worst-case value minus the mean."""
    return float(worst_case(np.array(x.losses), ambiguity, reference=x.reference).value) - x.mean


def _variance(x: WeightedLosses) -> float:
    return float(x.reference @ (np.array(x.losses) - x.mean) ** 2)
