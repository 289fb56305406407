"""Published figures: what total variation does to a sample, and how biased small batches are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, norm

from dro_core import CVaR, TotalVariation, effective_sample_size, largest_multiplier, worst_case

from . import tolerances as tol
from .registry import BACKENDS, Backend

SAMPLE_SIZES = [
    (24, 0.1, 18.0, 3.4),
    (24, 0.2, 11.1, 5.8),
    (24, 0.4, 4.6, 10.6),
    (64, 0.1, 36.9, 7.4),
    (64, 0.2, 17.0, 13.8),
    (64, 0.4, 5.5, 26.6),
]
CVAR_PLUG_IN = {4: 1.519, 8: 2.090, 16: 2.342, 64: 2.553, 256: 2.604}


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize(("n", "radius", "size", "multiplier"), SAMPLE_SIZES)
def test_effective_sample_size_of_total_variation(
    n: int, radius: float, size: float, multiplier: float, backend: Backend
) -> None:
    losses = backend.array(np.random.default_rng(n).standard_normal(n))
    weights = worst_case(losses, TotalVariation(radius)).weights
    assert float(effective_sample_size(weights)) == pytest.approx(size, abs=0.05)
    assert float(largest_multiplier(weights)) == pytest.approx(multiplier, abs=1e-9)


def test_largest_multiplier_is_relative_to_the_reference() -> None:
    weights, reference = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]), np.array([0.25, 0.75, 0.0])
    assert largest_multiplier(weights, reference).tolist() == pytest.approx([2.0, 0.4])


def loss_at(quantile: np.ndarray) -> np.ndarray:
    """Softplus loss of a Gaussian margin 1 + 2 N at a quantile of the loss."""
    return np.logaddexp(0.0, -(1 + 2 * norm.ppf(1 - quantile)))


def test_cvar_of_the_population() -> None:
    tail, _ = quad(loss_at, 0.9, 1)
    assert tail / 0.1 == pytest.approx(2.625, abs=tol.FIGURE)


def expected_plug_in(n: int) -> float:
    """Mean of CVaR(0.1) on n samples, by quadrature: the k-th largest of n quantiles is Beta(n - k + 1, k)."""
    kept = np.clip(0.1 * n - np.arange(n), 0, 1) / (0.1 * n)
    grid = (np.arange(400_000) + 0.5) / 400_000
    ranks = [k for k in range(n) if kept[k] > 0]
    density = sum(kept[k] * beta.pdf(grid, n - k, k + 1) for k in ranks)
    return float(np.mean(loss_at(grid) * density))


@pytest.mark.parametrize(("n", "published"), CVAR_PLUG_IN.items())
def test_small_batches_underestimate_cvar(n: int, published: float) -> None:
    losses = loss_at(np.random.default_rng(0).random((1_000_000 // n, n)))
    values = worst_case(losses, CVaR(0.1)).value
    assert values.mean() == pytest.approx(expected_plug_in(n), abs=4 * values.std() / len(values) ** 0.5)
    assert values.mean() == pytest.approx(published, abs=tol.FIGURE)
