"""Sets that bound the mass of the worst share, at a price: pooling of neighbours that lie the wrong way round.

A set {q : q(A) <= S(p(A)) for every A}, S concave, with a price on E phi(q/p), is solved on the levels of the losses,
largest first. Each level starts with the most it may get, S after it less S before; as long as the loss less the price
of one more unit rises from one level to the next, the two are pooled and share theirs as the price alone has it. In
main memory, problem by problem.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .poles import bend

Vector = Any  # a numpy array of shape (levels,)


@dataclass
class Pool:
    """Neighbouring levels: where they start, their mass, what they get, and a sum of theirs measured from an anchor.

    The sum is log sum p exp((l - anchor) / price) for KL, with the largest loss as the anchor, and sum p (l - anchor)
    for chi-square, with the smallest: so that nothing cancels.
    """

    start: int
    anchor: float
    mass: float
    gets: float
    sum: float


class Family(NamedTuple):
    """A divergence phi as pooling needs it."""

    initial: Callable[[float], float]  # the sum of one level, from its mass
    joined: Callable[[Pool, Pool, float], tuple[float, float]]  # anchor and sum of two pools, at a price
    lift: Callable[[Pool, float], float]  # phi'(q/p) at the anchor
    ratio: Callable[[Vector], Vector]  # q/p for phi'(q/p)
    bend: Callable[[Vector, Vector], float]  # sum p (phi*(y) - y) over masses p


def _log(number: float) -> float:
    return math.log(number) if number > 0 else -math.inf


def _bent(masses: Vector, y: Vector) -> float:
    return float(masses @ bend(np, y))


def _parabola(masses: Vector, y: Vector) -> float:
    """In this order, because y * y may overflow where the mass times that does not."""
    kept = y > -1
    return float((masses * np.where(kept, y, 0.0)) @ (y / 2) - masses @ np.where(kept, 0.0, 0.5 + y))


def _lift(pool: Pool, price: float) -> float:
    return (pool.gets - pool.mass) / pool.mass - pool.sum / price / pool.mass


def _log_lift(pool: Pool, price: float) -> float:
    del price
    return _log(pool.gets) - pool.sum


def _nothing(mass: float) -> float:
    del mass
    return 0.0


def _positive_part(y: Vector) -> Vector:
    return np.maximum(1 + y, 0.0)


def _joined_from_the_largest(one: Pool, two: Pool, price: float) -> tuple[float, float]:
    return one.anchor, float(np.logaddexp(one.sum, two.sum + (two.anchor - one.anchor) / price))


def _joined_from_the_smallest(one: Pool, two: Pool, price: float) -> tuple[float, float]:
    del price
    return two.anchor, one.sum + two.sum + one.mass * (one.anchor - two.anchor)


KL = Family(
    initial=_log,
    joined=_joined_from_the_largest,
    lift=_log_lift,
    ratio=np.exp,
    bend=_bent,
)
CHI_SQUARE = Family(
    initial=_nothing,
    joined=_joined_from_the_smallest,
    lift=_lift,
    ratio=_positive_part,
    bend=_parabola,
)


class Priced(NamedTuple):
    """The answer for one problem: q/p and multipliers of the levels, and an upper bound of the value."""

    ratio: Vector  # (levels,)
    worth: Vector  # what one more unit of S after each level is worth
    bound: float


def pooled(losses: Vector, masses: Vector, gets: Vector, price: float, family: Family) -> Priced:
    """Solve for levels ``losses``, falling, of positive ``masses``; each starts with what it ``gets``."""
    pools: list[Pool] = []
    levels: list[float] = []  # what an additional unit earns in each pool, net: these must fall

    def net(pool: Pool) -> float:
        return pool.anchor - price * family.lift(pool, price)

    for at, (loss, mass, share) in enumerate(zip(losses.tolist(), masses.tolist(), gets.tolist(), strict=True)):
        pool = Pool(at, loss, mass, max(share, 0.0), family.initial(mass))
        level = net(pool)
        while pools and levels[-1] <= level:
            before = pools.pop()
            levels.pop()
            anchor, together = family.joined(before, pool, price)
            pool = Pool(before.start, anchor, before.mass + pool.mass, before.gets + pool.gets, together)
            level = net(pool)
        pools.append(pool)
        levels.append(level)
    return _answer(losses, masses, pools, np.array(levels), price, family)


def _answer(losses: Vector, masses: Vector, pools: list[Pool], levels: Vector, price: float, family: Family) -> Priced:
    """Read off the weights, and bound the value from above by the dual at levels that certainly fall."""
    starts = np.array([pool.start for pool in pools])
    anchor, mass, gets = (np.array([getattr(pool, name) for pool in pools]) for name in ("anchor", "mass", "gets"))
    lift = np.array([family.lift(pool, price) for pool in pools])
    sizes = np.diff([*starts, len(losses)])
    above = losses - np.repeat(anchor, sizes)
    ratio = family.ratio(above / price + np.repeat(lift, sizes))
    falling = np.maximum.accumulate(levels[::-1])[::-1]
    lift = lift - (falling - levels) / price
    # Large terms of a high price cancel here, in the pool, before anything is summed.
    linear = np.add.reduceat(masses * above, starts) + gets * anchor + price * lift * (mass - gets)
    charge = price * family.bend(masses, above / price + np.repeat(lift, sizes))
    worth = np.zeros(len(losses))
    worth[starts[1:] - 1] = falling[:-1] - falling[1:]
    return Priced(ratio, worth, float(linear.sum()) + charge)
