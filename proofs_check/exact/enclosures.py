"""Rational proofs that what dro_core returns is right: a true worst-case value between two computed bounds.

The weights, made feasible, give a lower bound of the value, the dual variables an upper bound. Both are evaluated
without rounding errors; logarithms and exponentials, which only KL needs, are rounded outwards.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, TotalVariation, worst_case
from proofs_check.exact.certificates import distribution, tv_dual

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = Fraction(1, 10**9)  # of the range of the losses: what dro_core promises
_BITS = 192  # of the outward-rounded logarithms and exponentials


class Enclosure(NamedTuple):
    """A worst-case value between the objective of a feasible q and that of feasible dual variables."""

    primal: Fraction
    dual: Fraction

    @property
    def gap(self) -> Fraction:
        """The width, at least 0 by weak duality."""
        return self.dual - self.primal


def enclosure(losses: Sequence[float], ambiguity: AmbiguitySet, masses: Sequence[float]) -> Enclosure:
    """Enclose the true value by what dro_core returns for it, made feasible and evaluated without rounding errors.

    Its weights, as rational numbers, are drawn towards p until they lie in the set, which is convex and holds p; its
    dual variables go into the dual objective as theory.md states it.

    Args:
        losses: ``(n,)``.
        ambiguity: TotalVariation, CVaR, ChiSquare or KL.
        masses: ``(n,)``, nonnegative, proportional to p.

    Raises:
        TypeError: Another set.

    Example:
        >>> bounds = enclosure([0.0, 1.0], ChiSquare(0.125), [1.0, 1.0])
        >>> bounds.primal <= Fraction(3, 4) <= bounds.dual, float(bounds.gap) < 1e-14
        (True, True)
    """
    values, p = distribution(losses, masses)
    reference = np.array([float(mass) for mass in p])
    worst = worst_case(np.array(losses, float), ambiguity, reference=reference / reference.sum())
    seen = [i for i, mass in enumerate(p) if mass > 0]
    values, p = [values[i] for i in seen], [p[i] for i in seen]
    weights = feasible([Fraction(weight) for weight in worst.weights[seen].tolist()], p, ambiguity)
    primal = sum(weight * loss for loss, weight in zip(values, weights, strict=True))
    multiplier, threshold = (Fraction(float(part)) for part in worst.dual)
    return Enclosure(Fraction(primal), _dual(ambiguity, values, p, multiplier, threshold))


def certified(losses: Sequence[float], ambiguity: AmbiguitySet, masses: Sequence[float]) -> bool:
    """Whether ``enclosure`` proves dro_core's weights and dual optimal to ``GAP`` of the range of the losses.

    Example:
        >>> certified([0.0, 1.0, 3.0], KL(0.25), [1.0, 2.0, 1.0])
        True
    """
    values, p = distribution(losses, masses)
    seen = [loss for loss, mass in zip(values, p, strict=True) if mass > 0]
    return 0 <= enclosure(losses, ambiguity, masses).gap <= GAP * (max(seen) - min(seen))


def feasible(weights: Sequence[Fraction], p: Sequence[Fraction], ambiguity: AmbiguitySet) -> list[Fraction]:
    """Return weights drawn towards p until they lie in the set for certain.

    Args:
        weights: ``(n,)``, near a point of the set.
        p: ``(n,)``, positive.
        ambiguity: one of those of ``enclosure``.
    """
    raw = [max(weight, Fraction(0)) for weight in weights]
    move = [weight / sum(raw) - mass for weight, mass in zip(raw, p, strict=True)]
    share = _feasible_share(ambiguity, move, list(p))
    return [mass + share * by for mass, by in zip(p, move, strict=True)]


def _feasible_share(ambiguity: AmbiguitySet, move: list[Fraction], p: list[Fraction]) -> Fraction:
    """Return a share s, at most 1, for which p + s move lies in the set for certain."""
    pairs = list(zip(move, p, strict=True))
    match ambiguity:
        case CVaR(alpha=alpha):
            return _share_below(1 / Fraction(alpha), move, p)
        case TotalVariation(radius=radius, max_ratio=ratio):
            capped = Fraction(1) if ratio is None else _share_below(Fraction(ratio), move, p)
            return min(capped, _share_within(radius, sum((abs(by) for by in move), Fraction(0)) / 2))
        case ChiSquare(radius=radius):
            return _share_within(radius, sum((by * by / mass for by, mass in pairs), Fraction(0)) / 2)
        case KL(radius=radius):
            terms = [(mass + by) * log_bounds(1 + by / mass)[1] for by, mass in pairs if mass + by > 0]
            return _share_within(radius, sum(terms, Fraction(0)))
        case _:
            raise _unknown(ambiguity)


def _share_below(ratio: Fraction, move: list[Fraction], p: list[Fraction]) -> Fraction:
    """Return the largest share of the move that keeps q <= ratio p."""
    return min([Fraction(1), *((ratio - 1) * mass / by for by, mass in zip(move, p, strict=True) if by > 0)])


def _share_within(radius: float, distance: Fraction) -> Fraction:
    """Return a share of the move that ends within the radius: a distance convex along the move, and 0 at its start."""
    return min(Fraction(1), Fraction(radius) / distance) if distance > 0 else Fraction(1)


def _dual(
    ambiguity: AmbiguitySet, values: list[Fraction], p: list[Fraction], multiplier: Fraction, threshold: Fraction
) -> Fraction:
    """Return an upper bound of the dual objective as theory.md states it, whatever the variables."""
    atoms = list(zip(values, p, strict=True))

    def mean_excess(power: int) -> Fraction:
        return sum((mass * max(loss - threshold, Fraction(0)) ** power for loss, mass in atoms), Fraction(0))

    match ambiguity:
        case TotalVariation(radius=radius, max_ratio=ratio):
            exact_ratio = None if ratio is None else Fraction(ratio)
            return tv_dual(values, p, Fraction(radius), exact_ratio, multiplier, threshold)
        case CVaR(alpha=alpha):
            return threshold + mean_excess(1) / Fraction(alpha)
        case _ if multiplier <= 0:
            return max(values)
        case ChiSquare(radius=radius):
            half = Fraction(1, 2)
            return (half + Fraction(radius)) * multiplier + threshold + mean_excess(2) * half / multiplier
        case KL(radius=radius):
            top = max(values)
            mass = sum((mass * exp_bounds((loss - top) / multiplier)[1] for loss, mass in atoms), Fraction(0))
            return top + multiplier * (Fraction(radius) + log_bounds(mass)[1])
        case _:
            raise _unknown(ambiguity)


def _unknown(ambiguity: AmbiguitySet) -> TypeError:
    return TypeError(f"no enclosure for {ambiguity}; there is one for TotalVariation, CVaR, ChiSquare and KL.")


def log_bounds(x: Fraction) -> tuple[Fraction, Fraction]:
    """Return rational numbers below and above log x."""
    return _rounded_outwards("mpi_log", x)


def exp_bounds(x: Fraction) -> tuple[Fraction, Fraction]:
    """Return rational numbers below and above exp x."""
    return _rounded_outwards("mpi_exp", x)


def root_bounds(x: Fraction) -> tuple[Fraction, Fraction]:
    """Return rational numbers below and above the square root of x."""
    return _rounded_outwards("mpi_sqrt", x)


def _rounded_outwards(function: str, x: Fraction) -> tuple[Fraction, Fraction]:
    """Evaluate an increasing function of mpmath's interval arithmetic on the smallest interval around x."""
    from mpmath import libmp  # pyright: ignore[reportMissingTypeStubs]

    library: Any = libmp
    given = tuple(library.from_rational(x.numerator, x.denominator, _BITS, rounding) for rounding in "fc")
    low, high = (Fraction(*map(int, library.to_rational(end))) for end in getattr(library, function)(given, _BITS))
    return low, high
