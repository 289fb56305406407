"""Upper tails of the reference, by one selection, or by one sort and cumulative sums.

Weights are read off thresholds, never off positions in the sorted order, so equal losses share in proportion
to their mass and a permutation of the input permutes the output.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from .arrays import (
    Array,
    at_least,
    at_most,
    count,
    descending_order,
    highest,
    on_host,
    ranks,
    sorted_descending,
    taken,
)
from .problem import Problem
from .selection import EDGE, pays, weighted_edge
from .sizes import Size

# A stand-in for radius zero: the multiplier stays finite, and 1 + 2**-60 rounds to 1, so that weights are p.
RADIUS_FLOOR = 2.0**-120


def descending(problem: Problem) -> tuple[Array, Array]:
    """Return the losses, largest first, and the mass of each and all larger ones, ``(n,)`` if uniform."""
    xp, losses, reference = problem.xp, problem.losses, problem.reference
    if reference is None:
        return sorted_descending(xp, losses), ranks(xp, losses) / losses.shape[-1]
    order = descending_order(xp, losses)
    return taken(xp, losses, order), xp.cumulative_sum(taken(xp, reference, order), axis=-1)


def _edge(problem: Problem, mass: Size) -> Array:
    """Return the loss at which the mass of the larger ones first reaches ``mass``, ``(*batch, 1)``."""
    xp, wanted = problem.xp, mass * (1 - EDGE)
    if on_host(xp) and problem.reference is None and isinstance(mass, float):
        n = problem.losses.shape[-1]
        at = n - min(max(ceil(wanted * n), 1), n)
        return problem.rising(at)
    if isinstance(wanted, float) and pays(problem):
        return weighted_edge(problem, wanted)
    ordered, through = descending(problem)
    return highest(xp, xp.where(through >= wanted, ordered, ordered[..., -1:]))


def upper_tail(problem: Problem, mass: Size, height: Size = 1.0) -> tuple[Array, Array]:
    """Take the part of the reference that lies on its largest losses.

    Args:
        problem: Only the order of its losses matters.
        mass: How much of the reference p to take, in [0, 1].
        height: What to multiply the part by.

    Returns:
        The part, ``(*batch, n)``, with sum ``height * mass``; and the edge, ``(*batch, 1)``: the part is
        height p above that loss, nothing below it, and one fraction of that on the scenarios exactly at it.
    """
    xp, losses = problem.xp, problem.losses
    edge = _edge(problem, mass)
    above, at_edge = losses > edge, losses == edge
    if on_host(xp) and problem.reference is None and isinstance(mass, float) and isinstance(height, float):
        return _counted_tail(above, at_edge, mass, height), edge
    wanted, there = mass - problem.mass(above), problem.mass(at_edge)
    fraction = xp.where(there - wanted <= EDGE * mass, 1.0, at_most(xp, at_least(xp, wanted / there, 0.0), 1.0))
    part = xp.astype(above, xp.float64)
    part *= height
    if on_host(xp):
        np.copyto(part, height * fraction, where=at_edge)
        part *= 1.0 / losses.shape[-1] if problem.reference is None else problem.reference
        return part, edge
    return problem.weighted(xp.where(at_edge, height * fraction, part)), edge


def _counted_tail(above: Array, at_edge: Array, mass: float, height: float) -> Array:
    """Take that part of a uniform reference, in main memory; of one problem with the numbers of Python."""
    each = 1.0 / above.shape[-1]
    if above.ndim == 1:
        wanted, there = mass - np.count_nonzero(above) / above.size, np.count_nonzero(at_edge) / above.size
        fraction = 1.0 if there - wanted <= EDGE * mass else min(max(wanted / there, 0.0), 1.0)
    else:
        wanted, there = (count(np, chosen) / above.shape[-1] for chosen in (above, at_edge))
        wanted = mass - wanted
        fraction = np.where(there - wanted <= EDGE * mass, 1.0, np.minimum(np.maximum(wanted / there, 0.0), 1.0))
    part = above * (height * each)
    np.copyto(part, height * fraction * each, where=at_edge)
    return part


def top_ratio(problem: Problem) -> Array:
    """Return q/p of the reference conditioned on the largest loss, which centring has made exactly 0."""
    top = problem.losses == 0
    return problem.xp.where(top, 1.0 / problem.mass(top), 0.0)


def _shifted(problem: Problem, array: Array) -> Array:
    return problem.xp.concat([problem.xp.zeros_like(array[..., :1]), array[..., :-1]], axis=-1)


def excess(problem: Problem) -> tuple[Array, Array, Array, Array]:
    """Return the losses in descending order, the gap before each, and E (l - eta)_+ for eta at each of them.

    The last grows from one sorted loss to the next by nonnegative steps, returned too, so that nothing cancels.
    """
    ordered, through = descending(problem)
    gaps = _shifted(problem, ordered)
    gaps -= ordered
    steps = gaps * _shifted(problem, through)
    return ordered, gaps, steps, problem.xp.cumulative_sum(steps, axis=-1)
