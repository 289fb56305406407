"""Tilts with a pole above the largest loss, found in logarithms: reverse KL (Burg), and penalties of orders below 1.

A member is q prop. to p w^a, w = room / (room - l), a = 1 / (1 - k): the pole lies ``room`` above the largest loss. Its
*place* is -log room, so that neither a top of mass 1e-300 nor a radius of 1e-30 overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .arrays import Array, Namespace, at_least, at_most, on_host, total
from .duals import log_mean_exp
from .problem import Problem
from .roots import Bracket, Goal, Tilt, enclosed, newton_step
from .sizes import Size, raised
from .sorting import RADIUS_FLOOR

# Newton's method takes logarithms of a slope: here of exp(place / _STRETCH), which is finite for every place.
_STRETCH = 8.0
_STEPS = 60
_STEEP = 600.0  # a place up to which 1 / room is far from overflow
# With the pole closer than this to the top, in units of its mass, all else weighs less than a rounding.
_CLOSEST = 60 * math.log(2)
_LEAST_LOG = -1074 * math.log(2)  # of the smallest float: what is smaller reads as 0


def bend(xp: Namespace, s: Array) -> Array:
    """Return expm1(s) - s, by a series near 0, where it cancels."""
    near = xp.abs(s) < 0.03
    small = xp.where(near, s, 0.0)
    series = 1 / 120 + small * (1 / 720 + small * (1 / 5040 + small * (1 / 40320 + small / 362880)))
    series = small * small * (1 / 2 + small * (1 / 6 + small * (1 / 24 + small * series)))
    return xp.where(near, series, xp.expm1(s) - s)


def _log_w(problem: Problem, place: Array) -> Array:
    """Return log w: 0 at the top, accurate where it is small."""
    xp, losses = problem.xp, problem.losses
    gentle = xp.log1p(-losses * xp.exp(at_most(xp, place, _STEEP)))
    steep = place + xp.log(at_least(xp, xp.exp(-at_least(xp, place, -_STEEP)) - losses, 2.0**-1074))
    return xp.where(losses == 0, 0.0, -xp.where(place < _STEEP, gentle, steep))


def _stretched(xp: Namespace, place: Array) -> Array:
    return xp.exp(place / _STRETCH)


def _mass_at_top(problem: Problem) -> Array:
    return problem.mass(problem.losses == 0)


def _searched(xp: Namespace, at: Bracket, member: Callable[[Array], Tilt], wanted: Array) -> Array:
    """Return the place at which the divergence of the member there is ``wanted``."""
    towards = Goal(wanted > -1, xp.ones_like(wanted), wanted, xp.full_like(wanted, -1.0))
    for step in range(_STEPS):
        if on_host(xp) and (at.settled if step < 10 else at.settled | at.narrow()).all():
            break
        at = newton_step(xp, at, member(_STRETCH * xp.log(at.slope)), towards)
    return _STRETCH * xp.log(at.answer(xp))


def burg_tilt(problem: Problem, radius: Size) -> tuple[Array, Array, Array]:
    """Maximise over E -log(q/p) <= radius, which keeps some weight on everything: q = p w / E w.

    Returns:
        Weights ``(*batch, n)``, multiplier and threshold of the dual of ``Burg``, both ``(*batch, 1)``.
    """
    xp = problem.xp
    radius = raised(xp, radius, RADIUS_FLOOR)

    def member(place: Array) -> Tilt:
        exponent = _log_w(problem, place)
        log_mass = log_mean_exp(problem, exponent)
        w, mass = xp.exp(exponent), xp.exp(log_mass)
        deviation = w - mass
        growth = _STRETCH * problem.mean_product(deviation, deviation) / mass
        return Tilt(problem.mean(bend(xp, exponent - log_mass)), xp.zeros_like(mass), growth)

    top = _mass_at_top(problem)
    last = _CLOSEST - xp.log(top)
    # A log-ratio of range e, here log(1 + 1 / room), has divergence at most e^2 / 8 (Hoeffding).
    width = xp.zeros_like(top) + (8 * radius) ** 0.5
    first = xp.minimum(last, xp.where(width < _STEEP, xp.log(xp.expm1(at_most(xp, width, _STEEP))), width))
    saturated = member(last).divergence <= radius
    start = xp.where(saturated, last, first)
    at = enclosed(xp, _stretched(xp, start), _stretched(xp, first), _stretched(xp, last), saturated)
    place = _searched(xp, at, member, radius + xp.zeros_like(top))
    weights, multiplier, threshold = _burg_answer(problem, radius, place)
    return weights, xp.where(saturated, 0.0, multiplier), xp.where(saturated, 0.0, threshold)


def _burg_answer(problem: Problem, radius: Size, place: Array) -> tuple[Array, Array, Array]:
    """The multiplier is the geometric mean of room - l, times exp(-radius): where the dual is best for the pole."""
    xp = problem.xp
    exponent = _log_w(problem, place)
    weights = problem.weighted(xp.exp(exponent - log_mean_exp(problem, exponent)))
    room, fall = xp.exp(-place), -problem.mean(exponent) - radius
    multiplier = xp.exp(fall - place)
    # room - multiplier, which both are large where the radius is small.
    threshold = xp.where(xp.abs(fall) < 1, -room * xp.expm1(fall), room - multiplier) + rounding(problem)
    return weights / total(xp, weights), multiplier, threshold


def rounding(problem: Problem) -> Array:
    """How far a threshold is raised: it is stored as a loss, and one too small would lie beyond the pole.

    One that is too large by that costs the dual as much and no more.
    """
    return 2.0**-50 * (1 + problem.xp.abs(problem.offset) / problem.unit)


def burg_dual(problem: Problem, radius: Size, multiplier: Array, threshold: Array) -> Array:
    """Evaluate radius t + eta - t E log(1 - (l - eta) / t); infinite unless t + eta > l, max l at t = 0.

    Written as the mean loss plus t E (exp(z) - 1 - z) with z = log(1 - (l - eta) / t), so that neither a huge nor a
    tiny t cancels or overflows.
    """
    xp, positive = problem.xp, multiplier > 0
    price = xp.where(positive, multiplier, 1.0)
    above = problem.losses - threshold
    outer = price - above  # what the pole lies above every loss
    inside = outer > 0
    z = xp.log1p(at_least(xp, -above / price, -1 + 2.0**-53))
    flat = xp.abs(above) < 0.5 * price
    near = price * bend(xp, xp.where(flat, z, 0.0))
    far = -above - price * (xp.log(xp.where(inside, outer, 1.0)) - xp.log(price))
    value = radius * price + problem.mean(problem.losses) + problem.mean(xp.where(flat, near, far))
    value = xp.where(problem.mass(~inside) > 0, xp.inf, value)
    return xp.where(positive, value, 0.0)


def priced_place(problem: Problem, order: float, price: Array) -> Array:
    """Return the place of the pole where q = p ((room - l) (1 - k) / price)^-a sums to 1, for an order k < 1.

    That is where log of room^-1 (E w^a)^(1/a) reaches log((1 - k) / price): it grows with the place, by no more.
    """
    xp, a = problem.xp, 1 / (1 - order)
    wanted = math.log(1 - order) - xp.log(price)

    def member(place: Array) -> Tilt:
        exponent = _log_w(problem, place)
        value = xp.exp((place + log_mean_exp(problem, a * exponent) / a) / _STRETCH)
        powers = xp.exp(a * exponent)
        growth = value * problem.mean_product(powers, xp.exp(exponent)) / problem.mean(powers)
        return Tilt(value, xp.zeros_like(value), growth)

    last = wanted - xp.log(_mass_at_top(problem)) / a
    low, high = _stretched(xp, wanted) * (1 - 1e-9), _stretched(xp, last) * (1 + 1e-9)
    at = enclosed(xp, low, low, high, low < 0)
    return _searched(xp, at, member, _stretched(xp, wanted))


def priced_weights(problem: Problem, order: float, place: Array) -> Array:
    """Return the weights for the place of a pole."""
    xp, a = problem.xp, 1 / (1 - order)
    exponent = a * _log_w(problem, place)
    weights = problem.weighted(xp.exp(exponent - log_mean_exp(problem, exponent)))
    return weights / total(xp, weights)


def burg_penalty_dual(problem: Problem, price: Array, place: Array) -> Array:
    """Evaluate eta - price E log(1 - (l - eta) / price) for the eta of a pole, wherever that is."""
    xp = problem.xp
    z = -(_log_w(problem, place) + place + xp.log(price))
    return problem.mean(problem.losses) + price * problem.mean(bend(xp, z))


def reverse_entropy(problem: Problem, weights: Array) -> Array:
    """Return KL(p, q) = E (r - 1 - log r), ``(*batch, 1)``; infinite where a mass above 2^-900 got no weight.

    Below that mass a weight may have been too small for a float, and counts as the smallest.
    """
    xp = problem.xp
    ratio = problem.ratio(weights)
    masses = problem.masses()
    logarithm = xp.where(ratio > 0, xp.log(xp.where(ratio > 0, ratio, 1.0)), _LEAST_LOG)
    logarithm = xp.where((ratio > 0) | (masses < 2.0**-900), logarithm, -xp.inf)
    return problem.mean(xp.where(masses > 0, bend(xp, logarithm), 0.0))
