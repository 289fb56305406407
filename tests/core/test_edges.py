"""What breaks other solvers, and what should be refused: dtypes, extreme inputs, wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    CVaR,
    Dual,
    TotalVariation,
    dual_objective,
    duality_gap,
    robust_loss,
    worst_case,
)

from . import tolerances as tol
from .registry import BACKENDS, Backend

SETS = [TotalVariation(0.2), TotalVariation(0.3, max_ratio=2.0), CVaR(0.3), ChiSquare(0.5), KL(0.3)]
every_set = pytest.mark.parametrize("ambiguity", SETS, ids=str)
every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)


# Failures seen in other solvers.


@every_set
@pytest.mark.parametrize("shift", [-100.0, -4.0, 0.0])  # all negative; the maximum exactly zero; mixed signs
def test_signs_do_not_matter(ambiguity: AmbiguitySet, shift: float) -> None:
    losses = np.array([4.0, 1.0, 0.5, -2.0, -3.0])
    here, there = worst_case(losses, ambiguity), worst_case(losses + shift, ambiguity)
    assert np.ptp(here.weights) > 0.2
    np.testing.assert_allclose(there.weights, here.weights, atol=1e-13)


@every_set
@pytest.mark.parametrize("losses", [np.zeros(5), np.full(5, -3.0), np.full(5, 1e8 + 0.1), np.full(1, 7.0)])
def test_constant_losses_leave_the_reference(ambiguity: AmbiguitySet, losses: np.ndarray) -> None:
    reference = np.arange(1.0, len(losses) + 1) / np.arange(1.0, len(losses) + 1).sum()
    result = worst_case(losses, ambiguity, reference=reference)
    np.testing.assert_allclose(result.weights, reference, rtol=1e-14)
    assert float(result.value) == losses[0]


@pytest.mark.parametrize("ambiguity", [TotalVariation(0.8), CVaR(0.1), ChiSquare(3.0), KL(2.0)], ids=str)
def test_saturated_ties_share_everything(ambiguity: AmbiguitySet) -> None:
    losses, reference = np.array([2.0, 1.0, 2.0, 0.0]), np.array([0.1, 0.5, 0.3, 0.1])
    result = worst_case(losses, ambiguity, reference=reference)
    np.testing.assert_allclose(result.weights, [0.25, 0.0, 0.75, 0.0], atol=1e-15)
    assert float(result.value) == 2.0


@pytest.mark.parametrize("radius", [1e-12, 1e-4])
@pytest.mark.parametrize("kind", [ChiSquare, KL])
def test_small_radius_is_not_uniform(kind: type[ChiSquare] | type[KL], radius: float) -> None:
    """Both balls are sqrt(2 radius) standard deviations of q/p wide at first order."""
    losses = np.random.default_rng(5).standard_normal(50)
    tilt = 50 * worst_case(losses, kind(radius)).weights - 1
    first_order = np.sqrt(2 * radius) * (losses - losses.mean()) / losses.std()
    np.testing.assert_allclose(tilt, first_order, atol=10 * radius + 1e-15 * 50, rtol=0)


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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_costs_one_rounding(ambiguity: AmbiguitySet, dtype: torch.dtype) -> None:
    losses = (torch.rand(3000, generator=torch.Generator().manual_seed(1)) + 1000).to(dtype)
    result, exact = worst_case(losses, ambiguity), worst_case(losses.double(), ambiguity)
    eps = torch.finfo(dtype).eps
    assert result.weights.dtype == result.value.dtype == robust_loss(losses, ambiguity).dtype == dtype
    torch.testing.assert_close(result.weights.double(), exact.weights, rtol=eps, atol=6e-8)
    torch.testing.assert_close(robust_loss(losses, ambiguity).double(), exact.value, rtol=eps, atol=0)


@every_set
def test_many_large_float32_losses_stay_accurate(ambiguity: AmbiguitySet) -> None:
    losses = np.random.default_rng(2).random(100_000).astype(np.float32) + np.float32(1000)
    assert float(robust_loss(losses, ambiguity)) == np.float32(worst_case(losses.astype(np.float64), ambiguity).value)


@every_set
def test_a_wide_dynamic_range_stays_feasible(ambiguity: AmbiguitySet) -> None:
    losses = 10.0 ** np.arange(-200, 200, 20)
    result = worst_case(losses, ambiguity)
    assert abs(result.weights.sum() - 1) < 1e-14
    assert abs(float(duality_gap(losses, ambiguity, result))) <= tol.CERTIFICATE * np.ptp(losses)


# The edge between two regimes, and masses that vanish.


def test_a_tie_but_for_rounding_at_a_critical_radius() -> None:
    """1 + 2 radius = 1 / p(top two), which differ by 1e-11 of the range: the closed form is all rounding there."""
    losses, reference = np.array([-9e4, -22.0, -9.7e-7, -2.2e-7]), np.array([2.0, 2.0, 1.0, 1.0]) / 6
    result = worst_case(losses, ChiSquare(1.0), reference=reference)
    assert abs(float(duality_gap(losses, ChiSquare(1.0), result, reference=reference))) <= tol.CERTIFICATE * 9e4


@every_set
@every_backend
def test_zero_mass_is_not_seen(ambiguity: AmbiguitySet, backend: Backend) -> None:
    array = backend.array
    reference = array(np.array([0.0, 0.5, 0.25, 0.25, 0.0]))
    calm = worst_case(array(np.array([1.0, 1.0, 2.0, 3.0, 2.0])), ambiguity, reference=reference)
    wild = worst_case(array(np.array([1e9, 1.0, 2.0, 3.0, -1e9])), ambiguity, reference=reference)
    np.testing.assert_array_equal(backend.numpy(wild.weights), backend.numpy(calm.weights))
    assert backend.numpy(wild.weights)[[0, 4]].tolist() == [0.0, 0.0]
    assert float(wild.value) == float(calm.value)


# Dtypes, shapes, refusals.


@every_set
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_dtype_is_kept(ambiguity: AmbiguitySet, dtype: type) -> None:
    result = worst_case(np.arange(5, dtype=dtype), ambiguity)
    assert result.weights.dtype == result.value.dtype == dtype
    assert result.dual.multiplier.dtype == result.dual.threshold.dtype == np.float64


@every_backend
def test_integers_become_float64(backend: Backend) -> None:
    result = worst_case(backend.array(np.array([3, 0, 1])), CVaR(0.5))
    assert backend.numpy(result.weights).dtype == np.float64
    assert float(result.value) == pytest.approx(7 / 3)


@every_set
def test_a_float32_reference_is_renormalised(ambiguity: AmbiguitySet) -> None:
    reference = np.full(7, 1 / 7, dtype=np.float32)
    assert abs(reference.astype(np.float64).sum() - 1) > 1e-9
    weights = worst_case(np.arange(7.0), ambiguity, reference=reference).weights
    np.testing.assert_allclose(weights, worst_case(np.arange(7.0), ambiguity).weights, atol=1e-15)


def test_an_empty_batch_has_no_answers() -> None:
    assert worst_case(np.zeros((0, 4)), KL(0.3)).value.shape == (0,)


@every_backend
@pytest.mark.parametrize("losses", [np.array([True, False]), np.array([1.0 + 1j, 2.0])], ids=["bool", "complex"])
def test_only_real_numbers(losses: np.ndarray, backend: Backend) -> None:
    with pytest.raises(TypeError, match="losses must hold real numbers"):
        worst_case(backend.array(losses), KL(0.3))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@every_backend
def test_a_loss_that_is_not_finite_is_named(bad: float, backend: Backend) -> None:
    losses = np.array([[1.0, 2.0, 3.0], [4.0, bad, 6.0]])
    with pytest.raises(ValueError, match=rf"losses must be finite, got {bad} at index \(1, 1\)"):
        worst_case(backend.array(losses), KL(0.3), check_finite=True)


def test_finiteness_is_looked_at_by_default_on_numpy_only() -> None:
    with pytest.raises(ValueError, match="at index 1; drop or clip"):
        robust_loss(np.array([0.0, np.inf]), CVaR(0.5))
    assert torch.isnan(robust_loss(torch.tensor([0.0, torch.nan]), CVaR(0.5)))


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_no_scenario(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one scenario"):
        worst_case(np.zeros(shape), KL(0.3))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ([0.5, 0.6, 0.0], "must sum to 1 over its last axis, it is off by 0.1"),
        ([1.5, -0.5, 0.0], "nonnegative"),
        ([np.nan, 0.5, 0.5], "nonnegative"),
        ([0.5, 0.5], "must have shape"),
        ([[0.5, 0.5, 0.0]], "must have shape"),
    ],
)
def test_bad_reference(reference: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worst_case(np.arange(3.0), KL(0.3), reference=np.array(reference))


@pytest.mark.parametrize(("losses", "reference"), [([1.0, 2.0], None), (np.ones(2), torch.ones(2) / 2)])
def test_one_array_library(losses: object, reference: object) -> None:
    with pytest.raises(TypeError, match="arrays of one library"):
        worst_case(losses, KL(0.3), reference=reference)


@every_set
@pytest.mark.parametrize("dual", [Dual(-0.5, 1.0), Dual(np.inf, 1.0), Dual(1.0, -np.inf), Dual(np.nan, 0.0)])
def test_an_infeasible_dual_bounds_nothing(ambiguity: AmbiguitySet, dual: Dual) -> None:
    assert dual_objective(np.arange(4.0), ambiguity, dual) == np.inf


def test_the_gap_exposes_a_wrong_answer() -> None:
    losses = np.arange(4.0)
    result = worst_case(losses, CVaR(0.5))
    uniform = result._replace(weights=np.full(4, 0.25))
    assert float(duality_gap(losses, CVaR(0.5), uniform)) == pytest.approx(1.0, abs=1e-14)
