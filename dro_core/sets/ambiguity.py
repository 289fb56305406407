"""What every ambiguity set has: frozen parameters, two short formulas, a name in text form.

In every docstring p is the reference distribution on n scenarios, q a reweighting of it, l the losses
(larger is worse), r = q/p and E the expectation under p. ``maximise`` and ``dual_value`` are written for
centred losses (maximum 0, minimum -1). A new set is one such class; ``parse_ambiguity`` and ``str`` find it by
themselves.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

from .._solvers import jacobians
from .._solvers.arrays import Array, inner
from .._solvers.problem import Problem


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


def checked_fraction(value: float) -> float:
    """Check the argument of ``with_strength``."""
    return checked_number("fraction", "the share of the set's strength", "[0, 1]", value, "Use 1 for the whole set.")


def set_field(instance: AmbiguitySet, field: str, value: object) -> None:
    """Normalise a field of a frozen dataclass during its construction."""
    object.__setattr__(instance, field, value)


def in_text(value: Any) -> str:
    """Return a number as short as it can be read back, several with slashes between them, and a text as it is."""
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return "/".join(in_text(part) for part in value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False)  # else sets without a comparison of their own would all be equal
class AmbiguitySet(ABC):
    """A set of distributions around a reference p, over which the worst case of <q, l> is taken.

    Subclasses are frozen dataclasses. ``spec`` names them in text form and ``size`` is the field written
    after the colon. A penalised problem is the whole simplex with a price on q (``penalty``).
    """

    spec: ClassVar[str]
    size: ClassVar[str] = "radius"
    example: ClassVar[str] = "0.2"
    # Whether ``parse_ambiguity`` can make it: not if it holds an array.
    from_text: ClassVar[bool] = True
    # Whether scenarios of zero mass may get weight; then their losses count too.
    sees_zero_mass: ClassVar[bool] = False

    @property
    def has_rows(self) -> bool:
        """Whether the set holds an array with one row per problem of a batch."""
        return False

    @property
    def charges(self) -> bool:
        """Whether weights have a price, ``penalty``."""
        return type(self).penalty is not AmbiguitySet.penalty

    @property
    def holds_only_reference(self) -> bool:
        """Whether the set is p alone, whatever p and its scenarios are: no weight can differ, as at radius 0.

        False leaves it open: a ball of positive radius may turn out to reach nothing on the scenarios at hand.
        """
        return self == self.with_strength(0.0)

    @abstractmethod
    def with_strength(self, fraction: float) -> Self:
        """Return the set shrunk toward p: 0 leaves only p (the value is the mean), 1 is the whole set."""

    @abstractmethod
    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Return the maximising weights ``(*batch, n)`` and dual variables ``(*batch, 1)``, in centred units."""

    @abstractmethod
    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual at ``(*batch, 1)`` variables with multiplier >= 0, in centred units."""

    def value(self, problem: Problem, weights: Array, dual: Dual) -> Array:
        """Return the optimal value, ``(*batch, 1)`` in centred units, of what ``maximise`` returned."""
        del dual
        gain = inner(problem.xp, weights, problem.losses)
        return gain - self.penalty(problem, weights) if self.charges else gain

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Return J v: how the worst-case weights change with the losses, in the direction of ``vectors``.

        Args:
            problem: Only the order and ratios of distances of its losses matter.
            weights: The answer, ``(*batch, n)``.
            multiplier: The answer's, ``(*batch, 1)``, in the unit of the losses that ``vectors`` are in.
            vectors: v, ``(*batch, n)``.

        Raises:
            NotImplementedError: By default: no formula is known.
        """
        del problem, weights, multiplier, vectors
        raise NotImplementedError(
            f"{type(self).__name__} has no second derivatives; take first ones only, without create_graph."
        )

    @property
    def has_jacobian(self) -> bool:
        """Whether ``jacobian_product`` has a formula; else the weights are constants to autograd."""
        return type(self).jacobian_product is not AmbiguitySet.jacobian_product

    def penalty(self, problem: Problem, weights: Array) -> Array | float:
        """Return what the objective charges for the weights, ``(*batch, 1)`` in centred units: 0 for a set."""
        del problem, weights
        return 0.0

    def take(self, rows: Array) -> Self:
        """Return the set for the scenarios ``rows`` of a longer list; differs where scenarios have places."""
        del rows
        return self

    def bind(self, columns: Mapping[str, Sequence[Any] | Array]) -> Self:
        """Return the set with names of columns (``by=source``) replaced by their entries."""
        del columns
        return self

    def __str__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        size = values.pop(self.size)
        options = [f"{name}={in_text(value)}" for name, value in values.items() if value is not None]
        return ",".join([f"{self.spec}:{in_text(size)}", *options])


class Polyhedral(AmbiguitySet):
    """A set whose worst-case weights are piecewise constant in the losses: they jump where losses tie, and J is 0."""

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Return zeros."""
        del problem, multiplier
        return jacobians.none_at_all(weights, vectors)


class Ball(AmbiguitySet):
    """A set of radius 0 or more, in the unit that its docstring gives."""

    def with_strength(self, fraction: float) -> Self:
        """Return the set with ``radius * fraction`` and everything else the same."""
        changed: Any = {"radius": self.radius * checked_fraction(fraction)}  # pyright: ignore
        return replace(self, **changed)


def checked_radius(
    instance: AmbiguitySet, meaning: str, interval: str = "[0, inf)", remedy: str = "For the mean use radius=0."
) -> None:
    """Check and normalise the field ``radius``."""
    field = f"{type(instance).__name__}.radius"
    value: object = getattr(instance, "radius")  # noqa: B009
    set_field(
        instance, "radius", checked_number(field, meaning, interval, value, remedy or "For the mean use radius=0.")
    )
