"""Distributions reached by moving mass between the scenarios at a cost. See ``ambiguity``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from .._solvers.arrays import (
    Array,
    arange_like,
    asarray_like,
    at_least,
    at_most,
    fits,
    is_without_values,
    namespace_of,
    on_host,
    sum_by_code,
)
from .._solvers.problem import Problem
from .._solvers.sizes import Size
from .ambiguity import Ball, Dual, Polyhedral, checked_radius, set_field

# Of 24,000 instances up to n = 200, costs exponentially spread among them, none took more than 46 steps; in main
# memory, where the search ends by itself, costs over hundreds of decades may have more.
_STEPS, _MOST_STEPS = 60, 2000


class _Plan(NamedTuple):
    """Where each scenario's mass goes, ``(*batch, n)``, what that gains and costs, ``(*batch, 1)``."""

    target: Array
    gain: Array
    cost: Array


@dataclass(frozen=True, eq=False)
class Wasserstein(Polyhedral, Ball):
    """Distributions on the same n scenarios, reached from p by moving mass at a mean cost of at most ``radius``.

        max_q <q, l>   s.t.   min over plans with marginals p, q of sum_ij plan_ij cost_ij <= radius.

    ``cost`` is ``(n, n)`` or ``(*batch, n, n)``: symmetric, nonnegative, zero on the diagonal (the triangle
    inequality is not needed), in the unit of the radius. For cost 1[i != j] this is TotalVariation(radius). A
    scenario of zero mass may receive mass, so its loss counts. The maximiser moves whole atoms, except one
    share of them that makes the mean cost meet the radius. Exact, by intersecting supporting lines of the dual
    until they meet on it; O(n^2) per line, few lines. Where plans tie, which scenarios move is arbitrary.

    Dual: radius multiplier + sum_i p_i max_j (l_j - multiplier cost_ij), for every multiplier >= 0. The
    threshold is not used.

    Raises:
        ValueError: A cost that is not square, finite, nonnegative, symmetric or zero on the diagonal.
    """

    radius: Size
    cost: Array
    spec: ClassVar[str] = "wasserstein"
    from_text: ClassVar[bool] = False
    sees_zero_mass: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checked_radius(self, "a mean transport cost")
        set_field(self, "cost", _checked_cost(self.cost))

    @property
    def has_rows(self) -> bool:
        """Whether there is one cost or radius per problem."""
        return self.cost.ndim > 2 or super().has_rows

    @property
    def holds_only_reference(self) -> bool:
        """Whether nothing may move: radius 0, and every way has a cost."""
        if not super().holds_only_reference:
            return False
        xp = namespace_of(self.cost)
        itself = asarray_like(xp, xp.eye(self.cost.shape[-1]), self.cost)
        return bool(xp.all(self.cost + itself > 0))

    def take(self, rows: Array) -> Self:
        """Return the set whose cost holds the rows and columns ``rows``."""
        return type(self)(self.radius, self.cost[..., rows, :][..., rows])

    def __str__(self) -> str:
        return f"{self.size_text},cost={tuple(self.cost.shape)}"

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Bracket the radius between a dearer and a cheaper plan that share one supporting point."""
        xp, losses = problem.xp, problem.losses
        cost, masses, radius = self._cost_for(problem), problem.masses(), problem.size(self.radius)
        dear = _plan(problem, cost, xp.where(losses == 0, losses, -xp.inf)[..., None, :] - cost)
        stay = xp.broadcast_to(arange_like(xp, losses.shape[-1], losses, dtype=xp.int64), losses.shape)
        cheap = _Plan(stay, problem.mean(losses), xp.zeros_like(dear.cost))
        enough = dear.cost <= radius  # everything reaches the largest loss
        for _ in range(_MOST_STEPS if on_host(xp) else _STEPS):
            price = _crossing(xp, dear, cheap)
            new = _plan(problem, cost, losses[..., None, :] - price[..., None] * cost)
            above = new.gain - price * new.cost > (dear.gain - price * dear.cost) + 1e-15
            dearer = new.cost > radius
            dear, cheap = _choose(xp, above & dearer, new, dear), _choose(xp, above & ~dearer, new, cheap)
            if on_host(xp) and not np.any(above & ~enough):
                break
        price = xp.where(enough, 0.0, _crossing(xp, dear, cheap))
        gap = xp.where(dear.cost > cheap.cost, dear.cost - cheap.cost, 1.0)
        share = xp.where(enough, 1.0, at_most(xp, at_least(xp, (radius - cheap.cost) / gap, 0.0), 1.0))
        n = losses.shape[-1]
        weights = share * sum_by_code(xp, masses, dear.target, n)
        weights += (1 - share) * sum_by_code(xp, masses, cheap.target, n)
        return weights, Dual(price, xp.zeros_like(price))

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring."""
        reached = problem.losses[..., None, :] - dual.multiplier[..., None] * self._cost_for(problem)
        return problem.size(self.radius) * dual.multiplier + problem.mean(problem.xp.max(reached, axis=-1))

    def _cost_for(self, problem: Problem) -> Array:
        n = problem.losses.shape[-1]
        if self.cost.shape[-1] != n:
            raise ValueError(
                f"`Wasserstein.cost` is for {self.cost.shape[-1]} scenarios, the losses have {n}; "
                "use `take(rows)` for some of them."
            )
        if not fits(self.cost.shape[:-2], problem.losses.shape[:-1]):
            raise ValueError(
                f"`Wasserstein.cost` has shape {tuple(self.cost.shape)}, the losses {tuple(problem.losses.shape)}; "
                "give one cost per problem, or one for all."
            )
        return asarray_like(problem.xp, self.cost, problem.losses)


def _plan(problem: Problem, cost: Array, worth: Array) -> _Plan:
    """Send every scenario's mass where it is worth most."""
    xp = problem.xp
    target = xp.argmax(worth, axis=-1)
    paid = xp.take_along_axis(xp.broadcast_to(cost, worth.shape), target[..., None], axis=-1)[..., 0]
    return _Plan(target, problem.mean(xp.take_along_axis(problem.losses, target, axis=-1)), problem.mean(paid))


def _crossing(xp: Any, dear: _Plan, cheap: _Plan) -> Array:
    """Return the price at which both plans are worth the same."""
    extra = dear.cost - cheap.cost
    return xp.where(extra > 0, (dear.gain - cheap.gain) / xp.where(extra > 0, extra, 1.0), 0.0)


def _choose(xp: Any, condition: Array, first: _Plan, second: _Plan) -> _Plan:
    return _Plan(*(xp.where(condition, one, other) for one, other in zip(first, second, strict=True)))


def _checked_cost(given: Any) -> Array:
    """Return the cost in float64, in the library it came in; ValueError names what is wrong with it."""
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError("`Wasserstein.cost` must not be masked; fill it first.")
    try:
        cost: Any = given if hasattr(given, "dtype") else np.asarray(given)
        xp = namespace_of(cost)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`Wasserstein.cost` must be a square array: {error}") from error
    if not xp.isdtype(cost.dtype, ("real floating", "integral")):
        raise TypeError(f"`Wasserstein.cost` must hold real numbers, got dtype {cost.dtype}; cast it first.")
    if cost.ndim < 2 or cost.shape[-1] != cost.shape[-2] or cost.shape[-1] == 0:
        raise ValueError(f"`Wasserstein.cost` must be square, (*batch, n, n), got shape {tuple(cost.shape)}.")
    if is_without_values(cost):
        raise ValueError("`Wasserstein.cost` must have values, got a tensor on the meta device.")
    cost = xp.astype(cost.detach() if hasattr(cost, "detach") else cost, xp.float64, copy=True)
    if not bool(xp.all(xp.isfinite(cost))):
        raise ValueError("`Wasserstein.cost` must be finite; for a move that is never worth it use a large number.")
    if not bool(xp.all(cost >= 0)):
        raise ValueError(f"`Wasserstein.cost` must be nonnegative, got {float(xp.min(cost)):.3g}.")
    if not bool(xp.all(xp.linalg.diagonal(cost) == 0)):
        raise ValueError("`Wasserstein.cost` must be zero on its diagonal: staying costs nothing. Subtract or zero it.")
    if not bool(xp.all(xp.abs(cost - xp.matrix_transpose(cost)) <= 1e-12 * xp.max(cost))):
        raise ValueError("`Wasserstein.cost` must be symmetric; use (cost + cost.T) / 2.")
    return cost
