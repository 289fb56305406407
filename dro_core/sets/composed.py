"""A set with a penalty on its members, written as a sum: ``CVaR(0.4) + KLPenalty(0.1)``. See ``ambiguity``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .._solvers import priced_sorting
from .._solvers.arrays import Array, asarray_like, fetched, total
from .._solvers.priced_sorting import Priced as Answer
from .._solvers.problem import Problem
from .ambiguity import AmbiguitySet, Ball, Dual
from .burg import Burg, BurgPenalty
from .composition import Composite
from .divergences import KL, CressieRead
from .penalties import ChiSquarePenalty, CressieReadPenalty, KLPenalty, Priced, price_of
from .sorted import ChiSquare, CVaR, Spectral, TotalVariation

_SORTED = TotalVariation, CVaR, Spectral
_SAME = {KL: KLPenalty, ChiSquare: ChiSquarePenalty, Burg: BurgPenalty, CressieRead: CressieReadPenalty}
_FAMILIES = {KLPenalty: priced_sorting.KL, ChiSquarePenalty: priced_sorting.CHI_SQUARE}

_interpolated: Any = np.interp  # whose type is left open


@dataclass(frozen=True, eq=False)
class Charged(AmbiguitySet):
    """The members of ``base``, each at the price of its divergence from p.

        max_q <q, l> - price E phi(q/p)   s.t.   q in ``base``.

    Made by ``base + price``. A penalty keeps the weights of a set with sharp edges from jumping with the losses; a set
    bounds what a penalty alone would put on a single scenario. Exact, in main memory and problem by problem, for

    * ``TotalVariation``, ``CVaR`` and ``Spectral`` with ``KLPenalty`` or ``ChiSquarePenalty`` (the smoothed
      superquantile, spectral risks with shift costs), by one sort and pooling of neighbours: {q : q(A) <= S(p(A))} is
      all three, with S the mass that the worst share may get;
    * a ball with the penalty of its own divergence, where the higher of two prices holds: the penalty's, or the one
      that meets the radius.

    Dual: of a ball, radius multiplier + the dual of the penalty at price + multiplier. Of the others, the infimum over
    levels eta_1 >= eta_2 >= ... of sum_j S_j (eta_j - eta_{j+1}) + price E phi*((l - eta) / price), S_j the most that
    the j largest levels may get; it has no variables. The multiplier is d value / d radius, 0 for CVaR and spectra;
    the threshold is used by the balls of powers alone.
    """

    base: AmbiguitySet
    price: Priced

    def __post_init__(self) -> None:
        if not isinstance(self.base, AmbiguitySet) or not isinstance(self.price, Priced):  # pyright: ignore
            raise TypeError(
                f"`Charged` is made of a set and a penalty, such as CVaR(0.4) and KLPenalty(0.1), got {self.base!r} "
                f"and {self.price!r}."
            )
        if self.base.sizes is not None or self.price.sizes is not None:
            raise ValueError(f"{self.base} and {self.price} cannot be added: each must have one number as its size.")
        if not _solvable(self.base, self.price):
            raise ValueError(
                f"{self.base} and {self.price} cannot be added: TotalVariation, CVaR and Spectral take KLPenalty or "
                "ChiSquarePenalty, a ball the penalty of its own divergence and order. Use ConvexSet for others."
            )

    @property
    def holds_only_reference(self) -> bool:
        """Whether the set or an infinite price leaves p alone."""
        return self.base.holds_only_reference or self.price.holds_only_reference

    def with_strength(self, fraction: float) -> Self:
        """Return the same price on the members of the smaller set: at 0 that is p alone, and free."""
        return replace(self, base=self.base.with_strength(fraction))

    def bind(self, columns: Mapping[str, Sequence[Any] | Array]) -> Self:
        """Return the set itself: it names no column."""
        del columns
        return self

    def penalty(self, problem: Problem, weights: Array) -> Array | float:
        """Charge what the penalty does."""
        return self.price.penalty(problem, weights)

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Pool levels, or take the higher of two prices."""
        if isinstance(self.base, _SORTED):
            return self._pooled(problem)
        xp, price = problem.xp, price_of(problem, getattr(self.price, self.price.size))
        (free, own), (bound, dual) = self.price.maximise(problem), self.base.maximise(problem)
        binds = dual.multiplier > price
        multiplier = xp.where(binds, dual.multiplier - price, 0.0)
        return xp.where(binds, bound, free), Dual(multiplier, xp.where(binds, dual.threshold, own.threshold))

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        if isinstance(self.base, _SORTED):
            bounds = np.array([answer.bound for _, _, answer in self._answers(problem)])
            return asarray_like(problem.xp, bounds.reshape(problem.shift.shape), problem.losses)
        assert isinstance(self.base, Ball)
        radius: float = getattr(self.base, "radius")  # noqa: B009
        centre = self.base.with_strength(0.0)
        price = price_of(problem, getattr(self.price, self.price.size))
        at = Dual(price + dual.multiplier, dual.threshold)
        return radius * dual.multiplier + centre.dual_value(problem, at)

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move along the tilt of the price that holds; where that is the penalty's, without the ball."""
        if isinstance(self.base, _SORTED):
            return super().jacobian_product(problem, weights, multiplier, vectors)
        price = price_of(problem, getattr(self.price, self.price.size)) * problem.unit
        bound = self.base.jacobian_product(problem, weights, price + multiplier, vectors)
        return problem.xp.where(
            multiplier > 0, bound, self.price.jacobian_product(problem, weights, multiplier, vectors)
        )

    @property
    def has_jacobian(self) -> bool:
        """Whether ``base`` is a ball: where levels pool and part is not worked out."""
        return not isinstance(self.base, _SORTED)

    def __str__(self) -> str:
        (base, *options), (price, *more) = str(self.base).split(","), str(self.price).split(",")
        return ",".join([f"{base}+{price}", *options, *(option for option in more if option not in options)])

    def _pooled(self, problem: Problem) -> tuple[Array, Dual]:
        """Solve every problem of the batch by itself."""
        xp, shape = problem.xp, problem.losses.shape
        worth: list[float] = []
        ratios: list[Any] = []
        for level, after, answer in self._answers(problem):
            ratios.append(np.where(level >= 0, answer.ratio[level], 0.0))
            worth.append(float(answer.worth @ _gains(self.base, after)))
        ratio = asarray_like(xp, np.array(ratios).reshape(shape), problem.losses)
        multiplier = asarray_like(xp, np.array(worth).reshape(problem.shift.shape), problem.losses)
        weights = problem.weighted(ratio)
        return weights / total(xp, weights), Dual(multiplier, xp.zeros_like(multiplier))

    def _answers(self, problem: Problem) -> list[tuple[Any, Any, Answer]]:
        """For every problem the level of each scenario (-1 where p is 0), the mass down to each level, the answer."""
        n = problem.losses.shape[-1]
        family = _FAMILIES[type(self.price)]  # type: ignore[index]
        price = price_of(problem, getattr(self.price, self.price.size))
        rows, masses = (fetched(problem.xp, part).reshape(-1, n) for part in (problem.losses, problem.masses()))
        prices = fetched(problem.xp, problem.xp.broadcast_to(price, problem.shift.shape)).ravel().tolist()
        found: list[tuple[Any, Any, Answer]] = []
        for losses, p, cost in zip(rows, masses, prices, strict=True):
            seen = p > 0
            rising, code = np.unique(-losses[seen], return_inverse=True)
            mass = np.bincount(code, p[seen])
            mass /= mass.sum()
            after = np.cumsum(mass)
            gets = _gets(self.base, mass, after)
            level = np.full(n, -1)
            level[seen] = code
            found.append((level, after, priced_sorting.pooled(-rising, mass, gets, cost or 1.0, family)))
        return found


def _solvable(base: AmbiguitySet, price: Priced) -> bool:
    if isinstance(base, _SORTED):
        return type(price) in _FAMILIES
    same = type(price) is _SAME.get(type(base))  # type: ignore[arg-type]
    return same and getattr(base, "order", None) == getattr(price, "order", None)


def _knots(base: AmbiguitySet) -> tuple[Any, Any]:
    """Return where S bends, from 0 to 1, and the most that a share of that mass, or just above 0, may get."""
    match base:
        case Spectral(spectrum):
            reached = np.cumsum([0.0, *reversed(spectrum)])
            return np.linspace(0, 1, len(spectrum) + 1), reached / reached[-1]
        case TotalVariation(radius, max_ratio):
            if max_ratio is None:
                return np.array([0.0, 1 - radius, 1.0]), np.array([radius, 1.0, 1.0])
            if max_ratio * (1 - radius) <= 1:
                return _knots(CVaR(1 / max_ratio))
            top = radius / (max_ratio - 1) if radius else 0.0
            return np.array([0.0, top, 1 - radius, 1.0]), np.array([0.0, top + radius, 1.0, 1.0])
        case CVaR(alpha):
            return np.array([0.0, alpha, 1.0]), np.array([0.0 if alpha else 1.0, 1.0, 1.0])
        case _:
            raise AssertionError


def _gets(base: AmbiguitySet, mass: Any, after: Any) -> Any:
    """Return S after each level less S before it, for levels of that mass.

    Between the slopes of S on either side, times the mass: beside 1 a mass of 1e-100 leaves no difference.
    """
    at, most = _knots(base)
    before = np.concatenate([[0.0], after[:-1]])
    width = np.diff(at)
    slope = np.divide(np.diff(most), width, out=np.zeros_like(width), where=width > 0)
    steepest, flattest = (
        slope[np.clip(np.searchsorted(at, where, side=side) - 1, 0, len(slope) - 1)]  # type: ignore[call-overload]
        for where, side in ((before, "right"), (after, "left"))
    )
    gets: Any = np.diff(_interpolated(after, at, most), prepend=0.0)
    highest = steepest * mass + np.where(before == 0, most[0], 0.0)
    return np.minimum(np.maximum(gets, flattest * mass), highest)


def _gains(base: AmbiguitySet, mass: Any) -> Any:
    """Return d most / d radius, where a set has one."""
    if not isinstance(base, TotalVariation):
        return np.zeros_like(mass)
    moved = mass + base.radius
    free = moved < 1 if base.max_ratio is None else (moved < 1) & (moved < base.max_ratio * mass)
    return free.astype(float)


def added(one: AmbiguitySet, other: AmbiguitySet) -> AmbiguitySet:
    """Return a set and a penalty, in either order, as one; inside a grouped or trimmed set, on what that works on.

    Raises:
        ValueError: Two sets, two penalties, or two that cannot be solved together.
    """
    if isinstance(one, Priced) or isinstance(other, (Composite, Charged)):
        one, other = other, one
    if isinstance(one, Composite) and isinstance(other, Priced):
        changed: Any = {"inner": one.inner + other}
        return replace(one, **changed)
    if not isinstance(other, Priced) or isinstance(one, (Priced, Charged)):
        raise ValueError(
            f"{one} and {other} cannot be added: one must be a set, the other a penalty, as in "
            "cvar:0.4+kl_penalty:0.1. Use ConvexSet for others."
        )
    return Charged(one, other)
