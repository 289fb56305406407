"""Sets made of another set: over groups of scenarios, or after trimming. See ``ambiguity``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from .._solvers import arrays, sorting
from .._solvers.arrays import Array, sum_by_code
from .._solvers.problem import Problem, centre
from .ambiguity import AmbiguitySet, Dual, checked_number, set_field

_BESIDE_ONE = 2.0**-20  # a fraction smaller than this is taken off the top: 1 less 1e-18 is 1


@dataclass(frozen=True, eq=False)
class Composite(AmbiguitySet):
    """A set made of ``inner``; ``option`` names the wrapper in text form: ``tv:0.2,trim=0.05``."""

    inner: AmbiguitySet
    option: ClassVar[str]

    def __post_init__(self) -> None:
        given: Any = self.inner
        if not isinstance(given, AmbiguitySet):
            raise TypeError(f"`{type(self).__name__}.inner` must be an ambiguity set such as CVaR(0.3), got {given!r}.")
        if given.sees_zero_mass:
            raise ValueError(
                f"`{type(self).__name__}.inner` must give no weight to scenarios of zero mass, "
                f"which {type(given).__name__} may do. Use a divergence, CVaR or total variation."
            )
        if given.equally_likely:
            raise ValueError(
                f"`{type(self).__name__}.inner` must bear unequal masses, which {given} does not; leave out minibatch."
            )

    @property
    def core(self) -> AmbiguitySet:
        """What the inner set is made around."""
        return self.inner.core

    @property
    def has_rows(self) -> bool:
        """Whether the inner set has one row per problem."""
        return self.inner.has_rows

    @property
    def charges(self) -> bool:
        """Whether the inner set does."""
        return self.inner.charges

    @property
    def holds_only_reference(self) -> bool:
        """Whether the inner set is its reference alone."""
        return self.inner.holds_only_reference

    def with_strength(self, fraction: float) -> Self:
        """Return the same around the inner set of that strength."""
        changed: Any = {"inner": self.inner.with_strength(fraction)}
        return replace(self, **changed)

    def __str__(self) -> str:
        return f"{self.inner},{self.option}={self._text()}"

    @abstractmethod
    def _text(self) -> str:
        """Return what stands after ``option=``."""


def _reduced(ambiguity: AmbiguitySet, problem: Problem) -> tuple[Array, Dual]:
    """Solve for a recentred problem and return the dual in the units its losses were centred from."""
    weights, dual = ambiguity.maximise(problem)
    return weights, Dual(problem.scale * dual.multiplier, problem.shift + problem.scale * dual.threshold)


def _restored(ambiguity: AmbiguitySet, problem: Problem, dual: Dual) -> Array:
    """Evaluate the dual of a recentred problem at variables in those units."""
    multiplier, threshold = dual.multiplier / problem.scale, (dual.threshold - problem.shift) / problem.scale
    return problem.shift + problem.scale * ambiguity.dual_value(problem, Dual(multiplier, threshold))


@dataclass(frozen=True, eq=False)
class Grouped(Composite):
    """Mixtures of groups: the adversary reweights groups, never examples inside one.

        max_Q sum_g Q_g mean_g(l)   s.t.   Q in ``inner`` around the group masses p_g,   q_i = Q_g p_i / p_g.

    With CVaR or a large radius this is group DRO; examples of a group keep their proportions, so single
    outliers cannot be picked.

    Args:
        inner: The set of the group problem.
        groups: One label per scenario: integers from 0 on as an array or tensor, or any labels as a list. Or
            the name of a column, as in ``tv:0.2,by=source``, to be filled in by ``bind``.
        count: How many groups there are; by default the largest label plus one.

    Dual: that of ``inner`` at the group means.
    """

    groups: Any
    count: int | None = None
    option: ClassVar[str] = "by"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.groups, str):
            if not self.groups:
                raise ValueError("`Grouped.groups` must name a column or hold one label per scenario, got ''.")
            return
        codes, count = _codes(self.groups)
        if self.count is None and count > codes.shape[-1]:  # gaps between labels would only cost memory
            codes, count = _codes(arrays.renumbered(codes))
        given: Any = count if self.count is None else self.count
        given = given.item() if hasattr(given, "item") else given
        if not isinstance(given, int) or isinstance(given, bool) or given < count:
            raise ValueError(
                f"`Grouped.count` must be an integer of at least {count}, the labels' range, got {given!r}."
            )
        set_field(self, "groups", codes)
        set_field(self, "count", given)

    @property
    def has_rows(self) -> bool:
        """Whether the inner set or the labels have one row per problem."""
        return super().has_rows or (not isinstance(self.groups, str) and self.groups.ndim > 1)

    def bind(self, columns: Mapping[str, Sequence[Any] | Array]) -> Self:
        """Replace the name of a column by its entries."""
        inner = self.inner.bind(columns)
        if not isinstance(self.groups, str):
            return replace(self, inner=inner)
        if self.groups not in columns:
            known = ", ".join(sorted(columns)) or "none"
            raise ValueError(f"`Grouped.groups` names the column {self.groups!r}; the columns are: {known}.")
        return type(self)(inner, columns[self.groups], self.count)

    def take(self, rows: Array) -> Self:
        """Return the set for the labels ``rows``; the groups keep their codes."""
        return replace(self, groups=self.groups if isinstance(self.groups, str) else self.groups[..., rows])

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Solve for the groups and share their weight in proportion to p."""
        codes, within, groups = self._reduce(problem)
        weights, dual = _reduced(self.inner, groups)
        return within * problem.xp.take_along_axis(weights, codes, axis=-1), dual

    def penalty(self, problem: Problem, weights: Array) -> Array | float:
        """Charge what the inner set charges for the group weights."""
        codes, _, groups = self._reduce(problem)
        assert self.count is not None
        mixture = sum_by_code(problem.xp, weights, codes, self.count)
        return groups.scale * self.inner.penalty(groups, mixture)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move the groups' weights with the means, and share."""
        xp, (codes, within, groups) = problem.xp, self._reduce(problem)
        assert self.count is not None
        moving = xp.where(within > 0, within * vectors, 0.0)
        mixture, means = (sum_by_code(xp, part, codes, self.count) for part in (weights, moving))
        moved = self.inner.jacobian_product(groups, mixture, multiplier, means)
        return within * xp.take_along_axis(moved, codes, axis=-1)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the inner dual at the group means."""
        return _restored(self.inner, self._reduce(problem)[2], dual)

    def _text(self) -> str:
        return self.groups if isinstance(self.groups, str) else f"({self.groups.shape[-1]} labels)"

    def _reduce(self, problem: Problem) -> tuple[Array, Array, Problem]:
        """Return codes ``(*batch, n)``, the shares p_i / p_g, and the centred problem of the groups."""
        xp, count = problem.xp, self.count
        codes = self._codes_for(problem)
        assert count is not None
        masses = problem.masses()
        group_masses = sum_by_code(xp, masses, codes, count)
        safe = xp.where(group_masses > 0, group_masses, 1.0)
        within = masses / xp.take_along_axis(safe, codes, axis=-1)
        means = sum_by_code(xp, within * problem.losses, codes, count)  # exact for a group of one: ties stay ties
        inner = centre(xp, means, group_masses)
        return codes, within, inner._replace(unit=problem.unit * inner.scale, offset=problem.offset)

    def _codes_for(self, problem: Problem) -> Array:
        if isinstance(self.groups, str):
            raise ValueError(
                f"`Grouped.groups` is the name of the column {self.groups!r}, without its entries; "
                "give them with `bind({...})` first."
            )
        if self.groups.shape[-1] != problem.losses.shape[-1]:
            raise ValueError(
                f"`Grouped.groups` has {self.groups.shape[-1]} labels, the losses have {problem.losses.shape[-1]} "
                "scenarios; give one label per scenario."
            )
        if not arrays.fits(self.groups.shape, problem.losses.shape):
            raise ValueError(
                f"`Grouped.groups` has shape {tuple(self.groups.shape)}, the losses {tuple(problem.losses.shape)}; "
                "give one row of labels per problem, or one for all."
            )
        codes = arrays.asarray_like(problem.xp, self.groups, problem.losses, dtype=problem.xp.int64)
        return problem.xp.broadcast_to(codes, problem.losses.shape)


def _codes(groups: Any) -> tuple[Array, int]:
    """Return integer codes, as a copy, and their number; any other labels are numbered in sorted order."""
    if isinstance(groups, np.ma.MaskedArray):
        raise TypeError("`Grouped.groups` must not be masked; fill it first.")
    if not hasattr(groups, "dtype") or getattr(groups.dtype, "kind", "i") not in "iu":
        groups = _numbered(groups)
    xp = arrays.namespace_of(groups)
    if groups.ndim == 0 or 0 in groups.shape:
        raise ValueError(f"`Grouped.groups` needs one label per scenario, got shape {tuple(groups.shape)}.")
    if not xp.isdtype(groups.dtype, "integral"):
        raise TypeError(f"`Grouped.groups` must be integers or a list of labels, got dtype {groups.dtype}.")
    if arrays.is_without_values(groups):
        raise ValueError("`Grouped.groups` must have values, got a tensor on the meta device; give the labels.")
    if int(xp.min(groups)) < 0:
        raise ValueError(f"`Grouped.groups` must be labels from 0 on, got {int(xp.min(groups))}.")
    return xp.asarray(groups, copy=True), int(xp.max(groups)) + 1


def _numbered(labels: Any) -> Array:
    try:
        given = np.asarray(labels)
        if given.dtype.kind == "f" and np.isnan(given).any():
            raise ValueError("a label is NaN")
        if given.ndim == 0:
            raise TypeError("it is no list")
        return np.unique(given, return_inverse=True)[1].reshape(given.shape)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"`Grouped.groups` must be one label per scenario, all of one kind: {error}; got {labels!r}."
        ) from error


@dataclass(frozen=True, eq=False)
class Trimmed(Composite):
    """The inner problem without the largest losses, which may be label noise [DORO].

        max_q <q, l>   s.t.   q in ``inner`` around p',  p' = p less its ``fraction`` on the largest losses, rescaled.

    Not a supremum over one set of distributions: p' depends on the losses. The value is a minimum over
    trimmings of convex functions, so it is **not convex** in the losses and in a model's parameters, and at
    strength 0 it is the trimmed mean.

    Dual: that of ``inner`` around p', for the p' of these losses.
    """

    fraction: float
    option: ClassVar[str] = "trim"

    def __post_init__(self) -> None:
        super().__post_init__()
        meaning, remedy = "the mass of the largest losses to drop", "For none use fraction=0."
        set_field(self, "fraction", checked_number("Trimmed.fraction", meaning, "[0, 1)", self.fraction, remedy))

    @property
    def holds_only_reference(self) -> bool:
        """Whether nothing is dropped either."""
        return self.fraction == 0 and super().holds_only_reference

    def bind(self, columns: Mapping[str, Sequence[Any] | Array]) -> Self:
        """Bind the inner set."""
        return replace(self, inner=self.inner.bind(columns))

    def take(self, rows: Array) -> Self:
        """Take the scenarios of the inner set."""
        return replace(self, inner=self.inner.take(rows))

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Solve for what is left."""
        return _reduced(self.inner, self._reduce(problem))

    def penalty(self, problem: Problem, weights: Array) -> Array | float:
        """Charge what the inner set charges, around p'."""
        left = self._reduce(problem)
        return left.scale * self.inner.penalty(left, weights)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move what is left."""
        return self.inner.jacobian_product(self._reduce(problem), weights, multiplier, vectors)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the inner dual around p'."""
        return _restored(self.inner, self._reduce(problem), dual)

    def _text(self) -> str:
        return repr(self.fraction)

    def _reduce(self, problem: Problem) -> Problem:
        share = 1 - self.fraction
        if self.fraction < _BESIDE_ONE:
            left = (problem.masses() - sorting.upper_tail(problem, self.fraction)[0]) / share
        else:
            left, _ = sorting.upper_tail(problem._replace(losses=-problem.losses), share, 1 / share)
        inner = centre(problem.xp, problem.losses, left)
        return inner._replace(unit=problem.unit * inner.scale, offset=problem.offset)
