"""Claims: the bounds that ``dro_core`` publishes about one distribution hold (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from hypothesis import strategies as st

from dro_core import (
    KL,
    AcceleratedGradient,
    AmbiguitySet,
    Burg,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    Hellinger,
    KLPenalty,
    Spectral,
    TotalVariation,
    effective_sample_size_bound,
    excess_bound,
    robust_smoothness,
    worst_case,
)
from proofs_check.claim import Array, Claim, Curve, Instances, dyadic, mutant, shrunk, stated, swapped
from proofs_check.claims.inner.inner_problem import MASSES, WeightedLosses, excess, one_radius, variance

_STEPS = 16


@dataclass(frozen=True)
class Batch:
    """Equally likely losses, and the size of a set."""

    losses: tuple[float, ...]
    size: float

    @property
    def spread(self) -> float:
        """Largest loss minus smallest."""
        return max(self.losses) - min(self.losses)


@dataclass(frozen=True)
class Logistic:
    """Rows of two features, one after another, the price of a divergence, and where the method starts."""

    features: tuple[float, ...]
    price: float
    start: tuple[float, float]

    @property
    def rows(self) -> Array:
        """The features ``(k, 2)``."""
        return np.array(self.features).reshape(-1, 2)

    @property
    def steepness(self) -> float:
        """The largest norm of a row."""
        return float(np.linalg.norm(self.rows, axis=1).max())


@stated
def excess_bounds() -> Claim[WeightedLosses]:
    """``dro_core.excess_bound``: how far any worst case lies above the mean.

    Problem: eleven sets and penalties of one radius or price; B the range of the losses, V their variance.
    Guarantee (tight): 0 <= L - E l <= excess_bound(set, B), and <= excess_bound(set, B, variance=V).
    Source: the docstring of ``dro_core.excess_bound``: Pinsker, Bennett, Cauchy-Schwarz, Bretagnolle-Huber.
    Example: chi-square, every weight positive: sqrt(2 rho V) exactly.
    """

    def gaps(x: WeightedLosses) -> Array:
        return np.array([excess(x, ball) for ball in _sets(x.radius)])

    def bounds(x: WeightedLosses, factor: float = 1.0) -> Array:
        v = factor * variance(x)
        by_range = [excess_bound(ball, x.spread) for ball in _sets(x.radius)]
        return np.array([*by_range, *(excess_bound(ball, x.spread, variance=v) for ball in _sets(x.radius))])

    claim = Claim[WeightedLosses](
        label="excess-bounds",
        statement="L - E l <= excess_bound(set, B) and <= excess_bound(set, B, variance=Var l), eleven sets",
        reference="DN19, H63; derived",
        assumptions={**MASSES, "1/64 <= radius <= 63/64": lambda x: 1 / 64 <= x.radius <= 63 / 64},
        instances=one_radius(top=63 / 64),
        lhs=lambda x: np.tile(gaps(x), 2),
        rhs=bounds,
        scale=lambda x: x.spread,
        tight=True,
        effort=0.3,
    )
    small = mutant(claim, "0.9 of the variance", rhs=lambda x: bounds(x, 0.9))
    return claim.with_mutants(shrunk(claim), swapped(claim), small)


@stated
def effective_sample_size_bounds() -> Claim[Batch]:
    """``dro_core.effective_sample_size_bound``: how few losses the weights can rest on.

    Problem: weights q of n equally likely losses, whatever they are; 1/sum q^2 is their effective sample size.
    Guarantee (tight: CVaR, alpha n whole): 1/sum q^2 >= effective_sample_size_bound(set, n).
    Source: the docstring of ``dro_core.effective_sample_size_bound``: n/S, S bounds E (q/p)^2.
    Example: n = 4, CVaR(1/2): 2, and the bound is 4 * 1/2.
    """

    def sizes(x: Batch) -> Array:
        weights = [worst_case(np.array(x.losses), ball).weights for ball in _weighing(x)]
        return np.array([1 / float(np.sum(q * q)) for q in weights])

    def bounds(x: Batch) -> Array:
        n = len(x.losses)
        return np.array([effective_sample_size_bound(ball, n, loss_range=x.spread) for ball in _weighing(x)])

    claim = Claim[Batch](
        label="effective-sample-size-bounds",
        statement="1/sum q^2 >= effective_sample_size_bound(set, n) for the weights q of any n losses, eight sets",
        reference="L20, sharpened",
        assumptions={
            "1/64 <= size <= 1": lambda x: 1 / 64 <= x.size <= 1,
            "losses in [-8, 8], spread at least 1/64": lambda x: max(map(abs, x.losses)) <= 8 and x.spread >= 1 / 64,
        },
        instances=_batches(),
        lhs=bounds,
        rhs=sizes,
        scale=lambda x: float(len(x.losses)),
        tight=True,
        effort=0.3,
        curve=Curve("size", tuple(Batch((0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), k / 16) for k in range(1, 17))),
    )
    return claim.with_mutants(mutant(claim, "1 % more", lhs=lambda x: 1.01 * bounds(x)), swapped(claim))


@stated
def accelerated_gradient() -> Claim[Logistic]:
    """``dro_core.AcceleratedGradient`` on penalised robust losses keeps its bound, with the published smoothness.

    Problem: min over the plane of max_q <q, l(w)> - price D(q, p), l_i = softplus(-<w, x_i>), D = KL or chi-square,
        with 1/16 |w|^2 added, so that there is a minimiser.
    Algorithm: accelerated gradient with L = ``robust_smoothness`` + 1/8, from a start, 16 steps.
    Guarantee (upper): f(w_T) - f(w*) <= 2 L R^2/(T + 1)^2 at every T, R = |w_0 - w*|.
    Source: [BT09, Theorem 4.4]; the smoothness is derived in ``dro_core.robust_smoothness``.
    Example: one pair: softplus(-w) has curvature at most 1/4, and nothing to reweigh.
    """
    claim = Claim[Logistic](
        label="accelerated-gradient",
        statement="f(w_T) - min f <= 2 L R^2/(T+1)^2 for penalised robust losses, L = X^2/price + X^2/4 + 1/8",
        reference="BT09; derived",
        assumptions={
            "1/4 <= price <= 8, features at most 4": lambda x: 1 / 4 <= x.price <= 8 and 1 / 16 <= x.steepness <= 4,
            "a start within 8": lambda x: max(map(abs, x.start)) <= 8,
        },
        instances=_logistic(),
        lhs=lambda x: np.hstack([_run(x, k)[0] for k in range(2)]),
        rhs=lambda x: np.hstack([_run(x, k)[1] for k in range(2)]),
        scale=lambda x: 1.0 + max(map(abs, x.start)) * x.steepness,
        effort=0.1,
    )
    rate = mutant(claim, "rate 1/T^4", rhs=lambda x: np.hstack([_run(x, k)[1] / _squares() for k in range(2)]))
    short = mutant(claim, "a hundredth of it", rhs=lambda x: np.hstack([_run(x, k)[1] / 100 for k in range(2)]))
    return claim.with_mutants(rate, short, swapped(claim))


def _sets(radius: float) -> tuple[AmbiguitySet, ...]:
    return (
        TotalVariation(radius), TotalVariation(radius, max_ratio=2.5), CVaR(1 - radius), ChiSquare(radius), KL(radius),
        CressieRead(order=1.5, radius=radius), CressieRead(order=3.0, radius=radius), Hellinger(radius), Burg(radius),
        KLPenalty(8 * radius), ChiSquarePenalty(8 * radius),
    )  # fmt: skip


def _weighing(x: Batch) -> tuple[AmbiguitySet, ...]:
    spectrum = np.arange(1.0, len(x.losses) + 1)
    return (
        TotalVariation(x.size), TotalVariation(x.size, max_ratio=2.5), CVaR(x.size), ChiSquare(x.size),
        CressieRead(order=3.0, radius=x.size), Spectral(tuple((spectrum / spectrum.sum()).tolist())),
        KLPenalty(4 * x.size), ChiSquarePenalty(4 * x.size),
    )  # fmt: skip


def _batches() -> Instances[Batch]:
    corners = (
        Batch((0.0, 1.0, 2.0, 3.0), 0.5),
        Batch((0.0, 1.0), 1.0),
        Batch(tuple(map(float, range(8))), 0.25),
        Batch((0.0,) * 7 + (1.0,), 0.125),
    )
    rows = st.lists(dyadic(-4, 4), min_size=2, max_size=12).map(tuple)
    return Instances(Batch, corners, st.builds(Batch, rows, dyadic(1 / 64, 1)))


def _squares() -> Array:
    return np.arange(1.0, _STEPS + 1) ** 2


@lru_cache(maxsize=512)
def _run(x: Logistic, k: int) -> tuple[Array, Array]:
    """The gaps after 1 ... 16 steps, and their bounds; a long run stands for the minimum."""
    penalty = (KLPenalty(x.price), ChiSquarePenalty(x.price))[k]
    smoothness = robust_smoothness(penalty, lipschitz=x.steepness, curvature=x.steepness**2 / 4) + 1 / 8

    def objective(w: Array) -> tuple[float, Array]:
        margins = x.rows @ w
        worst = worst_case(np.logaddexp(0.0, -margins), penalty)
        slope = -(worst.weights / (1 + np.exp(margins))) @ x.rows
        return float(worst.value) + float(w @ w) / 16, slope + w / 8

    method = AcceleratedGradient(smoothness=smoothness, strong_convexity=1 / 8)
    state = method.init(np.array(x.start))
    for _ in range(200):
        state = method.step(state, objective)
    best, least = state.iterate, objective(state.iterate)[0]
    plain = AcceleratedGradient(smoothness=smoothness)
    state, gaps = plain.init(np.array(x.start)), list[float]()
    for _ in range(_STEPS):
        state = plain.step(state, objective)
        gaps.append(objective(state.iterate)[0] - least)
    distance = float(np.linalg.norm(best - np.array(x.start)))
    return np.array(gaps), np.array([plain.bound(t, distance=distance) for t in range(1, _STEPS + 1)])


def _logistic() -> Instances[Logistic]:
    corners = (
        Logistic((1.0, 0.0), 1.0, (4.0, 0.0)),
        Logistic((0.125, 0.0), 8.0, (8.0, 8.0)),
        Logistic((4.0, 0.0, -4.0, 0.0, 1.0, 1.0), 0.25, (2.0, 8.0)),
    )

    def of_size(k: int) -> st.SearchStrategy[Logistic]:
        features = st.tuples(*[dyadic(-2, 2)] * (2 * k))
        return st.builds(Logistic, features, dyadic(1 / 4, 4), st.tuples(dyadic(-4, 4), dyadic(-4, 4)))

    return Instances(Logistic, corners, st.integers(1, 4).flatmap(of_size))
