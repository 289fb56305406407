"""Plug-in, multilevel and dual estimates against exact enumeration, finite differences and linear programs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CVaR,
    KLPenalty,
    Spectral,
    TotalVariation,
    robust_loss,
    worst_case,
)
from dro_core.sampling.bounds import multilevel_second_moment_bound
from dro_core.sampling.estimators import (
    DualState,
    Estimate,
    dual_init,
    dual_step,
    multilevel_cost,
    multilevel_estimate,
    plugin_estimate,
)
from synthetic import plugin_value

from .registry import BACKENDS, Backend

CAPPED, PLAIN = TotalVariation(0.3, max_ratio=3), TotalVariation(0.3)
UNBIASED = [CVaR(0.3), CAPPED, TotalVariation(0.5, max_ratio=1.5), Spectral((0.1, 0.2, 0.7))]
UNBIASED += [ChiSquarePenalty(0.4), ChiSquarePenalty(5.0), KLPenalty(0.6)]
EVERY = [*UNBIASED, PLAIN, ChiSquare(0.5), KL(0.3)]
every_set = pytest.mark.parametrize("ambiguity", EVERY, ids=str)
every_dual = pytest.mark.parametrize("ambiguity", UNBIASED, ids=str)


# Plug-in.


@every_set
def test_plugin_gradient_is_that_of_the_value(ambiguity: AmbiguitySet) -> None:
    rng = np.random.default_rng(0)
    rows, offsets, parameters = rng.standard_normal((9, 3)), rng.standard_normal(9), rng.standard_normal(3)
    estimate = plugin_estimate(rows @ parameters + offsets, rows, ambiguity)

    def value(at: np.ndarray) -> float:
        return float(robust_loss(rows @ at + offsets, ambiguity))

    differences = [(value(parameters + 1e-6 * axis) - value(parameters - 1e-6 * axis)) / 2e-6 for axis in np.eye(3)]
    assert float(estimate.value) == value(parameters)
    np.testing.assert_allclose(estimate.gradient, differences, atol=1e-7)
    assert estimate.draws == 9


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_plugin_takes_batches_of_any_library(backend: Backend) -> None:
    rng = np.random.default_rng(1)
    losses, gradients = rng.standard_normal((2, 4, 6)), rng.standard_normal((2, 4, 6, 3))
    batch = plugin_estimate(backend.array(losses), backend.array(gradients), CAPPED)
    assert (tuple(batch.value.shape), tuple(batch.gradient.shape), batch.draws) == ((2, 4), (2, 4, 3), 6)
    alone = worst_case(losses[1, 2], CAPPED)
    np.testing.assert_allclose(backend.numpy(batch.value)[1, 2], alone.value)
    np.testing.assert_allclose(backend.numpy(batch.gradient)[1, 2], alone.weights @ gradients[1, 2], atol=1e-14)


def test_plugin_agrees_with_autograd_and_keeps_dtypes() -> None:
    losses, rows = torch.randn(8, generator=torch.Generator().manual_seed(0)), torch.arange(16.0).reshape(8, 2)
    parameters = torch.zeros(2, requires_grad=True)
    robust_loss(losses + rows @ parameters, CVaR(0.3)).backward()
    estimate = plugin_estimate(losses, rows, CVaR(0.3))
    assert parameters.grad is not None
    torch.testing.assert_close(estimate.gradient, parameters.grad)
    assert estimate.value.dtype == estimate.gradient.dtype == torch.float32
    whole = plugin_estimate(np.array([1, 2, 3, 4]), np.array([[1], [2], [3], [4]]), CVaR(0.75))
    assert whole.gradient.tolist() == [3.0]


@pytest.mark.parametrize("shape", [(), (4,), (3, 2), (4, 3, 2)])
def test_plugin_wants_one_gradient_per_loss(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"gradients must have shape \(\*losses\.shape, d\)"):
        plugin_estimate(np.arange(4.0), np.zeros(shape), CVaR(0.5))


# Multilevel Monte Carlo.


class FixedLevel:
    """A generator whose geometric draw is known."""

    def __init__(self, level: int) -> None:
        self.level = level

    def geometric(self, chance: float) -> int:
        assert chance == 0.5
        return self.level


class Population(NamedTuple):
    losses: np.ndarray
    masses: np.ndarray
    gradients: np.ndarray


PLANE = Population(
    np.array([0.0, 0.25, 1.0]), np.array([0.5, 0.3, 0.2]), np.array([[1.0, 0.0], [0.0, 1.0], [-0.6, 0.8]])
)
OPPOSED = Population(np.array([0.0, 1.0]), np.array([0.7, 0.3]), np.array([[-1.0], [1.0]]))


def every_outcome(
    ambiguity: AmbiguitySet, n_min: int, levels: int, population: Population = PLANE
) -> list[tuple[float, Estimate]]:
    """Each outcome of the estimate with its probability: every level and every sequence of draws."""
    outcomes: list[tuple[float, Estimate]] = []
    for level in range(1, levels + 1) if levels else [0]:
        chance = 2.0 ** -min(level, max(levels - 1, 0))
        for sequence in product(range(len(population.losses)), repeat=n_min << level):
            drawn = np.array(sequence)

            def sample(_: object, size: int, drawn: np.ndarray = drawn) -> tuple[np.ndarray, np.ndarray]:
                assert size == len(drawn)
                return population.losses[drawn], population.gradients[drawn]

            rng: Any = FixedLevel(max(level, 1))
            estimate = multilevel_estimate(sample, ambiguity, rng, n_min=n_min, n_max=n_min << levels)
            outcomes.append((chance * float(np.prod(population.masses[drawn])), estimate))
    return outcomes


@pytest.mark.parametrize(("n_min", "levels"), [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)])
@every_set
def test_multilevel_is_unbiased_exactly(ambiguity: AmbiguitySet, n_min: int, levels: int) -> None:
    """Its mean over all outcomes is the mean plug-in value and gradient of n_max draws; its mean cost as stated."""
    outcomes = every_outcome(ambiguity, n_min, levels)
    n_max = n_min << levels
    assert sum(chance for chance, _ in outcomes) == pytest.approx(1, abs=1e-12)
    assert sum(chance * estimate.draws for chance, estimate in outcomes) == pytest.approx(multilevel_cost(n_min, n_max))
    value = sum(chance * float(estimate.value) for chance, estimate in outcomes)
    assert value == pytest.approx(plugin_value(PLANE.losses, PLANE.masses, n_max, ambiguity), abs=1e-12)
    drawn = np.array(list(product(range(3), repeat=n_max)))
    plugin = plugin_estimate(PLANE.losses[drawn], PLANE.gradients[drawn], ambiguity).gradient
    gradient = sum(chance * estimate.gradient for chance, estimate in outcomes)
    np.testing.assert_allclose(gradient, np.prod(PLANE.masses[drawn], axis=1) @ plugin, atol=1e-12)


@pytest.mark.parametrize(("population", "n_min", "levels"), [(PLANE, 2, 1), (PLANE, 1, 2), (OPPOSED, 1, 3)])
@pytest.mark.parametrize("ambiguity", [*UNBIASED, PLAIN, CVaR(0.05), ChiSquarePenalty(0.05)], ids=str)
def test_multilevel_second_moment_stays_below_its_bound(
    ambiguity: AmbiguitySet, population: Population, n_min: int, levels: int
) -> None:
    outcomes = every_outcome(ambiguity, n_min, levels, population)
    moment = sum(chance * float(estimate.gradient @ estimate.gradient) for chance, estimate in outcomes)
    bound = multilevel_second_moment_bound(ambiguity, n_min, n_min << levels, 1.0, loss_range=1.0)
    assert 0.1 * bound < moment <= bound + 1e-12


@pytest.mark.parametrize("ambiguity", [CVaR(0.05), TotalVariation(1.0), ChiSquarePenalty(0.05)], ids=str)
def test_a_smaller_multilevel_second_moment_bound_is_refuted(ambiguity: AmbiguitySet) -> None:
    moment = sum(chance * float(run.gradient[0]) ** 2 for chance, run in every_outcome(ambiguity, 1, 3, OPPOSED))
    assert 0.25 * multilevel_second_moment_bound(ambiguity, 1, 8, 1.0, loss_range=1.0) < moment


@pytest.mark.parametrize("ambiguity", [CVaR(0.1), CAPPED, ChiSquarePenalty(0.2), KL(0.2)], ids=str)
def test_multilevel_with_a_random_level_agrees_with_enumeration(ambiguity: AmbiguitySet) -> None:
    values, chances = np.array([0.0, 1.0]), np.array([0.9, 0.1])

    def sample(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = (rng.random(size) < 0.1).astype(int)
        return values[drawn], np.where(drawn, 1.0, -1.0)[:, None]

    rng = np.random.default_rng(7)
    runs = [multilevel_estimate(sample, ambiguity, rng, n_min=4, n_max=64) for _ in range(800)]
    exact = plugin_value(values, chances, 64, ambiguity)
    for observed, expected in [
        (np.array([float(run.value) for run in runs]), exact),
        (np.array([float(run.draws) for run in runs]), multilevel_cost(4, 64)),
    ]:
        error = observed.std(ddof=1) / np.sqrt(len(observed))
        assert abs(observed.mean() - expected) <= 4.5 * error
        assert error < 0.05 * expected + 0.02
    squares = np.array([float(run.gradient[0]) ** 2 for run in runs])
    if not isinstance(ambiguity, KL):
        assert squares.mean() <= multilevel_second_moment_bound(ambiguity, 4, 64, 1.0, loss_range=1.0)
    # The estimate has a job to do: the plug-in of as many draws as it takes on average has a visible bias.
    assert exact - plugin_value(values, chances, 4, ambiguity) > 0.02


def test_levels_are_drawn_with_the_stated_probabilities() -> None:
    rng = np.random.default_rng(3)
    sizes: list[int] = []

    def sample(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(size)
        return np.zeros(size), np.zeros((size, 0))

    for _ in range(1500):
        multilevel_estimate(sample, CVaR(0.5), rng, n_min=3, n_max=24)
    shares = [sizes.count(size) / 1500 for size in (6, 12, 24)]
    assert sum(shares) == 1
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=4.5 * np.sqrt(0.25 / 1500))


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_multilevel_takes_arrays_of_any_library(backend: Backend) -> None:
    def sample(array: Callable[[np.ndarray], Any]) -> Callable[[np.random.Generator, int], tuple[Any, Any]]:
        return lambda rng, size: (array(rng.standard_normal(size)), array(rng.standard_normal((size, 2))))

    for seed in range(3):
        ours = multilevel_estimate(sample(backend.array), CAPPED, np.random.default_rng(seed), n_min=2, n_max=16)
        numpys = multilevel_estimate(sample(np.asarray), CAPPED, np.random.default_rng(seed), n_min=2, n_max=16)
        assert ours.draws == numpys.draws
        np.testing.assert_allclose(backend.numpy(ours.value), numpys.value, atol=1e-12)
        np.testing.assert_allclose(backend.numpy(ours.gradient), numpys.gradient, atol=1e-12)


def test_multilevel_keeps_dtypes() -> None:
    def sample(rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(rng.standard_normal(size)).float(), torch.ones(size, 2)

    estimate = multilevel_estimate(sample, CVaR(0.3), np.random.default_rng(0), n_min=2, n_max=16)
    torch.testing.assert_close(estimate.gradient, torch.ones(2))
    assert estimate.value.dtype == torch.float32


@pytest.mark.parametrize(
    ("n_min", "n_max", "message"),
    [
        (4, 24, "`n_max` is n_min times a power of 2, got n_min=4 and n_max=24. Use n_max=16."),
        (4, 2, "Use n_max=4"),
        (0, 8, "`n_min` is a number of draws"),
        (2, 0, "`n_max` is a number of draws"),
        (2.0, 8, "`n_min` is a number of draws"),
    ],
)
def test_multilevel_sizes_are_checked(n_min: int, n_max: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multilevel_cost(n_min, n_max)
    with pytest.raises(ValueError, match=message):
        multilevel_estimate(lambda rng, size: (0, 0), CVaR(0.5), np.random.default_rng(0), n_min=n_min, n_max=n_max)


def test_a_sample_of_the_wrong_size_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"sample must return \d+ losses"):
        multilevel_estimate(
            lambda rng, size: (np.zeros(3), np.zeros((3, 1))), CVaR(0.5), np.random.default_rng(0), n_min=2, n_max=4
        )


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
