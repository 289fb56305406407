"""Tilts by a power of the loss: the Cressie-Read balls of an order k other than 1. See ``duals`` for tilts.

A member is q prop. to p (1 + (k - 1) slope (l - pivot))_+^{1/(k-1)}. For k < 1 its pole lies 1 / ((1 - k) slope) above
the pivot, which is the largest loss; for k > 1 its threshold lies 1 / ((k - 1) slope) below the pivot, which is the
largest loss while the threshold is looked for, and then the smallest loss that gets weight: where a top of mass 1e-18
weighs against a loss of mass 1 the two are 1e-36 apart, which no slope at the top could tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .arrays import Array, at_least, at_most, lowest, on_host, total
from .duals import bracket, capacity, log_mean_exp, mean_divergence
from .problem import Problem
from .roots import TINY, Bracket, Tilt, enclosed, goal, newton_step
from .sizes import Size, choose, raised
from .sorting import RADIUS_FLOOR

# Up to here (k - 1) slope l is finite. At masses of 1e-300 steeper tilts differ by less than 1e-8 of the range, and
# that only where the radius is near the largest float.
_STEEPEST = 2.0**1022
# Steps of the search at the largest loss, and of the one at the pivot; powers may bisect to the last bit.
_STEPS, _PIVOT_STEPS = 60, 40
_ROUNDING = 2.0**-49  # of the largest divergence
_CLOSE = 2.0**-22  # of the divergence: where the search at the pivot takes over
# Relative to its distance from the largest loss, how far a loss lies from the threshold that the first search cannot
# place above or below it.
_BLURRED = 2.0**-46
_NEAR = 2.0**-16  # likewise: how far, for its weight to be known to 1e-11
_ORDINARY = 40.0  # largest divergences up to this, a top of at least 4e-18, leave no quotient near zero
# How far a threshold is raised, of the range and of the largest loss.
_ROUNDED = 2.0**-50
# The multiplier where the tilt is too steep for float64, and the radius bounds the value all the same.
_LEAST = 2.0**-1060
# Up to this target divergences are summed without cancellation.
_SMALL = 0.1


class _Family(NamedTuple):
    """The tilts around a pivot, all ``(*batch, n)`` or ``(*batch, 1)``."""

    problem: Problem
    order: float
    pivot: Array
    above: Array  # losses less the pivot
    top: Array  # where the largest loss is
    at_top: Array  # its mass


def _family(problem: Problem, order: float, pivot: Array | None = None) -> _Family:
    xp, losses = problem.xp, problem.losses
    top = losses == 0
    at_top = problem.mass(top)
    if pivot is None:
        return _Family(problem, order, xp.zeros_like(at_top), losses, top, at_top)
    above = losses - pivot
    # What the threshold cannot be told from counts as the pivot.
    return _Family(problem, order, pivot, xp.where(xp.abs(above) <= -_BLURRED * pivot, 0.0, above), top, at_top)


def _coarse(family: _Family) -> Callable[[Array], Tilt]:
    """Return the tilts at the largest loss; the top stays out of every sum: the rest may vanish beside it."""
    problem, k, _, losses, top, at_top = family
    xp, rest = problem.xp, ~top

    def tilt(slope: Array) -> Tilt:
        base = 1 + ((k - 1) * slope) * losses
        inside = base > 0 if k > 1 else None
        safe = base if inside is None else xp.where(inside, base, 1.0)
        # q/p below the top, up to a factor.
        first = xp.where(rest if inside is None else inside & rest, safe ** (1 / (k - 1)), 0.0)
        mass, square = problem.mean(first), problem.mean_product(first, base)
        shortfall = (k * xp.log1p(mass / at_top) - xp.log1p(square / at_top)) / (k - 1)
        divergence = (xp.log(at_top + square) - k * xp.log(at_top + mass)) / (k - 1)
        faster = problem.mean_product(first, losses) / (at_top + square)
        slower = problem.mean_product(first / safe, losses) / (at_top + mass)
        return Tilt(divergence, shortfall, slope * k / (k - 1) * (faster - slower))

    return tilt


def _log_ratio(family: _Family, slope: Array) -> Array:
    """Return log q/p up to a constant that makes it 0 at the top."""
    xp, k = family.problem.xp, family.order
    bend = ((k - 1) * slope) * family.above
    at_top = xp.log1p((1 - k) * slope * family.pivot)
    if k < 1:
        return (xp.log1p(bend) - at_top) / (k - 1)
    inside = bend > -1
    logarithm = (xp.log1p(xp.where(inside, bend, 0.0)) - at_top) / (k - 1)
    return xp.where(inside, logarithm, -xp.inf)


def _fine(family: _Family, most: Array, *, small: bool | Array) -> Callable[[Array], Tilt]:
    """Return the tilts at the pivot; ``small``: the divergence as E phi(q/p), where the one of the moments cancels."""
    problem, k, pivot, above, top, at_top = family
    xp, losses = problem.xp, problem.losses
    some_small, all_small = (small, small) if isinstance(small, bool) else (True, False)

    def tilt(slope: Array) -> Tilt:
        exponent = _log_ratio(family, slope)
        tilted = xp.exp(exponent)
        mass = problem.mean(xp.where(top, 0.0, tilted))
        log_mass = xp.log(at_top + mass)
        if some_small:
            near_one = problem.mean(xp.expm1(exponent))
            log_mass = xp.where(near_one > -0.5, xp.log1p(at_least(xp, near_one, -0.75)), log_mass)
        ratio = tilted * xp.exp(-log_mass)
        # What the power is taken of is linear in the loss, here 1 at the top; its mean under q.
        slope_at_top = slope / (1 - (k - 1) * slope * pivot)
        base = at_least(xp, 1 + ((k - 1) * slope) * above, 0.0)
        mean_loss = problem.mean_product(ratio, losses)
        mean_base = problem.mean_product(ratio, base) * (slope_at_top / slope)
        divergence = shortfall = most
        if not all_small:
            lost = (k - 1) * slope_at_top * mean_loss
            log_base = xp.where(lost > -0.5, xp.log1p(at_least(xp, lost, -0.75)), xp.log(mean_base)) / (k - 1)
            divergence, shortfall = log_base - log_mass, xp.log1p(mass / at_top) - log_base
        if some_small:
            exact = xp.log1p(k * (k - 1) * mean_divergence(problem, k, exponent - log_mass)) / (k - 1)
            divergence = choose(xp, small, exact, divergence)
            shortfall = choose(xp, small, most - exact, shortfall)
        # k Cov_q(slope l, slope (l - pivot) / base) / E_q base, which cancels nowhere.
        turn = (slope * above) / xp.where(base > 0, base, xp.inf)
        turn -= problem.mean_product(ratio, turn)
        turn *= losses - mean_loss
        growth = (k * slope_at_top / mean_base) * problem.mean_product(ratio, turn)
        return Tilt(divergence, shortfall, growth)

    return tilt


def _searched(family: _Family, at: Bracket, target: Size, most: Array) -> tuple[Bracket, Array]:
    """Search at the largest loss, until the divergence is close or the bracket too narrow to tell.

    Returns:
        The bracket, and the growth of the divergence there.
    """
    xp = family.problem.xp
    tilt, towards = _coarse(family), goal(xp, target, most, noise=_ROUNDING)
    close = xp.maximum(_CLOSE * towards.wanted, _ROUNDING * most)
    member = tilt(at.slope)
    for step in range(_STEPS):
        before = at
        at = newton_step(xp, at, member, towards)
        if on_host(xp):
            done = before.settled | (np.abs(member.divergence - target) <= close)
            if (done if step < 10 else done | before.narrow()).all():
                break
        member = tilt(at.slope)
    return at, member.growth


def _polished(family: _Family, at: Bracket, target: Size, most: Array) -> Array:
    """Search at the pivot, to the last digit of the divergence; return the slope there."""
    xp = family.problem.xp
    small = target < _SMALL
    noise = choose(xp, small, 0.0, _ROUNDING if isinstance(small, bool) else xp.full_like(target, _ROUNDING))
    tilt, towards = _fine(family, most, small=small), goal(xp, target, most, noise=noise)
    for step in range(_PIVOT_STEPS):
        if on_host(xp) and (at.settled if step < 10 else at.settled | at.narrow()).all():
            break
        at = newton_step(xp, at, tilt(at.slope), towards)
    return at.answer(xp)


def _steepest(family: _Family, unit: Array) -> Array:
    """Return a slope at the pivot beyond which all other weights are less than a rounding of the top's."""
    xp, k = family.problem.xp, family.order
    return at_most(xp, unit * (2.0**60 / family.at_top) ** max(k - 1, 1.0), _STEEPEST)


def _at_pivot(family: _Family, slope: Array, lowest_slope: Array, saturated: Array) -> tuple[_Family, Bracket]:
    """Move from the largest loss to the smallest that gets weight, or that cannot be told from one."""
    problem, k, *_ = family
    xp, losses = problem.xp, problem.losses
    if k < 1:
        return family, enclosed(xp, slope, lowest_slope, _steepest(family, xp.ones_like(slope)), saturated)
    base = 1 + ((k - 1) * slope) * losses
    pivot = lowest(xp, xp.where(base > -_BLURRED, losses, 0.0))
    there = slope / at_least(xp, 1 + (k - 1) * slope * pivot, _BLURRED)
    return _family(problem, k, pivot), enclosed(xp, there, lowest_slope, _steepest(family, slope), saturated)


def _finished(family: _Family, at: Bracket, growth: Array, target: Size, most: Array) -> Array | None:
    """Return the slope where the first search has told it to the last digit, in main memory; else None.

    That is where no mass is tiny and no loss lies so close to the threshold that its weight depends on the last digits
    of the slope, after one more step for a divergence that is small.
    """
    k, losses, slope = family.order, family.problem.losses, at.slope
    if not at.settled.all() or np.any(most > _ORDINARY):
        return None
    if k > 1 and (np.abs(1 + ((k - 1) * slope) * losses) < _NEAR).any():
        return None
    small = target < _SMALL
    if not np.any(small):
        return slope
    exponent = _log_ratio(family, slope)
    exponent -= log_mean_exp(family.problem, exponent)
    exact = at_least(np, np.log1p(k * (k - 1) * mean_divergence(family.problem, k, exponent)) / (k - 1), TINY)
    missing = np.where((most <= target) | ~np.asarray(small), 0.0, np.log(target / exact))
    if np.any(np.abs(missing) > _CLOSE):
        return None
    return slope * np.exp(missing * exact / at_least(np, growth, TINY))


def _solved(family: _Family, target: Size, most: Array) -> tuple[_Family, Array]:
    """Return the family at its pivot, and the slope there at which the divergence is ``target``."""
    problem, k, *_ = family
    start = bracket(problem, k, target, most, _STEEPEST if k < 1 else 2.0**60)
    if k < 1:
        start = start._replace(high=_steepest(family, problem.xp.ones_like(most)))
    found, growth = _searched(family, start, target, most)
    if on_host(problem.xp) and (slope := _finished(family, found, growth, target, most)) is not None:
        return family, slope
    family, at = _at_pivot(family, found.answer(problem.xp), start.low, most <= target)
    return family, _polished(family, at, target, most)


def power_tilt(problem: Problem, order: float, radius: Size) -> tuple[Array, Array, Array]:
    """Maximise over a Renyi divergence of order k > 0, k != 1, of at most ``radius``.

    q = p (1 + (k - 1) (l - threshold) / multiplier)_+^{1/(k-1)}, or all mass on the top.

    Returns:
        Weights ``(*batch, n)``, multiplier and threshold of the Cressie-Read dual, both ``(*batch, 1)``.
    """
    xp, k = problem.xp, order
    most, family = capacity(problem), _family(problem, k)
    saturated = most <= radius
    if isinstance(radius, float) and radius < RADIUS_FLOOR:
        slope = xp.full_like(most, RADIUS_FLOOR**0.5)
    else:
        family, slope = _solved(family, raised(xp, radius, RADIUS_FLOOR), most)
    slope = xp.where(saturated, 1.0, slope)
    exponent = xp.where(saturated & ~family.top, -xp.inf, _log_ratio(family, slope))
    tilted = problem.weighted(xp.exp(exponent))
    # q = p C base^{1/(k-1)} with log C = -log E base^{1/(k-1)}, and 1 / multiplier = C^{k-1} slope, at the top.
    room = 1 / slope - (k - 1) * family.pivot
    log_growth = (k - 1) * log_mean_exp(problem, exponent)
    multiplier = at_least(xp, xp.where(slope < _STEEPEST / 2, xp.exp(log_growth) * room, 0.0), _LEAST)
    # A threshold is stored as a loss and rounds as one. Too large by that it costs the dual as much and no more; too
    # small it may cost any amount.
    rounded = _ROUNDED * (1 + xp.abs(problem.offset) / problem.unit)
    threshold = xp.expm1(log_growth) * room / (k - 1) + rounded
    weights = tilted / total(xp, tilted)
    return weights, xp.where(saturated, 0.0, multiplier), xp.where(saturated, 0.0, threshold)


def power_dual(problem: Problem, order: float, radius: Size, dual_multiplier: Array, threshold: Array) -> Array:
    """Evaluate radius t + eta + t E phi*((l - eta) / t), phi*(y) = ((1 + (k - 1) y)_+^{k/(k-1)} - 1) / k.

    Written as the mean loss plus t E (phi*(y) - y), by a series for small y, so that a huge multiplier t does not
    cancel, and with t inside the power where that is large, so that a tiny one does not overflow. At t = 0 it is max
    l; for k < 1 it is infinite where 1 + (k - 1) y <= 0 for some loss.
    """
    xp, k = problem.xp, order
    positive = dual_multiplier > 0
    multiplier = xp.where(positive, dual_multiplier, 1.0)
    y = (problem.losses - threshold) / multiplier
    base = 1 + (k - 1) * y
    inside = base > 0
    power = xp.log(xp.where(inside, at_most(xp, base, _STEEPEST), 1.0)) * (k / (k - 1))
    # Where a multiplier is tiny, it goes inside the power: the two of them are finite together.
    outer = multiplier + (k - 1) * (problem.losses - threshold)
    large = (xp.log(xp.where(inside, outer, 1.0)) * k - xp.log(multiplier)) / (k - 1)
    large = xp.exp(at_most(xp, large, 700.0)) / k - (problem.losses - threshold)
    full = xp.expm1(at_most(xp, power, 100.0)) / k
    small = xp.where(xp.abs(y) < 1e-4, y, 0.0)
    series = small**2 * (1 / 2 + small * ((2 - k) / 6 + small * (2 - k) * (3 - 2 * k) / 24))
    moderate = multiplier * xp.where(inside, full, -1 / k) - (problem.losses - threshold)
    bend = xp.where(xp.abs(y) < 1e-4, multiplier * series, xp.where(power > 100, large, moderate))
    value = radius * multiplier + problem.mean(problem.losses) + problem.mean(bend)
    if k < 1:
        value = xp.where(problem.mass(~inside) > 0, xp.inf, value)
    return xp.where(positive, value, 0.0)
