"""Ambiguity sets: frozen parameters whose docstring is the optimisation problem.

In every docstring p is the reference distribution on n scenarios, q a reweighting of it, l the losses
(larger is worse) and E the expectation under p. A set owns two short formulas, written for centred losses
(maximum 0, minimum -1): ``maximise`` and ``dual_value``. A new set is one such class; ``parse_ambiguity`` and
``str`` find it by themselves.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple, Self

from . import _duals, _sorting
from ._arrays import Array, Namespace, total


class Dual(NamedTuple):
    """Dual variables of one inner problem: ``(*batch,)`` each, in the units of the losses, always float64.

    ``multiplier`` is the price of the radius, d value / d radius; it must be nonnegative and finite.
    ``threshold`` is a loss level. Each set says what its threshold separates, and which dual function the
    pair belongs to.
    """

    multiplier: Array
    threshold: Array


def checked_number(field: str, meaning: str, interval: str, value: object, remedy: str) -> float:
    """Return ``value`` as a float if it is a real number inside ``interval``, written like ``"(0, 1]"``.

    Raises:
        ValueError: In one sentence: the field, what it means, the interval, the value given, and what to do.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    if isinstance(value, (int, float, numbers.Real)) and not isinstance(value, bool):
        number = float(value)
        above = number >= low if interval[0] == "[" else number > low
        below = number <= high if interval[-1] == "]" else number < high
        if above and below:
            return number
    raise ValueError(f"`{field}` is {meaning} and must lie in {interval}, got {value!r}. {remedy}")


def _plain(number: float) -> str:
    return repr(number).removesuffix(".0")


class AmbiguitySet(ABC):
    """A set of distributions around a reference p, over which the worst case of <q, l> is taken.

    Subclasses are frozen dataclasses. Their first field is the size of the set, and ``spec`` names them in
    text form.
    """

    spec: ClassVar[str]

    @abstractmethod
    def with_strength(self, fraction: float) -> Self:
        """Return the set shrunk toward p: 0 leaves only p (the value is the mean), 1 is the whole set."""

    @abstractmethod
    def maximise(self, xp: Namespace, losses: Array, reference: Array) -> tuple[Array, Dual]:
        """Solve max <q, l> for centred float64 losses ``(*batch, n)``; dual variables are ``(*batch, 1)``."""

    @abstractmethod
    def dual_value(self, xp: Namespace, losses: Array, reference: Array, dual: Dual) -> Array:
        """Evaluate the dual at centred losses and ``(*batch, 1)`` variables with multiplier >= 0."""

    def __str__(self) -> str:
        size, *options = ((field.name, getattr(self, field.name)) for field in fields(self))  # pyright: ignore[reportArgumentType]
        text = [f"{name}={_plain(value)}" for name, value in options if value is not None]
        return ",".join([f"{self.spec}:{_plain(size[1])}", *text])


def _fraction(value: float) -> float:
    return checked_number("fraction", "the share of the set's strength", "[0, 1]", value, "Use 1 for the whole set.")


def _set(instance: AmbiguitySet, field: str, value: float) -> None:
    # The documented way to normalise a field of a frozen dataclass.
    object.__setattr__(instance, field, value)


@dataclass(frozen=True)
class TotalVariation(AmbiguitySet):
    """Distributions within total variation ``radius`` of p, optionally at most ``max_ratio`` times p.

        max_q <q, l>   s.t.   1/2 ||q - p||_1 <= radius,  q <= max_ratio p,  q in the simplex.

    The maximiser drains ``radius`` mass from the smallest losses and gives it to the largest loss, or with
    ``max_ratio`` to the largest ones up to max_ratio p, as long as the exchange pays. Equal losses share in
    proportion to p. Without max_ratio the value is (1 - radius) CVaR_{1 - radius} + radius max l. Exact,
    O(n log n).

    Dual: with a = threshold (below it mass is drained) and a + multiplier (above it mass is added),

        radius multiplier + E [max(l, a) + (max_ratio - 1) (l - a - multiplier)_+],

    every multiplier >= 0 is feasible; without max_ratio feasibility needs a + multiplier >= max l, and a
    smaller multiplier is raised to that.
    """

    radius: float
    max_ratio: float | None = None
    spec: ClassVar[str] = "tv"

    def __post_init__(self) -> None:
        meaning, remedy = "the mass that may move", "For the mean use radius=0, for the maximum radius=1."
        _set(self, "radius", checked_number("TotalVariation.radius", meaning, "[0, 1]", self.radius, remedy))
        if self.max_ratio is not None:
            meaning, remedy = "the largest allowed q/p", "For no such bound use max_ratio=None."
            ratio = checked_number("TotalVariation.max_ratio", meaning, "[1, inf)", self.max_ratio, remedy)
            _set(self, "max_ratio", ratio)

    def with_strength(self, fraction: float) -> Self:
        """Return the set with ``radius * fraction`` and the same ``max_ratio``."""
        return replace(self, radius=self.radius * _fraction(fraction))

    def maximise(self, xp: Namespace, losses: Array, reference: Array) -> tuple[Array, Dual]:
        """Drain the bottom, raise the top."""
        ratio = self.max_ratio
        if ratio is not None and ratio * (1 - self.radius) <= 1:
            # The ratio binds first: at the top 1/ratio mass has ratio times its reference, and nothing else
            # is left.
            return CVaR(1 / ratio).maximise(xp, losses, reference)
        drained, threshold = _sorting.lower_tail(xp, losses, reference, self.radius)
        if ratio is None:
            added, ceiling = self.radius * _sorting.top_share(xp, losses, reference), 0.0
        else:
            raised, ceiling = _sorting.upper_tail(xp, losses, reference, self.radius / (ratio - 1))
            added = (ratio - 1) * raised
        return reference - drained + added, Dual(xp.clip(ceiling - threshold, 0.0, None), threshold)

    def dual_value(self, xp: Namespace, losses: Array, reference: Array, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        multiplier, threshold = dual
        if self.max_ratio is None:
            multiplier = xp.maximum(multiplier, -threshold)
            excess = 0.0
        else:
            excess = (self.max_ratio - 1) * xp.clip(losses - threshold - multiplier, 0.0, None)
        return self.radius * multiplier + total(xp, reference * (xp.maximum(losses, threshold) + excess))


@dataclass(frozen=True)
class CVaR(AmbiguitySet):
    """Distributions of at most 1/alpha times p: the mean of the worst ``alpha`` tail [RU00].

        max_q <q, l>   s.t.   q <= p / alpha,  q in the simplex.

    The maximiser is p / alpha on the largest losses, with a fraction of that at the edge of the tail, shared
    by equal losses in proportion to p. Exact, O(n log n).

    Dual: threshold + E (l - threshold)_+ / alpha, for every threshold. The set has no radius: the multiplier
    is 0 and is not used.
    """

    alpha: float
    spec: ClassVar[str] = "cvar"

    def __post_init__(self) -> None:
        meaning, remedy = "the tail mass", "For the mean use alpha=1."
        _set(self, "alpha", checked_number("CVaR.alpha", meaning, "(0, 1]", self.alpha, remedy))

    def with_strength(self, fraction: float) -> Self:
        """Return the set with ``alpha`` moved to 1 - (1 - alpha) * fraction."""
        share = _fraction(fraction)
        return replace(self, alpha=(1 - share) + share * self.alpha)

    def maximise(self, xp: Namespace, losses: Array, reference: Array) -> tuple[Array, Dual]:
        """Spread all mass evenly over the tail."""
        tail, threshold = _sorting.upper_tail(xp, losses, reference, self.alpha)
        return tail / self.alpha, Dual(xp.zeros_like(threshold), threshold)

    def dual_value(self, xp: Namespace, losses: Array, reference: Array, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        excess = total(xp, reference * xp.clip(losses - dual.threshold, 0.0, None))
        return dual.threshold + excess / self.alpha


@dataclass(frozen=True)
class ChiSquare(AmbiguitySet):
    """Distributions within chi-square divergence ``radius`` of p; note the 1/2, as in [L20].

        max_q <q, l>   s.t.   1/2 E (q/p - 1)^2 <= radius,  q in the simplex.

    The maximiser is p (l - threshold)_+ / multiplier: nothing below the threshold, linear above it. Its value
    is inf_eta eta + sqrt(1 + 2 radius) sqrt(E (l - eta)_+^2). Exact, O(n log n).

    Dual: (1/2 + radius) multiplier + inf_eta [eta + E (l - eta)_+^2 / (2 multiplier)], for every multiplier >= 0
    (max l at 0). The threshold is that eta at the optimum; it follows from the multiplier and is not used. At
    radius 0 the multiplier returned is large (about 1e18 times the spread) instead of infinite.
    """

    radius: float
    spec: ClassVar[str] = "chi2"

    def __post_init__(self) -> None:
        meaning, remedy = "half the mean square of q/p - 1", "For the mean use radius=0."
        _set(self, "radius", checked_number("ChiSquare.radius", meaning, "[0, inf)", self.radius, remedy))

    def with_strength(self, fraction: float) -> Self:
        """Return the set with ``radius * fraction``."""
        return replace(self, radius=self.radius * _fraction(fraction))

    def maximise(self, xp: Namespace, losses: Array, reference: Array) -> tuple[Array, Dual]:
        """Project onto the simplex after the one scaling that meets the radius."""
        weights, multiplier, threshold = _sorting.quadratic_tilt(xp, losses, reference, self.radius)
        return weights, Dual(multiplier, threshold)

    def dual_value(self, xp: Namespace, losses: Array, reference: Array, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring, written so that a huge multiplier does not cancel."""
        multiplier = dual.multiplier
        threshold = _sorting.quadratic_threshold(xp, losses, reference, multiplier)
        bend = (losses - threshold - multiplier) ** 2 / (2 * xp.where(multiplier > 0, multiplier, 1.0))
        terms = xp.where(losses >= threshold, losses + bend, threshold + multiplier / 2)
        return self.radius * multiplier + total(xp, reference * terms)


@dataclass(frozen=True)
class KL(AmbiguitySet):
    """Distributions within Kullback-Leibler divergence ``radius`` of p.

        max_q <q, l>   s.t.   sum q log(q/p) <= radius,  q in the simplex.

    The maximiser is p exp((l - threshold) / multiplier): a softmax at the one temperature that meets the
    radius, found by safeguarded Newton. From radius = -log p(argmax) on, all mass is on the largest loss.

    Dual: radius multiplier + multiplier log E exp(l / multiplier), for every multiplier >= 0 (max l at 0).
    The threshold is the loss at which q = p; it follows from the multiplier and is not used. At radius 0 the
    multiplier returned is large (about 1e18 times the spread) instead of infinite.
    """

    radius: float
    spec: ClassVar[str] = "kl"

    def __post_init__(self) -> None:
        meaning, remedy = "a divergence in nats", "For the mean use radius=0."
        _set(self, "radius", checked_number("KL.radius", meaning, "[0, inf)", self.radius, remedy))

    def with_strength(self, fraction: float) -> Self:
        """Return the set with ``radius * fraction``."""
        return replace(self, radius=self.radius * _fraction(fraction))

    def maximise(self, xp: Namespace, losses: Array, reference: Array) -> tuple[Array, Dual]:
        """Tilt exponentially."""
        weights, multiplier, threshold = _duals.exponential_tilt(xp, losses, reference, self.radius)
        return weights, Dual(multiplier, threshold)

    def dual_value(self, xp: Namespace, losses: Array, reference: Array, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        multiplier = xp.clip(dual.multiplier, 2.0**-900, None)  # below that the exponents would overflow
        value = multiplier * (self.radius + _duals.log_mean_exp(xp, losses / multiplier, reference))
        return xp.where(dual.multiplier > 0, value, 0.0)
