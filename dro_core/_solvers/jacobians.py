"""How worst-case weights move with the losses, where their support is locally constant: products with the Jacobian.

Weights of a divergence are p phi*'((l - threshold) / multiplier). With D = diag(p phi*'') / multiplier, the bend, a
change v of the losses changes them by D (v - a - b l), where a and b keep what the set keeps: the sum of the weights,
and in a ball their divergence, <l, change> = 0. So a and b are the regression of v on 1 and l, weighted by D, and

    J = C - c c' / l'c,   C = D - D 1 1' D / 1'D 1,   c = C l;   J = C for a penalty.

J is symmetric and positive semidefinite, and J 1 = 0; in a ball J l = 0.
"""

from __future__ import annotations

from .arrays import Array, asarray_like, at_most, highest, inner, total
from .problem import Problem

_LARGEST = 2.0**960  # of a bend: sums and products of some of them with changes of 1e9 and less are finite


def none_at_all(weights: Array, vectors: Array) -> Array:
    """Return J v = 0 of weights that are piecewise constant; NaN for those that are."""
    return (0.0 * weights) * vectors


def inverse(price: Array | float, problem: Problem) -> Array:
    """Return 1 / price, ``(*batch, 1)``; 0 at a price of 0, where the set no longer binds: weights stand still."""
    xp = problem.xp
    there = price + 0.0 * problem.scale
    return xp.where(there > 0, 1 / xp.where(there > 0, there, 1.0), 0.0 * there)


def divergence_bend(problem: Problem, weights: Array, order: float, price: Array | float) -> Array:
    """Return D, ``(*batch, n)``, of the Cressie-Read divergence: phi*'' is r^(2 - order) at r = q/p, which is r for KL.

    ``price`` is the multiplier or the penalty's price, in the unit of the losses.
    """
    xp, ratio = problem.xp, problem.ratio(weights)
    there = ratio > 0
    bend = problem.weighted(xp.where(there, xp.where(there, ratio, 1.0) ** (2 - order), 0.0))
    return at_most(xp, bend * inverse(price, problem), _LARGEST)


def tilted(problem: Problem, bend: Array, vectors: Array, *, ball: bool) -> Array:
    """Return J v for ``vectors`` v, ``(*batch, n)``: D times what the regression on 1, and in a ball on l, leaves."""
    xp, losses = problem.xp, problem.losses
    top = highest(xp, bend)
    share = bend / xp.where(top > 0, top, 1.0)  # so that no square vanishes
    mass = total(xp, share)
    share = share / xp.where(mass > 0, mass, 1.0)
    # What gets no weight does not count, whatever its entry; NaN stays in the bend.
    rest = xp.where(share > 0, vectors, 0.0)
    rest = rest - inner(xp, share, rest)
    if ball:
        slope = losses - inner(xp, share, losses)
        spread = inner(xp, share * slope, slope)
        moves = spread > 0
        along = inner(xp, share * slope, rest) / xp.where(moves, spread, 1.0)
        rest = xp.where(moves, rest - slope * along, 0.0)
    return bend * rest


def quadratic(problem: Problem, weights: Array, matrix: Array, price: Array, vectors: Array) -> Array:
    """Return J v where the move q - p has the length of a quadratic form with ``matrix`` ``(n, n)``.

    On the scenarios that have weight its inverse stands for D; ``price`` is the multiplier over the radius.
    """
    xp = problem.xp
    kept = weights > 0
    both = kept[..., None] & kept[..., None, :]
    itself = asarray_like(xp, xp.eye(weights.shape[-1]), weights)
    block = xp.where(both, asarray_like(xp, matrix, weights), itself)
    losses = xp.where(kept, problem.losses - highest(xp, xp.where(kept, problem.losses, -xp.inf)), 0.0)
    columns = [xp.astype(kept, xp.float64), losses, xp.where(kept, vectors, 0.0)]
    solved = xp.linalg.solve(block, xp.stack(columns, axis=-1))
    ones, steep, moved = solved[..., 0], solved[..., 1], solved[..., 2]
    mass = total(xp, ones)
    steep = steep - ones * (total(xp, steep) / mass)
    moved = moved - ones * (total(xp, moved) / mass)
    spread = inner(xp, losses, steep)
    moves = spread > 0
    along = inner(xp, losses, moved) / xp.where(moves, spread, 1.0)
    found = xp.where(moves & kept, moved - steep * along, 0.0 * weights)
    return found * inverse(price, problem)
