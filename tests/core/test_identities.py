"""Sets that must agree with each other, and with formulas of scipy or of the theory, without a solver between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    Hellinger,
    KLPenalty,
    Spectral,
    Wasserstein,
    worst_case,
)

from .oracles import instance

seeds = pytest.mark.parametrize("seed", range(4))


def value(losses: np.ndarray, ambiguity: AmbiguitySet, p: np.ndarray | None = None) -> float:
    return float(worst_case(losses, ambiguity, reference=p).value)


def same(
    one: AmbiguitySet, other: AmbiguitySet, losses: np.ndarray, p: np.ndarray, *, value: float, weights: float
) -> None:
    """Compare values and weights; losses of range 1."""
    left, right = (worst_case(losses, ambiguity, reference=p) for ambiguity in (one, other))
    assert float(left.value) == pytest.approx(float(right.value), rel=0, abs=value)
    np.testing.assert_allclose(left.weights, right.weights, rtol=0, atol=weights)


def minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Minimise a convex function: on a grid first, then by scipy between the neighbours of the best point."""
    grid = np.linspace(low, high, 201)
    best = int(np.argmin([function(at) for at in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, 200)]
    return float(minimize_scalar(function, bounds=around, method="bounded", options={"xatol": 1e-12}).fun)


@seeds
@pytest.mark.parametrize("radius", [0.0, 1e-9, 0.01, 0.5, 3.0, 100.0])
def test_the_power_two_is_chi_square(seed: int, radius: float) -> None:
    losses, p = instance(seed, 12)
    same(CressieRead(2, radius), ChiSquare(radius), losses, p, value=1e-12, weights=1e-9)


@seeds
@pytest.mark.parametrize("radius", [0.01, 0.3, 1.0])
def test_powers_near_one_are_kl_to_second_order(seed: int, radius: float) -> None:
    losses, p = instance(seed, 12)
    exact = value(losses, KL(radius), p)
    above, below = (value(losses, CressieRead(1 + step, radius), p) - exact for step in (0.002, -0.002))
    assert 1e-7 < abs(above) < 2e-3
    assert abs(above + below) < 0.02 * abs(above) + 1e-12


@seeds
@pytest.mark.parametrize("radius", [0.0, 1e-6, 0.2, 1.9])
def test_the_power_one_half_is_hellinger(seed: int, radius: float) -> None:
    losses, p = instance(seed, 12)
    same(CressieRead(0.5, 2 * radius), Hellinger(radius), losses, p, value=1e-12, weights=1e-10)


@seeds
@pytest.mark.parametrize("order", [1.25, 1.5, 2.0, 2.5, 3.0])
@pytest.mark.parametrize("radius", [0.01, 0.5, 3.0])
def test_powers_above_one_have_a_norm_as_their_dual(seed: int, order: float, radius: float) -> None:
    """The value is inf_eta eta + (1 + k (k - 1) radius)^{1/k} ||(l - eta)_+||_{k/(k-1)}, in the norm of L(p)."""
    losses, p = instance(seed, 12)
    conjugate, size = order / (order - 1), (1 + order * (order - 1) * radius) ** (1 / order)
    top = losses[p > 0].max()

    def bound(eta: float) -> float:
        return eta + size * (p @ np.maximum(losses - eta, 0) ** conjugate) ** (1 / conjugate)

    ours = value(losses, CressieRead(order, radius), p)
    # eta = top is where all mass sits on the largest loss; far below, the bound grows with slope size - 1.
    assert min(minimum(bound, top - 30, top), minimum(bound, top - 3, top), bound(top)) == pytest.approx(ours, abs=1e-8)


@seeds
@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_all_weight_on_the_last_share_is_cvar(seed: int, k: int) -> None:
    losses, p = instance(seed, 12)
    same(Spectral((0.0,) * (k - 1) + (1.0,)), CVaR(1 / k), losses, p, value=1e-14, weights=1e-13)


@seeds
@pytest.mark.parametrize("k", [1, 3, 7, 40])
def test_a_constant_spectrum_is_the_mean(seed: int, k: int) -> None:
    losses, p = instance(seed, 12)
    result = worst_case(losses, Spectral((1 / k,) * k), reference=p)
    np.testing.assert_allclose(result.weights, p, rtol=1e-13, atol=1e-15)
    assert float(result.value) == pytest.approx(losses @ p, abs=1e-14)


@pytest.mark.parametrize("seed", range(8))
def test_one_share_for_each_scenario_is_the_sum_over_order_statistics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    losses = rng.standard_normal(n)
    if seed % 2:
        losses = np.round(4 * losses)
    spectrum = np.sort(rng.exponential(size=n) * (rng.random(n) < 0.7)) + 1e-3
    spectrum /= spectrum.sum()
    result = worst_case(losses, Spectral(tuple(spectrum)))
    assert float(result.value) == pytest.approx(np.sort(losses) @ spectrum, abs=1e-13)
    if seed % 2 == 0:  # no ties, so the ranks are the scenarios
        np.testing.assert_allclose(result.weights[np.argsort(losses)], spectrum, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", range(4))
def test_mixtures_of_cvars_are_mixtures_of_their_values(seed: int) -> None:
    """0.3 CVaR(1/2) + 0.7 CVaR(1/4) has the spectrum (0, 0, 0.15, 0.15) + (0, 0, 0, 0.7)."""
    losses, p = instance(seed, 12)
    mixed = 0.3 * value(losses, CVaR(0.5), p) + 0.7 * value(losses, CVaR(0.25), p)
    assert value(losses, Spectral((0.0, 0.0, 0.15, 0.85)), p) == pytest.approx(mixed, abs=1e-14)


@seeds
@pytest.mark.parametrize("temperature", [1e-6, 0.01, 0.3, 1.0, 50.0, 1e7])
def test_the_kl_penalty_is_a_log_sum_exp(seed: int, temperature: float) -> None:
    losses, p = (array[:6] for array in instance(seed, 12))  # the atom of zero mass is the next one
    p = p / p.sum()
    result = worst_case(losses, KLPenalty(temperature), reference=p)
    exponents = losses / temperature
    rounding = 4 * np.finfo(float).eps * temperature  # the masses sum to 1 within eps, and so does scipy's sum
    assert float(result.value) == pytest.approx(temperature * logsumexp(exponents, b=p), abs=rounding + 1e-13)
    softmax = p * np.exp(exponents - logsumexp(exponents, b=p))
    np.testing.assert_allclose(result.weights, softmax, rtol=1e-9, atol=1e-15)


def onto_simplex(point: np.ndarray) -> np.ndarray:
    """Project by Michelot's method: shift to sum one, drop what is negative, repeat with the rest."""
    active = np.ones(len(point), dtype=bool)
    while True:
        shifted = np.where(active, point - (point[active].sum() - 1) / active.sum(), 0.0)
        if np.all(shifted >= 0):
            return shifted
        active &= shifted > 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 40.0])
def test_the_chi_square_penalty_projects_onto_the_simplex(seed: int, scale: float) -> None:
    """For uniform p and strength s the weights are the nearest ones to losses / (s n): sparsemax at s = 1/n."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    losses = np.round(rng.standard_normal(n), 1 if seed % 2 else 12)
    weights = worst_case(losses, ChiSquarePenalty(scale / n)).weights
    np.testing.assert_allclose(weights, onto_simplex(losses / scale), rtol=0, atol=1e-12)


@seeds
@pytest.mark.parametrize(
    ("ball", "penalty"),
    [
        (KL(0.01), KLPenalty),
        (KL(0.3), KLPenalty),
        (ChiSquare(0.01), ChiSquarePenalty),
        (ChiSquare(0.4), ChiSquarePenalty),
    ],
    ids=str,
)
def test_a_ball_is_the_cheapest_penalty_plus_the_price_of_its_radius(
    seed: int, ball: KL | ChiSquare, penalty: type[KLPenalty] | type[ChiSquarePenalty]
) -> None:
    losses, p = instance(seed, 12)

    def bound(log_price: float) -> float:
        price = float(np.exp(log_price))
        return value(losses, penalty(price), p) + price * ball.radius

    ours = worst_case(losses, ball, reference=p)
    assert minimum(bound, -5.0, 5.0) == pytest.approx(float(ours.value), abs=1e-10)
    at_ours = value(losses, penalty(float(ours.dual.multiplier)), p) + float(ours.dual.multiplier) * ball.radius
    assert at_ours == pytest.approx(float(ours.value), abs=1e-12)


@seeds
@pytest.mark.parametrize("radius", [0.0, 0.05, 0.3, 1.0])
def test_a_price_on_the_distance_is_the_dual_of_transport(seed: int, radius: float) -> None:
    """The value is inf_t t radius + E max_j (l_j - t c_ij): a piecewise linear function, minimised over its kinks."""
    losses, p = instance(seed, 9)
    at = np.random.default_rng(seed).random(9)
    cost = np.abs(at[:, None] - at)
    gain, extra = np.subtract.outer(losses, losses), cost[:, :, None] - cost[:, None, :]
    kinks = np.divide(gain, extra, out=np.zeros_like(extra), where=extra != 0)
    prices = np.unique(np.maximum(kinks, 0.0))
    reached = losses - prices[:, None, None] * cost
    values = prices * radius + reached.max(axis=-1) @ p
    assert value(losses, Wasserstein(radius, cost), p) == pytest.approx(values.min(), abs=1e-13)
