"""Balls of a divergence of q from p; ``penalties`` has its prices. See ``ambiguity``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .._solvers import duals, jacobians, powers
from .._solvers.arrays import Array, at_least
from .._solvers.problem import Problem
from .._solvers.sizes import Size, choose, log1p
from .ambiguity import AmbiguitySet, Ball, Dual, checked_number, checked_radius, set_field


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


def checked_order(instance: AmbiguitySet, remedy: str) -> None:
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
        checked_order(self, "Order 1 is KL(radius), order 2 ChiSquare(radius), order 0 Burg(radius).")
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
