"""Sizes of sets: a number, which Python computes with at no cost, or an array with one number per problem."""

from __future__ import annotations

import math
from typing import Any

from .arrays import Array, Namespace, at_least, at_most

Size = float | Array  # in a solver an array is (*batch, 1), in float64


def raised(xp: Namespace, size: Size, floor: float) -> Any:
    """Raise to ``floor``."""
    return max(size, floor) if isinstance(size, float) else at_least(xp, size, floor)


def lowered(xp: Namespace, size: Size, ceiling: float) -> Any:
    """Lower to ``ceiling``."""
    return min(size, ceiling) if isinstance(size, float) else at_most(xp, size, ceiling)


def log1p(xp: Namespace, size: Size) -> Any:
    """Return log(1 + size)."""
    return math.log1p(size) if isinstance(size, float) else xp.log1p(size)


def expm1(xp: Namespace, size: Size) -> Any:
    """Return exp(size) - 1."""
    return math.expm1(size) if isinstance(size, float) else xp.expm1(size)


def choose(xp: Namespace, condition: Any, one: Any, other: Any) -> Any:
    """Return ``one`` where a condition on sizes holds, else ``other``."""
    return (one if condition else other) if isinstance(condition, bool) else xp.where(condition, one, other)
