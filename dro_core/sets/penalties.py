"""Divergences of q from p as a price instead of a bound. See ``ambiguity``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from .._solvers import duals, jacobians, priced_powers, quadratic
from .._solvers.arrays import Array, at_least, at_most, on_host, total
from .._solvers.problem import Problem
from .._solvers.sizes import Size
from .ambiguity import AmbiguitySet, Dual, checked_fraction, set_field
from .divergences import checked_order
from .sizes import checked_size

_HIGH = 16.0  # in ranges of the losses


class Priced(AmbiguitySet):
    """Every distribution, at a price per unit of its divergence from p: the field called ``size``, in (0, inf]."""

    def with_strength(self, fraction: float) -> Self:
        """Return the penalty with its price over ``fraction``: infinite for 0."""
        share = checked_fraction(fraction)
        changed: Any = {self.size: getattr(self, self.size) / share if share > 0 else math.inf}
        return replace(self, **changed)

    def sensitivity(self, size: Size, value: Array, mean: Array, dual: Dual) -> Array:
        """Return what one unit of the price is charged for, the divergence, which the value lacks."""
        del dual
        return (value - mean) / size


def checked_price(instance: Priced, meaning: str) -> None:
    """Check and normalise the field that ``size`` names."""
    size = instance.size
    field, remedy = f"{type(instance).__name__}.{size}", f"For the mean use {size}=inf."
    set_field(instance, size, checked_size(field, meaning, "(0, inf]", getattr(instance, size), remedy))


@dataclass(frozen=True, eq=False)
class KLPenalty(Priced):
    """Every distribution, at the price of its Kullback-Leibler divergence from p.

        max_q <q, l> - temperature sum q log(q/p)   s.t.   q in the simplex.

    The maximiser is the softmax p exp(l / temperature), the value temperature log E exp(l / temperature).
    Translation equivariant and convex in the losses, as a set is, but not positively homogeneous.

    Dual: that value. It has no variables: multiplier 0 and threshold (the loss at which q = p) are not used.
    """

    temperature: Size
    spec: ClassVar[str] = "kl_penalty"
    size: ClassVar[str] = "temperature"

    def __post_init__(self) -> None:
        checked_price(self, "the price of one nat")

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Take the softmax."""
        weights, threshold = duals.softmax(problem, 1 / price_of(problem, self.temperature))
        return weights, Dual(problem.xp.zeros_like(threshold), threshold)

    def value(self, problem: Problem, weights: Array, dual: Dual) -> Array:
        """Return the threshold, which it is; at a high price, of which a rounding is too much, the log-sum-exp."""
        del weights
        if on_host(problem.xp):
            unit: Any = problem.unit.item() if problem.unit.size == 1 else problem.unit
            low: Any = problem.size(self.temperature) < _HIGH * unit
            if low if isinstance(low, bool) else np.all(low):
                return dual.threshold
        return self.dual_value(problem, dual)

    def penalty(self, problem: Problem, weights: Array) -> Array:
        """Charge temperature KL(q, p)."""
        return price_of(problem, self.temperature) * duals.relative_entropy(problem, weights)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the log-sum-exp."""
        price = price_of(problem, self.temperature)
        return price * duals.log_mean_exp(problem, problem.losses / price)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt."""
        bend = jacobians.divergence_bend(problem, weights, 1, price_of(problem, self.temperature) * problem.unit)
        return jacobians.tilted(problem, bend, vectors, ball=False)


@dataclass(frozen=True, eq=False)
class ChiSquarePenalty(Priced):
    """Every distribution, at the price of its chi-square divergence from p [L20].

        max_q <q, l> - strength/2 E (q/p - 1)^2   s.t.   q in the simplex.

    The maximiser is p (l - eta)_+ / strength, the sparse projection of l / strength onto the simplex (sparsemax,
    for uniform p and strength 1/n); the value is inf_eta E (l - eta)_+^2 / (2 strength) + strength/2 + eta. Exact,
    by one sort or by selection. Translation equivariant and convex in the losses, but not positively homogeneous.

    Dual: that infimum. The threshold is its eta; it follows and is not used, nor is the multiplier, 0.
    """

    strength: Size
    spec: ClassVar[str] = "chi2_penalty"
    size: ClassVar[str] = "strength"

    def __post_init__(self) -> None:
        checked_price(self, "the price of one unit of divergence")

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Project onto the simplex."""
        xp = problem.xp
        price = price_of(problem, self.strength)
        above, threshold = quadratic.quadratic_excess(problem, price)
        above /= price
        weights = problem.weighted(above)
        return weights / total(xp, weights), Dual(xp.zeros_like(threshold), threshold)

    def penalty(self, problem: Problem, weights: Array) -> Array:
        """Charge strength/2 E (q/p - 1)^2."""
        excess = problem.ratio(weights) - 1
        seen = excess if problem.reference is None else problem.xp.where(problem.reference > 0, excess, 0.0)
        return price_of(problem, self.strength) * problem.mean_product(seen, seen) / 2

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the infimum."""
        price = price_of(problem, self.strength)
        return quadratic.quadratic_dual(problem, price)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt."""
        bend = jacobians.divergence_bend(problem, weights, 2, price_of(problem, self.strength) * problem.unit)
        return jacobians.tilted(problem, bend, vectors, ball=False)


@dataclass(frozen=True, eq=False)
class CressieReadPenalty(Priced):
    """Every distribution, at the price of its Cressie-Read divergence from p.

        max_q <q, l> - strength E phi(q/p)   s.t.   q in the simplex,  phi that of ``CressieRead``,

    with k = ``order`` in [0.01, 3]. The maximiser is p (1 + (k - 1) (l - eta) / strength)_+^{1/(k-1)}, with the eta at
    which that sums to 1. With uniform p and k > 1 it is entmax of the power k, of l / strength n^(1-k). Translation
    equivariant and convex in the losses, but not positively homogeneous.

    Dual: inf_eta eta + strength E phi*((l - eta) / strength). The threshold is that eta, at which q = p; it follows and
    is not used, nor is the multiplier, 0.
    """

    order: float
    strength: Size
    spec: ClassVar[str] = "cressie_read_penalty"
    size: ClassVar[str] = "strength"
    example: ClassVar[str] = "0.5,order=1.5"

    def __post_init__(self) -> None:
        penalties = "Order 0 is BurgPenalty(strength), order 1 KLPenalty, order 2 ChiSquarePenalty(strength)."
        checked_order(self, penalties)
        checked_price(self, "the price of one unit of divergence")

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Tilt by a power."""
        weights, threshold = priced_powers.priced_tilt(problem, self.order, price_of(problem, self.strength))
        return weights, Dual(problem.xp.zeros_like(threshold), threshold)

    def penalty(self, problem: Problem, weights: Array) -> Array:
        """Charge strength E phi(q/p)."""
        return priced_powers.charge(problem, self.order, price_of(problem, self.strength), weights)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the infimum."""
        return priced_powers.priced_dual(problem, self.order, price_of(problem, self.strength))

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt."""
        bend = jacobians.divergence_bend(problem, weights, self.order, price_of(problem, self.strength) * problem.unit)
        return jacobians.tilted(problem, bend, vectors, ball=False)


def price_of(problem: Problem, price: Size) -> Array:
    """Return a price in centred units, as far as float64 can tell its effect from that of none or of any."""
    return at_most(problem.xp, at_least(problem.xp, problem.size(price) / problem.unit, 2.0**-1000), 2.0**60)
