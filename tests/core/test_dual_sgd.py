"""Steps on the dual against finite differences, single draws and linear programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, TotalVariation, robust_loss
from dro_core.sampling.estimators import DualState, dual_init, dual_step

from .estimator_sets import CAPPED, PLAIN, every_dual
from .registry import BACKENDS, Backend

# Dual SGD. The duals as theory.md has them, written once more and for numpy alone.


def cvar_dual(losses: np.ndarray, eta: float, alpha: float) -> float:
    return float(eta + np.mean(np.maximum(losses - eta, 0)) / alpha)


DUALS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "cvar:0.3": lambda x, t: cvar_dual(x, t[0], 0.3),
    "tv:0.3,max_ratio=3": lambda x, t: 0.7 * cvar_dual(x, t[0], 0.7) + 0.3 * cvar_dual(x, t[1], 0.15),
    "tv:0.5,max_ratio=1.5": lambda x, t: cvar_dual(x, t[0], 1 / 1.5),
    "spectral:0.1/0.2/0.7": lambda x, t: (
        0.5 * cvar_dual(x, t[0], 1 / 3) + 0.2 * cvar_dual(x, t[1], 2 / 3) + 0.3 * cvar_dual(x, t[2], 1.0)
    ),
    "chi2_penalty:0.4": lambda x, t: float(t[0] + 0.2 + np.mean(np.maximum(x - t[0], 0) ** 2) / 0.8),
    "chi2_penalty:5": lambda x, t: float(t[0] + 2.5 + np.mean(np.maximum(x - t[0], 0) ** 2) / 10),
    "kl_penalty:0.6": lambda x, t: float(t[0] - 0.6 + 0.6 * np.mean(np.exp((x - t[0]) / 0.6))),
}


@every_dual
def test_dual_starts_at_the_best_thresholds(ambiguity: AmbiguitySet) -> None:
    losses = np.random.default_rng(2).standard_normal(11)
    state = dual_init(np.zeros(2), losses, ambiguity)
    dual = DUALS[str(ambiguity)]
    assert dual(losses, state.thresholds) == pytest.approx(float(robust_loss(losses, ambiguity)), abs=1e-12)
    moved = state.thresholds + 0.3 * np.random.default_rng(0).standard_normal((20, len(state.thresholds)))
    assert all(dual(losses, thresholds) >= dual(losses, state.thresholds) - 1e-12 for thresholds in moved)


@every_dual
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_dual_steps_down_the_dual(ambiguity: AmbiguitySet, seed: int) -> None:
    """One step is the gradient of the dual by finite differences, at any thresholds, for any minibatch."""
    rng = np.random.default_rng(seed)
    rows, offsets, parameters = rng.standard_normal((6, 2)), rng.standard_normal(6), rng.standard_normal(2)
    k = len(dual_init(parameters, offsets, ambiguity).thresholds)
    state = DualState(parameters, rng.standard_normal(k))

    def dual(point: np.ndarray) -> float:
        return DUALS[str(ambiguity)](rows @ point[:2] + offsets, point[2:])

    point = np.concatenate(state)
    slopes = np.array([(dual(point + 1e-7 * axis) - dual(point - 1e-7 * axis)) / 2e-7 for axis in np.eye(2 + k)])
    after = dual_step(state, rows @ parameters + offsets, rows, ambiguity, step_size=0.5, threshold_step=0.25)
    np.testing.assert_allclose(after.parameters, parameters - 0.5 * slopes[:2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after.thresholds, state.thresholds - 0.25 * slopes[2:], rtol=1e-5, atol=1e-5)


@every_dual
def test_single_draws_are_unbiased(ambiguity: AmbiguitySet) -> None:
    """The mean step over single draws is the step on the whole population: no minibatch bias."""
    rng = np.random.default_rng(5)
    losses, rows = rng.standard_normal(7), rng.standard_normal((7, 3))
    state = dual_init(np.zeros(3), losses[:4], ambiguity)
    whole = dual_step(state, losses, rows, ambiguity, step_size=0.1)
    singles = [dual_step(state, losses[[i]], rows[[i]], ambiguity, step_size=0.1) for i in range(7)]
    np.testing.assert_allclose(np.mean([one.parameters for one in singles], axis=0), whole.parameters, atol=1e-14)
    np.testing.assert_allclose(np.mean([one.thresholds for one in singles], axis=0), whole.thresholds, atol=1e-14)


def smallest_cvar(rows: np.ndarray, targets: np.ndarray, alpha: float) -> float:
    """Least CVaR of |<row, w> - target| over w, by the linear program of [RU00]."""
    n, d = rows.shape
    cost = np.concatenate([np.zeros(d), [1.0], np.full(n, 1 / (alpha * n))])
    above = [np.hstack([sign * rows, -np.ones((n, 1)), -np.eye(n)]) for sign in (1, -1)]
    limits = np.concatenate([targets, -targets])
    bounds = [(None, None)] * (d + 1) + [(0, None)] * n
    found = linprog(cost, A_ub=np.vstack(above), b_ub=limits, bounds=bounds)
    assert found.status == 0
    return float(found.fun)


REGRESSION = np.random.default_rng(11)
ROWS = REGRESSION.standard_normal((40, 2))
TARGETS = ROWS @ np.array([1.0, -2.0]) + REGRESSION.standard_t(3, 40)


def descend(ambiguity: AmbiguitySet, steps: int, step_size: float) -> np.ndarray:
    """Average iterate of dual SGD on absolute regression errors, four draws a step."""
    rng = np.random.default_rng(0)
    state = dual_init(np.zeros(2), np.abs(TARGETS), ambiguity)
    total = np.zeros(2)
    for _ in range(steps):
        drawn = rng.integers(40, size=4)
        errors = ROWS[drawn] @ state.parameters - TARGETS[drawn]
        gradients = np.sign(errors)[:, None] * ROWS[drawn]
        state = dual_step(state, np.abs(errors), gradients, ambiguity, step_size=step_size)
        total += state.parameters
    return total / steps


@pytest.mark.parametrize("ambiguity", [CVaR(0.3), TotalVariation(0.2, max_ratio=4)], ids=str)
def test_dual_sgd_reaches_the_optimum(ambiguity: AmbiguitySet) -> None:
    found = descend(ambiguity, steps=6000, step_size=0.02)
    value = float(robust_loss(np.abs(ROWS @ found - TARGETS), ambiguity))
    if isinstance(ambiguity, CVaR):
        best = smallest_cvar(ROWS, TARGETS, ambiguity.alpha)
    else:
        best = min(
            minimize(
                lambda w: float(robust_loss(np.abs(ROWS @ w - TARGETS), ambiguity)), start, method="Nelder-Mead"
            ).fun
            for start in ([0.0, 0.0], [1.0, -2.0])
        )
    start = float(robust_loss(np.abs(TARGETS), ambiguity))
    assert best <= value + 1e-6
    assert value - best < 0.03 * (start - best)


@pytest.mark.parametrize(
    ("ambiguity", "message"),
    [
        (PLAIN, r"contains the maximum.*Use TotalVariation\(\.\.\., max_ratio=\.\.\.\)"),
        (ChiSquare(0.3), "Use CVaR"),
        (KL(0.3), "Use CVaR"),
    ],
    ids=str,
)
def test_sets_without_an_unbiased_dual_are_refused(ambiguity: AmbiguitySet, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dual_init(np.zeros(2), np.arange(4.0), ambiguity)
    state = DualState(np.zeros(2), np.zeros(1))
    with pytest.raises(ValueError, match=message):
        dual_step(state, np.arange(4.0), np.zeros((4, 2)), ambiguity, step_size=0.1)


@every_dual
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_dual_steps_take_arrays_of_any_library(backend: Backend, ambiguity: AmbiguitySet) -> None:
    rng = np.random.default_rng(8)
    parameters, losses, rows = rng.standard_normal(2), rng.standard_normal(5), rng.standard_normal((5, 2))

    def two_steps(array: Callable[[np.ndarray], Any]) -> DualState:
        state = dual_init(array(parameters), array(losses), ambiguity)
        for _ in range(2):
            state = dual_step(state, array(losses), array(rows), ambiguity, step_size=0.1)
        return state

    for ours, numpys in zip(two_steps(backend.array), two_steps(np.array), strict=True):
        np.testing.assert_allclose(backend.numpy(ours), numpys, atol=1e-12)


def test_dual_steps_leave_the_state_alone_and_keep_dtypes() -> None:
    state = dual_init(torch.zeros(2), torch.arange(4.0), CAPPED)
    before = [part.clone() for part in state]
    after = dual_step(state, torch.arange(4.0), torch.ones(4, 2), CAPPED, step_size=0.1)
    for kept, part in zip(before, state, strict=True):
        torch.testing.assert_close(kept, part)
    assert after.parameters.dtype == torch.float32
    assert float(after.parameters[0]) < 0
