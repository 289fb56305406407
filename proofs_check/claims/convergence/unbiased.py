"""The claim that minibatch training has no bias against the risk that it really minimises (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb, log, sqrt

import numpy as np
from hypothesis import strategies as st
from scipy.stats import binom  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from dro_core import ProjectedSubgradient, Spectral, TotalVariation, worst_case
from proofs_check.claim import Array, Claim, Instances, dyadic, mutant, shrunk, stated, swapped
from synthetic.pairs.convergence import expected_gaps
from synthetic.pairs.robust_pairs import RobustPairs

_LONGEST = 16  # sides are vectors of this length
_MOST_DRAWN = 4096  # runs of a draw


@dataclass(frozen=True)
class Training:
    """T steps on minibatches of n out of equally likely pairs, a total-variation radius, R; eta over R/(G sqrt T).

    The differences of the pairs follow one another, ``dimension`` numbers each.
    """

    differences: tuple[float, ...]
    dimension: int
    level: float
    distance: float
    n: int
    steps: int
    pace: float = 1.0

    @property
    def rows(self) -> Array:
        """The x_i, ``(m, d)``."""
        return np.array(self.differences).reshape(-1, self.dimension)

    @property
    def work(self) -> float:
        """How many runs there are: one for every sequence of different minibatches."""
        kinds = len(np.unique(self.rows, axis=0))
        return float(comb(self.n + kinds - 1, kinds - 1)) ** (self.steps - 1)


@stated
def sgd_unbiased() -> Claim[Training]:
    """Minibatch training has no bias floor: it reaches the minimum of the risk R_phi that it really minimises.

    Problem: m equally likely pairs, total variation; R_phi the spectral risk of `minibatch-is-spectral` for n
        draws. On m equal masses its jth weight is the integral of phi_n from (j-1)/m to j/m.
    Algorithm: w_{t+1} = Proj(w_t - eta sum_i q*_i grad l_i), q* the worst case of n fresh pairs, w_0 = 0.
    Guarantee (upper; at T = 1 reached as R -> 0): E R_phi(average of w_0..w_{t-1}) - min R_phi <= R^2/(2 eta t) +
        eta G^2/2 for t <= T, without the delta_n that `sgd-reward` pays against the set itself.
    Source: theory.md section 3: the minibatch gradient is an unbiased subgradient of R_phi. Every run is enumerated.
    Example: one pair: R_phi is its loss.
    """
    claim = Claim[Training](
        label="sgd-unbiased",
        statement="E R_phi(average) - min R_phi <= R^2/(2 eta t) + eta G^2/2 for minibatch SGD, no bias term",
        reference="theory.md section 3; L20",
        assumptions={
            "whole rows, the longest at least 1/16": lambda x: (
                len(x.differences) % x.dimension == 0 and float(np.linalg.norm(x.rows, axis=1).max()) >= 1 / 16
            ),
            "at most 16 steps and 100,000 runs": lambda x: x.steps <= _LONGEST and x.work <= 100_000,
            "0 < level < 1, 1/2048 <= R <= 8, 1/8 <= pace <= 8": lambda x: (
                0 < x.level < 1 and 1 / 2048 <= x.distance <= 8 and 1 / 8 <= x.pace <= 8
            ),
        },
        instances=_trainings(),
        lhs=_gaps,
        rhs=_bound,
        scale=lambda x: _trained(x).lipschitz * x.distance,
        tight=True,
        effort=0.08,
    )
    itself = mutant(claim, "of the set itself", lhs=_gaps_of_the_set)
    nearer = mutant(claim, "half the distance", rhs=lambda x: _bound(x, distance=0.5))
    no_noise = mutant(claim, "no noise term", rhs=lambda x: _bound(x, noise=0.0))
    return claim.with_mutants(shrunk(claim), swapped(claim), itself, nearer, no_noise)


def batch_spectrum(radius: float, n: int, m: int) -> tuple[float, ...]:
    """Return the weights by rank, on m equally likely losses, of the risk that batches of n really minimise.

    Example:
        >>> batch_spectrum(0.5, 2, 2)  # the mean larger one of two draws
        (0.25, 0.75)
    """
    q = worst_case(np.arange(float(n)), TotalVariation(radius)).weights
    edges = np.arange(m + 1)[:, None] / m
    upto = np.asarray(binom.sf(np.arange(n), n, edges)) @ q  # pyright: ignore[reportUnknownMemberType]
    pieces = np.maximum.accumulate(np.diff(upto))
    return tuple((pieces / pieces.sum()).round(15).tolist())


@lru_cache(maxsize=512)
def _trained(x: Training) -> RobustPairs:
    """The pairs from which batches are drawn; equal ones are one, with more mass, so that there are fewer batches."""
    rows, counts = np.unique(x.rows, axis=0, return_counts=True)
    return RobustPairs(rows, counts / len(x.rows), TotalVariation(x.level), x.distance)


@lru_cache(maxsize=512)
def _spectral(x: Training) -> RobustPairs:
    m = len(x.rows)
    return RobustPairs(x.rows, np.full(m, 1 / m), Spectral(batch_spectrum(x.level, x.n, m)), x.distance)


def _method(x: Training) -> ProjectedSubgradient:
    best = x.distance / (_trained(x).lipschitz * sqrt(x.steps))
    return ProjectedSubgradient(x.pace * best, x.distance)


@lru_cache(maxsize=512)
def _gaps(x: Training) -> Array:
    return _padded(expected_gaps(_trained(x), _method(x), x.steps, x.n, judged=_spectral(x)))


@lru_cache(maxsize=512)
def _gaps_of_the_set(x: Training) -> Array:
    return _padded(expected_gaps(_trained(x), _method(x), x.steps, x.n))


def _padded(entries: Array) -> Array:
    return np.pad(entries, (0, _LONGEST - len(entries)), mode="edge")


def _bound(x: Training, distance: float = 1.0, noise: float = 1.0) -> Array:
    """The right side; the arguments, 1 but in mutants, multiply the numbers."""
    method, lipschitz = _method(x), noise * _trained(x).lipschitz
    bounds = [method.bound(t, distance=distance * x.distance, lipschitz=lipschitz) for t in range(1, x.steps + 1)]
    return _padded(np.array(bounds))


def _trainings() -> Instances[Training]:
    blind = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0)  # one pair in eight disagrees, and single draws do not show it
    corners = (
        Training((1.0,), 1, 0.25, 1 / 512, 1, 1),
        Training(blind, 1, 7 / 8, 1 / 8, 1, 16),
        Training((1.0, -1.0), 1, 0.25, 1.0, 2, 8),
        Training((1.0, 0.0, 0.5, 1.0, -0.5, 0.25), 2, 0.25, 1.0, 2, 4),
        Training((1.0, 0.0, 0.0, 0.0, 1.0, -0.5), 3, 0.5, 1.0, 2, 5, 0.5),
    )

    shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from((1, 1, 2, 3)))
    return Instances(Training, corners, shapes.flatmap(lambda shape: _draws(*shape)))


def _draws(kinds: int, d: int, n: int) -> st.SearchStrategy[Training]:
    """Up to seven pairs of each kind; half of the time one kind disagrees with another. Runs as long as they can be."""
    batches = comb(n + kinds - 1, n)
    longest = min(_LONGEST, 1 + int(log(_MOST_DRAWN, batches))) if batches > 1 else _LONGEST
    rows = st.lists(st.tuples(*[dyadic(-1, 1)] * d), min_size=kinds, max_size=kinds)
    opposed = rows.map(lambda kept: [*kept[:-1], tuple(-x for x in kept[0])] if kinds > 1 else kept)
    copies = st.tuples(*[st.integers(1, 7)] * kinds)
    pairs = st.tuples(st.one_of(rows, opposed), copies).map(
        lambda x: tuple(number for row, k in zip(*x, strict=True) for number in row * k)
    )
    levels = st.one_of(dyadic(1 / 64, 63 / 64), st.integers(2, 6).map(lambda k: 1 - 2.0**-k))
    distances = st.one_of(dyadic(1 / 8, 4), st.integers(-10, -3).map(lambda k: 2.0**k))
    pace = st.one_of(st.just(1.0), dyadic(1 / 4, 2))
    return st.builds(Training, pairs, st.just(d), levels, distances, st.just(n), st.integers(1, longest), pace)
