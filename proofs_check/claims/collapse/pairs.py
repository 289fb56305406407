"""Pairs with features: the instances of the claims about the collapse radius, and radii on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import exp, inf
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from dro_core import margin_collapse
from proofs_check.claim import Array, Assumptions
from proofs_check.exact.balance import EXACT, dot, exact_balance

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[int, ...]
Rows = tuple[Row, ...]


@dataclass(frozen=True)
class Pairs:
    """Features x, chosen minus rejected, on a lattice, one row per pair; masses proportional to p; a kind of set."""

    rows: Rows
    masses: Row
    kind: str

    @property
    def features(self) -> Array:
        """x, ``(n, d)``."""
        return np.array(self.rows, float)

    @property
    def reference(self) -> Array:
        """The distribution p."""
        return np.array(self.masses) / sum(self.masses)


ADMITTED: Assumptions[Any] = {
    "masses of 1 to 64": lambda x: 1 <= min(x.masses) <= max(x.masses) <= 64,
    "features in [-8, 8]": lambda x: np.max(np.abs(x.rows)) <= 8,
}


def reach(kind: str, size: float | Fraction | None) -> float:
    """Return a size of a set on a scale that grows with the set: 0 where p balances, 1 where nothing does.

    rho for "tv", 1 - alpha for "cvar", 2 rho / (1 + 2 rho) for "chi2", 1 - e^-rho for "kl" and "burg". All but Burg's
    are convex in p. None, and an alpha of 0, is a set of no size.
    """
    return float(exact_reach(kind, size)) if kind in EXACT or size is None else 1 - exp(-float(size))


def exact_reach(kind: str, size: float | Fraction | None) -> Fraction:
    """Return ``reach`` in rational numbers, for the sets that have one."""
    if size is None or size == inf:
        return Fraction(1)
    exact = Fraction(size)
    return min(exact, Fraction(1)) if kind == "tv" else 1 - exact if kind == "cvar" else 1 - 1 / (1 + 2 * exact)


def balance_reach(rows: Sequence[Sequence[int | Fraction]], masses: Sequence[int | Fraction], kind: str) -> Fraction:
    """Return the exact ``reach`` of the least set that collapses, proved from both sides."""
    return exact_reach(kind, exact_balance(rows, masses, kind).size)


def exact_size(values: Sequence[float | Fraction], masses: Sequence[int], kind: str) -> Fraction | None:
    """Return the least size with a q of mean margin <= 0; None if there is none."""
    exact = [Fraction(value) for value in values]
    if sum(map(mul, exact, masses)) <= 0:
        return Fraction(int(kind == "cvar"))
    return exact_balance([(value,) for value in exact], masses, kind).size


def margin_reach(x: Pairs, reward: Sequence[int | float | Fraction]) -> float:
    """Return the ``reach`` at which the margins <w, x> collapse, as dro_core finds it."""
    exact = [Fraction(entry) for entry in reward]
    margins = [dot(row, exact) for row in x.rows]
    scale = max(map(abs, margins)) or Fraction(1)  # a margin that is 0 stays so
    return reach(x.kind, float(margin_collapse([float(m / scale) for m in margins], x.kind, reference=x.reference)))


def lattice(n: int, d: int, largest: int = 4) -> st.SearchStrategy[Rows]:
    """Draw two to n rows of d features."""
    row = st.tuples(*[st.integers(-largest, largest)] * d)
    return st.lists(row, min_size=2, max_size=n).map(tuple)


def weighed(rows: st.SearchStrategy[Rows], largest: int = 8) -> st.SearchStrategy[tuple[Rows, Row]]:
    """Draw rows with masses."""
    return rows.flatmap(lambda given: st.tuples(st.just(given), st.tuples(*[st.integers(1, largest)] * len(given))))


# Signs; a strong direction beside a weak one; a face with a row beyond it; separable; p balances already.
CORNERS: tuple[tuple[Rows, Row], ...] = (
    (((1,), (-1,)), (3, 1)),
    (((1, 0), (-1, 0), (0, 2), (0, -1)), (3, 1, 4, 1)),
    (((1, 0), (-1, 0), (0, 2)), (3, 1, 4)),
    (((2, 1), (-1, 1), (1, -1), (-1, -2), (3, 0)), (5, 1, 1, 1, 2)),
    (((1, 2), (2, -1)), (1, 1)),
    (((1,), (-2,)), (2, 1)),
    (((1,), (2,), (3,)), (1, 2, 3)),
)
