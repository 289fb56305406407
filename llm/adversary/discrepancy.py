"""The worst case in a ball of maximum mean discrepancy, by following its solution path: exact, without a conic solver.

    max_q <q, l>   s.t.   (q - p)' K (q - p) <= radius^2,   q in the simplex.

For a price 1/t of the discrepancy the solution of max t <q, l> - (q - p)' K (q - p) / 2 is unique and piecewise linear
in t, as in the critical-line method for portfolios: between two events the positive entries of q move along a line, and
an event is an entry that reaches zero or leaves it. The path starts at q = p for t = 0, and the discrepancy grows along
it, so it is followed until the ball's surface.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Array = NDArray[np.float64]
RIDGE = 1e-6  # added to the diagonal of K: equal prompts would make the solution arbitrary


class _Line(NamedTuple):
    """q - p = start + t slope, and the multipliers of q >= 0, slack + t lean, on one stretch of the path."""

    start: Array
    slope: Array
    slack: Array
    lean: Array


def worst_in_discrepancy(losses: Array, kernel: Array, radius: float, *, reference: Array | None = None) -> Array:
    """Weights ``(n,)`` of the worst case.

    Args:
        losses: Shape ``(n,)``, larger is worse.
        kernel: Shape ``(n, n)``, positive semidefinite; ``RIDGE`` times its largest diagonal entry is added.
        radius: In the unit of the kernel's square root.
        reference: p, shape ``(n,)``, positive; uniform by default.

    Raises:
        ArithmeticError: The path does not end: a kernel that is far from positive semidefinite.

    >>> kernel = np.exp(-np.array([[0, 0.01, 9], [0.01, 0, 8.41], [9, 8.41, 0]]) / 2)  # the first two are alike
    >>> worst_in_discrepancy(np.array([1.0, 0.0, 0.5]), kernel, 0.05).round(3).tolist()
    [0.692, 0.0, 0.308]
    """
    n = len(losses)
    p = np.full(n, 1 / n) if reference is None else reference
    spread = float(np.ptp(losses))
    if spread == 0 or radius == 0 or n == 1:
        return p
    centred = (losses - losses.max()) / spread
    scale = float(np.max(np.diag(kernel)))
    matrix = kernel / scale + RIDGE * np.eye(n)
    free, t = np.ones(n, dtype=bool), 0.0
    for _ in range(20 * n + 20):
        line = _line(matrix, centred, p, free)
        leaves, event = _next_event(line, p, free, t)
        reached = _surface(matrix, line, radius / scale**0.5)
        if reached <= event or np.isinf(event):
            end = 0.0 if np.isinf(reached) else reached
            weights = np.where(free, np.maximum(p + line.start + end * line.slope, 0.0), 0.0)
            return weights / weights.sum()
        free[leaves] = ~free[leaves]
        t = event
    raise ArithmeticError(f"the path of a mean discrepancy of {n} scenarios does not end: check the kernel")


def _line(matrix: Array, losses: Array, p: Array, free: NDArray[np.bool_]) -> _Line:
    """Solve the optimality conditions t l - K d - nu + s = 0 with d = -p off the free entries and s = 0 on them."""
    n, rest = len(losses), ~free
    factor = cho_factor(matrix[np.ix_(free, free)])
    right = np.stack([np.ones(int(free.sum())), losses[free], matrix[np.ix_(free, rest)] @ p[rest]], axis=1)
    ones, steep, given = cho_solve(factor, right).T
    level, tilt = (given.sum() - p[rest].sum()) / ones.sum(), steep.sum() / ones.sum()  # nu = level + t tilt
    start, slope = -p.copy(), np.zeros(n)
    start[free], slope[free] = given - level * ones, steep - tilt * ones
    return _Line(start, slope, matrix @ start + level, matrix @ slope + tilt - losses)


def _next_event(line: _Line, p: Array, free: NDArray[np.bool_], t: float) -> tuple[int, float]:
    """Which entry changes sides next, and at which t: infinity if none does."""
    value = np.where(free, p + line.start, line.slack)
    change = np.where(free, line.slope, line.lean)
    falling = change < -1e-13
    times = np.where(falling, value / np.where(falling, -change, 1.0), np.inf)
    entry = int(np.argmin(times))
    return entry, max(float(times[entry]), t)  # rounding can put an event a little into the past


def _surface(matrix: Array, line: _Line, radius: float) -> float:
    """The t at which the line leaves the ball: infinity if it does not."""
    moved, pulled = matrix @ line.slope, matrix @ line.start
    square, cross, constant = line.slope @ moved, line.slope @ pulled, line.start @ pulled - radius**2
    if square <= 1e-26:
        return np.inf if constant < 0 else 0.0
    return float((-cross + max(cross**2 - square * constant, 0.0) ** 0.5) / square)
