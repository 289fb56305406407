"""Claims about the inner problem: one distribution, one worst case (theory.md section 3).

Masses go down to zero. A q has mass only where p has some, so a loss of mass zero counts nowhere: max l, min l, ranges
and "every weight" in the statements are those of the losses that have mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, AmbiguitySet, ChiSquare, TotalVariation, worst_case
from proofs_check.claim import Array, Assumptions, Claim, Curve, Instances, dyadic, mutant, shrunk, stated, swapped
from proofs_check.exact.certificates import distribution, exact_tv
from proofs_check.exact.enclosures import GAP, enclosure

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Atoms:
    """Losses l with masses proportional to p; some masses may be zero."""

    losses: tuple[float, ...]
    masses: tuple[float, ...]

    @property
    def reference(self) -> Array:
        """The distribution p."""
        return np.array(self.masses) / sum(self.masses)

    @property
    def mean(self) -> float:
        """E l under p."""
        return float(self.reference @ np.array(self.losses))

    @property
    def seen(self) -> tuple[float, ...]:
        """The losses that have mass."""
        return tuple(loss for loss, mass in zip(self.losses, self.masses, strict=True) if mass > 0)

    @property
    def spread(self) -> float:
        """Largest loss minus smallest, of those that have mass."""
        return max(self.seen) - min(self.seen)


@dataclass(frozen=True)
class WeightedLosses(Atoms):
    """The same with a radius."""

    radius: float


@dataclass(frozen=True)
class TwoRadii(WeightedLosses):
    """The same with a second, larger radius."""

    wider: float


@stated
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
        assumptions={**MASSES, "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1},
        instances=one_radius(top=1.0),
        lhs=lambda x: (-excess(x, TotalVariation(x.radius)), excess(x, TotalVariation(x.radius))),
        rhs=lambda x: (0.0, x.radius * x.spread),
        scale=lambda x: x.spread,
        tight=True,
        verifies=_tv_gap_holds,
        curve=radius_curve(),
    )
    half = mutant(claim, "both halves of the norm counted", rhs=lambda x: (0.0, x.radius * x.spread / 2))
    return claim.with_mutants(shrunk(claim), swapped(claim), half)


@stated
def chi2_variance() -> Claim[WeightedLosses]:
    """The chi-square ball penalises the standard deviation.

    Problem: L_rho = max <q, l> over 1/2 sum p (q/p - 1)^2 <= rho.
    Guarantee (tight): L_rho - E l <= sqrt(2 rho Var l), with equality while every weight is positive.
    Source: [DN19].
    Example: l = (0, 1), p = (1/2, 1/2), rho = 1/8 gives L = 3/4, gap 1/4 = sqrt(2/8 * 1/4).
    """

    def bound(x: WeightedLosses) -> float:
        return float(np.sqrt(2 * x.radius * variance(x)))

    def bound_if_positive(x: WeightedLosses) -> float:
        weights = worst_case(np.array(x.losses), ChiSquare(x.radius), reference=x.reference).weights
        return bound(x) if np.all(weights[x.reference > 0] > 0) else 0.0

    claim = Claim[WeightedLosses](
        label="chi2-variance",
        statement="L_rho - E l <= sqrt(2 rho Var l), equal while every weight is positive",
        reference="DN19",
        assumptions={**MASSES, "0 <= radius <= 8": lambda x: 0 <= x.radius <= 8},
        instances=one_radius(top=8.0),
        lhs=lambda x: (excess(x, ChiSquare(x.radius)), bound_if_positive(x)),
        rhs=lambda x: (bound(x), excess(x, ChiSquare(x.radius))),
        scale=lambda x: x.spread,
        tight=True,
        curve=radius_curve(top=2.0),
    )
    without_half = mutant(claim, "1/2 of the ball forgotten", rhs=lambda x: (bound(x) / np.sqrt(2), np.inf))
    always_equal = mutant(claim, "equality always", lhs=bound, rhs=lambda x: excess(x, ChiSquare(x.radius)))
    return claim.with_mutants(shrunk(claim), without_half, always_equal)


@stated
def ball_nesting() -> Claim[WeightedLosses]:
    """Chi-square and KL balls of radius 2 rho^2 lie inside the total-variation ball of radius rho.

    Problem: closed convex sets are nested exactly if their worst-case values are ordered for all losses.
    Guarantee (tight, at two equal atoms, for chi-square): L_ChiSquare(2 rho^2), L_KL(2 rho^2) <= L_TV(rho).
    Source: Cauchy-Schwarz and Pinsker; theory.md section 3, `ball-nesting`.
    Example: l = (0, 1), p = (1/2, 1/2), rho = 1/4: chi-square and total variation both give 3/4.
    """

    def inner(x: WeightedLosses, factor: float = 2.0) -> tuple[float, float]:
        radius = factor * x.radius**2
        return excess(x, ChiSquare(radius)), excess(x, KL(radius))

    claim = Claim[WeightedLosses](
        label="ball-nesting",
        statement="ChiSquare(2 rho^2) and KL(2 rho^2) lie inside TotalVariation(rho)",
        reference="theory.md section 3",
        assumptions={**MASSES, "1/64 <= radius <= 1": lambda x: 1 / 64 <= x.radius <= 1},
        instances=one_radius(top=1.0),
        lhs=inner,
        rhs=lambda x: (excess(x, TotalVariation(x.radius)),) * 2,
        scale=lambda x: x.spread,
        tight=True,
        verifies=_balls_are_nested,
        curve=radius_curve(),
    )
    larger = mutant(claim, "radius 2.1 rho^2", lhs=lambda x: inner(x, factor=2.1))
    same_radius = mutant(claim, "radius rho", lhs=lambda x: (excess(x, ChiSquare(x.radius)), 0.0))
    return claim.with_mutants(shrunk(claim), swapped(claim), larger, same_radius)


@stated
def radius_concave() -> Claim[TwoRadii]:
    """The worst-case value as a function of the radius.

    Problem: V(rho) = worst-case value over the total-variation, KL or chi-square ball of radius rho.
    Guarantee (tight: V is linear in rho for small total-variation radii): V is nondecreasing and concave.
    Source: theory.md section 3, `radius-concave`.
    Example: l = (0, 1), p = (1/2, 1/2): total variation gives V = min(1/2 + rho, 1).
    """

    def values(x: TwoRadii, radius: float) -> Array:
        return np.array([excess(x, ball(radius)) for ball in (TotalVariation, KL, ChiSquare)])

    def end_and_chord(x: TwoRadii) -> Array:
        end = values(x, x.radius)
        return np.hstack([end, (end + values(x, x.wider)) / 2])

    claim = Claim[TwoRadii](
        label="radius-concave",
        statement="the value is nondecreasing and concave in the radius (TV, KL, ChiSquare)",
        reference="theory.md section 3",
        assumptions={**MASSES, "0 <= radius <= wider <= 1": lambda x: 0 <= x.radius <= x.wider <= 1},
        instances=_two_radii(),
        lhs=end_and_chord,
        rhs=lambda x: np.tile(values(x, (x.radius + x.wider) / 2), 2),
        scale=lambda x: x.spread,
        tight=True,
        verifies=_values_are_concave,
        effort=0.4,
    )
    return claim.with_mutants(shrunk(claim), swapped(claim))


def _tv_gap_holds(x: WeightedLosses) -> bool:
    """Decide the claim in rational numbers."""
    gap = exact_tv(x.losses, x.masses, x.radius) - sum(map(mul, *distribution(x.losses, x.masses)))
    return 0 <= gap <= Fraction(x.radius) * (Fraction(max(x.seen)) - Fraction(min(x.seen)))


def _balls_are_nested(x: WeightedLosses) -> bool:
    """Compare an upper bound of the inner values with the exact outer value; where they touch, up to GAP."""
    radius = 2 * x.radius**2
    outer = exact_tv(x.losses, x.masses, x.radius) + GAP * Fraction(x.spread)
    return all(enclosure(x.losses, ball, x.masses).dual <= outer for ball in (ChiSquare(radius), KL(radius)))


def _values_are_concave(x: TwoRadii) -> bool:
    """Compare upper bounds of the end and of the chord with lower bounds of the middle, up to GAP."""
    middle, slack = (x.radius + x.wider) / 2, GAP * Fraction(x.spread)

    def concave(ball: Callable[[float], AmbiguitySet]) -> bool:
        end, far = (enclosure(x.losses, ball(radius), x.masses).dual for radius in (x.radius, x.wider))
        return max(end, (end + far) / 2) <= enclosure(x.losses, ball(middle), x.masses).primal + slack

    return all(map(concave, (TotalVariation, KL, ChiSquare)))


def _is_bounded(x: Atoms) -> bool:
    """No loss of generality, each set being translation equivariant and positively homogeneous.

    Without it the optimiser runs to losses that differ in their last digits and refutes theorems by rounding errors.
    """
    return max(map(abs, x.losses)) <= 8 and x.spread >= 1 / 64


def _has_mass(x: Atoms) -> bool:
    return max(x.masses) > 0 and all(mass == 0 or mass >= 2.0**-40 for mass in x.masses)


MASSES: Assumptions[Any] = {
    "every mass 0 or at least 2^-40": _has_mass,
    "losses in [-8, 8], spread of those with mass at least 1/64": _is_bounded,
}
# Two equal atoms, ties at the bottom, three equal atoms; and losses without mass beyond all others and among them.
_POSITIVE = (((0.0, 1.0), (1.0, 1.0)), ((0.0, 0.0, 1.0), (1.0, 2.0, 1.0)), ((-1.0, 0.0, 2.0), (1.0, 1.0, 1.0)))
CORNERS = (*_POSITIVE, ((-2.0, 0.0, 0.5, 1.0, 3.0), (0.0, 1.0, 0.0, 3.0, 0.0)))
RADII = (0.125, 0.25, 0.5, 1.0)


def one_radius(top: float, *, least: float = 0.0) -> Instances[WeightedLosses]:
    """Return instances with a radius of at most ``top``, masses down to ``least``: 0, or else all positive."""
    kept = CORNERS if least == 0 else _POSITIVE
    corners = tuple(WeightedLosses(*corner, radius) for corner in kept for radius in RADII)
    draws = st.tuples(atoms(least), dyadic(0, top)).map(lambda drawn: WeightedLosses(*drawn[0], drawn[1]))
    return Instances(WeightedLosses, corners, draws)


def _two_radii() -> Instances[TwoRadii]:
    corners = tuple(TwoRadii(*corner, radius / 4, radius) for corner in CORNERS for radius in RADII)
    draws = st.tuples(atoms(), dyadic(0, 1), dyadic(0, 1))
    return Instances(TwoRadii, corners, draws.map(lambda d: TwoRadii(*d[0], min(d[1:]), max(d[1:]))))


def radius_curve(top: float = 1.0) -> Curve[WeightedLosses]:
    """Return four losses under growing radii: every set lets go of one loss after the other."""
    radii = [top * k / 32 for k in range(1, 33)]
    return Curve("radius", tuple(WeightedLosses((0.0, 1.0, 2.0, 4.0), (1.0, 2.0, 2.0, 1.0), r) for r in radii))


def atoms(least: float = 0.0) -> st.SearchStrategy[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Draw two to six losses, and their masses."""
    pairs = st.lists(st.tuples(dyadic(-4, 4), masses(least)), min_size=2, max_size=6)
    return pairs.map(lambda atoms: (tuple(a for a, _ in atoms), tuple(m for _, m in atoms)))


def masses(least: float = 0.0) -> st.SearchStrategy[float]:
    """Draw a mass of ``least`` or more, nothing or next to nothing one time in four."""
    common = dyadic(1 / 64, 1)
    tiny = [mass for mass in (2.0**-12, 2.0**-20, 2.0**-40, 0.0) if mass >= least]
    return st.one_of(common, common, common, st.sampled_from(tiny))


def excess(x: Atoms, ambiguity: AmbiguitySet) -> float:
    """Return the worst-case value minus the mean."""
    return float(worst_case(np.array(x.losses), ambiguity, reference=x.reference).value) - x.mean


def variance(x: Atoms) -> float:
    """Return Var l under p."""
    return float(x.reference @ (np.array(x.losses) - x.mean) ** 2)
