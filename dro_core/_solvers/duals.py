"""Maximisers that need one scalar dual root: safeguarded Newton, vectorised, the same for every divergence.

A *tilt* of order k is the family q prop. to p (1 + (k - 1) slope l)_+^{1/(k-1)}, which is p exp(slope l) in the limit
k = 1. Along it the Renyi divergence of order k grows from 0 at slope 0 to -log p(argmax), and the maximiser is
the member whose divergence is the radius. Losses are centred: maximum 0, minimum -1 (all 0 if constant).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .arrays import Array, Namespace, at_least, at_most, on_host, total
from .problem import Problem
from .sorting import RADIUS_FLOOR

# Beyond this slope the weight below the top moves the value by less than a rounding error of the range (for orders
# below 1 if no top atom is lighter than about 1e-24).
_STEEPEST = 2.0**60
# Below this slope rounding blurs the divergence more than its expansion at 0, which is used instead, is off.
_FLATTEST = 1e-7
# Up to this slope the divergence is evaluated once more without cancellation.
_GENTLE = 0.1
# Of 4,000 hard exponential tilts half needed 2 steps and 99 in 100 less than 9; powers may bisect to the last bit.
_STEPS, _EXPONENTIAL_STEPS = 100, 30
_TINY = 1e-300
_ROUNDING = 2.0**-49  # of the largest divergence


class Tilt(NamedTuple):
    """What Newton needs of one member of the family, from both ends; ``(*batch, 1)`` each."""

    divergence: Array  # Renyi divergence of q from p
    shortfall: Array  # largest possible divergence minus that, accurate when small
    growth: Array  # d divergence / d log slope


class _Bracket(NamedTuple):
    slope: Array
    low: Array
    high: Array
    error: Array  # of the divergence, one step earlier


def relative_entropy(problem: Problem, weights: Array) -> Array:
    """Return KL(q, p) = E (r log r - r + 1), ``(*batch, 1)``, by a series near r = 1, where the formula cancels."""
    xp = problem.xp
    ratio = problem.ratio(weights)
    s = xp.log(xp.where(ratio > 0, ratio, 1.0))
    series = 1 / 30 + s * (1 / 144 + s * (1 / 840 + s * (1 / 5760 + s / 45360)))
    series = s * s * (1 / 2 + s * (1 / 3 + s * (1 / 8 + s * series)))
    near_one = (xp.abs(s) < 0.03) & (ratio > 0)
    return problem.mean(xp.where(near_one, series, s * ratio - (ratio - 1)))


def log_mean_exp(problem: Problem, exponent: Array) -> Array:
    """Return log E exp(exponent), ``(*batch, 1)``, accurate when small; the largest exponent must be 0."""
    xp = problem.xp
    near_one = problem.mean(xp.expm1(exponent))
    mass = problem.mean(xp.exp(exponent))
    return xp.where(mass > 0.5, xp.log1p(at_least(xp, near_one, -0.75)), xp.log(mass))


def _exponential(problem: Problem) -> Callable[[Array], Tilt]:
    """Return the tilt of order 1. The top stays out of every sum: the rest may be exponentially small beside it."""
    xp, losses = problem.xp, problem.losses
    top = losses == 0
    at_top = problem.mass(top)
    exponent, square = xp.where(top, -xp.inf, losses), losses * losses

    def tilt(slope: Array) -> Tilt:
        below = xp.exp(slope * exponent)
        mass = problem.mean(below)
        mean = problem.mean_product(below, losses) / (at_top + mass)
        variance = problem.mean_product(below, square) / (at_top + mass) - mean**2
        shortfall = xp.log1p(mass / at_top) - slope * mean
        return Tilt(slope * mean - xp.log(at_top + mass), shortfall, slope**2 * variance)

    return tilt


def _power(problem: Problem, order: float) -> Callable[[Array], Tilt]:
    """Return the tilt of an order k > 0 other than 1."""
    xp, losses, k = problem.xp, problem.losses, order
    top = losses == 0
    at_top = problem.mass(top)

    def tilt(slope: Array) -> Tilt:
        base = at_least(xp, 1 + (k - 1) * slope * losses, 0.0)
        safe = xp.where(base > 0, base, 1.0)
        first = xp.where((base > 0) & ~top, safe ** (1 / (k - 1)), 0.0)  # q/p below the top, up to a factor
        mass, square = problem.mean(first), problem.mean_product(first, base)
        shortfall = (k * xp.log1p(mass / at_top) - xp.log1p(square / at_top)) / (k - 1)
        divergence = (xp.log(at_top + square) - k * xp.log(at_top + mass)) / (k - 1)
        faster = problem.mean_product(first, losses) / (at_top + square)
        slower = problem.mean_product(first / safe, losses) / (at_top + mass)
        return Tilt(divergence, shortfall, slope * k / (k - 1) * (faster - slower))

    return tilt


def log_ratio(problem: Problem, order: float, slope: Array) -> Array:
    """Return log q/p of the tilt, up to a constant that makes it 0 at the top."""
    if order == 1:
        return slope * problem.losses
    bend = (order - 1) * slope * problem.losses
    inside = bend > -1
    logarithm = problem.xp.log1p(problem.xp.where(inside, bend, 0.0)) / (order - 1)
    return problem.xp.where(inside, logarithm, -problem.xp.inf)


def _small_divergence(problem: Problem, order: float, slope: Array) -> Array:
    """Return the divergence without the cancellation that ``Tilt`` suffers at small slopes."""
    xp = problem.xp
    exponent = log_ratio(problem, order, slope)
    tilted = xp.expm1(exponent)
    log_mass = xp.log1p(at_least(xp, problem.mean(tilted), -0.9))
    if order == 1:
        return (problem.mean(exponent) + problem.mean_product(tilted, exponent)) / xp.exp(log_mass) - log_mass
    # expm1(-inf) is -1: what lies beyond the support counts as lost mass.
    log_square = xp.log1p(at_least(xp, problem.mean(xp.expm1(order * exponent)), -0.9))
    return (log_square - order * log_mass) / (order - 1)


def capacity(problem: Problem) -> Array:
    """Return the largest divergence that helps, -log p(argmax), accurate also when it is small."""
    xp = problem.xp
    below = problem.mass(problem.losses != 0)
    return xp.where(below < 0.5, -xp.log1p(-at_most(xp, below, 0.5)), -xp.log(problem.mass(problem.losses == 0)))


def _newton_step(xp: Namespace, at: _Bracket, tilt: Tilt, target: float, most: Array, *, careful: bool) -> _Bracket:
    """Take one Newton step on a nearly linear form of divergence(slope) = target, or halve the bracket in logarithm.

    In the lower half log divergence is solved against log slope (both are linear at 0); in the upper half
    log(most - divergence) against slope (under the exponential tilt it falls exponentially there).
    """
    lower_half, wanted = 2 * target < most, most - target
    too_low = xp.where(lower_half, tilt.divergence < target, tilt.shortfall > wanted)
    low, high = xp.where(too_low, at.slope, at.low), xp.where(too_low, at.high, at.slope)
    growth = at_least(xp, tilt.growth, _TINY)
    divergence, shortfall = at_least(xp, tilt.divergence, _TINY), at_least(xp, tilt.shortfall, _TINY)
    lower = xp.exp(at_most(xp, at_least(xp, xp.log(target / divergence) * divergence / growth, -50.0), 50.0))
    upper = 1 + xp.log(shortfall / at_least(xp, wanted, _TINY)) * at_most(xp, shortfall / growth, 1e30)
    proposal = at.slope * xp.where(lower_half, lower, upper)
    # The slack keeps a converged iterate, whose last step may leave the bracket by a rounding error. A divergence
    # that is nothing but rounding shows no direction; careful: a step that did not halve the error deserves no second.
    error = xp.abs(tilt.divergence - target)
    told = ~lower_half | (divergence > _ROUNDING * most)
    if careful:
        told = told & (error <= at.error / 2)
    inside = told & (proposal >= low * (1 - 1e-9)) & (proposal <= high * (1 + 1e-9))
    return _Bracket(xp.where(inside, proposal, xp.sqrt(low * high)), low, high, error)


def _start(problem: Problem, order: float, target: float) -> _Bracket:
    """Start at the expansion for small slopes: divergence ~ order slope^2 Var / 2.

    A log-ratio of range e has divergence at most max(order, 1) e^2 / 8 (Hoeffding), which bounds the slope below.
    """
    xp = problem.xp
    deviation = problem.losses - problem.mean(problem.losses)
    variance = problem.mean_product(deviation, deviation)
    width = (8 * target / max(order, 1.0)) ** 0.5
    least = width if order == 1 else -math.expm1((1 - order) * width) / (order - 1)
    slope = xp.sqrt(2 * target / (order * at_least(xp, variance, _TINY)))
    low = xp.full_like(slope, min(least, _STEEPEST) * (1 - 1e-9))
    high, unknown = xp.full_like(slope, _STEEPEST), xp.full_like(slope, xp.inf)
    return _Bracket(xp.maximum(low, at_most(xp, slope, _STEEPEST)), low, high, unknown)


def slope_of(problem: Problem, order: float, target: float, most: Array) -> Array:
    """Return the slope, ``(*batch, 1)``, at which the divergence is ``target``; of no use where that exceeds ``most``.

    In main memory the iteration stops when the divergence agrees to rounding.
    """
    xp = problem.xp
    tilt = _exponential(problem) if order == 1 else _power(problem, order)
    steps = _STEPS if order != 1 or on_host(xp) else _EXPONENTIAL_STEPS
    at = _start(problem, order, target)
    start, member = at.slope, tilt(at.slope)
    for _ in range(steps):
        if on_host(xp) and not np.any((xp.abs(member.divergence - target) > _ROUNDING * most) & (target < most)):
            break
        at = _newton_step(xp, at, member, target, most, careful=order != 1)
        member = tilt(at.slope)
    exact = at_least(xp, _small_divergence(problem, order, at.slope), _TINY)
    step = xp.log(target / exact) * exact / at_least(xp, member.growth, _TINY)
    gentle = (2 * target < most) & (at.slope < _GENTLE) & (xp.abs(step) < 0.1)
    polished = at.slope * xp.exp(xp.where(gentle, step, 0.0))
    return xp.where(start < _FLATTEST, start, polished)


def exponential_tilt(problem: Problem, radius: float) -> tuple[Array, Array, Array]:
    """Maximise over KL(q, p) <= radius.

    q = p exp((l - threshold) / multiplier), or all mass on the top where the radius allows that.

    Returns:
        Weights ``(*batch, n)``, multiplier and threshold, both ``(*batch, 1)``.
    """
    xp = problem.xp
    radius, most = max(radius, RADIUS_FLOOR), capacity(problem)
    saturated = radius >= most
    slope = xp.where(saturated, _STEEPEST, slope_of(problem, 1.0, radius, most))
    weights, threshold = softmax(problem, slope)
    return weights, xp.where(saturated, 0.0, 1 / slope), xp.where(saturated, 0.0, threshold)


def softmax(problem: Problem, slope: Array) -> tuple[Array, Array]:
    """Return the weights p exp(slope l) / normaliser, and the loss at which they equal p (the mean at slope 0)."""
    xp = problem.xp
    tilted = problem.weighted(xp.exp(slope * problem.losses))
    mass = total(xp, tilted)
    steep = slope > _FLATTEST
    return tilted / mass, xp.where(steep, xp.log(mass) / xp.where(steep, slope, 1.0), problem.mean(problem.losses))


def power_tilt(problem: Problem, order: float, radius: float) -> tuple[Array, Array, Array]:
    """Maximise over a Renyi divergence of order k > 0, k != 1, of at most ``radius``.

    q = p (1 + (k - 1) (l - threshold) / multiplier)_+^{1/(k-1)}, or all mass on the top.

    Returns:
        Weights ``(*batch, n)``, multiplier and threshold of the Cressie-Read dual, both ``(*batch, 1)``.
    """
    xp, k = problem.xp, order
    radius, most = max(radius, RADIUS_FLOOR), capacity(problem)
    saturated = radius >= most
    slope = xp.where(saturated, _STEEPEST, slope_of(problem, k, radius, most))
    exponent = log_ratio(problem, k, slope)
    tilted = problem.weighted(xp.exp(exponent))
    # q = p C base^{1/(k-1)} with log C = -log E base^{1/(k-1)}, and 1 / multiplier = C^{k-1} slope.
    growth = xp.expm1((k - 1) * log_mean_exp(problem, exponent))
    multiplier, threshold = (1 + growth) / slope, growth / (slope * (k - 1))
    weights = tilted / total(xp, tilted)
    return weights, xp.where(saturated, 0.0, multiplier), xp.where(saturated, 0.0, threshold)


def power_dual(problem: Problem, order: float, radius: float, dual_multiplier: Array, threshold: Array) -> Array:
    """Evaluate radius t + eta + t E phi*((l - eta) / t), phi*(y) = ((1 + (k - 1) y)_+^{k/(k-1)} - 1) / k.

    Written as the mean loss plus t E (phi*(y) - y), by a series for small y, so that a huge multiplier t does not
    cancel. At t = 0 it is max l; for k < 1 it is infinite where 1 + (k - 1) y <= 0 for some loss.
    """
    xp, k = problem.xp, order
    positive = dual_multiplier > 0
    multiplier = xp.where(positive, at_least(xp, dual_multiplier, 2.0**-600), 1.0)
    y = (problem.losses - threshold) / multiplier
    base = 1 + (k - 1) * y
    inside = base > 0
    full = xp.expm1(at_most(xp, xp.log(xp.where(inside, base, 1.0)) * (k / (k - 1)), 600.0)) / k  # stays finite
    small = xp.where(xp.abs(y) < 1e-4, y, 0.0)
    series = small**2 * (1 / 2 + small * ((2 - k) / 6 + small * (2 - k) * (3 - 2 * k) / 24))
    bend = xp.where(xp.abs(y) < 1e-4, series, xp.where(inside, full, -1 / k) - y)
    value = radius * multiplier + problem.mean(problem.losses) + multiplier * problem.mean(bend)
    if k < 1:
        value = xp.where(problem.mass(~inside) > 0, xp.inf, value)
    return xp.where(positive, value, 0.0)
