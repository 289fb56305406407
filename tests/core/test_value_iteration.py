"""Robust value iteration: when it stops, what arrays it takes, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dro_core import KL, ChiSquare, TotalVariation, worst_case
from dro_core.robust_mdp import robust_bellman, robust_value_iteration

from .registry import BACKENDS, FAMILIES, Backend, Family
from .robust_models import Model, by_name, draw_values, iterated, models, random_model

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
