"""Weights that grow linearly above a threshold: chi-square, as a ball and as a price."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import Array, at_least, highest, lowest, on_host, total
from .problem import Problem
from .selection import EDGE, Support, pays, support_of
from .sizes import Size
from .sorting import RADIUS_FLOOR, excess


class _Kept(NamedTuple):
    """The largest losses, those that get weight, ``(*batch, 1)`` each.

    They are measured from the smallest of them: small masses cancel nothing.
    """

    edge: Array  # the smallest kept loss
    below: Array  # the largest that is not
    mass: Array
    out: Array  # the mass that is not kept
    mean: Array  # of what kept losses lie above the edge
    variance: Array


def _sorted_out(problem: Problem, ordered: Array, reached: Array) -> _Kept:
    """Keep the losses from the smallest sorted one on that is ``reached``."""
    xp, losses = problem.xp, problem.losses
    if on_host(xp):
        edge, below = _border(ordered, reached | (ordered == 0))
        kept = losses >= edge
    else:
        edge = lowest(xp, xp.where(reached, ordered, 0.0))
        kept = losses >= edge
        below = highest(xp, xp.where(kept, -xp.inf, losses))
    mass, deviation = problem.mass(kept), losses - edge
    mean = problem.mean(at_least(xp, deviation, 0.0)) / mass
    deviation -= mean
    deviation = xp.where(kept, deviation, 0.0) if xp is not np else np.multiply(deviation, kept, out=deviation)
    return _Kept(edge, below, mass, problem.mass(~kept), mean, problem.mean_product(deviation, deviation) / mass)


def _border(ordered: Array, reached: Array) -> tuple[Array, Array]:
    """Return the last sorted loss that is reached, and the one after it; equal losses are reached together."""
    end = ordered.shape[-1] - 1
    if ordered.ndim == 1:
        place = end - int(reached[::-1].argmax())
        return ordered[place : place + 1], ordered[place + 1 : place + 2] if place < end else np.full(1, -np.inf)
    last = end - np.argmax(reached[..., ::-1], axis=-1, keepdims=True)
    below = np.take_along_axis(ordered, np.minimum(last + 1, end), axis=-1)
    return np.take_along_axis(ordered, last, axis=-1), np.where(last < end, below, -np.inf)


def _selected(problem: Problem, left: Support) -> _Kept:
    shape = (*problem.losses.shape[:-1], 1)
    parts = (left.edge, left.below, left.mass, left.out, left.mean, left.variance())
    return _Kept(*(np.full(shape, part) for part in parts))


def _concentrated(problem: Problem, radius: Size) -> _Kept:
    """Return the losses that get weight.

    The second moment of p (l - eta)_+ / E (l - eta)_+ is E (l - eta)_+^2 / (E (l - eta)_+)^2 and grows with eta: a
    loss gets weight when a threshold right at it would still be more concentrated than the radius allows.
    """
    if isinstance(radius, float) and pays(problem):

        def drop(left: Support) -> float:
            least = RADIUS_FLOOR if left.out == 0 else 0.0  # at radius 0 everything is kept
            surplus = max(2 * radius * left.mass - left.out, least)
            return (left.variance() / surplus) ** 0.5 if surplus > 0 else 0.0

        return _selected(problem, support_of(problem, drop))
    ordered, gaps, steps, first = excess(problem)
    steps -= first
    steps -= first
    gaps *= steps
    del steps
    # Scaled before it is squared: the square of a mass of 1e-300 would vanish.
    first *= ((1 + 2 * radius) * (1 + EDGE)) ** 0.5
    first *= first
    # E (l - eta)_+^2 grows by gap (2 first - step), likewise.
    return _sorted_out(problem, ordered, -problem.xp.cumulative_sum(gaps, axis=-1) > first)


def _positive(problem: Problem, values: Array, edge: Array) -> Array:
    """Return values where they are positive and the loss is kept, else 0; they are overwritten."""
    if problem.xp is not np:
        return problem.xp.where(problem.losses >= edge, at_least(problem.xp, values, 0.0), 0.0)
    np.maximum(values, 0.0, out=values)
    values *= problem.losses >= edge
    return values


def quadratic_excess(problem: Problem, multiplier: Array) -> tuple[Array, Array]:
    """Return (l - eta)_+, ``(*batch, n)``, and the eta, ``(*batch, 1)``, that make its mean a multiplier >= 0."""
    if pays(problem):
        price = float(multiplier.reshape(()))
        found = _selected(problem, support_of(problem, lambda left: price / left.mass))
    else:
        ordered, _, _, first = excess(problem)
        found = _sorted_out(problem, ordered, first < multiplier)
    room = at_least(
        problem.xp, multiplier / found.mass - found.mean, 0.0
    )  # from the threshold to the smallest kept loss
    above = problem.losses - found.edge + room
    return _positive(problem, above, found.edge), found.edge - room


def quadratic_tilt(problem: Problem, radius: Size) -> tuple[Array, Array, Array]:
    """Maximise over 1/2 E (q/p - 1)^2 <= radius.

    On a support of mass m, mean mu and variance v the weights are p (l - eta)_+ / multiplier, and the constraint
    reads v + d^2 = (1 + 2 radius) m d^2 with d = mu - eta, that is d^2 = v / ((1 + 2 radius) m - 1).

    Returns:
        Weights ``(*batch, n)``, multiplier E (l - eta)_+ and threshold eta, both ``(*batch, 1)``.
    """
    xp = problem.xp
    found = _concentrated(problem, radius)
    # (1 + 2 radius) m - 1, written so that neither a radius of 1e-12 on the full support nor a small one cancels.
    surplus = at_least(xp, 2 * radius * found.mass - found.out, RADIUS_FLOOR)
    drop = xp.sqrt(found.variance) / xp.sqrt(surplus)
    # The threshold lies above every loss left out; this decides where the surplus is nothing but rounding.
    drop = xp.minimum(drop, found.mean + (found.edge - found.below))
    tilt = problem.losses - found.edge
    tilt -= found.mean
    tilt /= xp.where(drop > 0, drop, xp.inf)
    tilt += 1
    weights = problem.weighted(_positive(problem, tilt, found.edge))
    weights /= total(xp, weights)
    return weights, found.mass * drop, found.edge + (found.mean - drop)


def quadratic_dual(problem: Problem, multiplier: Array) -> Array:
    """Evaluate multiplier / 2 + inf_eta [eta + E (l - eta)_+^2 / (2 multiplier)] for multiplier >= 0, 0 at 0.

    Written so that a huge multiplier does not cancel.
    """
    xp = problem.xp
    above, threshold = quadratic_excess(problem, multiplier)
    bend = (above - multiplier) ** 2 / (2 * xp.where(multiplier > 0, multiplier, 1.0))
    return problem.mean(xp.where(problem.losses >= threshold, problem.losses + bend, threshold + multiplier / 2))
