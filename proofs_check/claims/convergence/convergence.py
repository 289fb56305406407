"""Claims about Algorithms 1 and 3 and the subgradient method below them (theory.md section 3, Convergence)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb, exp

import numpy as np
from hypothesis import strategies as st

from dro_core import ProjectedSubgradient, TotalVariation, parse_ambiguity
from proofs_check.claim import Array, Assumptions, Claim, Curve, Instances, dyadic, mutant, shrunk, stated, swapped
from proofs_check.statistics import claim_estimate
from synthetic import Estimate
from synthetic.pairs.convergence import expected_gaps, guarantees, method_for, minibatch_runs
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


@dataclass(frozen=True)
class LongDescent:
    """T steps on minibatches of n pairs, ``draws`` times; the x_i in the plane, one after another."""

    differences: tuple[float, ...]
    masses: tuple[float, ...]
    ambiguity: str
    distance: float
    n: int
    steps: int
    draws: int = 0
    seed: int = 0


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


@stated
def sgd_sampled() -> Claim[LongDescent]:
    """The bound of `sgd_reward` for long runs in two dimensions, and for other sets than total variation.

    Problem, algorithm: as `sgd_reward`, with X = max_i ||x_i|| instead of 2L.
    Guarantee (upper): E L(average of w_0..w_{T-1}) - min L <= delta_n + G R/sqrt(T), G = X sigmoid(X R), checked with
        the empirical Bernstein interval of independent runs; also at T/4 and T/2 steps of the same run.
    Source: [L20, Prop 3]; proof in `synthetic.pairs.convergence`.
    Example: a pair that one in 1024 draws shows: at T = 24 most of the gap is bias, see the mutant that forgets it.
    """
    claim = Claim[LongDescent](
        label="sgd-sampled",
        statement="E L(average) - min L <= delta_n + G R/sqrt(T) for TV, CVaR, chi-square and KL, d = 2",
        reference="L20, theory.md section 3",
        assumptions={"4 divides T": lambda x: x.steps % 4 == 0},
        instances=Instances(LongDescent, _LONG_RUNS),
        lhs=_sampled_gaps,
        rhs=_long_bound,
        scale=lambda x: _long_problem(x).lipschitz * x.distance,
    )
    unbiased = mutant(claim, "bias forgotten", rhs=lambda x: _long_bound(x, bias=0.0))
    faster = mutant(claim, "rate 1/T", rhs=lambda x: _long_bound(x, bias=0.0) / np.sqrt(x.steps))
    return claim.with_mutants(swapped(claim), unbiased, faster)


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
    # No loss of generality: R absorbs the size of the features.
    "features at most 8, some pair 1/16 apart": lambda x: (
        x.feature_norm <= 8 and float(np.linalg.norm(x.answers[0] - x.answers[1], axis=-1).max()) >= 1 / 16
    ),
}
_LONGEST = 16  # sides are vectors of this length


@lru_cache(maxsize=512)
def _problem(x: Descent) -> RobustPairs:
    chosen, rejected = x.answers
    masses, ball = np.array(x.masses) / sum(x.masses), TotalVariation(x.level)
    start = np.full(x.dimension, x.reference)
    return RobustPairs.dpo(chosen, rejected, masses, ball, radius=x.distance, beta=x.beta, reference_policy=start)


@lru_cache(maxsize=512)
def _bias(x: Descent) -> float:
    return _problem(x).bias_term(x.n, tolerance=1e-3 if x.dimension == 1 else 0.02)


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
    return Instances(Descent, corners, shapes.flatmap(lambda shape: _draws(*shape, policies=policies)))


def _draws(m: int, d: int, *, policies: bool) -> st.SearchStrategy[Descent]:
    features, masses = st.tuples(*[dyadic(-1, 1)] * (m * d)), st.tuples(*[dyadic(1 / 64, 1)] * m)
    distances = st.one_of(dyadic(1 / 8, 4), st.integers(-10, -3).map(lambda k: 2.0**k))
    return st.builds(
        Descent, features, features, masses, dyadic(1 / 64, 63 / 64), distances, st.integers(1, 3),
        st.integers(1, 5), dyadic(1 / 4, 2),
        dyadic(1 / 4, 2) if policies else st.just(1.0), dyadic(-1, 1) if policies else st.just(0.0), st.just(d),
    )  # fmt: skip


_TRIPLE, _MASSES = (1.0, 0.5, 0.5, 1.0, -0.5, 0.25), (4.0, 2.0, 1.0)
_LONG_RUNS = (
    LongDescent((1.0, 0.0, -1.0, 0.0), (1023.0, 1.0), "tv:0.9375", 0.125, 4, 24),
    LongDescent(_TRIPLE, _MASSES, "tv:0.25", 2.0, 6, 24),
    LongDescent(_TRIPLE, _MASSES, "cvar:0.5", 2.0, 6, 24),
    LongDescent(_TRIPLE, _MASSES, "chi2:0.5", 4.0, 4, 24),
    LongDescent(_TRIPLE, _MASSES, "kl:0.25", 1.0, 4, 24),
)


def _long_problem(x: LongDescent) -> RobustPairs:
    """The problem knows its optimum, which is costly: one for all seeds."""
    return _known_problem(replace(x, draws=0, seed=0))


@lru_cache(maxsize=16)
def _known_problem(x: LongDescent) -> RobustPairs:
    differences, masses = np.array(x.differences).reshape(-1, 2), np.array(x.masses) / sum(x.masses)
    ambiguity = parse_ambiguity(x.ambiguity)
    if ambiguity is None:
        raise ValueError("ambiguity must be a set such as 'tv:0.2', got 'erm': for the mean use 'tv:0'.")
    return RobustPairs(differences, masses, ambiguity, x.distance)


@lru_cache(maxsize=16)
def _sampled_gaps(x: LongDescent) -> Estimate:
    problem, rng = _long_problem(x), np.random.default_rng(x.seed)
    runs = minibatch_runs(problem, method_for(problem, x.steps), x.steps, x.n, rng, runs=x.draws)
    most = 2 * problem.lipschitz * x.distance  # the ball has diameter 2R
    return claim_estimate(runs.gaps[:, _marks(x)], tests=3 * len(_LONG_RUNS), bounds=(0.0, most))


def _long_bias(x: LongDescent) -> float:
    return _known_bias(replace(x, draws=0, seed=0))


@lru_cache(maxsize=16)
def _known_bias(x: LongDescent) -> float:
    return _long_problem(x).bias_term(x.n, tolerance=0.02)


def _long_bound(x: LongDescent, bias: float | None = None) -> Array:
    problem = _long_problem(x)
    bounds = guarantees(method_for(problem, x.steps), problem, x.steps, _long_bias(x) if bias is None else bias)
    return bounds[_marks(x)]


def _marks(x: LongDescent) -> list[int]:
    return [x.steps // 4 - 1, x.steps // 2 - 1, x.steps - 1]
