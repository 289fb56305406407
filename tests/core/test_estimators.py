"""Plug-in and multilevel estimates against exact enumeration and finite differences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from dro_core import KL, AmbiguitySet, ChiSquarePenalty, CVaR, TotalVariation, robust_loss, worst_case
from dro_core.sampling.bounds import multilevel_second_moment_bound
from dro_core.sampling.estimators import Estimate, multilevel_cost, multilevel_estimate, plugin_estimate
from synthetic import plugin_value

from .estimator_sets import CAPPED, PLAIN, UNBIASED, every_set
from .registry import BACKENDS, Backend

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
