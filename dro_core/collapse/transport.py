"""The collapse radius in transport cost: how far mass must move between scenarios before their mean vanishes.

    min_z sum_ij p_i cost_ij z_ij   s.t.   sum_j z_ij = 1,   sum_ij p_i z_ij x_j = 0,   z >= 0.

A linear program in n^2 variables. Its normal equations have n + d rows, of which n fall away one by one: a step of the
interior point costs about n^2 d operations, and some arrays of n^2 numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .._solvers.arrays import Array
from .._solvers.normal import factor, gram

_LINES = 200
_TO_BOUNDARY = 0.995


def transport_margin(values: Array, masses: Array, cost: Array) -> float:
    """Return max_t sum_i p_i min_j (cost_ij + t m_j): the least cost at which the mean margin is <= 0.

    Supporting lines of the concave function are intersected until they meet on it.

    Args:
        values: Margins, shape ``(n,)``; their mean is positive and the least one at most 0.
        masses: Shape ``(n,)``.
        cost: Shape ``(n, n)``.
    """
    sources = masses > 0
    weights, ways = masses[sources], cost[sources]
    lowest = values == values.min()
    # Lines (value at 0, slope): where t is 0, and where t is so large that all mass goes to the least margins.
    rising = (0.0, float(masses @ values))
    falling = (float(weights @ ways[:, lowest].min(axis=1)), float(values.min()))
    for _ in range(_LINES):
        t = (falling[0] - rising[0]) / (rising[1] - falling[1])
        best = np.argmin(ways + t * values, axis=1)
        line = (float(weights @ ways[np.arange(len(ways)), best]), float(weights @ values[best]))
        meeting = rising[0] + t * rising[1]
        if meeting - (line[0] + t * line[1]) <= 1e-14 * meeting or line in (rising, falling):
            return line[0] + t * line[1]
        rising, falling = (line, falling) if line[1] > 0 else (rising, line)
    return rising[0]


class Plan(NamedTuple):
    """Weights ``(n,)`` that a plan of that cost reaches, and a direction ``(k,)`` of positive margins."""

    weights: Array
    cost: float
    direction: Array


def transport_path(rows: Array, masses: Array, cost: Array) -> Iterator[Plan]:
    """Yield plans and directions, better at every step.

    Args:
        rows: Shape ``(n, k)``, whitened columns.
        masses: p, shape ``(n,)``; rows without mass can receive some.
        cost: Shape ``(n, n)``.
    """
    sources = masses > 0
    weights, ways = masses[sources], cost[sources]
    unit = max(float(ways.mean()), 1e-300)
    ways = ways / unit
    z, price = np.full(ways.shape, 1 / len(rows)), np.ones(ways.shape)
    offset, pull = np.zeros(len(ways)), np.zeros(rows.shape[1])
    while True:
        plan = z / z.sum(axis=1, keepdims=True)
        yield Plan(weights @ plan, unit * float(weights @ np.sum(plan * ways, axis=1)), -pull)
        step = _Step(rows, weights, z, price, ways - offset[:, None] - rows @ pull - price)
        mu = float(weights @ np.mean(z * price, axis=1))
        step.toward(0.0, None)
        first, second = step.longest()
        after = (z + first * step.dz) * (price + second * step.dprice)
        shrinking = float(weights @ np.mean(after, axis=1)) / mu
        step.toward(mu * min(1.0, shrinking) ** 3, step.dz * step.dprice)
        first, second = (min(1.0, _TO_BOUNDARY * length) for length in step.longest())
        z, price = z + first * step.dz, price + second * step.dprice
        offset, pull = offset + second * step.doffset, pull + second * step.dpull


class _Step:
    """The Newton system at a plan z and its prices ``(m, n)``, and the step it gives."""

    def __init__(self, rows: Array, weights: Array, z: Array, price: Array, residual: Array) -> None:
        self._rows, self._weights, self._z, self._price, self._residual = rows, weights, z, price, residual
        self._give = z / price
        self._total = self._give.sum(axis=1)
        self._shared = self._give @ rows
        received = weights @ self._give
        self._solve = factor(gram(rows, received) - gram(self._shared, weights / self._total))

    def toward(self, mu: float, second: Array | None) -> None:
        """Find the step toward complementary products of size ``mu``, less their second-order terms."""
        rows, weights, z, price = self._rows, self._weights, self._z, self._price
        goal = mu if second is None else mu - second
        force = goal / z - price - self._residual
        given = self._give * force
        missing = 1 - z.sum(axis=1) - given.sum(axis=1)
        unbalanced = -rows.T @ (weights @ (z + given)) - self._shared.T @ (weights * missing / self._total)
        self.dpull = self._solve(unbalanced)
        self.doffset = (missing - self._shared @ self.dpull) / self._total
        self.dz = self._give * (self.doffset[:, None] + rows @ self.dpull + force)
        self.dprice = (goal - price * self.dz) / z - price

    def longest(self) -> tuple[float, float]:
        """Return the longest steps of the plan and of the prices that stay inside, at most 1."""
        pairs = ((self._z, self.dz), (self._price, self.dprice))
        first, second = (1 / max(1.0, float(np.max(-step / old))) for old, step in pairs)
        return first, second
