"""Exact maximisers by one selection or one sort and cumulative sums.

Weights are read off thresholds, never off positions in the sorted order, so equal losses share in proportion
to their mass and a permutation of the input permutes the output.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np

from .arrays import (
    Array,
    at_least,
    at_most,
    descending_order,
    highest,
    lowest,
    on_host,
    ranks,
    sorted_descending,
    total,
)
from .problem import Problem

# Cumulative sums of n masses are good to about n roundings; an edge closer than this to an atom's border is
# that border, so that scenarios beyond it have weight 0 and not 1e-17.
_EDGE = 2.0**-46
# A stand-in for radius zero: the multiplier stays finite, and 1 + 2**-60 rounds to 1, so that weights are p.
RADIUS_FLOOR = 2.0**-120


def descending(problem: Problem) -> tuple[Array, Array]:
    """Return the losses, largest first, and the mass of each and all larger ones, ``(n,)`` if uniform."""
    xp, losses, reference = problem.xp, problem.losses, problem.reference
    if reference is None:
        return sorted_descending(xp, losses), ranks(xp, losses) / losses.shape[-1]
    order = descending_order(xp, losses)
    masses = xp.take_along_axis(reference, order, axis=-1)
    return xp.take_along_axis(losses, order, axis=-1), xp.cumulative_sum(masses, axis=-1)


def _edge(problem: Problem, mass: float) -> Array:
    """Return the loss at which the mass of the larger ones first reaches ``mass``, ``(*batch, 1)``."""
    xp, wanted = problem.xp, mass * (1 - _EDGE)
    if on_host(xp) and problem.reference is None:
        n = problem.losses.shape[-1]
        at = n - min(max(ceil(wanted * n), 1), n)
        return np.partition(problem.losses, at, axis=-1)[..., at : at + 1]
    ordered, through = descending(problem)
    return highest(xp, xp.where(through >= wanted, ordered, ordered[..., -1:]))


def upper_tail(problem: Problem, mass: float, height: float = 1.0) -> tuple[Array, Array]:
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
    wanted, there = mass - problem.mass(above), problem.mass(at_edge)
    fraction = xp.where(there - wanted <= _EDGE * mass, 1.0, at_most(xp, at_least(xp, wanted / there, 0.0), 1.0))
    ratio = xp.astype(above, xp.float64)
    ratio *= height
    return problem.weighted(xp.where(at_edge, height * fraction, ratio)), edge


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


def _concentrated(problem: Problem, radius: float) -> tuple[Array, Array]:
    """Return the sorted losses, and which of them get weight.

    The second moment of p (l - eta)_+ / E (l - eta)_+ is E (l - eta)_+^2 / (E (l - eta)_+)^2 and grows with eta: a
    loss gets weight when a threshold right at it would still be more concentrated than the radius allows.
    """
    ordered, gaps, steps, first = excess(problem)
    steps -= first
    steps -= first
    gaps *= steps
    del steps
    # Scaled before it is squared: the square of a mass of 1e-300 would vanish.
    first *= ((1 + 2 * radius) * (1 + _EDGE)) ** 0.5
    first *= first
    # E (l - eta)_+^2 grows by gap (2 first - step), likewise.
    return ordered, -problem.xp.cumulative_sum(gaps, axis=-1) > first


class _Support(NamedTuple):
    """The largest losses, those that get weight, measured from the smallest of them: small masses cancel nothing."""

    kept: Array  # (*batch, n)
    above: Array  # what a kept loss lies above the smallest kept one, else 0, (*batch, n)
    edge: Array  # the smallest kept loss, this and what follows (*batch, 1)
    mass: Array
    mean: Array  # of ``above`` over the support


def _support(problem: Problem, ordered: Array, reached: Array) -> _Support:
    """Cut at the smallest sorted loss that is ``reached``."""
    xp = problem.xp
    edge = lowest(xp, xp.where(reached, ordered, 0.0))
    kept = problem.losses >= edge
    above = at_least(xp, problem.losses - edge, 0.0)
    mass = problem.mass(kept)
    return _Support(kept, above, edge, mass, problem.mean(above) / mass)


def quadratic_excess(problem: Problem, multiplier: Array) -> tuple[Array, Array]:
    """Return (l - eta)_+, ``(*batch, n)``, and the eta, ``(*batch, 1)``, that make its mean a multiplier >= 0."""
    xp = problem.xp
    ordered, _, _, first = excess(problem)
    found = _support(problem, ordered, first < multiplier)
    room = at_least(xp, multiplier / found.mass - found.mean, 0.0)  # from the threshold to the smallest kept loss
    above = found.above
    above += room
    return xp.where(found.kept, above, 0.0), found.edge - room


def quadratic_tilt(problem: Problem, radius: float) -> tuple[Array, Array, Array]:
    """Maximise over 1/2 E (q/p - 1)^2 <= radius.

    On a support of mass m, mean mu and variance v the weights are p (l - eta)_+ / multiplier, and the constraint
    reads v + d^2 = (1 + 2 radius) m d^2 with d = mu - eta, that is d^2 = v / ((1 + 2 radius) m - 1).

    Returns:
        Weights ``(*batch, n)``, multiplier E (l - eta)_+ and threshold eta, both ``(*batch, 1)``.
    """
    xp, losses = problem.xp, problem.losses
    kept, above, edge, mass, mean = _support(problem, *_concentrated(problem, radius))
    tilt = xp.where(kept, above - mean, 0.0)
    spread = problem.mean_product(tilt, tilt) / mass
    # (1 + 2 radius) m - 1, written so that neither a radius of 1e-12 on the full support nor a small one cancels.
    surplus = at_least(xp, 2 * radius * mass - problem.mass(~kept), RADIUS_FLOOR)
    drop = xp.sqrt(spread) / xp.sqrt(surplus)
    # The threshold lies above every loss left out; this decides where the surplus is nothing but rounding.
    left_out = highest(xp, xp.where(kept, -xp.inf, losses))
    drop = xp.minimum(drop, mean + (edge - left_out))
    tilt /= xp.where(drop > 0, drop, xp.inf)
    tilt += 1
    weights = problem.weighted(xp.where(kept, at_least(xp, tilt, 0.0), 0.0))
    return weights / total(xp, weights), mass * drop, edge + (mean - drop)


def quadratic_dual(problem: Problem, multiplier: Array) -> Array:
    """Evaluate multiplier / 2 + inf_eta [eta + E (l - eta)_+^2 / (2 multiplier)] for multiplier >= 0, 0 at 0.

    Written so that a huge multiplier does not cancel.
    """
    xp = problem.xp
    above, threshold = quadratic_excess(problem, multiplier)
    bend = (above - multiplier) ** 2 / (2 * xp.where(multiplier > 0, multiplier, 1.0))
    return problem.mean(xp.where(problem.losses >= threshold, problem.losses + bend, threshold + multiplier / 2))
