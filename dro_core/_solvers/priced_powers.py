"""Tilts by a power at a given price: Cressie-Read penalties of an order k other than 0, 1 and 2.

A member is q = p ((k - 1) (l - cut) / price)_+^a with a = 1 / (k - 1). Above order 1 the cut lies below the smallest
loss that gets weight, the *pivot*, by ``room``; below order 1 it is the pole of ``poles``.
"""

from __future__ import annotations

from .arrays import Array, at_least, at_most, descending_order, highest, lowest, on_host, total
from .duals import log_mean_exp, mean_divergence
from .poles import priced_place, priced_weights
from .powers import power_dual
from .problem import Problem
from .roots import Goal, Tilt, enclosed, newton_step

_STEPS = 60
_LEAST = 2.0**-200  # of the price: with less room the weight at the pivot is less than a rounding
_RAISED = 2.0**-50  # of the range: a threshold too large costs the dual as much and no more
_TINY = 2.0**-1022
_HIGH = 8.0  # a price, in units of the range, at which all ratios are near 1


def _pivot(problem: Problem, a: float, unit: Array) -> Array:
    """Return the smallest loss that gets weight: with the cut right at it the weights above would not reach 1.

    By bisection over the sorted losses, because the sum grows from each to the next.
    """
    xp, n = problem.xp, problem.losses.shape[-1]
    ordered = xp.take_along_axis(problem.losses, descending_order(xp, problem.losses), axis=-1)
    low = xp.zeros_like(ordered[..., :1], dtype=xp.int64)
    high = low + (n - 1)
    for _ in range(max(n - 1, 0).bit_length()):
        middle = (low + high + 1) // 2
        above = at_least(xp, problem.losses - xp.take_along_axis(ordered, middle, axis=-1), 0.0)
        gets = problem.mean((above / unit) ** a) < 1
        low, high = xp.where(gets, middle, low), xp.where(gets, high, at_least(xp, middle - 1, 0))
    return xp.take_along_axis(ordered, low, axis=-1)


def _above_one(problem: Problem, order: float, price: Array) -> tuple[Array, Array]:
    """Return weights and the loss at which q = p, for an order above 1."""
    xp, a = problem.xp, 1 / (order - 1)
    unit = at_least(xp, price * a, _TINY)
    pivot = _pivot(problem, a, unit)
    kept = problem.losses >= pivot
    above = at_least(xp, problem.losses - pivot, 0.0)
    mass = problem.mass(kept)

    def exponents(room: Array) -> Array:
        power = a * (xp.log(above + room) - xp.log(room - pivot))
        return xp.where(kept, power, -xp.inf)

    def member(room: Array) -> Tilt:
        power = exponents(room)
        value = (room - pivot) / unit * xp.exp(log_mean_exp(problem, power) / a)
        ratio = xp.exp(power)
        growth = value * problem.mean_product(ratio, room / (above + room)) / problem.mean(ratio)
        return Tilt(value, xp.zeros_like(value), growth)

    # The weight at the pivot alone is at most 1, and the next loss lies below the cut.
    most = at_most(xp, xp.log(unit) - xp.log(mass) / a, 690.0)
    most = xp.where(problem.mass(~kept) > 0, xp.minimum(xp.exp(most), xp.ones_like(mass)), unit)
    most = xp.maximum(most * (1 + 1e-9), unit * _LEAST)
    least = xp.minimum(unit, most) * _LEAST
    at = enclosed(xp, most, at_least(xp, least, _TINY), at_least(xp, most, _TINY), most < 0)
    wanted = xp.ones_like(most)
    towards = Goal(wanted > 0, wanted, wanted, -wanted)
    for step in range(_STEPS):
        if on_host(xp) and (at.settled if step < 10 else at.settled | at.narrow()).all():
            break
        at = newton_step(xp, at, member(at.slope), towards)
    # The cut lies above every loss left out; this decides where the two are nothing but rounding apart.
    room = xp.minimum(at.answer(xp), pivot - highest(xp, xp.where(kept, -xp.inf, problem.losses)))
    power = exponents(room)
    weights = problem.weighted(xp.exp(power - log_mean_exp(problem, power)))
    return weights / total(xp, weights), pivot + (price * a - room)


def priced_tilt(problem: Problem, order: float, price: Array) -> tuple[Array, Array]:
    """Maximise <q, l> - price E phi(q/p) for a Cressie-Read phi.

    Returns:
        Weights ``(*batch, n)`` and the loss at which q = p, ``(*batch, 1)``, larger by a rounding.
    """
    if order > 1:
        weights, threshold = _above_one(problem, order, price)
    else:
        place = priced_place(problem, order, price)
        weights = priced_weights(problem, order, place)
        threshold = problem.xp.exp(-place) - price / (1 - order)
    spread = -lowest(problem.xp, problem.losses)  # 1, or 0 where all losses are equal
    return weights, _unblurred(problem, order, price, threshold) + _RAISED * spread


def _unblurred(problem: Problem, order: float, price: Array, threshold: Array) -> Array:
    """Take Newton's steps to E q/p = 1 at a high price, beside which the threshold is a difference of large numbers."""
    xp, k = problem.xp, order
    for _ in range(2):
        logarithm = xp.log1p(at_least(xp, (k - 1) * (problem.losses - threshold) / price, -0.9)) / (k - 1)
        step = price * problem.mean(xp.expm1(logarithm)) / problem.mean(xp.exp((2 - k) * logarithm))
        threshold = xp.where(price > _HIGH, threshold + step, threshold)
    return threshold


def priced_dual(problem: Problem, order: float, price: Array) -> Array:
    """Evaluate inf_eta eta + price E phi*((l - eta) / price)."""
    return power_dual(problem, order, 0.0, price, priced_tilt(problem, order, price)[1])


def charge(problem: Problem, order: float, price: Array, weights: Array) -> Array:
    """Return price E phi(q/p), ``(*batch, 1)``; far from 1 in logarithms, as r^k may overflow where p r^k does not."""
    xp, k = problem.xp, order
    ratio = problem.ratio(weights)
    seen = ratio > 0
    logarithm = xp.log(xp.where(seen, ratio, 1.0))
    near = seen & (xp.abs(logarithm) < 1)
    masses = problem.masses()
    close = price * mean_divergence(problem, k, xp.where(near, logarithm, 0.0))
    log_cost = k * logarithm + xp.log(at_least(xp, masses, _TINY)) + xp.log(price)
    power = xp.where(seen, xp.exp(at_most(xp, log_cost, 709.0)), 0.0)
    far = power - price * masses * (k * ratio - (k - 1))
    return close + total(xp, xp.where(near | (masses == 0), 0.0, far)) / (k * (k - 1))
