"""Maximisers that need one scalar dual root: safeguarded Newton, vectorised, the same for every divergence.

A *tilt* of order k is the family q prop. to p (1 + (k - 1) slope l)_+^{1/(k-1)}, which is p exp(slope l) in the limit
k = 1, solved here; ``powers`` has the others. Along it the Renyi divergence of order k grows from 0 at slope 0 to
-log p(argmax), and the maximiser is the member whose divergence is the radius. Losses are centred: maximum 0, minimum
-1 (all 0 if constant).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .arrays import Array, Namespace, at_least, at_most, on_host, total
from .problem import Problem
from .roots import TINY, Bracket, Tilt, enclosed, goal, newton_step
from .sizes import Size, expm1, lowered, raised
from .sorting import RADIUS_FLOOR

# Beyond this slope the weight below the top moves the value by less than a rounding error of the range.
_STEEPEST = 2.0**60
# Below this slope rounding blurs the divergence more than its expansion at 0, which is used instead, is off.
_FLATTEST = 1e-7
# Up to this slope the divergence is evaluated once more without cancellation.
_GENTLE = 0.1
# Of 4,000 hard exponential tilts half needed 2 steps and 99 in 100 less than 9.
_STEPS, _DEVICE_STEPS = 100, 30
_POLISHES = 3  # Newton's steps from an expansion that is good to a tenth
_ROUNDING = 2.0**-49  # of the largest divergence
_FAINT = 2.0**-19  # of the largest divergence: a target of which rounding leaves but nine digits


def mean_divergence(problem: Problem, order: float, log_ratio: Array) -> Array:
    """Return E phi(r) of log r, -inf for r = 0; phi(r) = (r^k - k r + k - 1) / (k (k - 1)), at k = 1 r log r - r + 1.

    Near k = 1 by a series near r = 1, where the formula cancels.
    """
    xp, k = problem.xp, order
    if abs(k - 1) > 0.1:
        found = problem.mean(xp.expm1(k * log_ratio)) - k * problem.mean(xp.expm1(log_ratio))
        return found / (k * (k - 1))
    near_one = xp.abs(log_ratio) < 0.03
    s = xp.where(near_one, log_ratio, 0.0)
    series, *terms = [sum(k**i for i in range(j - 1)) / math.factorial(j) for j in range(9, 1, -1)]
    for term in terms:
        series = term + s * series
    far = at_least(xp, xp.where(near_one, 1.0, log_ratio), -700.0)
    # Below e^-700 that power of k - 1 would overflow, and the ratio is nothing.
    slope = far if k == 1 else xp.expm1((k - 1) * far) / (k - 1)
    return problem.mean(xp.where(near_one, s * s * series, (xp.exp(far) * slope - xp.expm1(far)) / k))


def relative_entropy(problem: Problem, weights: Array) -> Array:
    """Return KL(q, p) = E (r log r - r + 1), ``(*batch, 1)``."""
    xp, ratio = problem.xp, problem.ratio(weights)
    return mean_divergence(problem, 1, xp.where(ratio > 0, xp.log(xp.where(ratio > 0, ratio, 1.0)), -xp.inf))


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


def capacity(problem: Problem) -> Array:
    """Return the largest divergence that helps, -log p(argmax), accurate also when it is small."""
    xp = problem.xp
    below = problem.mass(problem.losses != 0)
    return xp.where(below < 0.5, -xp.log1p(-at_most(xp, below, 0.5)), -xp.log(problem.mass(problem.losses == 0)))


def _newton_step(xp: Namespace, at: Bracket, tilt: Tilt, target: Size, most: Array) -> Bracket:
    """Take one Newton step on a nearly linear form of divergence(slope) = target, or halve the bracket in logarithm.

    In the lower half log divergence is solved against log slope (both are linear at 0); in the upper half
    log(most - divergence) against slope (under the exponential tilt it falls exponentially there).
    """
    lower_half, wanted = 2 * target < most, most - target
    too_low = xp.where(lower_half, tilt.divergence < target, tilt.shortfall > wanted)
    low, high = xp.where(too_low, at.slope, at.low), xp.where(too_low, at.high, at.slope)
    growth = at_least(xp, tilt.growth, TINY)
    divergence, shortfall = at_least(xp, tilt.divergence, TINY), at_least(xp, tilt.shortfall, TINY)
    lower = xp.exp(at_most(xp, at_least(xp, xp.log(target / divergence) * divergence / growth, -50.0), 50.0))
    upper = 1 + xp.log(shortfall / at_least(xp, wanted, TINY)) * at_most(xp, shortfall / growth, 1e30)
    proposal = at.slope * xp.where(lower_half, lower, upper)
    # The slack keeps a converged iterate, whose last step may leave the bracket by a rounding error. A divergence
    # that is nothing but rounding shows no direction.
    told = ~lower_half | (divergence > _ROUNDING * most)
    inside = told & (proposal >= low * (1 - 1e-9)) & (proposal <= high * (1 + 1e-9))
    return at._replace(slope=xp.where(inside, proposal, xp.sqrt(low * high)), low=low, high=high)


def bracket(problem: Problem, order: float, target: Size, most: Array, steepest: float) -> Bracket:
    """Start at the expansion for small slopes: divergence ~ order slope^2 Var / 2.

    A log-ratio of range e has divergence at most max(order, 1) e^2 / 8 (Hoeffding), which bounds the slope below.
    """
    xp = problem.xp
    deviation = problem.losses - problem.mean(problem.losses)
    variance = problem.mean_product(deviation, deviation)
    width = (8 * target / max(order, 1.0)) ** 0.5
    least = width if order == 1 else -expm1(xp, (1 - order) * width) / (order - 1)
    slope = xp.sqrt(2 * target / (order * at_least(xp, variance, TINY)))
    low = lowered(xp, least, steepest) * (1 - 1e-9) + xp.zeros_like(slope)
    return enclosed(
        xp, xp.maximum(low, at_most(xp, slope, steepest)), low, xp.full_like(slope, steepest), most <= target
    )


def _small_divergence(problem: Problem, slope: Array) -> Array:
    """Return the divergence without the cancellation that ``Tilt`` suffers at small slopes."""
    xp, exponent = problem.xp, slope * problem.losses
    tilted = xp.expm1(exponent)
    log_mass = xp.log1p(at_least(xp, problem.mean(tilted), -0.9))
    return (problem.mean(exponent) + problem.mean_product(tilted, exponent)) / xp.exp(log_mass) - log_mass


def _faint(problem: Problem, at: Bracket, target: Size, most: Array) -> Array:
    """Meet a target that is nothing beside the largest divergence, in main memory: return the slope."""

    def tilt(slope: Array) -> Tilt:
        exponent = slope * problem.losses
        exponent -= log_mean_exp(problem, exponent)
        ratio = np.exp(exponent)
        deviation = problem.losses - problem.mean_product(ratio, problem.losses)
        divergence = mean_divergence(problem, 1, exponent)
        return Tilt(divergence, most - divergence, slope**2 * problem.mean_product(ratio * deviation, deviation))

    towards = goal(np, target, most)
    for _ in range(_STEPS):
        if at.settled.all():
            break
        at = newton_step(np, at, tilt(at.slope), towards)
    return at.answer(np)


def _step_without_cancellation(problem: Problem, slope: Array, target: Size, growth: Array) -> Array:
    """Return what Newton's method adds to the logarithm of a small slope."""
    xp = problem.xp
    exact = at_least(xp, _small_divergence(problem, slope), TINY)
    return xp.log(target / exact) * exact / at_least(xp, growth, TINY)


def _slope(problem: Problem, target: Size, most: Array) -> Array:
    """Return the slope, ``(*batch, 1)``, at which the divergence is ``target``; of no use where that exceeds ``most``.

    In main memory the iteration stops when the divergence agrees to rounding. Elsewhere it goes on, led astray by
    rounding where the slope is small; there the expansion at 0, which is near, is polished instead.
    """
    xp = problem.xp
    tilt = _exponential(problem)
    at = bracket(problem, 1.0, target, most, _STEEPEST)
    start, low, member = at.slope, at.low, tilt(at.slope)
    for _ in range(_STEPS if on_host(xp) else _DEVICE_STEPS):
        if on_host(xp) and not np.any((xp.abs(member.divergence - target) > _ROUNDING * most) & (target < most)):
            break
        at = _newton_step(xp, at, member, target, most)
        member = tilt(at.slope)
    if not on_host(xp):
        polished = at_most(xp, start, _GENTLE)
        for _ in range(_POLISHES):
            step = _step_without_cancellation(problem, polished, target, tilt(polished).growth)
            polished = polished * xp.exp(at_most(xp, at_least(xp, step, -1.0), 1.0))
        return xp.where(start < _FLATTEST, start, xp.where((2 * target < most) & (start < _GENTLE), polished, at.slope))
    step = _step_without_cancellation(problem, at.slope, target, member.growth)
    gentle = (2 * target < most) & (at.slope < _GENTLE) & (xp.abs(step) < 0.1)
    polished: Array = at.slope * xp.exp(xp.where(gentle, step, 0.0))
    if (target < _FAINT * most).any():
        faint = (target < _FAINT * most) & ~gentle & (start >= _FLATTEST)
        again = enclosed(xp, polished, low, np.full_like(low, _STEEPEST), ~faint)
        polished = xp.where(faint, _faint(problem, again, target, most), polished)
    return xp.where(start < _FLATTEST, start, polished)


def exponential_tilt(problem: Problem, radius: Size) -> tuple[Array, Array, Array]:
    """Maximise over KL(q, p) <= radius.

    q = p exp((l - threshold) / multiplier), or all mass on the top where the radius allows that.

    Returns:
        Weights ``(*batch, n)``, multiplier and threshold, both ``(*batch, 1)``.
    """
    xp = problem.xp
    radius, most = raised(xp, radius, RADIUS_FLOOR), capacity(problem)
    saturated = radius >= most
    slope = xp.where(saturated, _STEEPEST, _slope(problem, radius, most))
    weights, threshold = softmax(problem, slope)
    return weights, xp.where(saturated, 0.0, 1 / slope), xp.where(saturated, 0.0, threshold)


def softmax(problem: Problem, slope: Array) -> tuple[Array, Array]:
    """Return the weights p exp(slope l) / normaliser, and the loss at which they equal p (the mean at slope 0)."""
    xp = problem.xp
    if xp is np:
        tilted = slope * problem.losses
        np.exp(tilted, out=tilted)
        tilted = problem.weighted(tilted)
    else:
        tilted = problem.weighted(xp.exp(slope * problem.losses))
    mass = total(xp, tilted)
    if xp is np and mass.size == 1 and float(slope[..., 0].item()) > _FLATTEST:
        threshold = np.log(mass) / slope
    else:
        steep = slope > _FLATTEST
        threshold = xp.log(mass) / xp.where(steep, slope, 1.0)
        threshold = xp.where(steep, threshold, problem.mean(problem.losses))
    tilted /= mass
    return tilted, threshold
