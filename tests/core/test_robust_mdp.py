"""The robust Bellman operator and value iteration, against conic solvers, enumeration and linear solves."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dro_core import KL, ChiSquare, CVaR, KLPenalty, TotalVariation, Wasserstein, worst_case
from dro_core.robust_mdp import robust_bellman, robust_value_iteration

from . import tolerances as tol
from .registry import BACKENDS, FAMILIES, Backend, Family


class Model(NamedTuple):
    rewards: np.ndarray
    transitions: np.ndarray
    discount: float


def random_model(seed: int, *, states: int = 4, actions: int = 3, discount: float = 0.9) -> Model:
    """Rewards in [-1, 1] and transitions of which about a third are impossible."""
    rng = np.random.default_rng(seed)
    masses = rng.exponential(size=(states, actions, states)) * (rng.random((states, actions, states)) > 0.35)
    masses[..., 0] += 0.1
    return Model(rng.uniform(-1, 1, (states, actions)), masses / masses.sum(axis=-1, keepdims=True), discount)


def exact_values(model: Model, policy: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Values of a stationary policy under given transitions, by a linear solve."""
    followed = np.einsum("sa,sat->st", policy, transitions)
    rewards = np.sum(policy * model.rewards, axis=1)
    return np.linalg.solve(np.eye(len(rewards)) - model.discount * followed, rewards)


def deterministic_policies(states: int, actions: int) -> list[np.ndarray]:
    return [np.eye(actions)[list(choice)] for choice in itertools.product(range(actions), repeat=states)]


def models(*discounts: float) -> st.SearchStrategy[Model]:
    sizes = {"states": st.integers(1, 4), "actions": st.integers(1, 3)}
    return st.builds(random_model, st.integers(0, 2**20), **sizes, discount=st.sampled_from(discounts))


by_name = {"ids": lambda item: getattr(item, "name", None) or str(item)}
every_family = pytest.mark.parametrize("family", FAMILIES, **by_name)


def iterated(families: list[Family]) -> pytest.MarkDecorator:
    """Value iteration with a conic solver inside takes seconds; its operator obeys the laws above as the others do."""
    exhaustive = {True: [pytest.mark.exhaustive], False: []}
    rows = [pytest.param(family, id=family.name, marks=exhaustive[family.name == "convex"]) for family in families]
    return pytest.mark.parametrize("family", rows)


def draw_values(data: st.DataObject, model: Model, name: str) -> np.ndarray:
    states = len(model.rewards)
    return np.array(data.draw(st.lists(st.integers(-16, 16), min_size=states, max_size=states), label=name)) / 4


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


SETS = [family for family in FAMILIES if not family.name.endswith("penalty")]


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


# Stopping


@iterated(FAMILIES)
@given(data=st.data(), model=models(0.0, 0.75), tolerance=st.sampled_from([3.0, 0.1, 1e-3]))
def test_the_error_bound_holds(family: Family, data: st.DataObject, model: Model, tolerance: float) -> None:
    ambiguity = data.draw(family.draw(len(model.rewards)), label="ambiguity")
    start = draw_values(data, model, "start")
    exact = robust_value_iteration(*model, ambiguity, tolerance=1e-7)
    rough = robust_value_iteration(*model, ambiguity, tolerance=tolerance, start=start)
    assert exact.error_bound <= 1e-7
    assert rough.error_bound <= tolerance
    allowed = rough.error_bound + 3e-7
    assert np.abs(rough.values - exact.values).max() <= allowed
    assert np.abs(rough.action_values - exact.action_values).max() <= allowed
    earned = robust_value_iteration(*model, ambiguity, policy=rough.policy, tolerance=1e-7)
    assert np.all(exact.values - earned.values <= 2 * rough.error_bound + 6e-7)
    assert np.abs(rough.values - earned.values).max() <= allowed


def test_the_error_bound_is_attained() -> None:
    """One state earns 1 for ever, the other -1: after one step the bracket's ends are the values."""
    rewards, stay = np.array([[1.0], [-1.0]]), np.eye(2)[:, None, :]
    solution = robust_value_iteration(rewards, stay, 0.75, KL(1.0), tolerance=3.5)
    assert (solution.iterations, solution.error_bound) == (1, 3.0)
    np.testing.assert_array_equal(solution.values, [1, -1])
    np.testing.assert_allclose(robust_value_iteration(rewards, stay, 0.75, KL(1.0)).values, [4, -4], atol=1e-8)


def test_mixing_stops_long_before_the_contraction_does() -> None:
    model = random_model(11, discount=0.999)
    ambiguity = TotalVariation(0.1)
    solution = robust_value_iteration(*model, ambiguity, tolerance=1e-6)
    by_contraction = math.log(1e-6 * (1 - 0.999)) / math.log(0.999)
    assert solution.iterations < by_contraction / 100
    residual = robust_bellman(solution.values, *model, ambiguity).max(axis=1) - solution.values
    assert np.abs(residual).max() / (1 - 0.999) <= 2e-6


def test_a_tolerance_below_rounding_ends_with_an_honest_bound() -> None:
    """Some of these models cycle for ever between neighbouring floats; the contraction says when to stop."""
    bounds = []
    for seed in range(16):
        solution = robust_value_iteration(*random_model(seed, discount=0.5), KL(0.1), tolerance=1e-17)
        assert solution.iterations <= 3 + math.log2(1e17)
        bounds.append(solution.error_bound)
    assert 1e-17 < max(bounds) < 1e-14


def test_a_warm_start_saves_steps() -> None:
    model = random_model(4, discount=0.95)
    cold = robust_value_iteration(*model, KL(0.2))
    warm = robust_value_iteration(*model, KL(0.2001), start=cold.values)
    assert warm.iterations < cold.iterations


# Array libraries


@pytest.mark.parametrize("backend", BACKENDS, **by_name)
def test_every_library_gives_the_same_answer_in_its_own_arrays(backend: Backend) -> None:
    model = random_model(6)
    arrays = [backend.array(part) for part in model[:2]]
    solution = robust_value_iteration(*arrays, model.discount, ChiSquare(0.2))
    expected = robust_value_iteration(*model, ChiSquare(0.2))
    for ours, theirs in zip(solution[:3], expected[:3], strict=True):
        assert type(ours) is type(arrays[0])
        np.testing.assert_allclose(backend.numpy(ours), theirs, rtol=0, atol=1e-9)
    assert solution.iterations == expected.iterations


def test_dtypes_come_back_and_integers_become_float64() -> None:
    model = random_model(6)
    for dtype, expected in [(torch.float32, torch.float32), (torch.int64, torch.float64)]:
        rewards = torch.ones((4, 3), dtype=dtype)
        transitions = torch.tensor(model.transitions, dtype=torch.float32)
        solution = robust_value_iteration(rewards, transitions, 0.5, KL(0.1))
        assert {array.dtype for array in solution[:3]} == {expected}
        np.testing.assert_allclose(solution.values.numpy(), 2.0, atol=1e-6)


def test_the_gradient_is_the_worst_transitions() -> None:
    model, ambiguity = random_model(8), TotalVariation(0.2)
    values = torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64, requires_grad=True)
    rewards, transitions = torch.from_numpy(model.rewards), torch.from_numpy(model.transitions)
    robust_bellman(values, rewards, transitions, 0.9, ambiguity)[2, 1].backward()
    worst = worst_case(-values.detach(), ambiguity, reference=transitions[2, 1]).weights
    np.testing.assert_allclose(values.grad, 0.9 * worst, rtol=0, atol=1e-12)


# Errors


def test_ties_take_the_first_action() -> None:
    solution = robust_value_iteration(np.ones((2, 3)), np.full((2, 3, 2), 0.5), 0.9, KL(0.1))
    np.testing.assert_array_equal(solution.policy, [[1, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(solution.values, 10)


GOOD = random_model(1, states=3, actions=2)
UNIFORM = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rewards": np.zeros(3)}, r"rewards must have shape \(S, A\).*got \(3,\)"),
        ({"rewards": np.zeros((3, 0))}, "at least one state and one action"),
        ({"transitions": np.full((3, 3, 2), 0.5)}, r"transitions must have shape.*\(3, 2, 3\), got \(3, 3, 2\)"),
        ({"transitions": np.full((3, 2, 3), 0.3)}, "must sum to 1"),
        ({"rewards": np.full((3, 2), np.nan)}, "rewards must be finite"),
        ({"discount": 1.0}, r"`discount`.*\[0, 1\), got 1.0"),
        ({"discount": -0.1}, "`discount`"),
        ({"tolerance": 0.0}, r"`tolerance`.*\(0, inf\)"),
        ({"start": np.zeros(2)}, r"start must have shape \(S,\), here \(3,\), got \(2,\)"),
        ({"start": np.full(3, np.nan)}, "finite"),
        ({"policy": UNIFORM[:2]}, r"policy must have shape \(S, A\)"),
        ({"policy": 0.9 * UNIFORM}, "off by 0.1"),
        ({"policy": np.array([[2.0, -1.0]] * 3)}, "nonnegative"),
        ({"policy": torch.from_numpy(UNIFORM)}, "one library"),
    ],
)
def test_errors_teach(changed: dict[str, Any], message: str) -> None:
    arguments = {**GOOD._asdict(), "ambiguity": KL(0.1), **changed}
    with pytest.raises((TypeError, ValueError), match=message):
        robust_value_iteration(**arguments)


def test_the_operator_allows_discount_one_and_checks_the_values() -> None:
    horizon = np.zeros(3)
    for _ in range(5):
        horizon = robust_bellman(horizon, np.ones((3, 2)), GOOD.transitions, 1.0, KL(0.1)).max(axis=1)
    np.testing.assert_allclose(horizon, 5)
    with pytest.raises(ValueError, match=r"values must have shape \(S,\), here \(3,\), got \(4,\)"):
        robust_bellman(np.zeros(4), GOOD.rewards, GOOD.transitions, 0.9, KL(0.1))
    with pytest.raises(ValueError, match=r"`discount`.*\[0, 1\]"):
        robust_bellman(horizon, GOOD.rewards, GOOD.transitions, 1.1, KL(0.1))
