"""The claim about long runs of Algorithm 1, which are sampled (theory.md section 3, Convergence)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from dro_core import parse_ambiguity
from proofs_check.claim import Array, Claim, Instances, mutant, stated, swapped
from proofs_check.statistics import claim_estimate
from synthetic import Estimate
from synthetic.pairs.convergence import guarantees, method_for, minibatch_runs
from synthetic.pairs.robust_pairs import RobustPairs


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
