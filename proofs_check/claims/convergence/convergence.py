"""Claims about Algorithms 1 and 3: what minibatches cost them (theory.md section 3, Convergence)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb, exp
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dro_core import ProjectedSubgradient, TotalVariation
from proofs_check.claim import Array, Assumptions, Claim, Curve, Instances, dyadic, mutant, shrunk, stated, swapped
from synthetic.pairs.convergence import expected_gaps
from synthetic.pairs.robust_pairs import RobustPairs


@dataclass(frozen=True)
class Descent:
    """T steps on minibatches of n pairs, masses proportional to p, a total-variation radius.

    Features of the answers follow one another, ``dimension`` numbers each. ``pace`` is eta over the recommended
    R / (G sqrt T), ``distance`` R; beta is 1 for rewards.
    """

    chosen: tuple[float, ...]
    rejected: tuple[float, ...]
    masses: tuple[float, ...]
    level: float
    distance: float
    n: int
    steps: int
    pace: float = 1.0
    beta: float = 1.0
    reference: float = 0.0
    dimension: int = 1

    @property
    def answers(self) -> Array:
        """Features of both answers to each prompt, ``(2, m, d)``."""
        return np.array([self.chosen, self.rejected]).reshape(2, -1, self.dimension)

    @property
    def feature_norm(self) -> float:
        """L, the largest norm of an answer's features."""
        return float(np.linalg.norm(self.answers, axis=-1).max())

    @property
    def work(self) -> float:
        """How many runs there are: one for every sequence of minibatches."""
        return float(comb(self.n + len(self.masses) - 1, self.n)) ** (self.steps - 1)


@stated
def sgd_reward() -> Claim[Descent]:
    """Algorithm 1 with minibatch weights, linear rewards.

    Problem: min L(w) = worst-case E softplus(-<w, x>) over ||w|| <= R, x = features(chosen) - features(rejected).
    Algorithm: w_{t+1} = Proj(w_t - eta sum_i q*_i grad l_i), q* for n fresh pairs, w_0 = 0; average of w_0..w_{t-1}.
    Guarantee (upper; at T = 1 reached as R -> 0): for every t <= T, features of norm at most L and
        G = 2L sigmoid(2LR) <= 2L:  E L(average) - min L <= delta_n + R^2/(2 eta t) + eta G^2/2, which is
        delta_n + G R/sqrt(T) at t = T for eta = R/(G sqrt T). delta_n = sup b - b(w*), the sup over the ball, of the
        bias b = L - Lbar_n.
    Source: [L20, Prop 3] with the bias of plain total variation left as it is; proof in `synthetic.pairs.convergence`.
    Example: one pair with x = 1, T = 1, small R: the average is 0, and the gap R/2 = G R.
    """
    claim = _descent("sgd-reward", "2L sigmoid(2LR)")
    unbiased = mutant(claim, "bias forgotten", rhs=lambda x: _bound(x, bias=0.0))
    faster = mutant(claim, "rate 1/T", rhs=lambda x: _bound(x) / np.sqrt(x.steps))
    nearer = mutant(claim, "half the distance", rhs=lambda x: _bound(x, distance=x.distance / 2))
    no_noise = mutant(claim, "no noise term", rhs=lambda x: _bound(x, lipschitz=0.0))
    quarter = mutant(claim, "a quarter of the bias", rhs=lambda x: _bound(x, bias=_bias(x) / 4))
    return claim.with_mutants(shrunk(claim), swapped(claim), unbiased, quarter, faster, nearer, no_noise)


@stated
def sgd_dpo() -> Claim[Descent]:
    """Algorithm 3, robust DPO of a log-linear policy with minibatch weights.

    Problem: as `sgd_reward` with h = beta <theta - theta_ref, x> and the ball ||theta - theta_ref|| <= R.
    Algorithm: the same, from theta_ref.
    Guarantee (upper; at T = 1 reached as R -> 0): the bound of `sgd_reward` with G = 2 beta L sigmoid(2 beta L R).
    Source: [L20, Prop 3], theory.md section 3, `sgd-dpo`.
    Example: beta = 1/4 makes G, and the bound of the optimisation error, at least four times smaller.
    """
    claim = _descent("sgd-dpo", "2 beta L sigmoid(2 beta L R), start theta_ref")
    unbiased = mutant(claim, "bias forgotten", rhs=lambda x: _bound(x, bias=0.0))
    no_beta = mutant(claim, "beta forgotten", rhs=lambda x: _bound(x, lipschitz=_gradient_norm(replace(x, beta=1.0))))
    nearer = mutant(claim, "half the distance", rhs=lambda x: _bound(x, distance=x.distance / 2))
    quarter = mutant(claim, "a quarter of the bias", rhs=lambda x: _bound(x, bias=_bias(x) / 4))
    return claim.with_mutants(shrunk(claim), swapped(claim), unbiased, quarter, no_beta, nearer)


def _descent(label: str, constant: str) -> Claim[Descent]:
    return Claim[Descent](
        label=label,
        statement=f"E L(average) - min L <= delta_n + R^2/(2 eta t) + eta G^2/2 for t <= T, G = {constant}",
        reference="L20, theory.md section 3",
        assumptions=_SIZES,
        instances=_descents(policies=label == "sgd-dpo"),
        lhs=_gaps,
        rhs=_bound,
        scale=lambda x: _gradient_norm(x) * x.distance,
        tight=True,
        curve=Curve("steps", tuple(replace(_rare(1), steps=steps) for steps in range(1, 13))),
        effort=0.08,
    )


_SIZES: Assumptions[Descent] = {
    "every mass at least 1/1024 of the largest": lambda x: min(x.masses) >= max(x.masses) / 1024 > 0,
    "0 < level < 1, 1/2048 <= R <= 8, 1/8 <= pace, beta <= 8": lambda x: (
        0 < x.level < 1 and 1 / 2048 <= x.distance <= 8 and 1 / 8 <= min(x.pace, x.beta) <= max(x.pace, x.beta) <= 8
    ),
    "1 to 16 steps": lambda x: 1 <= x.steps <= _LONGEST,
    # No loss of generality: R absorbs the size of the features.
    "features at most 8, some pair 1/16 apart": lambda x: (
        x.feature_norm <= 8 and float(np.linalg.norm(x.answers[0] - x.answers[1], axis=-1).max()) >= 1 / 16
    ),
}
_LONGEST = 16  # sides are vectors of this length
_FINE = 1e-3  # of the scale: how far above delta_n its bound may lie


@lru_cache(maxsize=512)
def _problem(x: Descent) -> RobustPairs:
    chosen, rejected = x.answers
    masses, ball = np.array(x.masses) / sum(x.masses), TotalVariation(x.level)
    start = np.full(x.dimension, x.reference)
    return RobustPairs.dpo(chosen, rejected, masses, ball, radius=x.distance, beta=x.beta, reference_policy=start)


@lru_cache(maxsize=512)
def _bias(x: Descent) -> float:
    if len(x.masses) == 1:  # minibatches show all there is; as much slack as the search for the largest bias leaves
        return _FINE * _gradient_norm(x) * x.distance
    return _problem(x).bias_term(x.n, tolerance=_FINE if x.dimension == 1 else 0.02)


@lru_cache(maxsize=512)
def _gaps(x: Descent) -> Array:
    return _padded(expected_gaps(_problem(x), _method(x), x.steps, x.n))


def _gradient_norm(x: Descent) -> float:
    steepness = 2 * x.beta * x.feature_norm
    return steepness / (1 + exp(-steepness * x.distance))


def _method(x: Descent) -> ProjectedSubgradient:
    method = ProjectedSubgradient.for_horizon(x.steps, radius=x.distance, lipschitz=_gradient_norm(x))
    return replace(method, step_size=x.pace * method.step_size)


def _bound(
    x: Descent, bias: float | None = None, distance: float | None = None, lipschitz: float | None = None
) -> Array:
    """The right side; each argument replaces the true number in a mutant."""
    distance = x.distance if distance is None else distance
    lipschitz = _gradient_norm(x) if lipschitz is None else lipschitz
    bounds = [_method(x).bound(t, distance=distance, lipschitz=lipschitz) for t in range(1, x.steps + 1)]
    return _padded(np.array(bounds) + (_bias(x) if bias is None else bias))


def _padded(entries: Array) -> Array:
    """Repeat the last entry, so that sides of instances with fewer steps have the same length."""
    return np.pad(entries, (0, _LONGEST - len(entries)), mode="edge")


def _rare(n: int, steps: int = 9, level: float = 15 / 16) -> Descent:
    """All pairs but one in 1024 prefer the first answer; a minibatch rarely sees that one."""
    return Descent((0.5, -0.5), (-0.5, 0.5), (1023.0, 1.0), level, 1 / 8, n, steps)


def _descents(*, policies: bool) -> Instances[Descent]:
    corners = (
        Descent((0.5,), (-0.5,), (1.0,), 0.25, 1 / 512, 1, 1),
        Descent((0.5,), (-0.5,), (1.0,), 0.25, 1 / 8, 1, 4),
        _rare(1),
        _rare(4, steps=4),
        _rare(1, steps=_LONGEST, level=63 / 64),  # nearly all of the gap is bias, about half of delta_n
        Descent((1.0, 0.0, 0.0, 1.0, -0.5, 0.5), (0.0,) * 6, (4.0, 2.0, 1.0), 0.25, 1.0, 2, 4, dimension=2),
        Descent(
            (1.0, 0.0, 0.0, 0.0, 1.0, -0.5), (0.0, 0.0, 1.0, 0.0, 0.0, 0.0), (3.0, 1.0), 0.5, 1.0, 2, 4, dimension=3
        ),
        Descent((1.0, 0.0, 0.25), (0.0, 0.5, -0.5), (6.0, 1.0, 3.0), 0.125, 1.0, 2, 5),
        Descent((1.0, 0.0), (0.0, 1.0), (6.0, 1.0), 0.125, 4.0, 3, 5, pace=0.5),
        Descent((1.0, 0.0), (0.0, 1.0), (6.0, 1.0), 0.125, 0.5, 2, 6, pace=2.0),
    )
    betas = (2.0, 4.0, 1.0, 0.5, 2.0, 1.0, 2.0, 2.0, 0.25, 4.0)
    if policies:
        pairs = zip(corners, betas, strict=True)
        corners = tuple(replace(x, beta=beta, distance=x.distance / beta, reference=0.5) for x, beta in pairs)
    shapes = st.tuples(st.integers(1, 3), st.sampled_from((1, 1, 2, 3)))
    any_pairs = shapes.flatmap(lambda shape: _draws(*shape, policies=policies))
    rare = st.integers(1, 3).flatmap(lambda d: _rare_draws(d, policies=policies))
    first = st.integers(1, 3).flatmap(lambda d: _first_draws(d, policies=policies))
    return Instances(Descent, corners, st.one_of(any_pairs, any_pairs, first, rare))


def _draws(m: int, d: int, *, policies: bool) -> st.SearchStrategy[Descent]:
    """Any answers; half of them centred, which makes L as small as their differences allow."""
    features, masses = st.tuples(*[dyadic(-1, 1)] * (m * d)), st.tuples(*[dyadic(1 / 64, 1)] * m)
    answers = st.one_of(st.tuples(features, features), features.map(_centred))
    distances = st.one_of(dyadic(1 / 8, 4), st.integers(-10, -3).map(lambda k: 2.0**k))
    sizes = st.tuples(dyadic(1 / 64, 63 / 64), distances, st.integers(1, 3), st.integers(1, 5))
    return _started(answers, masses, sizes, d, policies=policies)


def _rare_draws(d: int, *, policies: bool) -> st.SearchStrategy[Descent]:
    """Long runs on single draws of two pairs, of which a rare one disagrees: where delta_n outweighs the steps.

    Half of them are as long as can be, in a small ball, and nearly all mass may move: there the gap holds most of it.
    """
    answers = st.tuples(*[dyadic(-1, 1)] * d).map(lambda u: _centred((*u, *(-x for x in u))))
    masses = st.integers(4, 10).map(lambda k: (2.0**k, 1.0))
    levels = st.one_of(dyadic(1 / 2, 63 / 64), st.integers(4, 10).map(lambda k: 1 - 2.0**-k))
    sizes = st.tuples(levels, st.integers(-8, -1).map(lambda k: 2.0**k), st.just(1), st.integers(8, _LONGEST))
    nearly_all, small = (st.integers(*ends).map(lambda k: 2.0**k) for ends in ((-10, -6), (-8, -4)))
    longest = st.tuples(nearly_all.map(lambda left: 1 - left), small, st.just(1), st.just(_LONGEST))
    return _started(answers, masses, st.one_of(sizes, longest), d, policies=policies)


def _first_draws(d: int, *, policies: bool) -> st.SearchStrategy[Descent]:
    """The first steps on one pair in a small ball, where the bound is nearly reached."""
    answers = st.tuples(*[dyadic(-1, 1)] * d).map(_centred)
    radii = st.integers(-11, -6).map(lambda k: 2.0**k)
    sizes = st.tuples(dyadic(1 / 64, 63 / 64), radii, st.just(1), st.integers(1, 2))
    return _started(answers, st.just((1.0,)), sizes, d, policies=policies)


def _centred(chosen: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return chosen, tuple(-x for x in chosen)


def _started(
    answers: st.SearchStrategy[Any],
    masses: st.SearchStrategy[Any],
    sizes: st.SearchStrategy[Any],
    d: int,
    *,
    policies: bool,
) -> st.SearchStrategy[Descent]:
    """Add the pace, half of the time the recommended one, and for policies beta and the reference."""
    pace = st.one_of(st.just(1.0), dyadic(1 / 4, 2))
    beta, reference = (dyadic(1 / 4, 2), dyadic(-1, 1)) if policies else (st.just(1.0), st.just(0.0))

    def built(x: tuple[Any, ...]) -> Descent:
        (chosen, rejected), drawn, (level, distance, n, steps), *settings = x
        return Descent(chosen, rejected, drawn, level, distance, n, steps, *settings, dimension=d)

    return st.tuples(answers, masses, sizes, pace, beta, reference).map(built)
