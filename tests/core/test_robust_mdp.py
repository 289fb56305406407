"""The robust Bellman operator and its values, against conic solvers, enumeration and linear solves."""

from __future__ import annotations

import itertools
import math
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dro_core import (
    KL,
    ChiSquare,
    CVaR,
    Hellinger,
    KLPenalty,
    TotalVariation,
    Wasserstein,
    radius_from_confidence,
    worst_case,
)
from dro_core.robust_mdp import robust_bellman, robust_value_iteration

from . import tolerances as tol
from .registry import FAMILIES, Family
from .robust_models import (
    Model,
    deterministic_policies,
    draw_values,
    every_family,
    exact_values,
    iterated,
    models,
    random_model,
)

# The two laws behind every bound


@every_family
@given(data=st.data(), model=models(0.0, 0.5, 0.99))
def test_contraction_monotonicity_and_translation(family: Family, data: st.DataObject, model: Model) -> None:
    ambiguity = data.draw(family.draw(len(model.rewards)), label="ambiguity")
    one, other = draw_values(data, model, "one"), draw_values(data, model, "other")
    rounding = 16 * tol.exact(len(one)) * 8

    def backup(values: np.ndarray) -> np.ndarray:
        return robust_bellman(values, *model, ambiguity).max(axis=1)

    distance = np.abs(one - other).max()
    assert np.abs(backup(one) - backup(other)).max() <= model.discount * distance + rounding
    assert np.all(backup(np.maximum(one, other)) >= backup(one) - rounding)
    np.testing.assert_allclose(backup(one + 3), backup(one) + 3 * model.discount, rtol=0, atol=rounding)


# Against solvers that share nothing with ours


def conic_minimum(ambiguity: Any, values: np.ndarray, p: np.ndarray) -> float:
    """min <q, values> over the set around p (plus the price of a penalty), by HiGHS or Clarabel."""
    n = len(p)
    q, plan = cp.Variable(n, nonneg=True), cp.Variable((n, n), nonneg=True)
    objective, constraints = values @ q, [cp.sum(q) == 1]
    seen = p > 0
    if not isinstance(ambiguity, Wasserstein):
        constraints.append(q[~seen] == 0) if not np.all(seen) else None
    match ambiguity:
        case TotalVariation(radius, cap):
            constraints.append(cp.norm1(q - p) / 2 <= radius)
            constraints += [] if cap is None else [q <= cap * p]
        case CVaR(alpha):
            constraints.append(q <= p / alpha)
        case ChiSquare(radius):
            constraints.append(cp.sum(cp.multiply(1 / p[seen], cp.square(q[seen] - p[seen]))) / 2 <= radius)
        case KL(radius):
            constraints.append(cp.sum(cp.rel_entr(q[seen], p[seen])) <= radius)
        case KLPenalty(price):
            objective = objective + price * cp.sum(cp.rel_entr(q[seen], p[seen]))
        case Wasserstein(radius, cost):
            moved = cp.sum(cp.multiply(plan, cost)) <= radius
            constraints += [cp.sum(plan, axis=1) == p, cp.sum(plan, axis=0) == q, moved]
    problem = cp.Problem(cp.Minimize(objective), constraints)
    return float(problem.solve(solver=cp.HIGHS if problem.is_lp() else cp.CLARABEL))


LINE = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
CONIC = [
    TotalVariation(0.2),
    TotalVariation(0.3, max_ratio=1.5),
    CVaR(0.4),
    ChiSquare(0.3),
    KL(0.2),
    KLPenalty(0.5),
    Wasserstein(0.4, LINE),
]


@pytest.mark.parametrize("ambiguity", CONIC, ids=str)
def test_the_values_solve_the_bellman_equation_of_a_conic_solver(ambiguity: Any) -> None:
    """A residual of d bounds the distance to the true values by d / (1 - discount), whoever found them."""
    model = random_model(7, states=4, actions=2)
    solution = robust_value_iteration(*model, ambiguity, tolerance=1e-10)
    worst = [[conic_minimum(ambiguity, solution.values, p) for p in rows] for rows in model.transitions]
    backed_up = model.rewards + model.discount * np.array(worst)
    np.testing.assert_allclose(solution.action_values, backed_up, rtol=0, atol=tol.CONIC)
    np.testing.assert_allclose(solution.values, backed_up.max(axis=1), rtol=0, atol=tol.CONIC)


@pytest.mark.parametrize("seed", range(4))
def test_total_variation_on_two_states_against_every_policy_and_every_vertex(seed: int) -> None:
    """The adversary's rectangle has 16 vertices, the player 4 policies: the game is solved by enumeration."""
    model, radius = random_model(seed, states=2, actions=2), 0.15
    kernels = []
    for signs in itertools.product([-1, 1], repeat=4):
        first = np.clip(model.transitions[..., 0] + radius * np.reshape(signs, (2, 2)), 0, 1)
        first = np.where(model.transitions[..., 0] == 1, 1.0, first)  # the second state stays impossible
        kernels.append(np.stack([first, 1 - first], axis=-1))
    players = deterministic_policies(2, 2)
    table = np.array([[exact_values(model, policy, kernel) for kernel in kernels] for policy in players])
    worst = table.min(axis=1)
    solution = robust_value_iteration(*model, TotalVariation(radius), tolerance=1e-12)
    np.testing.assert_allclose(solution.values, worst.max(axis=0), rtol=0, atol=1e-11)
    np.testing.assert_allclose(solution.values, table.max(axis=0).min(axis=0), rtol=0, atol=1e-11)  # a saddle point
    chosen = next(k for k, policy in enumerate(players) if np.array_equal(policy, solution.policy))
    np.testing.assert_allclose(worst[chosen], worst.max(axis=0), rtol=0, atol=1e-11)


SETS = [family for family in FAMILIES if not family.name.endswith("penalty") and "charged" not in family.name]


@iterated(SETS)
@given(data=st.data(), model=models(0.0, 0.75))
def test_a_policy_earns_its_values_against_the_worst_transitions(
    family: Family, data: st.DataObject, model: Model
) -> None:
    """Plain evaluation of the adversary's stationary choice, by a linear solve, gives the robust values."""
    states, actions = model.rewards.shape
    ambiguity = data.draw(family.draw(states), label="ambiguity")
    policy = np.random.default_rng(states).dirichlet(np.ones(actions), size=states)
    solution = robust_value_iteration(*model, ambiguity, policy=policy, tolerance=1e-10)
    losses = np.broadcast_to(-solution.values, model.transitions.shape)
    worst = worst_case(losses, ambiguity, reference=model.transitions).weights
    np.testing.assert_allclose(exact_values(model, policy, worst), solution.values, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(solution.policy, policy)


# The two ends of the radius, and an example by hand


@pytest.mark.parametrize("ambiguity", [TotalVariation(0), CVaR(1), ChiSquare(0), KL(0), KLPenalty(math.inf)], ids=str)
def test_without_an_adversary_it_is_the_best_of_all_policies(ambiguity: Any) -> None:
    model = random_model(3)
    every = [exact_values(model, policy, model.transitions) for policy in deterministic_policies(4, 3)]
    solution = robust_value_iteration(*model, ambiguity)
    np.testing.assert_allclose(solution.values, np.max(every, axis=0), rtol=0, atol=2e-8)


@pytest.mark.parametrize(
    "ambiguity", [TotalVariation(1), CVaR(1e-9), ChiSquare(1e9), KL(50), Wasserstein(1e3, LINE)], ids=str
)
def test_an_unbounded_adversary_picks_the_worst_successor(ambiguity: Any) -> None:
    """On deterministic transitions chosen by the adversary: all possible ones, or all at all for transport."""
    model = random_model(5)
    reachable = model.transitions > 0
    if isinstance(ambiguity, Wasserstein):
        reachable = np.ones_like(reachable)
    values = np.zeros(4)
    for _ in range(400):
        worst = np.where(reachable, values, np.inf).min(axis=-1)
        values = (model.rewards + model.discount * worst).max(axis=1)
    solution = robust_value_iteration(*model, ambiguity)
    np.testing.assert_allclose(solution.values, values, rtol=0, atol=2e-8)


def test_by_hand() -> None:
    """Stay for 1, v = 1 / (1 - 1/2) = 2; or leave for 2, v = 2 + (1/4) v / 2, so v = 16/7, as leaving fails more."""
    transitions = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.0, 1.0]]])
    rewards = np.array([[1.0, 2.0], [0.0, 0.0]])
    leave = robust_value_iteration(rewards, transitions, 0.5, TotalVariation(0.25), tolerance=1e-12)
    np.testing.assert_allclose(leave.values, [16 / 7, 0], rtol=0, atol=2e-12)
    np.testing.assert_allclose(leave.action_values, [[1 + 8 / 7, 16 / 7], [0, 0]], rtol=0, atol=2e-12)
    np.testing.assert_array_equal(leave.policy, [[0, 1], [1, 0]])
    # With 1.9 for leaving and no successor left, v = 1.9 < 2: the policy changes with the radius.
    rewards[0, 1] = 1.9
    assert robust_value_iteration(rewards, transitions, 0.5, TotalVariation(0.0)).policy[0, 1] == 1
    assert robust_value_iteration(rewards, transitions, 0.5, TotalVariation(0.5)).policy[0, 0] == 1


# One radius for each state and action


@pytest.mark.parametrize("kind", [ChiSquare, KL, TotalVariation, Hellinger])
def test_radii_by_the_visits_to_state_and_action(kind: Any) -> None:
    """Against the operator of every radius by itself, of which a row is taken, and its values as a fixed point."""
    model = random_model(11, states=4, actions=3)
    visits = np.random.default_rng(2).integers(5, 400, size=(4, 3))
    radii = radius_from_confidence(kind, visits, 0.1)
    assert radii.shape == visits.shape
    np.testing.assert_allclose(
        radii, [[radius_from_confidence(kind, int(n), 0.1) for n in row] for row in visits], rtol=0, atol=1e-15
    )
    solution = robust_value_iteration(*model, kind(radii), tolerance=1e-11)
    alone = [
        [robust_bellman(solution.values, *model, kind(float(radii[s, a])))[s, a] for a in range(3)] for s in range(4)
    ]
    np.testing.assert_allclose(solution.action_values, alone, rtol=0, atol=1e-10)
    np.testing.assert_allclose(solution.values, np.max(alone, axis=1), rtol=0, atol=1e-10)
    assert np.ptp(solution.values - robust_value_iteration(*model, kind(radii.mean())).values) > 1e-4
