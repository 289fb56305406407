"""Sets whose worst case is a sort away: total variation, CVaR, spectra and chi-square. See ``ambiguity``."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from .._solvers import jacobians, quadratic, sorting, spectra
from .._solvers.arrays import Array, at_least, inner
from .._solvers.problem import Problem
from .._solvers.sizes import Size, raised
from .ambiguity import Ball, Dual, Polyhedral, checked_fraction, checked_number, checked_radius, set_field
from .sizes import checked_size

_NO_TAIL = 2.0**-1022  # an alpha whose inverse overflows: less than the mass of any scenario


@dataclass(frozen=True, eq=False)
class TotalVariation(Polyhedral, Ball):
    """Distributions within total variation ``radius`` of p, optionally at most ``max_ratio`` times p.

        max_q <q, l>   s.t.   1/2 ||q - p||_1 <= radius,  q <= max_ratio p,  q in the simplex.

    The maximiser drains ``radius`` mass from the smallest losses and gives it to the largest loss, or with
    ``max_ratio`` to the largest ones up to max_ratio p, as long as the exchange pays. Equal losses share in
    proportion to p. Without max_ratio the value is (1 - radius) CVaR_{1 - radius} + radius max l. Exact, by
    selection.

    Dual: with a = threshold (below it mass is drained) and a + multiplier (above it mass is added),

        radius multiplier + E [max(l, a) + (max_ratio - 1) (l - a - multiplier)_+],

    every multiplier >= 0 is feasible; without max_ratio feasibility needs a + multiplier >= max l, and a
    smaller multiplier is raised to that.
    """

    radius: Size
    max_ratio: float | None = None
    spec: ClassVar[str] = "tv"

    def __post_init__(self) -> None:
        checked_radius(self, "the mass that may move", "[0, 1]", "For the mean use radius=0, for the maximum radius=1.")
        if self.max_ratio is not None:
            meaning, remedy = "the largest allowed q/p", "For no such bound use max_ratio=None."
            ratio = checked_number("TotalVariation.max_ratio", meaning, "[1, inf)", self.max_ratio, remedy)
            set_field(self, "max_ratio", ratio)

    @property
    def holds_only_reference(self) -> bool:
        """Whether no mass may move: radius 0, or no ratio above 1."""
        return super().holds_only_reference or self.max_ratio == 1

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Drain the bottom, raise the top."""
        xp, ratio, radius = problem.xp, self.max_ratio, problem.size(self.radius)
        # Where the ratio binds first, the top 1/ratio mass has ratio times its reference, and nothing else is left.
        binds = False if ratio is None else ratio == 1 or ratio * (1 - radius) <= 1
        if ratio is not None and binds is True:
            return CVaR(1 / ratio).maximise(problem)
        weights, threshold = sorting.upper_tail(problem, 1 - radius)
        if ratio is None:
            weights += problem.weighted(radius * sorting.top_ratio(problem))
            ceiling = 0.0
        else:
            added, ceiling = sorting.upper_tail(problem, radius / (ratio - 1), ratio - 1)
            weights += added
        dual = Dual(at_least(xp, ceiling - threshold, 0.0), threshold)
        if ratio is None or isinstance(binds, bool):
            return weights, dual
        tail, bound = CVaR(1 / ratio).maximise(problem)
        multiplier, threshold = (xp.where(binds, one, other) for one, other in zip(bound, dual, strict=True))
        return xp.where(binds, tail, weights), Dual(multiplier, threshold)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        xp, losses, (multiplier, threshold) = problem.xp, problem.losses, dual
        if self.max_ratio is None:
            multiplier = xp.maximum(multiplier, -threshold)
            excess = 0.0
        else:
            excess = (self.max_ratio - 1) * at_least(xp, losses - threshold - multiplier, 0.0)
        return problem.size(self.radius) * multiplier + problem.mean(xp.maximum(losses, threshold) + excess)


@dataclass(frozen=True, eq=False)
class CVaR(Polyhedral):
    """Distributions of at most 1/alpha times p: the mean of the worst ``alpha`` tail [RU00].

        max_q <q, l>   s.t.   q <= p / alpha,  q in the simplex.

    The maximiser is p / alpha on the largest losses, with a fraction of that at the edge of the tail, shared
    by equal losses in proportion to p. ``CVaR(0)`` is the largest loss. Exact, by selection.

    Dual: threshold + E (l - threshold)_+ / alpha, for every threshold; at alpha 0 every threshold is raised to max l.
    The set has no radius: the multiplier is 0 and is not used.
    """

    alpha: Size
    spec: ClassVar[str] = "cvar"
    size: ClassVar[str] = "alpha"

    def __post_init__(self) -> None:
        meaning, remedy = "the tail mass", "For the mean use alpha=1."
        set_field(self, "alpha", checked_size("CVaR.alpha", meaning, "[0, 1]", self.alpha, remedy))

    def with_strength(self, fraction: float) -> Self:
        """Return the set with ``alpha`` moved to 1 - (1 - alpha) * fraction."""
        share = checked_fraction(fraction)
        return replace(self, alpha=(1 - share) + share * self.alpha)

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Spread all mass evenly over the tail."""
        if isinstance(self.alpha, float) and self.alpha < _NO_TAIL:
            zero = problem.xp.zeros_like(problem.scale)
            return problem.weighted(sorting.top_ratio(problem)), Dual(zero, zero)
        alpha = raised(problem.xp, problem.size(self.alpha), _NO_TAIL)
        weights, threshold = sorting.upper_tail(problem, alpha, 1 / alpha)
        return weights, Dual(problem.xp.zeros_like(threshold), threshold)

    def sensitivity(self, size: Size, value: Array, mean: Array, dual: Dual) -> Array:
        """Return that of threshold + E (l - threshold)_+ / alpha."""
        del mean
        return (dual.threshold - value) / size

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        if isinstance(self.alpha, float) and self.alpha < _NO_TAIL:
            return at_least(problem.xp, dual.threshold, 0.0)
        excess = problem.mean(at_least(problem.xp, problem.losses - dual.threshold, 0.0))
        return dual.threshold + excess / raised(problem.xp, problem.size(self.alpha), _NO_TAIL)


@dataclass(frozen=True, eq=False)
class Spectral(Polyhedral):
    """Mixtures of CVaRs: the worst share of p gets the last weight of a nondecreasing ``spectrum``, and so on.

        max_q <q, l>   s.t.   q(A) <= spectral mass of the worst share p(A), for every set A of scenarios.

    The k numbers of the spectrum, nonnegative, nondecreasing and summing to 1, are spread evenly over k equal
    shares of p, whatever the number of scenarios: ``(0, 0, 1)`` is CVaR(1/3). With uniform p and n = k the
    value is sum_i spectrum_i l_(i), l_(1) <= ... <= l_(n). Equal losses share in proportion to p. Exact, by
    selection up to eight shares, else by one sort.

    Dual: the mixture over j of the duals of CVaR(j/k), each at its own quantile of the losses. It has no
    free variables: multiplier 0 and threshold (the value) are not used.
    """

    spectrum: tuple[float, ...]
    spec: ClassVar[str] = "spectral"
    size: ClassVar[str] = "spectrum"
    example: ClassVar[str] = "0.1/0.3/0.6"

    def __post_init__(self) -> None:
        given: Any = self.spectrum
        shares: Any = given if hasattr(given, "__iter__") and not isinstance(given, str) else (given,)
        meaning, remedy = "the weight of one share", "Give for example (0.1, 0.3, 0.6)."
        spectrum = tuple(checked_number("Spectral.spectrum", meaning, "[0, 1]", share, remedy) for share in shares)
        rising = all(lower <= upper for lower, upper in itertools.pairwise(spectrum))
        if not rising or abs(math.fsum(spectrum) - 1) > 1e-9:
            raise ValueError(
                f"`Spectral.spectrum` must be nondecreasing and sum to 1, got sum {math.fsum(spectrum)!r} "
                f"{'in' if rising else 'not in'} nondecreasing order. Sort it and divide it by its sum."
            )
        set_field(self, "spectrum", spectrum)

    def with_strength(self, fraction: float) -> Self:
        """Return the spectrum mixed with the constant one, which is the mean."""
        share, k = checked_fraction(fraction), len(self.spectrum)
        return replace(self, spectrum=tuple(share * part + (1 - share) / k for part in self.spectrum))

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Read every loss level's weight off the cumulative spectrum."""
        weights = spectra.weights(problem, self.spectrum)
        value = inner(problem.xp, weights, problem.losses)
        return weights, Dual(problem.xp.zeros_like(value), value)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        return spectra.dual_value(problem, self.spectrum)


@dataclass(frozen=True, eq=False)
class ChiSquare(Ball):
    """Distributions within chi-square divergence ``radius`` of p; note the 1/2, as in [L20].

        max_q <q, l>   s.t.   1/2 E (q/p - 1)^2 <= radius,  q in the simplex.

    The maximiser is p (l - threshold)_+ / multiplier: nothing below the threshold, linear above it. Its value
    is inf_eta eta + sqrt(1 + 2 radius) sqrt(E (l - eta)_+^2). Exact, by one sort or by selection.

    Dual: (1/2 + radius) multiplier + inf_eta [eta + E (l - eta)_+^2 / (2 multiplier)], for every multiplier >= 0
    (max l at 0). The threshold is that eta at the optimum; it follows from the multiplier and is not used. At
    radius 0 the multiplier returned is large (about 1e18 times the spread) instead of infinite.
    """

    radius: Size
    spec: ClassVar[str] = "chi2"

    def __post_init__(self) -> None:
        checked_radius(self, "half the mean square of q/p - 1")

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Project onto the simplex after the one scaling that meets the radius."""
        weights, multiplier, threshold = quadratic.quadratic_tilt(problem, problem.size(self.radius))
        return weights, Dual(multiplier, threshold)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        return problem.size(self.radius) * dual.multiplier + quadratic.quadratic_dual(problem, dual.multiplier)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move what has weight."""
        bend = jacobians.divergence_bend(problem, weights, 2, multiplier)
        return jacobians.tilted(problem, bend, vectors, ball=True)
