"""Algorithms 1 and 3, robust reward estimation and robust DPO, held against their guarantee.

    minibatch of n pairs -> losses -> q* = worst_case(losses) -> projected step along sum_i q*_i grad l_i -> average.

A step follows, on average, a subgradient of Lbar_n, the mean worst-case value of a minibatch, and not of the population
value L. With the bias b = L - Lbar_n, which Jensen's inequality makes nonnegative [L20], and a minimiser w* of L,

    E L(average) - L(w*) = E [Lbar_n(average) - Lbar_n(w*)] + E b(average) - b(w*)
                        <= R^2/(2 eta T) + eta G^2/2 + delta_n,   delta_n = sup b - b(w*),

the sup over the ball: the optimisation error, G R/sqrt(T) for eta = R/(G sqrt(T)), and the price of minibatches. The
average stays in the ball. Algorithm 3 is Algorithm 1 with margins scaled by beta and the reference policy as the start:
`RobustPairs` covers both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dro_core import ProjectedSubgradient
from synthetic.pairs.robust_pairs import RobustPairs, into_ball
from synthetic.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dro_core.learn.optimise import SubgradientState

    Array = NDArray[np.float64]

_MOST_PATHS = 200_000


def method_for(problem: RobustPairs, steps: int, *, lipschitz: float | None = None) -> ProjectedSubgradient:
    """Return the method with eta = R / (G sqrt T), the best for T = ``steps``; G = ``problem.lipschitz`` or larger.

    Example:
        >>> from dro_core import CVaR
        >>> method_for(RobustPairs([[1.0]], [1.0], CVaR(0.5), radius=2.0), 4, lipschitz=1.0)
        ProjectedSubgradient(step_size=1.0, radius=2.0)
    """
    return ProjectedSubgradient.for_horizon(steps, radius=problem.radius, lipschitz=lipschitz or problem.lipschitz)


def guarantees(method: ProjectedSubgradient, problem: RobustPairs, steps: int, bias: float) -> Array:
    """Return delta_n + R^2/(2 eta t) + eta G^2/2 for t = 1 ... ``steps``, the bound of the expected gap, in nats.

    Args:
        method: It has eta.
        problem: It has R and G.
        steps: T.
        bias: delta_n = `RobustPairs.bias_term`; 0 for full batches.

    Example:
        >>> from dro_core import CVaR
        >>> problem = RobustPairs([[1.0]], [1.0], CVaR(0.5), radius=2.0)
        >>> bound = guarantees(method_for(problem, 4), problem, 4, 0.0)
        >>> bool(abs(bound[-1] - problem.lipschitz * 2.0 / 4**0.5) < 1e-12)
        True
    """
    terms = [method.bound(t, distance=problem.radius, lipschitz=problem.lipschitz) for t in range(1, steps + 1)]
    return bias + np.array(terms)


def full_batch_run(problem: RobustPairs, method: ProjectedSubgradient, steps: int) -> Trajectory:
    """Run the method on exact subgradients of L: no bias, no noise; iterates ``(T + 1, d)``.

    Example:
        >>> from dro_core import TotalVariation
        >>> problem = RobustPairs([[1.0], [-1.0]], [0.75, 0.25], TotalVariation(0.125), radius=1.0)
        >>> run = full_batch_run(problem, method_for(problem, 100), 100)
        >>> bool(0 <= run.gaps[-1] <= problem.lipschitz / 10)
        True
    """
    masses = np.asarray(problem.masses)
    path = _paths(problem, method, steps, 1, lambda parameters: problem.subgradient(parameters, masses))
    return Trajectory(path.iterates[0], path.values[0], path.average_values[0], path.optimum)


def minibatch_runs(
    problem: RobustPairs,
    method: ProjectedSubgradient,
    steps: int,
    n: int,
    rng: np.random.Generator,
    *,
    runs: int,
) -> Trajectory:
    """Run the method many times on fresh minibatches of n pairs; iterates ``(runs, T + 1, d)``.

    Example:
        >>> from dro_core import TotalVariation
        >>> problem = RobustPairs([[1.0], [-1.0]], [0.75, 0.25], TotalVariation(0.125), radius=1.0)
        >>> batch = minibatch_runs(problem, method_for(problem, 5), 5, 2, np.random.default_rng(0), runs=3)
        >>> batch.iterates.shape, batch.gaps.shape
        ((3, 6, 1), (3, 5))
    """

    def noisy(parameters: Array) -> Array:
        return problem.subgradient(parameters, rng.multinomial(n, np.asarray(problem.masses), size=runs))

    return _paths(problem, method, steps, runs, noisy)


def expected_gaps(
    problem: RobustPairs, method: ProjectedSubgradient, steps: int, n: int, *, judged: RobustPairs | None = None
) -> Array:
    """Return E L(average of w_0 ... w_{t-1}) - min L for t = 1 ... ``steps``, exact: the tree of all minibatches.

    The certified lower bound stands for min L, so that rounding and the solver cannot make a gap too small. L is the
    objective of ``judged``, if given, on the same pairs.

    Raises:
        ValueError: More than 200000 different runs: take fewer steps, pairs or draws, or `minibatch_runs`.

    Example:
        The first iterate is the start, whatever is drawn:

        >>> from dro_core import TotalVariation
        >>> problem = RobustPairs([[1.0], [-1.0]], [0.75, 0.25], TotalVariation(0.125), radius=1.0)
        >>> gaps = expected_gaps(problem, method_for(problem, 3), 3, 1)
        >>> bool(abs(gaps[0] - (float(problem.objective([0.0])) - problem.optimum.bound)) < 1e-12)
        True
    """
    judged = judged or problem
    counts, chances = problem.minibatches(n)
    paths = len(counts) ** (steps - 1)
    if paths > _MOST_PATHS:
        raise ValueError(
            f"steps={steps} and n={n} make {paths} different runs, at most {_MOST_PATHS} are enumerated: take fewer "
            "steps, pairs or draws, or simulate with minibatch_runs."
        )
    start = np.asarray(problem.start)
    state, weights = replace(method, radius=None).init(np.zeros((1, start.size))), np.ones(1)
    gaps = np.empty(steps)
    for t in range(steps):
        averages = _averages(method, state)
        gaps[t] = weights @ judged.objective(start + averages) - judged.optimum.bound
        if t + 1 < steps:  # every node has one child for every minibatch
            state = state._replace(
                iterate=state.iterate.repeat(len(counts), axis=0), average=state.average.repeat(len(counts), axis=0)
            )
            drawn = np.tile(counts, (len(weights), 1))
            state = _step(method, state, problem.subgradient(start + state.iterate, drawn))
            weights = np.outer(weights, chances).ravel()
    return gaps


def _paths(
    problem: RobustPairs,
    method: ProjectedSubgradient,
    steps: int,
    runs: int,
    subgradient: Callable[[Array], Array],
) -> Trajectory:
    start = np.asarray(problem.start)
    state = replace(method, radius=None).init(np.zeros((runs, start.size)))
    iterates, averages = [state.iterate], list[np.ndarray]()
    for _ in range(steps):
        state = _step(method, state, subgradient(start + state.iterate))
        iterates.append(state.iterate)
        averages.append(state.average)
    path, means = start + np.stack(iterates, axis=1), start + np.stack(averages, axis=1)
    return Trajectory(path, problem.objective(path), problem.objective(means), problem.optimum.bound)


def _step(method: ProjectedSubgradient, state: SubgradientState, subgradient: Array) -> SubgradientState:
    """Take one step of every run, a row each; the method's own projection would take all rows for one point."""
    new = replace(method, radius=None).step(state, subgradient)
    return new if method.radius is None else new._replace(iterate=into_ball(new.iterate, method.radius))


def _averages(method: ProjectedSubgradient, state: SubgradientState) -> Array:
    """Return the averages of all iterates so far, the present ones included."""
    return replace(method, radius=None).step(state, np.zeros_like(state.iterate)).average
