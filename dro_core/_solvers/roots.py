"""Newton's method for a slope, in logarithms and inside a bracket; vectorised, without a look at a value."""

from __future__ import annotations

from typing import NamedTuple

from .arrays import Array, Namespace, at_least, at_most
from .sizes import Size

TINY = 1e-300
_SETTLED = 2.0**-22  # an error whose square, which Newton's step leaves, is nothing


class Tilt(NamedTuple):
    """What Newton needs of one member of the family, from both ends; ``(*batch, 1)`` each."""

    divergence: Array  # Renyi divergence of q from p
    shortfall: Array  # largest possible divergence minus that, accurate when small
    growth: Array  # d divergence / d log slope


class Goal(NamedTuple):
    """A divergence to reach: from below in the lower half of what is possible, as a shortfall in the upper half."""

    lower_half: Array
    sign: Array  # 1 there, -1 in the upper half
    wanted: Array  # the divergence there, the shortfall in the upper half
    noise: Array  # a divergence that small shows no direction


class Bracket(NamedTuple):
    """A slope, two that enclose the one looked for, and how well it is known; ``(*batch, 1)`` each."""

    slope: Array
    low: Array
    high: Array
    error: Array  # the smallest so far, of the logarithm of what is wanted
    best: Array  # the slope that had it
    settled: Array  # whether the slope is the last of Newton's, from one of next to no error

    def narrow(self) -> Array:
        """Whether rounding leaves no room between the two."""
        return self.high <= self.low * (1 + 2.0**-48)

    def answer(self, xp: Namespace) -> Array:
        """Return the slope that Newton's method ended at, else that of a jump, else the best of those tried."""
        return xp.where(self.settled, self.slope, xp.where(self.narrow(), self.low, self.best))


def goal(xp: Namespace, target: Size, most: Array, *, noise: Size = 0.0) -> Goal:
    """Return the goal of a divergence ``target``, of at most ``most``, told to ``noise`` of that."""
    lower_half = 2 * target < most
    wanted = at_least(xp, xp.where(lower_half, target, most - target), TINY)
    return Goal(lower_half, 2 * xp.astype(lower_half, xp.float64) - 1, wanted, xp.where(lower_half, noise * most, -1.0))


def enclosed(xp: Namespace, slope: Array, low: Array, high: Array, settled: Array) -> Bracket:
    """Return a bracket of which nothing is known but what it encloses."""
    return Bracket(slope, low, high, low + xp.inf, slope, settled)


def newton_step(xp: Namespace, at: Bracket, tilt: Tilt, towards: Goal) -> Bracket:
    """Take one Newton step in logarithms, of slope and of what is wanted, or halve the bracket in logarithm.

    Both are linear at slope 0, and where a power falls to its limit. A step that did not halve the smallest error
    deserves no second: where levels enter and leave the support, Newton's method may run in circles.
    """
    value = at_least(xp, xp.where(towards.lower_half, tilt.divergence, tilt.shortfall), TINY)
    missing = towards.sign * xp.log(towards.wanted / value)
    too_low, error = missing > 0, xp.abs(missing)
    low, high = xp.where(too_low, at.slope, at.low), xp.where(too_low, at.high, at.slope)
    step = missing * value / at_least(xp, tilt.growth, TINY)
    proposal = at.slope * xp.exp(at_most(xp, at_least(xp, step, -50.0), 50.0))
    # The slack keeps a converged iterate, whose last step may leave the bracket by a rounding error.
    inside = (proposal >= low * (1 - 1e-9)) & (proposal <= high * (1 + 1e-9))
    inside &= (error <= at.error / 2) & (value > towards.noise)
    slope = xp.where(at.settled, at.slope, xp.where(inside, proposal, xp.sqrt(low) * xp.sqrt(high)))
    best = xp.where(error < at.error, at.slope, at.best)
    settled = at.settled | (inside & (error <= _SETTLED))
    return Bracket(slope, low, high, xp.minimum(error, at.error), best, settled)
