"""What breaks other solvers: signs, offsets, scales, ties, small radii, saturation, vanishing masses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

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
    TotalVariation,
    duality_gap,
    worst_case,
)

from . import tolerances as tol
from .examples import PLACES, POWERS, SETS, Maker, every_set, every_set_without_places, over
from .registry import BACKENDS, Backend

every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)


# Failures seen in other solvers.


@every_set
@pytest.mark.parametrize("shift", [-100.0, -4.0, 0.0])  # all negative; the maximum exactly zero; mixed signs
def test_signs_do_not_matter(make: Maker, shift: float) -> None:
    losses, ambiguity = np.array([4.0, 1.0, 0.5, -2.0, -3.0]), make(5)
    here, there = worst_case(losses, ambiguity), worst_case(losses + shift, ambiguity)
    assert np.ptp(here.weights) > 0.2
    np.testing.assert_allclose(there.weights, here.weights, atol=1e-13)


@every_set
@pytest.mark.parametrize("losses", [np.zeros(5), np.full(5, -3.0), np.full(5, 1e8 + 0.1), np.full(1, 7.0)])
def test_constant_losses_leave_the_reference(make: Maker, losses: np.ndarray) -> None:
    reference = np.arange(1.0, len(losses) + 1) / np.arange(1.0, len(losses) + 1).sum()
    result = worst_case(losses, make(len(losses)), reference=reference)
    np.testing.assert_allclose(result.weights, reference, rtol=1e-14)
    assert float(result.value) == losses[0]


SATURATED = [
    TotalVariation(0.8),
    CVaR(0.1),
    Spectral((0.0, 0.0, 0.0, 1.0)),
    ChiSquare(3.0),
    KL(2.0),
    CressieRead(0.5, 1.5),  # 4 (1 - sqrt 0.4) = 1.47 is the divergence of all mass on the top
    CressieRead(3.0, 2.0),
    Hellinger(0.8),
]


@pytest.mark.parametrize("ambiguity", SATURATED, ids=str)
def test_saturated_ties_share_everything(ambiguity: AmbiguitySet) -> None:
    losses, reference = np.array([2.0, 1.0, 2.0, 0.0]), np.array([0.1, 0.5, 0.3, 0.1])
    result = worst_case(losses, ambiguity, reference=reference)
    np.testing.assert_allclose(result.weights, [0.25, 0.0, 0.75, 0.0], atol=1e-15)
    assert float(result.value) == 2.0


@pytest.mark.parametrize("ambiguity", [KLPenalty(0.01), ChiSquarePenalty(0.4)], ids=str)
def test_cheap_penalties_saturate_too(ambiguity: AmbiguitySet) -> None:
    """At 0.4 = p(top) times the gap below the top the threshold has just reached the second loss."""
    losses, reference = np.array([2.0, 1.0, 2.0, 0.0]), np.array([0.1, 0.5, 0.3, 0.1])
    weights = worst_case(losses, ambiguity, reference=reference).weights
    np.testing.assert_allclose(weights, [0.25, 0.0, 0.75, 0.0], atol=1e-15)


@pytest.mark.parametrize("price", [5e-324, 1e-310, 1e-200, 1e-20, 1e20, 1e200, 1e308, np.inf])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
@pytest.mark.parametrize("kind", [KLPenalty, ChiSquarePenalty])
def test_prices_of_any_size(kind: type[KLPenalty] | type[ChiSquarePenalty], price: float, scale: float) -> None:
    """So far from the size of the losses, either the largest loss is worth any price or nothing is."""
    losses, reference = scale * np.array([1.0, 3.0, -2.0, 5.0]), np.array([0.5, 0.25, 0.25, 0.0])
    result = worst_case(losses, kind(price), reference=reference)
    gap = duality_gap(losses, kind(price), result, reference=reference)
    assert abs(float(gap)) <= tol.CERTIFICATE * 5 * scale
    if price < 1e-10 * scale:
        np.testing.assert_allclose(result.weights, [0, 1, 0, 0], atol=1e-12)
        assert float(result.value) == pytest.approx(3 * scale, rel=1e-9)
    if price > 1e10 * scale:
        np.testing.assert_allclose(result.weights, reference, atol=1e-9)
        assert float(result.value) == pytest.approx(0.75 * scale, rel=1e-9)


ONE_UNIT = {  # of the second-order expansion E (q/p - 1)^2 / 2, for each set
    "chi2": ChiSquare,
    "kl": KL,
    "cressie_read_below_1": lambda radius: CressieRead(0.5, radius),
    "cressie_read_above_1": lambda radius: CressieRead(1.5, radius),
    "cressie_read_3": lambda radius: CressieRead(3, radius),
    "hellinger": lambda radius: Hellinger(radius / 2),
}


@pytest.mark.parametrize("radius", [1e-12, 1e-4])
@pytest.mark.parametrize("make", ONE_UNIT.values(), ids=ONE_UNIT)
def test_small_radius_is_not_uniform(make: Callable[[float], AmbiguitySet], radius: float) -> None:
    """Every ball is sqrt(2 radius) standard deviations of q/p wide at first order."""
    losses = np.random.default_rng(5).standard_normal(50)
    tilt = 50 * worst_case(losses, make(radius)).weights - 1
    first_order = np.sqrt(2 * radius) * (losses - losses.mean()) / losses.std()
    np.testing.assert_allclose(tilt, first_order, atol=20 * radius + 1e-15 * 50, rtol=0)


@pytest.mark.parametrize("kind", [KLPenalty, ChiSquarePenalty])
@pytest.mark.parametrize("price", [1e3, 1e6])
def test_a_high_price_is_not_uniform(kind: type[KLPenalty] | type[ChiSquarePenalty], price: float) -> None:
    losses = np.random.default_rng(5).standard_normal(50)
    tilt = 50 * worst_case(losses, kind(price)).weights - 1
    np.testing.assert_allclose(tilt, (losses - losses.mean()) / price, atol=10 / price**2 + 1e-15 * 50, rtol=0)


@pytest.mark.parametrize("order", [0.01, 0.1, 0.9, 0.998, 1.002, 1.1, 2.0, 2.5, 3.0])
@pytest.mark.parametrize("radius", [0.0, 1e-12, 1e-3, 1.0, 1e3, 1e300])
def test_powers_and_radii_of_any_size(order: float, radius: float) -> None:
    rng = np.random.default_rng(7)
    losses, reference = rng.standard_normal(30), np.append(rng.dirichlet(np.ones(29)), 0.0)
    result = worst_case(losses, CressieRead(order, radius), reference=reference)
    assert abs(result.weights.sum() - 1) < 1e-12
    gap = duality_gap(losses, CressieRead(order, radius), result, reference=reference)
    assert abs(float(gap)) <= tol.CERTIFICATE * np.ptp(losses)


@pytest.mark.parametrize("k", [4, 5, 1000])
def test_a_share_smaller_than_the_top_is_the_maximum(k: int) -> None:
    result = worst_case(np.array([2.0, 1.0, 2.0, 0.0]), Spectral((0.0,) * (k - 1) + (1.0,)))
    assert float(result.value) == 2.0
    np.testing.assert_allclose(result.weights, [0.5, 0, 0.5, 0], atol=1e-15)


@pytest.mark.parametrize("radius", [1e-12, 1e-6, 0.1, 1.0, 2.0, np.log(50) - 1e-6])
def test_kl_meets_its_radius(radius: float) -> None:
    losses = np.random.default_rng(5).standard_normal(50)
    ratio = 50 * worst_case(losses, KL(radius)).weights
    multiplier = float(worst_case(losses, KL(radius)).dual.multiplier)
    high = np.longdouble(losses - losses.max()) / np.longdouble(multiplier)
    exact = np.exp(high) / np.mean(np.exp(high))
    assert float(np.mean(exact * np.log(exact))) == pytest.approx(radius, rel=1e-11, abs=1e-18)
    np.testing.assert_allclose(ratio, np.float64(exact), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("shortfall", [1e-3, 1e-6, 1e-9])
def test_kl_just_short_of_the_maximum(shortfall: float) -> None:
    """Close to -log p(argmax) the weight below the top is exponentially small, and it is still right."""
    losses = np.random.default_rng(5).standard_normal(50)
    radius = np.log(50) - shortfall
    multiplier = np.longdouble(worst_case(losses, KL(radius)).dual.multiplier)
    below = np.exp(np.longdouble(np.sort(losses)[:-1] - losses.max()) / multiplier)
    mean = below @ np.log(below) / (1 + below.sum())
    assert float(np.log1p(below.sum()) - mean) == pytest.approx(shortfall, rel=1e-9 + 1e-15 / shortfall)


def test_total_variation_of_half_a_percent_moves_half_a_percent() -> None:
    weights = worst_case(np.arange(10.0), TotalVariation(0.005)).weights
    np.testing.assert_allclose(weights, [0.095, *[0.1] * 8, 0.105], atol=1e-15)


def test_atoms_are_split() -> None:
    np.testing.assert_allclose(worst_case(np.arange(4.0), CVaR(0.4)).weights, [0, 0, 0.375, 0.625], atol=1e-15)
    weights = worst_case(np.arange(4.0), TotalVariation(0.35)).weights
    np.testing.assert_allclose(weights, [0, 0.15, 0.25, 0.6], atol=1e-15)


@pytest.mark.parametrize("n", [3, 10, 49, 100])
def test_an_edge_between_atoms_leaves_exact_zeros(n: int) -> None:
    """0.1 + 0.1 + ... is not 0.7 in binary; a weight of 1e-17 would still cost a backward pass."""
    losses = np.arange(float(n))
    for kept in range(1, n + 1):
        assert np.count_nonzero(worst_case(losses, CVaR(kept / n)).weights) == kept
        assert np.count_nonzero(worst_case(losses, TotalVariation(1 - kept / n)).weights) == kept


def test_full_total_variation_is_the_maximum() -> None:
    assert worst_case(np.arange(4.0), TotalVariation(1)).weights.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_kl_with_an_offset_in_float32() -> None:
    losses = torch.randn(64, generator=torch.Generator().manual_seed(0))
    shifted = worst_case(losses + 100, KL(0.3)).weights
    torch.testing.assert_close(shifted, worst_case(losses, KL(0.3)).weights, atol=1e-6, rtol=0)
    assert shifted.dtype == torch.float32


@every_set
def test_a_wide_dynamic_range_stays_feasible(make: Maker) -> None:
    losses = 10.0 ** np.arange(-200, 200, 20)
    ambiguity = make(len(losses))
    result = worst_case(losses, ambiguity)
    assert abs(result.weights.sum() - 1) < 1e-14
    assert abs(float(duality_gap(losses, ambiguity, result))) <= tol.CERTIFICATE * np.ptp(losses)


# The edge between two regimes, and masses that vanish.


def test_a_tie_but_for_rounding_at_a_critical_radius() -> None:
    """1 + 2 radius = 1 / p(top two), which differ by 1e-11 of the range: the closed form is all rounding there."""
    losses, reference = np.array([-9e4, -22.0, -9.7e-7, -2.2e-7]), np.array([2.0, 2.0, 1.0, 1.0]) / 6
    result = worst_case(losses, ChiSquare(1.0), reference=reference)
    assert abs(float(duality_gap(losses, ChiSquare(1.0), result, reference=reference))) <= tol.CERTIFICATE * 9e4


@over(name for name in SETS if name not in (*PLACES, *POWERS))
@every_backend
def test_zero_mass_is_not_seen(make: Maker, backend: Backend) -> None:
    array, ambiguity = backend.array, make(5)
    reference = array(np.array([0.0, 0.5, 0.25, 0.25, 0.0]))
    calm = worst_case(array(np.array([1.0, 1.0, 2.0, 3.0, 2.0])), ambiguity, reference=reference)
    wild = worst_case(array(np.array([1e9, 1.0, 2.0, 3.0, -1e9])), ambiguity, reference=reference)
    np.testing.assert_array_equal(backend.numpy(wild.weights), backend.numpy(calm.weights))
    assert backend.numpy(wild.weights)[[0, 4]].tolist() == [0.0, 0.0]
    assert float(wild.value) == float(calm.value)


@every_set_without_places
def test_the_largest_loss_may_have_no_mass(make: Maker) -> None:
    """Whatever it is, nothing goes there, and the rest is as if it were not there."""
    rest, masses = np.array([3.0, 1.0, 2.0, 0.5]), np.array([0.4, 0.3, 0.2, 0.1])
    ambiguity = make(5)
    weights = worst_case(np.append(rest, 1e300), ambiguity, reference=np.append(masses, 0.0)).weights
    alone = worst_case(rest, ambiguity.take(np.arange(4)), reference=masses).weights
    np.testing.assert_allclose(weights, np.append(alone, 0.0), rtol=0, atol=1e-14)
