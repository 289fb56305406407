"""The size of a set: one number, or one for each problem of a batch."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from .._solvers import arrays, graph
from .._solvers.arrays import Array
from .._solvers.sizes import Size


def checked_number(field: str, meaning: str, interval: str, value: object, remedy: str) -> float:
    """Return ``value`` as a float if it is a real number inside ``interval``, written like ``"(0, 1]"``.

    Raises:
        ValueError: In one sentence: the field, what it means, the interval, the value given, and what to do.
    """
    given: Any = value
    learned = graph.is_tensor(given) and graph.may_have_gradient(given)
    one: Any = given.item() if hasattr(given, "dtype") and np.ndim(given) == 0 and not learned else given
    if isinstance(one, (int, float, numbers.Real)) and not isinstance(one, bool):
        number = float(one)
        if _inside(interval, number):
            return number
    raise ValueError(f"`{field}` is {meaning} and must lie in {interval}, got {given!r}. {remedy}")


def _inside(interval: str, number: Any) -> Any:
    """Whether a number, or each of several, lies in an interval; NaN lies in none."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = number >= low if interval[0] == "[" else number > low
    return above & (number <= high if interval[-1] == "]" else number < high)


def checked_size(field: str, meaning: str, interval: str, value: object, remedy: str) -> Size:
    """Return a number as ``checked_number`` does; a copy in float64 of an array with one number per problem.

    A tensor stays in its gradient graph. Where no one can look, as in ``torch.vmap``, what lies outside is NaN.

    Raises:
        TypeError: An array that does not hold real numbers.
        ValueError: A number outside the interval; the row of the first one in an array is named.
    """
    given: Any = value
    if not hasattr(given, "ndim") or isinstance(given, np.generic):
        return checked_number(field, meaning, interval, value, remedy)
    if isinstance(given, (np.ma.MaskedArray, np.matrix)):
        raise TypeError(f"`{field}` must be a number or a plain array, one number per problem; fill masked ones first.")
    xp = arrays.namespace_of(given)
    if not xp.isdtype(given.dtype, ("real floating", "integral")):
        raise TypeError(f"`{field}` must hold real numbers, got dtype {given.dtype}; cast it first.")
    sizes = xp.astype(given, xp.float64, copy=True)
    numbers_only = sizes.detach() if graph.is_tensor(sizes) else sizes
    inside = _inside(interval, numbers_only)
    if not arrays.can_be_looked_at(inside):
        return xp.where(inside, sizes, xp.nan)
    if not bool(xp.all(inside)):
        row = tuple(int(axis[0]) for axis in xp.nonzero(~inside)) if sizes.ndim else ()
        where = f" in row {row[0] if len(row) == 1 else row}" if row else ""
        raise ValueError(
            f"`{field}` is {meaning} and must lie in {interval}, got {float(numbers_only[row])!r}{where}. {remedy}"
        )
    if sizes.ndim == 0 and not (graph.is_tensor(given) and graph.may_have_gradient(given)):
        return float(sizes)
    return sizes


def same(one: Any, other: Any) -> bool:
    """Whether two values of a field are equal, arrays in all entries."""
    if one is other:
        return True
    if hasattr(one, "ndim") or hasattr(other, "ndim"):
        return np.array_equal(*(part.detach().cpu() if graph.is_tensor(part) else part for part in (one, other)))
    return bool(one == other)


def size_in_text(value: Array) -> str:
    """Say how many numbers there are, which is no text to be read back."""
    return f"({'x'.join(map(str, value.shape))} values)" if value.ndim else f"{float(value)!r}"
