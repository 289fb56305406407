"""False claims about numbers, counts and vectors, each with an instance that shows it, of which the search is not told.

Of the kinds in which a search is weak: rates that fail at large n, constants that fail in high dimension, bounds a
little too small, thin bands of parameters, equalities that break at the end of a range. One table drives this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, cos, exp, log, sin, sqrt
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from proofs_check import Claim, Instances, Relation
from proofs_check.claim import dyadic


class Planted(NamedTuple):
    """A false claim, what makes it hard to refute, and an instance that violates it."""

    claim: Claim[Any]
    kind: str
    witness: Any


@dataclass(frozen=True)
class Real:
    x: float


@dataclass(frozen=True)
class Whole:
    n: int


@dataclass(frozen=True)
class Plane:
    x: float
    y: float


@dataclass(frozen=True)
class Powered:
    n: int
    x: float


@dataclass(frozen=True)
class Vector:
    values: tuple[float, ...]


@dataclass(frozen=True)
class Vectors:
    first: tuple[float, ...]
    second: tuple[float, ...]


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Softmax:
    """Steps of natural policy gradient on one prompt with one good answer."""

    actions: int
    step: float
    steps: int


def false(
    where: Instances[Any],
    lhs: Callable[[Any], Any],
    rhs: Callable[[Any], Any],
    admits: Callable[[Any], bool],
    **more: Any,
) -> Claim[Any]:
    scale = more.pop("scale", lambda x: 1.0)
    return Claim(
        label="planted",
        statement="",
        reference="",
        assumptions={"the domain": admits},
        instances=where,
        lhs=lhs,
        rhs=rhs,
        scale=scale,
        **more,
    )


def counts(most: int) -> Instances[Whole]:
    return Instances(Whole, (Whole(1), Whole(2)), st.integers(1, most).map(Whole))


def reals(low: float, high: float) -> Instances[Real]:
    return Instances(Real, (Real(low), Real((low + high) / 2)), dyadic(low, high).map(Real))


def planes(low: float, high: float) -> Instances[Plane]:
    return Instances(Plane, (Plane(low, low),), st.builds(Plane, dyadic(low, high), dyadic(low, high)))


def vectors(low: float, high: float, *, most: int, least: int = 2) -> Instances[Vector]:
    entries = st.lists(dyadic(low, high), min_size=least, max_size=most).map(tuple)
    return Instances(Vector, (Vector((low, high, (low + high) / 2, high / 2)[: max(least, 2)]),), entries.map(Vector))


def pairs(most: int) -> Instances[Vectors]:
    rows = st.lists(st.tuples(dyadic(-2, 2), dyadic(-2, 2)), min_size=3, max_size=most)
    corner = Vectors((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    return Instances(Vectors, (corner,), rows.map(lambda r: Vectors(*zip(*r, strict=True))))


def matrices(most: int) -> Instances[Matrix]:
    entry = dyadic(-1, 1)
    square = st.integers(2, most).flatmap(lambda d: st.tuples(*[st.tuples(*[entry] * d)] * d))
    return Instances(Matrix, (Matrix(((1.0, 0.5), (0.5, 1.0))),), square.map(Matrix))


def positive(x: Whole) -> bool:
    return x.n >= 1


def norm(values: tuple[float, ...], order: float = 2) -> float:
    return float(np.linalg.norm(values, ord=order))


def bounded(x: Vector) -> bool:
    return max(map(abs, x.values)) <= 4 and max(map(abs, x.values)) >= 1 / 8


def both_long(x: Vectors) -> bool:
    return len(x.first) == len(x.second) and min(norm(x.first), norm(x.second)) >= 1 / 2 and norm(x.first) <= 16


def good_answer(x: Softmax) -> float:
    """The chance of the good answer: its logit grows by the step in every step."""
    return 1 / (1 + (x.actions - 1) * exp(-x.step * x.steps))


def entropy(masses: np.ndarray) -> float:
    p = masses / masses.sum()
    return float(-np.sum(p[p > 0] * np.log(p[p > 0])))


def is_run(x: Softmax) -> bool:
    return x.actions >= 2 and x.steps >= 1


RUNS = Instances(
    Softmax, (Softmax(2, 1.0, 1),), st.builds(Softmax, st.integers(2, 8), dyadic(1 / 16, 2), st.integers(1, 8))
)
LARGE = "large n"
WIDE = "high dimension"
TIGHT = "two per cent"
BAND = "thin band"
END = "end of a range"

NUMBERS: dict[str, Planted] = {
    "central binomial coefficient <= .563 4^n / sqrt n": Planted(
        false(counts(32), lambda x: comb(2 * x.n, x.n) / 4**x.n, lambda x: 0.563 / sqrt(x.n), positive),
        LARGE,
        Whole(64),
    ),
    "(1 - 1/n)^n <= .366": Planted(
        false(counts(64), lambda x: (1 - 1 / x.n) ** x.n, lambda x: 0.366, positive), LARGE, Whole(110)
    ),
    "sum of 1/sqrt t <= 1.97 sqrt T": Planted(
        false(
            counts(2048), lambda x: float(np.sum(np.arange(1, x.n + 1) ** -0.5)) / sqrt(x.n), lambda x: 1.97, positive
        ),
        LARGE,
        Whole(3000),
    ),
    "harmonic numbers <= 2.06 n^(1/5), which fails only in between": Planted(
        false(counts(64), lambda x: float(np.sum(1 / np.arange(1, x.n + 1))), lambda x: 2.06 * x.n**0.2, positive),
        LARGE,
        Whole(83),
    ),
    "log n <= 3.35 n^(1/10)": Planted(
        false(counts(512), lambda x: log(x.n), lambda x: 3.35 * x.n**0.1, positive), LARGE, Whole(700)
    ),
    "n-th root of n! >= n / 2.69": Planted(
        false(
            counts(400),
            lambda x: x.n / 2.69,
            lambda x: exp(float(np.sum(np.log(np.arange(1, x.n + 1)))) / x.n),
            positive,
            scale=lambda x: float(x.n),
        ),
        LARGE,
        Whole(700),
    ),
    "missing mass x (1 - x)^n <= .365 / n": Planted(
        false(
            Instances(Powered, (Powered(1, 0.5),), st.builds(Powered, st.integers(1, 48), dyadic(1 / 64, 1))),
            lambda x: x.n * x.x * (1 - x.x) ** x.n,
            lambda x: 0.365,
            lambda x: x.n >= 1 and 0 <= x.x <= 1,
        ),
        LARGE,
        Powered(95, 1 / 96),
    ),
    "||x||_1 <= 3 ||x||_2": Planted(
        false(vectors(-2, 2, most=8), lambda x: norm(x.values, 1), lambda x: 3 * norm(x.values), bounded),
        WIDE,
        Vector((1.0,) * 10),
    ),
    "||x||_1 <= 2.4 ||x||_2, in at most six dimensions": Planted(
        false(
            vectors(-2, 2, most=6),
            lambda x: norm(x.values, 1),
            lambda x: 2.4 * norm(x.values),
            lambda x: bounded(x) and len(x.values) <= 6,
        ),
        WIDE,
        Vector((1.0, -1.0, 1.0, 1.0, 1.0, -1.0)),
    ),
    "log sum exp <= max + 2": Planted(
        false(
            vectors(-2, 2, most=6), lambda x: float(np.logaddexp.reduce(x.values)), lambda x: max(x.values) + 2, bounded
        ),
        WIDE,
        Vector((1.0,) * 8),
    ),
    "entropy of a softmax <= 1.95": Planted(
        false(
            vectors(-4, 4, most=6),
            lambda x: entropy(np.exp(np.array(x.values) - max(x.values))),
            lambda x: 1.95,
            bounded,
        ),
        WIDE,
        Vector((0.5,) * 8),
    ),
    "spectral norm of a matrix of entries at most 1 is at most 4": Planted(
        false(
            matrices(4),
            lambda x: float(np.linalg.norm(x.rows, ord=2)),
            lambda x: 4.5,
            lambda x: float(np.max(np.abs(x.rows))) <= 1,
        ),
        WIDE,
        Matrix(((1.0,) * 5,) * 5),
    ),
    "expected maximum of n exponentials <= 2.4": Planted(
        false(counts(4), lambda x: float(np.sum(1 / np.arange(1, x.n + 1))), lambda x: 2.4, positive), WIDE, Whole(7)
    ),
    "one step leaves a gap of .9 at most, however many answers": Planted(
        false(RUNS, lambda x: 1 - good_answer(x), lambda x: 0.9, is_run),
        WIDE,
        Softmax(13, 1 / 16, 1),
    ),
    "gap <= 1.15 / (eta T), however many answers": Planted(
        false(
            RUNS,
            lambda x: (1 - good_answer(x)) * x.step * x.steps,
            lambda x: 1.15,
            lambda x: is_run(x) and 1 / 64 <= x.step <= 8,
        ),
        WIDE,
        Softmax(12, 1.0, 2),
    ),
    "sum of squares of a distribution >= .15": Planted(
        false(
            vectors(1 / 64, 1, most=6),
            lambda x: 0.15,
            lambda x: float(np.sum(np.square(x.values))) / sum(x.values) ** 2,
            lambda x: min(x.values) >= 1 / 64,
        ),
        WIDE,
        Vector((1.0,) * 7),
    ),
    "Cauchy-Schwarz, 2 % too small": Planted(
        false(
            pairs(6),
            lambda x: float(np.dot(x.first, x.second)),
            lambda x: 0.98 * norm(x.first) * norm(x.second),
            both_long,
        ),
        TIGHT,
        Vectors((1.0, 0.5, -1.0), (1.0, 0.5, -1.0)),
    ),
    "triangle inequality, 2 % too small": Planted(
        false(
            pairs(5),
            lambda x: norm(tuple(np.add(x.first, x.second))),
            lambda x: 0.98 * (norm(x.first) + norm(x.second)),
            both_long,
        ),
        TIGHT,
        Vectors((1.0, 0.5, -1.0), (1.0, 0.5, -1.0)),
    ),
    "geometric mean <= .98 arithmetic mean": Planted(
        false(
            vectors(1 / 4, 4, most=6, least=4),
            lambda x: exp(float(np.mean(np.log(x.values)))),
            lambda x: 0.98 * float(np.mean(x.values)),
            lambda x: min(x.values) >= 1 / 4 and max(x.values) <= 4,
        ),
        TIGHT,
        Vector((1.0,) * 4),
    ),
    "variance <= .98 range^2 / 4": Planted(
        false(
            vectors(-2, 2, most=6, least=4),
            lambda x: float(np.var(x.values)),
            lambda x: 0.98 * float(np.ptp(x.values)) ** 2 / 4,
            lambda x: float(np.ptp(x.values)) >= 1 / 4,
        ),
        TIGHT,
        Vector((1.0, 0.0, 1.0, 0.0)),
    ),
    "variance <= .98 (max - mean)(mean - min)": Planted(
        false(
            vectors(-2, 2, most=7, least=4),
            lambda x: float(np.var(x.values)),
            lambda x: 0.98 * (max(x.values) - np.mean(x.values)) * (np.mean(x.values) - min(x.values)),
            lambda x: float(np.ptp(x.values)) >= 1 / 4,
        ),
        TIGHT,
        Vector((1.0, 0.0, 0.0, 0.0)),
    ),
    "Hadamard's bound on determinants, 2 % too small": Planted(
        false(
            matrices(3),
            lambda x: abs(float(np.linalg.det(x.rows))),
            lambda x: 0.98 * float(np.prod(np.linalg.norm(x.rows, axis=1))),
            lambda x: float(np.max(np.abs(x.rows))) <= 1 and float(np.min(np.linalg.norm(x.rows, axis=1))) > 1 / 4,
        ),
        TIGHT,
        Matrix(((1.0, 0.5), (-0.5, 1.0))),
    ),
    "(x - .367)^2 is at least 4e-5": Planted(
        false(reals(0, 1), lambda x: 4e-5, lambda x: (x.x - 0.367) ** 2, lambda x: 0 <= x.x <= 1), BAND, Real(0.3665)
    ),
    "nothing within .02 of (.3, .71)": Planted(
        false(
            planes(0, 1),
            lambda x: 4e-4,
            lambda x: (x.x - 0.3) ** 2 + (x.y - 0.71) ** 2,
            lambda x: min(x.x, x.y) >= 0 and max(x.x, x.y) <= 1,
        ),
        BAND,
        Plane(0.3, 0.71),
    ),
    "no whole number is within .01 of a multiple of pi": Planted(
        false(counts(200), lambda x: 0.01, lambda x: abs(sin(x.n)), positive), BAND, Whole(22)
    ),
    "cos x + cos(x sqrt 2) >= -1.97": Planted(
        false(reals(0, 64), lambda x: -1.97, lambda x: cos(x.x) + cos(sqrt(2) * x.x), lambda x: 0 <= x.x <= 64),
        BAND,
        Real(15.63),
    ),
    "x y is not within 1e-4 of .2503": Planted(
        false(
            planes(0, 2),
            lambda x: 1e-4,
            lambda x: abs(x.x * x.y - 0.2503),
            lambda x: 0 <= x.x <= 2 and 1 <= x.y <= 2,
        ),
        BAND,
        Plane(0.2503, 1.0),
    ),
    "no bump around n = 606, where x is large": Planted(
        false(
            Instances(Powered, (Powered(1, 0.5),), st.builds(Powered, st.integers(1, 1000), dyadic(0, 1))),
            lambda x: exp(-(((x.n - 606) / 6) ** 2)) * x.x,
            lambda x: 0.5,
            lambda x: 1 <= x.n <= 1000 and 0 <= x.x <= 1,
        ),
        BAND,
        Powered(606, 1.0),
    ),
    "min(x, .99) = x below 1": Planted(
        false(
            Instances(Real, (Real(0.0),), dyadic(0, 31 / 32).map(Real)),
            lambda x: min(x.x, 0.99),
            lambda x: x.x,
            lambda x: 0 <= x.x < 1,
            relation=Relation.EQUAL,
        ),
        END,
        Real(0.995),
    ),
    "a table that ends at 990 is right to 1000": Planted(
        false(
            counts(900),
            lambda x: min(x.n, 990) / 1000,
            lambda x: x.n / 1000,
            lambda x: 1 <= x.n <= 1000,
            relation=Relation.EQUAL,
        ),
        END,
        Whole(995),
    ),
    "ten terms of the series of -log(1 - x) are it, to 1e-4": Planted(
        false(
            Instances(Real, (Real(0.0),), dyadic(0, 0.4375).map(Real)),
            lambda x: -log(1 - x.x) - sum(x.x**k / k for k in range(1, 11)),
            lambda x: 7e-5,
            lambda x: 0 <= x.x <= 1 / 2,
        ),
        END,
        Real(0.5),
    ),
    "tan x <= x + x^3/3 + 1.9 + y": Planted(
        false(
            Instances(Plane, (Plane(0.0, 0.0),), st.builds(Plane, dyadic(0, 1.25), dyadic(0, 1))),
            lambda x: sin(x.x) / cos(x.x) - x.x - x.x**3 / 3,
            lambda x: 1.9 + x.y,
            lambda x: 0 <= x.x <= 1.4 and 0 <= x.y <= 1,
        ),
        END,
        Plane(1.4, 0.0),
    ),
    "median - mean <= .39 for five numbers in [0, 1]": Planted(
        false(
            vectors(0, 1, most=7, least=3),
            lambda x: float(np.median(x.values) - np.mean(x.values)),
            lambda x: 0.39,
            lambda x: min(x.values) >= 0 and max(x.values) <= 1 and len(x.values) == 5,
        ),
        END,
        Vector((0.0, 0.0, 1.0, 1.0, 1.0)),
    ),
}
