"""Claims: where a worst case cannot change the direction, and where it hides one (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import expm1, log, log1p, sqrt
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import TotalVariation, worst_case
from proofs_check.claim import Array, Claim, Instances, mutant, shrunk, stated, swapped
from proofs_check.exact.certificates import exact_tv

if TYPE_CHECKING:
    pass

Row = tuple[int, ...]
_PARTS = 16  # sizes are multiples of 1/16


@dataclass(frozen=True)
class Separable:
    """Differences of pairs in the plane, row after row, in quarters, masses, the norm R, a radius in 16ths."""

    quarters: Row
    masses: Row
    norm: float
    parts: int

    @property
    def rows(self) -> Array:
        """The x_i, ``(k, 2)``."""
        return np.array(self.quarters, float).reshape(-1, 2) / 4

    @property
    def reference(self) -> Array:
        """P."""
        return np.array(self.masses) / sum(self.masses)


@dataclass(frozen=True)
class Covered:
    """Features of scenarios, row after row, a direction, masses, a total-variation radius in 16ths."""

    features: Row
    direction: Row
    masses: Row
    parts: int

    @property
    def rows(self) -> list[Row]:
        """The x_i."""
        d = len(self.direction)
        return [self.features[i : i + d] for i in range(0, len(self.features), d)]

    @property
    def squares(self) -> list[Fraction]:
        """(v'x)^2/|v|^2 of each scenario."""
        length = sum(v * v for v in self.direction)
        return [Fraction(sum(v * x for v, x in zip(self.direction, r, strict=True)) ** 2, length) for r in self.rows]

    @property
    def seen(self) -> Fraction:
        """P(v'x != 0)."""
        return Fraction(sum(m for m, s in zip(self.masses, self.squares, strict=True) if s), sum(self.masses))

    @property
    def largest(self) -> int:
        """The largest |x|^2."""
        return max(sum(x * x for x in row) for row in self.rows)


@stated
def separable_margin() -> Claim[Separable]:
    """Once a model separates the pairs, robust and plain fits share the direction of the largest margin.

    Problem: pairs that some direction ranks right, with the largest margin g = max over |u| = 1 of min_i <u, x_i> > 0;
        w_R minimises the total-variation worst case of softplus(-<w, x_i>) over |w| <= R.
    Guarantee: min_i <w_R, x_i> >= -log expm1(log1p(e^(-R g))/p_min) >= R g - log(1/p_min) - o(1), for every radius, 0
        included: divided by R all of them tend to g, the margin of the one best direction.
    Source: derived; the limit is that of 2201.12293. L(w) >= E l >= p_min softplus(-min margin), and L(w_R) <=
        L(R u) <= softplus(-R g).
    Example: one pair: equality, the margin is R g.
    """

    def bound(x: Separable, least: float | None = None) -> float:
        least = float(min(x.reference)) if least is None else least
        return -log(expm1(log1p(np.exp(-x.norm * _margin(x.rows))) / least))

    claim = Claim[Separable](
        label="separable-margin",
        statement="min_i <w_R, x_i> >= -log expm1(log1p(e^(-R g))/p_min) >= ~ R g - log(1/p_min), g the largest margin",
        reference="theory.md section 3; 2201.12293",
        assumptions={
            "separable by at least 1/8": lambda x: _margin(x.rows) >= 1 / 8,
            "1/2 <= R <= 32": lambda x: 1 / 2 <= x.norm <= 32,
            "masses at least 1/1024 of the largest": lambda x: min(x.masses) * 1024 >= max(x.masses),
            "0 <= radius < 1": lambda x: 0 <= x.parts < _PARTS,
        },
        instances=_separable(),
        lhs=bound,
        rhs=_fitted_margin,
        scale=lambda x: 1 + x.norm * float(np.linalg.norm(x.rows, axis=1).max()),
        effort=0.1,
    )
    masses = mutant(claim, "log(1/p_min) forgotten", lhs=lambda x: bound(x, 1.0))
    half = mutant(claim, "half of it", lhs=lambda x: bound(x, sqrt(float(min(x.reference)))))
    return claim.with_mutants(masses, half, swapped(claim))


@stated
def coverage_caps_the_radius() -> Claim[Covered]:
    """An adversary over scenarios can take away the data that a direction is learnt from.

    Problem: Sigma_q = E_q x x', balls around p; a direction v with P(v'x = 0) > 0.
    Guarantee (tight: one-hot features): min over TV(rho) of lambda_min(Sigma_q) <= (P(v'x != 0) - rho)_+ max |x|^2. So
        0 from rho = P(v'x != 0) on, KL from -log P(v'x = 0), chi-square from (1/P(v'x = 0) - 1)/2. Assuming that
        Sigma_q >= lambda on the ball (2502.01930, Assumption 2) says nothing from there on: KL(.2) for 6 one-hot.
    Source: theory.md section 3: move rho from the scenarios that v sees to one that it does not see.
    Example: d one-hot prompts, equally likely: 0 from rho = 1/d on.
    """

    def sides(x: Covered) -> list[float]:
        return [_smallest_eigenvalue(x), _least_square(x)]

    def bounds(x: Covered, radius: float | None = None) -> list[float]:
        moved = x.parts / _PARTS if radius is None else radius
        return [_least_square(x), max(float(x.seen) - moved, 0.0) * x.largest]

    claim = Claim[Covered](
        label="coverage-caps-the-radius",
        statement="min_q lambda_min(Sigma_q) <= (P(v'x != 0) - rho)_+ max |x|^2 over TV(rho), P(v'x = 0) > 0",
        reference="theory.md section 3; 2502.01930",
        assumptions={
            "whole rows, a mass for each": lambda x: len(x.features) == len(x.direction) * len(x.masses),
            "v is not 0, and does not see all": lambda x: any(x.direction) and 0 < x.seen < 1,
            "0 <= radius <= 1": lambda x: 0 <= x.parts <= _PARTS,
        },
        instances=_covered(),
        lhs=sides,
        rhs=bounds,
        scale=lambda x: float(x.largest),
        tight=True,
        verifies=_coverage_verified,
        effort=0.5,
    )
    twice = mutant(claim, "twice the radius", rhs=lambda x: bounds(x, x.parts / 8))
    fixed = mutant(claim, "the coverage of p stays", lhs=lambda x: float(x.seen) * x.largest, rhs=_least_square)
    return claim.with_mutants(shrunk(claim), twice, fixed)


def _margin(rows: Array) -> float:
    """The largest of the smallest margins of a unit vector: at one row, or where two rows have the same margin."""
    candidates = [row for row in rows if row.any()]
    for i, row in enumerate(rows):
        for other in rows[:i]:
            step = row - other
            if step.any():
                across = np.array([-step[1], step[0]])
                candidates += [across, -across]
    units = np.array([row / np.linalg.norm(row) for row in candidates]) if candidates else np.zeros((1, 2))
    return float((units @ rows.T).min(axis=1).max())


@lru_cache(maxsize=512)
def _fitted_margin(x: Separable) -> float:
    """The smallest margin at the minimiser, which has norm R: its angle, on a grid that is refined four times."""
    middle, width, ball = 0.0, np.pi, TotalVariation(x.parts / _PARTS)
    for _ in range(5):
        angles = middle + np.linspace(-width, width, 193)
        margins = x.norm * np.stack([np.cos(angles), np.sin(angles)], axis=1) @ x.rows.T
        values = worst_case(np.logaddexp(0.0, -margins), ball, reference=x.reference).value
        middle, width = float(angles[np.argmin(values)]), width / 48
    return float((x.norm * np.array([np.cos(middle), np.sin(middle)]) @ x.rows.T).min())


def _separable() -> Instances[Separable]:
    corners = (
        Separable((4, 0, 0, 4), (999, 1), 16.0, 0),
        Separable((4, 0, 0, 4), (999, 1), 16.0, 4),
        Separable((4, 0), (1,), 2.0, 4),
        Separable((4, 1, 1, 4, 4, 4), (1, 1, 6), 8.0, 8),
    )
    powers = st.integers(0, 10).map(lambda k: 2**k)
    row = st.tuples(st.integers(1, 8), st.integers(-8, 8), powers)

    def built(d: tuple[list[tuple[int, int, int]], int, int]) -> Separable:
        flat = tuple(number for a, b, _ in d[0] for number in (a, b))
        return Separable(flat, tuple(mass for _, _, mass in d[0]), 2.0 ** d[1], d[2])

    norms, radii = st.integers(-1, 5), st.one_of(st.just(0), st.integers(0, _PARTS - 1))
    # A rare pair pulls the harder the further it lies to the side: it has to be outweighed for the margin to stay.
    aside = st.tuples(st.integers(1, 8), st.integers(1, 2), st.integers(2, 8), powers).map(
        lambda x: [(x[0], x[1], x[3]), (x[0], -x[2], 1)]
    )
    pairs = st.one_of(st.lists(row, min_size=1, max_size=4), aside)
    return Instances(Separable, corners, st.tuples(pairs, norms, radii).map(built))


def _ball(x: Covered) -> TotalVariation:
    return TotalVariation(x.parts / _PARTS)


def _least_square(x: Covered) -> float:
    """The least E_q (v'x)^2/|v|^2."""
    masses = np.array(x.masses) / sum(x.masses)
    return -float(worst_case(-np.array(x.squares, float), _ball(x), reference=masses).value)


def _smallest_eigenvalue(x: Covered) -> float:
    """Of Sigma_q, q the worst case for the direction."""
    masses, rows = np.array(x.masses) / sum(x.masses), np.array(x.rows, float)
    q = worst_case(-np.array(x.squares, float), _ball(x), reference=masses).weights
    return float(np.linalg.eigvalsh((rows.T * q) @ rows)[0])


def _coverage_verified(x: Covered) -> bool:
    """The least E_q (v'x)^2/|v|^2, which no eigenvalue exceeds; and p, given v'x = 0, lies in the balls, at 0."""
    radius = Fraction(x.parts, _PARTS)
    least = -exact_tv([-square for square in x.squares], list(x.masses), radius)
    below = max(x.seen - radius, Fraction(0)) * x.largest
    unseen = [Fraction(0) if s else Fraction(m, sum(x.masses)) for m, s in zip(x.masses, x.squares, strict=True)]
    q = [mass / sum(unseen) for mass in unseen]
    hidden = sum((w * square for w, square in zip(q, x.squares, strict=True)), Fraction(0))
    p = [Fraction(mass, sum(x.masses)) for mass in x.masses]
    distance = sum(((a - b) ** 2 / b for a, b in zip(q, p, strict=True)), Fraction(0)) / 2
    return least <= below and hidden == 0 and distance == (1 / (1 - x.seen) - 1) / 2


def _covered() -> Instances[Covered]:
    hot = tuple(int(i == j) for i in range(6) for j in range(6))
    corners = (
        Covered(hot, (1, 0, 0, 0, 0, 0), (1,) * 6, 2),
        Covered((1, 0, 0, 1), (1, 0), (1, 1), 4),
        Covered((1, 0, 0, 1), (1, 0), (1, 1), 8),
        Covered((2, 1, 0, 1, 1, -1), (1, 0), (1, 2, 1), 3),
    )

    def of_size(d: int) -> st.SearchStrategy[Covered]:
        direction = st.tuples(*[st.integers(-1, 1)] * d)
        rows = st.lists(st.tuples(*[st.integers(-2, 2)] * d, st.integers(1, 6)), min_size=2, max_size=5)
        return st.tuples(rows, direction, st.integers(0, _PARTS)).map(
            lambda g: Covered(
                tuple(number for row in g[0] for number in row[:-1]), g[1], tuple(row[-1] for row in g[0]), g[2]
            )
        )

    return Instances(Covered, corners, st.integers(1, 3).flatmap(of_size))
