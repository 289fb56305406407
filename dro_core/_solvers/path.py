"""The path of solutions of a quadratic program over the simplex, as its price falls: no conic solver, no step size.

For a price 1/t the solution of max t <q, l> - (q - p)' K (q - p) / 2 is unique and piecewise linear in t, as in the
critical-line method for portfolios: between two events the positive entries of q move along a line, and an event is an
entry that reaches zero or leaves it. The path starts at q = p for t = 0; along it the length |q - p|, the root of the
quadratic form, grows, and |q - p| / t, which is what a longer move is worth, falls.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.linalg as _untyped  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

Vector = NDArray[np.float64]
_linalg: Any = _untyped  # ships no type hints
_ROUNDING = 8 * np.finfo(np.float64).eps  # of the largest slope: what falls more slowly stands still


class Line(NamedTuple):
    """One stretch of the path: q - p = start + t slope, and the multipliers of q >= 0, slack + t lean.

    Its length is the root of square t^2 + 2 cross t + constant.
    """

    start: Vector
    slope: Vector
    slack: Vector
    lean: Vector
    square: float
    cross: float
    constant: float


class End(Protocol):
    """Says at which t a line ends: infinity if it does not."""

    def __call__(self, line: Line) -> float: ...


class Reached(NamedTuple):
    """The point where the path ended: q ``(n,)``, K (q - p) / t ``(n,)``, and |q - p| / t.

    At t = 0, where the path leaves p, the last two are those of the direction in which it leaves.
    """

    weights: Vector
    pull: Vector
    worth: float


def follow(losses: Vector, matrix: Vector, p: Vector, end: End) -> Reached:
    """Follow the path until it ends, or to the distribution that is worst among all: there a longer move is worth 0.

    Args:
        losses: Shape ``(n,)``, of range 1 or 0.
        matrix: K, shape ``(n, n)``, positive definite and near 1.
        p: Shape ``(n,)``.
        end: Where to stop.
    """
    free, t, entry = np.ones(len(losses), dtype=bool), 0.0, -1
    for _ in range(20 * len(losses) + 20):
        line = _line(matrix, losses, p, free)
        entry, event = _next_event(line, p, free, t, entry)
        t = max(end(line), t)  # rounding can put it before the line's first point
        if t < event or np.isinf(event):
            return _reached(line, matrix, p, free, t)
        free[entry] = ~free[entry]
        t = event
    raise ArithmeticError(f"the path of solutions for {len(losses)} scenarios does not end: condition the kernel.")


def at_length(length: float) -> End:
    """End where the move has this length."""

    def end(line: Line) -> float:
        square, cross, left = line.square, line.cross, line.constant - length**2
        if square <= 1e-26:
            return np.inf if left < 0 else 0.0
        return (-cross + max(cross**2 - square * left, 0.0) ** 0.5) / square

    return end


def at_worth(worth: float) -> End:
    """End where a longer move is worth no more than this."""

    def end(line: Line) -> float:
        square, cross = line.square - worth**2, line.cross
        if line.constant == 0:  # the line starts at p: all of it is worth the same
            return 0.0 if square <= 0 else np.inf
        inside = cross**2 - square * line.constant
        below = -cross + max(inside, 0.0) ** 0.5
        return line.constant / below if inside >= 0 and below > 0 else np.inf

    return end


def _line(matrix: Vector, losses: Vector, p: Vector, free: NDArray[np.bool_]) -> Line:
    """Solve the optimality conditions t l - K d - nu + s = 0 with d = -p off the free entries and s = 0 on them."""
    n, rest = len(losses), ~free
    factor = _linalg.cho_factor(matrix[np.ix_(free, free)])
    top = losses[free].max()  # taken off, so that where the losses are equal nothing moves
    right = np.stack([np.ones(int(free.sum())), losses[free] - top, matrix[np.ix_(free, rest)] @ p[rest]], axis=1)
    solved: Vector = _linalg.cho_solve(factor, right)
    ones, steep, given = solved.T
    level, tilt = (given.sum() - p[rest].sum()) / ones.sum(), steep.sum() / ones.sum()  # nu = level + t tilt
    start, slope = -p, np.zeros(n)
    start[free], slope[free] = given - level * ones, steep - tilt * ones
    held, moved = matrix @ start, matrix @ slope
    squares = float(slope @ moved), float(slope @ held), max(float(start @ held), 0.0)
    return Line(start, slope, held + level, moved + (tilt + top) - losses, *squares)


def _next_event(line: Line, p: Vector, free: NDArray[np.bool_], t: float, last: int) -> tuple[int, float]:
    """Which entry changes sides next, and at which t: infinity if none does.

    Rounding can put an event a little into the past. Of several at once the first entry goes first, which is Murty's
    rule: in any other order they may change sides for ever. ``last`` has just changed, and cannot want to go back.
    """
    value = np.where(free, p + line.start, line.slack)
    change = np.where(free, line.slope, line.lean)
    falling = change < -_ROUNDING * max(1.0, float(np.max(np.abs(line.slope))))
    times = np.maximum(np.where(falling, value / np.where(falling, -change, 1.0), np.inf), t)
    if last >= 0 and times[last] == t:
        times[last] = np.inf
    entry = int(np.argmin(times))
    return entry, float(times[entry])


def _reached(line: Line, matrix: Vector, p: Vector, free: NDArray[np.bool_], t: float) -> Reached:
    move = line.start if np.isinf(t) else line.start + t * line.slope
    weights = np.where(free, np.maximum(p + move, 0.0), 0.0)
    step = np.zeros_like(move) if np.isinf(t) else move / t if t > 0 else line.slope
    pull = matrix @ step
    return Reached(weights / weights.sum(), pull, max(float(step @ pull), 0.0) ** 0.5)
