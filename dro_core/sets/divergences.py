"""Sets and penalties built on a divergence of q from p. See ``ambiguity``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from .._solvers import duals, jacobians, powers, priced_powers, quadratic
from .._solvers.arrays import Array, at_least, at_most, on_host, total
from .._solvers.problem import Problem
from .._solvers.sizes import Size, choose, log1p
from .ambiguity import AmbiguitySet, Ball, Dual, checked_fraction, checked_number, checked_radius, set_field
from .sizes import checked_size


@dataclass(frozen=True, eq=False)
class KL(Ball):
    """Distributions within Kullback-Leibler divergence ``radius`` of p.

        max_q <q, l>   s.t.   sum q log(q/p) <= radius,  q in the simplex.

    The maximiser is p exp((l - threshold) / multiplier): a softmax at the one temperature that meets the
    radius, found by safeguarded Newton. From radius = -log p(argmax) on, all mass is on the largest loss.

    Dual: radius multiplier + multiplier log E exp(l / multiplier), for every multiplier >= 0 (max l at 0).
    The threshold is the loss at which q = p; it follows from the multiplier and is not used. At radius 0 the
    multiplier returned is large (about 1e18 times the spread) instead of infinite.
    """

    radius: Size
    spec: ClassVar[str] = "kl"

    def __post_init__(self) -> None:
        checked_radius(self, "a divergence in nats")

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Tilt exponentially."""
        weights, multiplier, threshold = duals.exponential_tilt(problem, problem.size(self.radius))
        return weights, Dual(multiplier, threshold)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        xp = problem.xp
        multiplier = at_least(xp, dual.multiplier, 2.0**-900)  # below that the exponents would overflow
        value = multiplier * (problem.size(self.radius) + duals.log_mean_exp(problem, problem.losses / multiplier))
        return xp.where(dual.multiplier > 0, value, 0.0)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt."""
        bend = jacobians.divergence_bend(problem, weights, 1, multiplier)
        return jacobians.tilted(problem, bend, vectors, ball=True)


def _checked_order(instance: AmbiguitySet, remedy: str) -> None:
    """Check and normalise the field ``order``."""
    # Orders near 0 need slopes that float64 cannot resolve. A weight is the (k - 1)th root of something good to
    # 1e-16: to 2e-8 at k = 3; at k = 4 it was to 5e-6, and gaps of -1e-11 of the range were seen.
    field = f"{type(instance).__name__}.order"
    given: object = getattr(instance, "order")  # noqa: B009
    order = checked_number(field, "the power of q/p", "[0.01, 3]", given, remedy)
    if abs(order - 1) < 1e-3:
        raise ValueError(f"`{field}` must differ from 1 by at least 0.001, got {order!r}. {remedy}")
    set_field(instance, "order", order)


@dataclass(frozen=True, eq=False)
class CressieRead(Ball):
    """Distributions within Cressie-Read divergence ``radius`` of p: powers between and beyond KL and chi-square.

        max_q <q, l>   s.t.   E phi(q/p) <= radius,  phi(r) = (r^k - k r + k - 1) / (k (k - 1)),  q in the simplex,

    with k = ``order`` in [0.01, 3]. k = 2 is ChiSquare, k -> 1 is KL (write KL), k = 1/2 is twice the squared Hellinger
    distance E (sqrt r - 1)^2. The maximiser is p (1 + (k - 1) (l - threshold) / multiplier)_+^{1/(k-1)}: for k > 1
    small losses get nothing, for k < 1 everything keeps some weight. Found by safeguarded Newton.

    Dual: radius multiplier + threshold + multiplier E phi*((l - threshold) / multiplier) with
    phi*(y) = ((1 + (k - 1) y)_+^{k/(k-1)} - 1) / k, for every multiplier >= 0 (max l at 0) and threshold; for k < 1
    infinite where 1 + (k - 1) y <= 0.
    """

    order: float
    radius: Size
    spec: ClassVar[str] = "cressie_read"
    example: ClassVar[str] = "0.5,order=1.5"

    def __post_init__(self) -> None:
        _checked_order(self, "Order 1 is KL(radius), order 2 ChiSquare(radius), order 0 Burg(radius).")
        checked_radius(self, "the mean of phi(q/p)")

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Tilt by a power; the radius is one of the Renyi divergence, too."""
        xp, k = problem.xp, self.order
        moment = k * (k - 1) * problem.size(self.radius)
        whole = moment <= -1
        renyi = choose(xp, whole, math.inf, log1p(xp, choose(xp, whole, 0.0, moment)) / (k - 1))
        weights, multiplier, threshold = powers.power_tilt(problem, k, renyi)
        return weights, Dual(multiplier, threshold)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        return powers.power_dual(problem, self.order, problem.size(self.radius), *dual)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt."""
        bend = jacobians.divergence_bend(problem, weights, self.order, multiplier)
        return jacobians.tilted(problem, bend, vectors, ball=True)


@dataclass(frozen=True, eq=False)
class Hellinger(Ball):
    """Distributions within squared Hellinger distance ``radius`` of p: that distance stays below 2.

        max_q <q, l>   s.t.   E (sqrt(q/p) - 1)^2 <= radius,  q in the simplex.

    The maximiser is p (multiplier / (multiplier + threshold - l))^2: everything keeps some weight. From radius =
    2 - 2 sqrt(p(argmax)) on, all mass is on the largest loss. It is CressieRead(order=1/2, radius=2 radius) with twice
    its multiplier, and found in the same way.

    Dual: radius multiplier + threshold + multiplier E (l - threshold) / (multiplier + threshold - l), for every
    multiplier >= 0 (max l at 0) and threshold; infinite unless multiplier + threshold > max l. With t for that sum and
    the best multiplier it is inf_t t - (1 - radius/2)^2 / E 1/(t - l).
    """

    radius: Size
    spec: ClassVar[str] = "hellinger"

    def __post_init__(self) -> None:
        meaning, remedy = "the mean of (sqrt(q/p) - 1)^2", "For the mean use radius=0; all q lie closer than 2."
        checked_radius(self, meaning, "[0, 2)", remedy)

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Tilt by the power -2; the Renyi divergence of order 1/2 is -2 log E sqrt(q/p)."""
        renyi = -2 * log1p(problem.xp, -problem.size(self.radius) / 2)
        weights, multiplier, threshold = powers.power_tilt(problem, 0.5, renyi)
        return weights, Dual(2 * multiplier, threshold)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        return powers.power_dual(problem, 0.5, 2 * problem.size(self.radius), dual.multiplier / 2, dual.threshold)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt."""
        bend = jacobians.divergence_bend(problem, weights, 0.5, multiplier / 2)
        return jacobians.tilted(problem, bend, vectors, ball=True)


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
        if on_host(problem.xp) and np.all(price_of(problem, self.temperature) < _HIGH):
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
        _checked_order(self, penalties)
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
