"""Claims about the subgradient method on all convex functions: its constant, and that no method has a better one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import ProjectedSubgradient
from proofs_check.claim import Array, Claim, Curve, Instances, dyadic, mutant, shrunk, stated, swapped

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST = 16


@dataclass(frozen=True)
class Kink:
    """f(x) = max(0, max_j <a_j, x - minimiser>), the rows a_j one after another, and N iterates from 0.

    ``slack`` is R over the true distance of the minimiser, ``pace`` eta over the recommended R / (G sqrt N).
    """

    slopes: tuple[float, ...]
    minimiser: tuple[float, ...]
    iterates: int
    slack: float = 1.0
    pace: float = 1.0

    @property
    def rows(self) -> Array:
        """The a_j, shape (k, d); ties go to the first row, and 0 comes last."""
        return np.array(self.slopes).reshape(-1, len(self.minimiser))

    @property
    def lipschitz(self) -> float:
        """G, the largest norm of a subgradient."""
        return float(np.linalg.norm(self.rows, axis=1).max())

    @property
    def distance(self) -> float:
        """R, at least the distance from 0 to the minimiser."""
        return self.slack * float(np.linalg.norm(self.minimiser))


@dataclass(frozen=True)
class Span:
    """A method by its steps: x_t = -sum_{s < t} h_{ts} g_s, the h one after another: h_10, h_20, h_21, h_30, ..."""

    coefficients: tuple[float, ...]

    @property
    def steps(self) -> int:
        """T, from the T (T + 1) / 2 coefficients."""
        return int((sqrt(8 * len(self.coefficients) + 1) - 1) / 2)


@stated
def subgradient_worst_case() -> Claim[Kink]:
    """What the subgradient method with averaging guarantees, and that functions reach it.

    Problem: min f, f convex with subgradients of norm at most G, ||x_0 - x*|| <= R.
    Algorithm: x_{t+1} = x_t - eta g_t, N = T + 1 iterates x_0 ... x_T (T steps); their average, or the best of them.
    Guarantee (upper; tight for eta = R/(G sqrt N)): f(average of the first n) - f* <= R^2/(2 eta n) + eta G^2/2 for
        every n <= N, the best of them too; G R/sqrt(T + 1) at n = N. The last iterate can be worse.
    Source: [DT14]; the first half is in `dro_core.ProjectedSubgradient`, whose average after N steps is this one. The
        function that attains it is max(0, max_i <e_i, x - x*>) in N dimensions with x* = -R/sqrt(N) (1, ..., 1).
    Example: N = 4, G = R = 1: x_t = -(1, .., 1, 0, .., 0)/2 with t ones, so x_i - x*_i = 1/2 for some i at every t.
    """
    claim = Claim[Kink](
        label="subgradient-worst-case",
        statement="best and average of T + 1 iterates: f - f* <= R^2/(2 eta n) + eta G^2/2, G R/sqrt(T + 1) at the end",
        reference="DT14",
        assumptions={
            "1 <= slack <= 8, 1/8 <= pace <= 8": lambda x: 1 <= x.slack <= 8 and 1 / 8 <= x.pace <= 8,
            "G and the distance in [1/8, 64]": lambda x: (
                1 / 8 <= x.lipschitz <= 64 and 1 / 8 <= x.distance / x.slack <= 64
            ),
        },
        instances=_kinks(),
        lhs=_gaps,
        rhs=_bound,
        scale=lambda x: x.lipschitz * x.distance,
        tight=True,
        curve=Curve("iterates", tuple(_resisting(n) for n in range(1, _LONGEST + 1))),
    )
    last = mutant(claim, "last iterate", lhs=lambda x: _gaps(x, last=True))
    later = mutant(claim, "one more step", rhs=lambda x: _bound(x) * sqrt(x.iterates / (x.iterates + 1)))
    faster = mutant(claim, "rate 1/(T + 1)", rhs=lambda x: _bound(x) / sqrt(x.iterates))
    nearer = mutant(claim, "half the distance", rhs=lambda x: _bound(x, distance=x.distance / 2))
    return claim.with_mutants(shrunk(claim), swapped(claim), last, later, faster, nearer)


@stated
def subgradient_optimal() -> Claim[Span]:
    """No method that moves in the span of the subgradients has a better constant.

    Problem: min f, f convex with subgradients of norm at most 1, a minimiser at distance 1 from x_0 = 0.
    Algorithm: any x_t = -sum_{s < t} h_{ts} g_s; averages and momentum included, x_t being any point of the span.
    Guarantee (lower, tight): some f has f(x_t) - f* >= 1/sqrt(T + 1) for every t <= T.
    Source: [DT14]; f(x) = max(-1/sqrt(T + 1), max_i x_i) in T + 1 dimensions. Its subgradient at x_s is the e_i of
        the first largest entry; T of them leave one coordinate of x_t at 0, so f(x_t) >= 0, and f* = -1/sqrt(T + 1).
    Example: T = 1: x_1 = (-h, 0), f(x_1) = 0 for h >= 0, f* = -1/sqrt(2) at -(1, 1)/sqrt(2).
    """
    claim = Claim[Span](
        label="subgradient-optimal",
        statement="for every method in the span of T subgradients some f has gap >= G R/sqrt(T + 1)",
        reference="DT14",
        assumptions={
            "T (T + 1) / 2 coefficients, 1 <= T <= 15": lambda x: (
                1 <= x.steps < _LONGEST and x.steps * (x.steps + 1) == 2 * len(x.coefficients)
            ),
        },
        instances=_spans(),
        lhs=lambda x: np.full(_LONGEST, 1 / sqrt(x.steps + 1)),
        rhs=_span_gaps,
        scale=lambda x: 1.0,
        tight=True,
        verifies=stays_above,
    )
    fewer = mutant(claim, "T steps credited as T - 1", lhs=lambda x: np.full(_LONGEST, 1 / sqrt(x.steps)))
    small = mutant(claim, "T dimensions", rhs=lambda x: _span_gaps(x, spare=0))
    return claim.with_mutants(shrunk(claim), swapped(claim), fewer, small)


def stays_above(x: Span) -> bool:
    """Whether f(x_t) >= 0 for every t <= T, in rationals: then every gap is at least -f* = 1/sqrt(T + 1)."""
    points = visited([Fraction(h) for h in x.coefficients], x.steps, spare=1)
    return all(max(point) >= 0 for point in points)


def visited(coefficients: Sequence[Fraction], steps: int, *, spare: int) -> list[list[Fraction]]:
    """The points x_0 ... x_T in T + spare dimensions; g_s is the unit vector of the first largest entry of x_s."""
    points, answers = [[Fraction(0)] * (steps + spare)], list[int]()
    for t in range(1, steps + 1):
        answers.append(points[-1].index(max(points[-1])))
        new = [Fraction(0)] * (steps + spare)
        for answer, h in zip(answers, coefficients[t * (t - 1) // 2 :], strict=False):
            new[answer] -= h
        points.append(new)
    return points


def _span_gaps(x: Span, spare: int = 1) -> Array:
    """The gaps of x_0 ... x_T."""
    least = -1 / sqrt(x.steps + 1)
    points = visited([Fraction(h) for h in x.coefficients], x.steps, spare=spare)
    return _padded(np.array([max(float(max(point)), least) - least for point in points]))


def _method(x: Kink) -> ProjectedSubgradient:
    return ProjectedSubgradient(x.pace * x.distance / (x.lipschitz * sqrt(x.iterates)))


def _gaps(x: Kink, *, last: bool = False) -> Array:
    """F - f* at the average of the first n iterates and at the best of them, or at the last, n = 1 ... N; f* = 0."""
    rows, minimiser, method = np.vstack([x.rows, np.zeros(len(x.minimiser))]), np.array(x.minimiser), _method(x)
    state, points, averages = method.init(np.zeros(minimiser.size)), list[Array](), list[Array]()
    for _ in range(x.iterates):
        points.append(state.iterate)
        state = method.step(state, rows[np.argmax(rows @ (state.iterate - minimiser))])
        averages.append(state.average)
    at_points, at_averages = (((np.array(p) - minimiser) @ rows.T).max(axis=1) for p in (points, averages))
    if last:
        return np.tile(_padded(at_points), 2)
    return np.hstack([_padded(at_averages), _padded(np.minimum.accumulate(at_points))])


def _bound(x: Kink, distance: float | None = None) -> Array:
    distance = x.distance if distance is None else distance
    bounds = [_method(x).bound(n, distance=distance, lipschitz=x.lipschitz) for n in range(1, x.iterates + 1)]
    return np.tile(_padded(np.array(bounds)), 2)


def _padded(entries: Array) -> Array:
    """Repeat the last entry: sides have one length."""
    return np.pad(entries, (0, _LONGEST - len(entries)), mode="edge")


def _resisting(iterates: int, pace: float = 1.0) -> Kink:
    """The function that shows each iterate a slope it has not seen yet; G = R = 1."""
    point = (-1 / sqrt(iterates),) * iterates
    return Kink(tuple(np.eye(iterates).ravel().tolist()), point, iterates, pace=pace)


def _kinks() -> Instances[Kink]:
    # Two slopes that make the second and last iterate 0.884 instead of 1/sqrt(2), the most for T = 1.
    steep = sqrt(1 - 0.75**2)
    late = Kink((1.0, 0.0, -0.75, steep), (-steep / sqrt(3.5), -sqrt(1 - steep**2 / 3.5)), 2)
    corners = (*(_resisting(n) for n in (1, 2, 3, 4, 9, 16)), _resisting(8, pace=2.0), late, Kink((1.0,), (-1.0,), 8))
    return Instances(Kink, corners, st.tuples(st.integers(1, 4), st.integers(1, 3)).flatmap(_drawn))


def _drawn(shape: tuple[int, int]) -> st.SearchStrategy[Kink]:
    rows, d = shape
    slopes, minimiser = st.tuples(*[dyadic(-2, 2)] * (rows * d)), st.tuples(*[dyadic(-2, 2)] * d)
    return st.builds(Kink, slopes, minimiser, st.integers(1, 12), dyadic(1, 4), dyadic(1 / 4, 4))


def _spans() -> Instances[Span]:
    constant = tuple(Span((1 / sqrt(t + 1),) * (t * (t + 1) // 2)) for t in (1, 2, 3, 8))
    corners = (*constant, Span((-1.0,)), Span((0.5, 2.0, -1.0)))
    draws = st.integers(1, 5).flatmap(lambda t: st.tuples(*[dyadic(-2, 2)] * (t * (t + 1) // 2)).map(Span))
    return Instances(Span, corners, draws)
