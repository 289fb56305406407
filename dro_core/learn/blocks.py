"""One block of an adversary in the interior-point method: its variables, its optimality conditions, their Newton step.

With base masses b, atoms' losses L and multipliers of r >= 0, of r <= cap, of the mass and of the radius,

    L - threshold - price phi'(r) + below - above = 0,    sum b r = mass,    sum b phi(r) + slack = radius,
    r below = (cap - r) above = price slack = mu.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._solvers.arrays import Array
from .set_blocks import Adversary, Block

solve: Any = np.linalg.solve  # numpy's own hints leave the result unknown

_START = 0.1  # complementary products at w = 0, where every loss is log 2


class Point(NamedTuple):
    """Variables of one block or a step of them: four arrays ``(m,)`` and three scalars."""

    ratio: Array
    room: Array  # cap - ratio; the difference itself would lose all digits near the cap
    below: Array
    above: Array
    threshold: Any
    price: Any
    slack: Any

    def moved(self, step: Point, length: float) -> Point:
        """Return the point a step of this length away."""
        return Point(*(old + length * new for old, new in zip(self, step, strict=True)))


def start(block: Block, atoms: int) -> Point:
    """Return the reference itself, all products equal."""
    ratio, room = np.full(atoms, block.mass), np.full(atoms, block.cap - block.mass)
    price = block.price if block.radius is None else _START / block.radius
    return Point(ratio, room, _START / ratio, _START / room, math.log(2), price, block.radius or 0.0)


def products(block: Block, at: Point, base: Array) -> tuple[float, int]:
    """Return the sum of the complementary products, averaged over the atoms, and how many kinds there are."""
    found = [base @ (at.ratio * at.below)]
    if math.isfinite(block.cap):
        found.append(base @ (at.room * at.above))
    if block.radius is not None:
        found.append(at.price * at.slack)
    return float(sum(found)), len(found)


def second_order(steps: list[Point]) -> list[Point]:
    """Return the products of steps that Newton's method leaves out."""
    return [Point(s.ratio, s.room, s.ratio * s.below, s.room * s.above, 0.0, 0.0, s.slack * s.price) for s in steps]


class Linearised:
    """The conditions of one block around a point, solved for a change of the atoms' losses.

    A change dL moves b r by weight (dL + force) - coupled matrix^-1 (border + coupled' dL).
    """

    def __init__(self, block: Block, at: Point, base: Array, losses: Array) -> None:
        phi, slope, bend = block.divergence(at.ratio)
        self._at, self._bounded = at, block.radius is not None
        self._stiffness = at.below / at.ratio + at.above / at.room + at.price * bend
        self._columns = np.stack([np.ones_like(slope), slope][: 1 + self._bounded], axis=1)
        self.weight = base / self._stiffness
        self.coupled = self.weight[:, None] * self._columns
        self.matrix = self._columns.T @ self.coupled
        self._pull = losses - at.threshold - at.price * slope
        self._missing = 0.0
        if block.radius is not None:
            self.matrix[1, 1] += at.slack / at.price
            self._missing = float(base @ phi) - block.radius

    def aim(self, mu: float, second: Point | None = None) -> Array:
        """Set the target of the products, less the second-order terms; return the shift of b r at fixed losses."""
        at = self._at
        self._lower = mu if second is None else mu - second.below
        self._upper = mu if second is None else mu - second.above
        self._outer = mu if second is None else mu - second.slack
        self._force = self._pull + self._lower / at.ratio - self._upper / at.room
        self._border = self.coupled.T @ self._force
        if self._bounded:
            self._border[1] += self._outer / at.price + self._missing
        return self.weight * self._force - self.coupled @ solve(self.matrix, self._border)

    def step(self, change: Array) -> Point:
        """Return the step for this change of the atoms' losses."""
        at = self._at
        dual = solve(self.matrix, self._border + self.coupled.T @ change)
        ratio = (change + self._force - self._columns @ dual) / self._stiffness
        below = (self._lower - at.below * ratio) / at.ratio - at.below
        above = (self._upper + at.above * ratio) / at.room - at.above
        if not self._bounded:
            return Point(ratio, -ratio, below, above, dual[0], 0.0, 0.0)
        slack = (self._outer - at.slack * dual[1]) / at.price - at.slack
        return Point(ratio, -ratio, below, above, dual[0], dual[1], slack)

    def longest(self, step: Point) -> float:
        """Return the longest step that keeps everything nonnegative."""
        at, longest = self._at, math.inf
        pairs = [(at.ratio, step.ratio), (at.room, step.room), (at.below, step.below), (at.above, step.above)]
        if self._bounded:
            pairs.append((np.array([at.price, at.slack]), np.array([step.price, step.slack])))
        for old, new in pairs:
            falling = new < 0
            longest = float(np.min(old[falling] / -new[falling], initial=longest))
        return longest


def inside(adversary: Adversary, points: list[Point]) -> tuple[Array, float]:
    """Return atoms' weights in the set, whatever the rounding errors and open constraints, and their charge."""
    base = adversary.base
    ratio, charge = np.full(base.size, adversary.fixed), 0.0
    for block, at in zip(adversary.blocks, points, strict=True):
        mass = float(base @ at.ratio)
        if mass >= block.mass or math.isinf(block.cap):
            part = at.ratio * (block.mass / mass)
        else:
            part = block.cap - at.room * ((block.cap - block.mass) / float(base @ at.room))
        divergence = float(base @ block.divergence(part)[0])
        if block.radius is not None:
            # phi is convex and 0 at 1, so a share t of the way from p has at most t times the divergence.
            part = 1 + min(1.0, block.radius / max(divergence, 1e-300)) * (part - 1)
        ratio, charge = ratio + part, charge + block.price * divergence
    atoms = base * ratio
    return atoms, charge + float(np.sum(adversary.charges * atoms))
