"""Linear programs and linear equations in integers: no rounding, so what comes out proves itself."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    Matrix = Sequence[Sequence[int]]


class Vertex(NamedTuple):
    """A program's value, with a point and prices (one for each row) that have it as their objectives."""

    value: Fraction
    point: list[Fraction]
    prices: list[Fraction]


def maximum(objective: Sequence[int], rows: Matrix, limits: Sequence[int]) -> Vertex:
    """Return max <c, z> over A z <= b, z >= 0, where z = 0 is feasible: b >= 0.

    The simplex method on integers over one denominator, the last pivot (Edmonds), with Bland's rule, so it ends.

    Args:
        objective: c, ``(k,)``.
        rows: A, ``(m, k)``.
        limits: b, ``(m,)``, nonnegative.

    Raises:
        ValueError: A negative limit.
        ArithmeticError: The program is unbounded.

    Example:
        >>> maximum([3, 2], [[1, 1], [3, 1]], [4, 6]).value
        Fraction(9, 1)
    """
    if min(limits, default=0) < 0:
        raise ValueError(f"`limits` must be nonnegative, so that 0 is feasible, got {list(limits)}.")
    k, m = len(objective), len(rows)
    table = [[*row, limit] for row, limit in zip(rows, limits, strict=True)]
    table.append([*(-c for c in objective), 0])
    outside, inside, over = list(range(k)), list(range(k, k + m)), 1
    while (column := _entering(table[-1], outside)) is not None:
        row = _leaving(table, column, inside)
        over = _pivot(table, row, column, over)
        outside[column], inside[row] = inside[row], outside[column]
    values = dict(zip(inside, (Fraction(line[-1], over) for line in table), strict=False))
    costs = dict(zip(outside, (Fraction(entry, over) for entry in table[-1]), strict=False))
    point, prices = ([part.get(j, Fraction(0)) for j in span] for part, span in _spans(values, costs, k, m))
    return Vertex(Fraction(table[-1][-1], over), point, prices)


def solution(rows: Sequence[Sequence[Fraction]], targets: Sequence[Fraction]) -> list[Fraction] | None:
    """Return some z with A z = b, zero where a column depends on those before it; None if there is none.

    Args:
        rows: A, ``(m, k)``.
        targets: b, ``(m,)``.

    Example:
        >>> solution([[Fraction(2), Fraction(4)]], [Fraction(3)])
        [Fraction(3, 2), Fraction(0, 1)]
    """
    left = [[*row, target] for row, target in zip(rows, targets, strict=True)]
    k, done = len(rows[0]), list[tuple[int, list[Fraction]]]()
    for column in range(k):
        pivot = next((row for row in left if row[column]), None)
        if pivot is None:
            continue
        left.remove(pivot)
        pivot = [entry / pivot[column] for entry in pivot]
        left = [_cleared(row, pivot, column) for row in left]
        done = [(at, _cleared(row, pivot, column)) for at, row in done] + [(column, pivot)]
    if any(row[-1] for row in left):
        return None
    found = [Fraction(0)] * k
    for column, row in done:
        found[column] = row[-1]
    return found


def _cleared(row: list[Fraction], pivot: list[Fraction], column: int) -> list[Fraction]:
    factor = row[column]
    return [entry - factor * by for entry, by in zip(row, pivot, strict=True)] if factor else row


def _spans(
    values: dict[int, Fraction], costs: dict[int, Fraction], k: int, m: int
) -> tuple[tuple[dict[int, Fraction], range], tuple[dict[int, Fraction], range]]:
    """Variables 0 ... k - 1 are those of the program, the rest are the slacks, whose costs are the prices."""
    return (values, range(k)), (costs, range(k, k + m))


def _entering(costs: list[int], outside: list[int]) -> int | None:
    gaining = [column for column, cost in enumerate(costs[:-1]) if cost < 0]
    return min(gaining, key=outside.__getitem__, default=None)


def _leaving(table: list[list[int]], column: int, inside: list[int]) -> int:
    bounding = [row for row in range(len(inside)) if table[row][column] > 0]
    if not bounding:
        raise ArithmeticError("the linear program is unbounded")
    return min(bounding, key=lambda row: (Fraction(table[row][-1], table[row][column]), inside[row]))


def _pivot(table: list[list[int]], row: int, column: int, over: int) -> int:
    """Exchange a variable inside with one outside; every division leaves no rest."""
    chosen = table[row]
    pivot = chosen[column]
    for at, line in enumerate(table):
        if at == row:
            continue
        factor = line[column]
        if factor:
            table[at] = [(entry * pivot - factor * by) // over for entry, by in zip(line, chosen, strict=True)]
        else:
            table[at] = [entry * pivot // over for entry in line]
        table[at][column] = -factor
    chosen[column] = over
    return pivot
