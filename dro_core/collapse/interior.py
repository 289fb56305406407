"""Balancing weights by a primal-dual interior point: linear and quadratic programs on few constraints.

    min_z sum_k <base_k, cost_k z_k + curvature_k z_k^2 / 2>   s.t.   <q, x> = 0,   0 <= z_k <= cap_k

over q = fixed p + sum_k sign_k base_k z_k, with sum q = 1 where that matters. Mehrotra's predictor and corrector on
d + 1 normal equations: about n d^2 operations a step, ten to thirty steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .._solvers.arrays import Array
from .._solvers.normal import factor, gram

_TO_BOUNDARY = 0.995


class Part(NamedTuple):
    """A kind of variables, one for each scenario: how it enters, up to which, what it costs, whether its base is p."""

    sign: float
    cap: float
    cost: float
    curvature: float = 0.0
    even: bool = False  # the base is uniform, for what need not be small where p is


class Program(NamedTuple):
    """What to minimise: the parts, beside a fixed share of p; and whether the weights must sum to 1."""

    parts: tuple[Part, ...]
    fixed: float
    sums: bool


PROGRAMS = {
    # Take mass away, at most all of it, and add it elsewhere.
    "tv": Program((Part(-1.0, 1.0, 0.5), Part(1.0, math.inf, 0.5, even=True)), 1.0, sums=True),
    # alpha q/p <= 1: the largest alpha, whose weights are scaled to 1 afterwards. Its dual is the least hinge loss.
    "cvar": Program((Part(1.0, 1.0, -1.0),), 0.0, sums=False),
    "chi2": Program((Part(1.0, math.inf, -1.0, 1.0),), 0.0, sums=True),
}


class _Point:
    """One part's variables with the distances and the prices of their bounds, ``(n,)`` each."""

    def __init__(self, part: Part, masses: Array) -> None:
        n = masses.size
        self.base = np.full(n, 1 / n) if part.even else masses
        self.part, self.capped = part, math.isfinite(part.cap)
        self.z = np.full(n, 0.5 if self.capped else 1.0)
        self.room = np.full(n, part.cap - 0.5) if self.capped else np.ones(n)
        self.low = np.ones(n)
        self.high = np.ones(n) if self.capped else np.zeros(n)

    def products(self) -> float:
        return float(self.base @ (self.low * self.z + self.high * self.room))

    def linearise(self, pull: Array) -> None:
        """Prepare the Newton system at multipliers whose pull on a ratio is ``pull``, ``(n,)``."""
        part = self.part
        self._residual = part.cost + part.curvature * self.z - part.sign * pull - self.low + self.high
        self.give = 1 / (part.curvature + self.low / self.z + self.high / self.room)

    def aim(self, mu: float, second: tuple[Array, Array] | None) -> Array:
        """Return the force toward complementary products of size ``mu``, less their second-order terms."""
        low, high = (mu, mu) if second is None else (mu - second[0], mu - second[1])
        self._low_goal, self._high_goal = low, high if self.capped else 0.0
        self._force = self._low_goal / self.z - self.low - self._high_goal / self.room + self.high - self._residual
        return self._force

    def solve(self, change: Array) -> None:
        """Find the step once the pull changes by ``change``."""
        self.dz = self.give * (self.part.sign * change + self._force)
        self.dlow = (self._low_goal - self.low * self.dz) / self.z - self.low
        self.dhigh = (self._high_goal + self.high * self.dz) / self.room - self.high if self.capped else self.high

    def second_order(self, share: float) -> tuple[Array, Array]:
        """Return what such a share of the step adds to the products."""
        return share * self.dz * self.dlow, -share * self.dz * self.dhigh

    def longest(self) -> tuple[float, float]:
        """Return the longest steps of the variables and of the prices that stay inside, at most 1."""
        lengths = [1.0, 1.0]
        pairs = [(0, self.z, self.dz), (1, self.low, self.dlow)]
        if self.capped:
            pairs += [(0, self.room, -self.dz), (1, self.high, self.dhigh)]
        for which, old, step in pairs:
            falling = step < 0
            lengths[which] = float(np.min(old[falling] / -step[falling], initial=lengths[which]))
        return lengths[0], lengths[1]

    def weights(self, values: Array) -> Array:
        """Return what such values of the variables add to the weights."""
        return self.part.sign * self.base * values

    def after(self, first: float, second: float) -> float:
        """Return the complementary products after such steps."""
        low, z = self.low + second * self.dlow, self.z + first * self.dz
        if not self.capped:
            return float(self.base @ (low * z))
        return float(self.base @ (low * z + (self.high + second * self.dhigh) * (self.room - first * self.dz)))

    def move(self, first: float, second: float) -> None:
        self.z = self.z + first * self.dz
        self.low = self.low + second * self.dlow
        if self.capped:
            self.room = self.room - first * self.dz
            self.high = self.high + second * self.dhigh


def interior_path(
    rows: Array, masses: Array, program: Program, *, careful: bool = False
) -> Iterator[tuple[Array, Array]]:
    """Yield weights ``(n,)``, up to a scale, and directions ``(k,)`` of positive margins, better at every step.

    Args:
        rows: Shape ``(n, k)``, linearly independent whitened columns.
        masses: p, shape ``(n,)``, positive.
        program: What the weights minimise.
        careful: Whether short steps correct less, which takes more of them and does not go in circles.
    """
    n, k = rows.shape
    design = np.hstack([rows, np.ones((n, 1))]) if program.sums else rows
    target = np.zeros(design.shape[1])
    target[k:] = 1.0
    points = [_Point(part, masses) for part in program.parts]
    multipliers = np.zeros(design.shape[1])
    kinds = sum(1 + point.capped for point in points)
    curved = any(part.curvature for part in program.parts)
    while True:
        weights = program.fixed * masses + sum((at.weights(at.z) for at in points), np.zeros(n))
        yield weights, -multipliers[:k]
        missing = target - design.T @ weights
        pull = design @ multipliers
        for at in points:
            at.linearise(pull)
        solve = factor(gram(design, sum((at.base * at.give for at in points), np.zeros(n))))
        mu = sum(at.products() for at in points) / kinds

        def step(mu: float, second: list[tuple[Array, Array]] | None) -> tuple[Array, float, float]:
            forces = [at.aim(mu, None if second is None else second[i]) for i, at in enumerate(points)]
            given = sum((at.weights(at.give * force) for at, force in zip(points, forces, strict=True)), np.zeros(n))
            move = solve(missing - design.T @ given)  # noqa: B023
            change = design @ move
            for at in points:
                at.solve(change)
            first, second_length = (min(lengths) for lengths in zip(*(at.longest() for at in points), strict=True))
            return (move, *((min(first, second_length),) * 2 if curved else (first, second_length)))

        _, first, second = step(0.0, None)
        predicted = sum(at.after(first, second) for at in points) / kinds
        share, aim = first * second if careful else 1.0, mu * min(1.0, predicted / mu) ** 3
        move, first, second = step(aim, [at.second_order(share) for at in points])
        first, second = min(1.0, _TO_BOUNDARY * first), min(1.0, _TO_BOUNDARY * second)
        multipliers = multipliers + second * move
        for at in points:
            at.move(first, second)
