"""The reverse Kullback-Leibler divergence (Burg's entropy, empirical likelihood) as a ball and as a price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._solvers import jacobians, poles
from .._solvers.arrays import Array, at_least
from .._solvers.problem import Problem
from .._solvers.sizes import Size
from .ambiguity import Ball, Dual, checked_radius
from .penalties import Priced, checked_price, price_of


@dataclass(frozen=True, eq=False)
class Burg(Ball):
    """Distributions whose reverse Kullback-Leibler divergence, that of p from q, is at most ``radius``.

        max_q <q, l>   s.t.   E -log(q/p) <= radius,  q in the simplex.

    The maximiser is p multiplier / (multiplier + threshold - l): everything keeps some weight at every radius, as in
    empirical likelihood [Owen]. It is Cressie-Read of order 0. Found by safeguarded Newton, in logarithms.

    Dual: radius multiplier + threshold - multiplier E log(1 - (l - threshold) / multiplier), for every multiplier >= 0
    (max l at 0) and threshold; infinite unless multiplier + threshold > max l. With t for that sum and the best
    multiplier, exp(-radius) times the geometric mean of t - l, it is inf_t t - exp(-radius) exp(E log(t - l)).
    """

    radius: Size
    spec: ClassVar[str] = "burg"

    def __post_init__(self) -> None:
        checked_radius(self, "a divergence in nats")

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Put a pole above the largest loss."""
        weights, multiplier, threshold = poles.burg_tilt(problem, problem.size(self.radius))
        return weights, Dual(multiplier, threshold)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        return poles.burg_dual(problem, problem.size(self.radius), dual.multiplier, dual.threshold)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt."""
        return jacobians.tilted(problem, jacobians.divergence_bend(problem, weights, 0, multiplier), vectors, ball=True)


@dataclass(frozen=True, eq=False)
class BurgPenalty(Priced):
    """Every distribution, at the price of the reverse Kullback-Leibler divergence, that of p from it.

        max_q <q, l> - strength E -log(q/p)   s.t.   q in the simplex.

    The maximiser is p strength / (strength + eta - l), with the eta at which that sums to 1: everything keeps some
    weight. Translation equivariant and convex in the losses, but not positively homogeneous.

    Dual: inf_eta eta - strength E log(1 - (l - eta) / strength). The threshold is that eta, at which q = p; it follows
    and is not used, nor is the multiplier, 0.
    """

    strength: Size
    spec: ClassVar[str] = "burg_penalty"
    size: ClassVar[str] = "strength"

    def __post_init__(self) -> None:
        checked_price(self, "the price of one nat")

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Put a pole above the largest loss."""
        xp, price = problem.xp, _price(problem, self.strength)
        place = poles.priced_place(problem, 0.0, price)
        threshold = xp.exp(-place) - price + poles.rounding(problem)
        return poles.priced_weights(problem, 0.0, place), Dual(xp.zeros_like(threshold), threshold)

    def penalty(self, problem: Problem, weights: Array) -> Array:
        """Charge strength KL(p, q)."""
        return _price(problem, self.strength) * poles.reverse_entropy(problem, weights)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the infimum."""
        price = _price(problem, self.strength)
        return poles.burg_penalty_dual(problem, price, poles.priced_place(problem, 0.0, price))

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt."""
        bend = jacobians.divergence_bend(problem, weights, 0, _price(problem, self.strength) * problem.unit)
        return jacobians.tilted(problem, bend, vectors, ball=False)


def _price(problem: Problem, strength: Size) -> Array:
    """A price below 2^-100 moves no value, and would drive weights below the smallest float."""
    return at_least(problem.xp, price_of(problem, strength), 2.0**-100)
