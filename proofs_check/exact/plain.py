"""Exact data as JSON."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, cast


def plain(value: Any) -> Any:
    """Return exact data as JSON: a number that is not whole as text like 3/4; floats at their binary value.

    Example:
        >>> plain({"a": (0.5, 3, Fraction(1, 3), "tv")})
        {'a': ['1/2', 3, '1/3', 'tv']}
    """
    if isinstance(value, dict):
        return {name: plain(one) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in cast("list[Any]", value)]
    if isinstance(value, float | Fraction):
        exact = Fraction(value)
        return exact.numerator if exact.denominator == 1 else str(exact)
    return value
