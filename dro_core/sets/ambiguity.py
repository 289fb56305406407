"""What every ambiguity set has: frozen parameters, two short formulas, a name in text form.

In every docstring p is the reference distribution on n scenarios, q a reweighting of it, l the losses
(larger is worse), r = q/p and E the expectation under p. ``maximise`` and ``dual_value`` are written for
centred losses (maximum 0, minimum -1). A new set is one such class; ``parse_ambiguity`` and ``str`` find it by
themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

from .._solvers import jacobians
from .._solvers.arrays import Array, fits, inner
from .._solvers.problem import Problem
from .._solvers.sizes import Size
from .sizes import checked_number, checked_size, same, size_in_text


class Dual(NamedTuple):
    """Dual variables of one inner problem: ``(*batch,)`` each, in the units of the losses, always float64.

    ``multiplier`` is the price of the radius, d value / d radius; it must be nonnegative and finite.
    ``threshold`` is a loss level. Each set says what its threshold separates, and which dual function the
    pair belongs to.
    """

    multiplier: Array
    threshold: Array


def checked_fraction(value: float) -> float:
    """Check the argument of ``with_strength``."""
    return checked_number("fraction", "the share of the set's strength", "[0, 1]", value, "Use 1 for the whole set.")


def require_fit(ambiguity: AmbiguitySet, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the set has one size for all problems, or one for each of losses of that shape."""
    sizes = ambiguity.sizes
    if sizes is not None and not fits(tuple(sizes.shape), shape[:-1]):
        core = ambiguity.core
        raise ValueError(
            f"`{type(core).__name__}.{core.size}` has shape {tuple(sizes.shape)}, the losses {shape}; "
            "give one number per problem, or one for all."
        )


def require_one_size(ambiguity: object) -> None:
    """Raise ValueError for a set with one size per problem, where there is but one problem."""
    if isinstance(ambiguity, AmbiguitySet) and ambiguity.sizes is not None and ambiguity.sizes.ndim:
        core = ambiguity.core
        name = f"{type(core).__name__}.{core.size}"
        raise ValueError(f"`{name}` must be one number here, where there is one problem; got {core.sizes!r}.")


def set_field(instance: AmbiguitySet, field: str, value: object) -> None:
    """Normalise a field of a frozen dataclass during its construction."""
    object.__setattr__(instance, field, value)


def in_text(value: Any) -> str:
    """Return a number as short as it can be read back, several with slashes between them, and a text as it is."""
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return "/".join(in_text(part) for part in value)
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False)  # so are all sets: two are equal if all fields are, arrays in all entries
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
    # Whether scenarios must be equally likely; then there is no reference to give.
    equally_likely: ClassVar[bool] = False

    @property
    def core(self) -> AmbiguitySet:
        """The set that has the size: itself, or what a composite is made around."""
        return self

    @property
    def sizes(self) -> Array | None:
        """The size if it is an array: of one number per problem, or a tensor in a gradient graph."""
        size = getattr(self.core, self.core.size, None)
        if isinstance(size, (float, tuple)):  # which a compiler may treat as a symbol
            return None
        return size if hasattr(size, "ndim") else None

    @property
    def has_rows(self) -> bool:
        """Whether the set holds an array with one row per problem of a batch."""
        return self.sizes is not None and self.sizes.ndim > 0

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

    def sensitivity(self, size: Size, value: Array, mean: Array, dual: Dual) -> Array:
        """Return d value / d size of an answer, all ``(*batch,)``: of its value, <q, l> and dual, in float64."""
        del size, value, mean
        return dual.multiplier

    def penalty(self, problem: Problem, weights: Array) -> Array | float:
        """Return what the objective charges for the weights, ``(*batch, 1)`` in centred units: 0 for a set."""
        del problem, weights
        return 0.0

    def __add__(self, other: AmbiguitySet) -> AmbiguitySet:
        """Add a penalty to a set: its members, each at that price."""
        given: Any = other
        if not isinstance(given, AmbiguitySet):
            return NotImplemented
        from .composed import added

        return added(self, given)

    def take(self, rows: Array) -> Self:
        """Return the set for the scenarios ``rows`` of a longer list; differs where scenarios have places."""
        del rows
        return self

    def bind(self, columns: Mapping[str, Sequence[Any] | Array]) -> Self:
        """Return the set with names of columns (``by=source``) replaced by their entries."""
        del columns
        return self

    @property
    def size_text(self) -> str:
        """What stands first in the text of a set: its name and size."""
        size = getattr(self, self.size)
        return f"{self.spec}:{in_text(size) if self.sizes is None else size_in_text(size)}"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        return all(same(getattr(self, known.name), getattr(other, known.name)) for known in fields(self) if known.init)

    def __hash__(self) -> int:
        values = (getattr(self, known.name) for known in fields(self) if known.init)
        return hash((type(self), *(value for value in values if not hasattr(value, "ndim"))))

    def __str__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values.pop(self.size)
        options = [f"{name}={in_text(value)}" for name, value in values.items() if value is not None]
        return ",".join([self.size_text, *options])


class Polyhedral(AmbiguitySet):
    """A set whose worst-case weights are piecewise constant in the losses: they jump where losses tie, and J is 0."""

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Return zeros."""
        del problem, multiplier
        return jacobians.none_at_all(weights, vectors)


class Ball(AmbiguitySet):
    """A set of radius 0 or more, in the unit that its docstring gives: a number, or an array of one per problem."""

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
    set_field(instance, "radius", checked_size(field, meaning, interval, value, remedy or "For the mean use radius=0."))
