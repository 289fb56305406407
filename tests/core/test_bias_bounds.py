"""Bounds on the bias of a minibatch against exact enumeration: upheld, and nearly reached on the worst known losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import comb, log, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import beta

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    KLPenalty,
    Spectral,
    TotalVariation,
    worst_case,
)
from dro_core.sampling.bounds import bias_bound, excess_bound, inverse_cdf_bias_bound
from dro_core.sampling.moments import tail_mixture
from dro_core.sets.composed import Charged
from dro_core.sets.penalties import Priced
from synthetic import plugin_bias

from .bound_cases import BOUNDED, LEVELS, SLACK, every_family, longest, populations, variance_of


@given(
    ambiguity=st.one_of(BOUNDED["cvar"], BOUNDED["tv_capped"], BOUNDED["spectral"], LEVELS.map(TotalVariation)),
    population=populations(),
)
@example(TotalVariation(1.0, max_ratio=1.0), (np.array([0.0, 1.0]), np.array([0.5, 0.5])))
@example(TotalVariation(1.0, max_ratio=1.5), (np.array([0.0, 1.0]), np.array([0.5, 0.5])))
@example(TotalVariation(1.0), (np.array([0.0, 1.0]), np.array([0.5, 0.5])))
@example(TotalVariation(0.0, max_ratio=1.0), (np.array([0.0, 1.0]), np.array([0.5, 0.5])))
def test_rank_weights_are_mixtures_of_tails(
    ambiguity: CVaR | TotalVariation | Spectral, population: tuple[np.ndarray, np.ndarray]
) -> None:
    losses, masses = population
    tails = tail_mixture(ambiguity)
    assert sum(mass for mass, _ in tails) == pytest.approx(1)
    parts = [mass * (worst_case(losses, CVaR(a), reference=masses).value if a else losses.max()) for mass, a in tails]
    assert sum(parts) == pytest.approx(float(worst_case(losses, ambiguity, reference=masses).value), abs=SLACK)


# Bias.


@every_family
@given(data=st.data())
def test_bias_stays_below_its_bound(sets: st.SearchStrategy[AmbiguitySet], data: st.DataObject) -> None:
    ambiguity, (losses, masses) = data.draw(sets), data.draw(populations())
    n = data.draw(st.integers(1, longest(len(losses))))
    bias = plugin_bias(losses, masses, n, ambiguity)
    assert -SLACK <= bias <= bias_bound(ambiguity, n, 1.0) + SLACK
    assert bias <= bias_bound(ambiguity, n, 1.0, variance=variance_of(losses, masses)) + SLACK


def dearer(ambiguity: AmbiguitySet, factor: float) -> AmbiguitySet:
    """A price is in the units of the losses."""
    changed: Any = {}
    if isinstance(ambiguity, Charged):
        changed = {"price": dearer(ambiguity.price, factor)}
    elif isinstance(ambiguity, Priced):
        changed = {ambiguity.size: factor * getattr(ambiguity, ambiguity.size)}
    return replace(ambiguity, **changed)


@every_family
@given(data=st.data())
def test_bias_bound_falls_with_n_and_scales_with_the_range(
    sets: st.SearchStrategy[AmbiguitySet], data: st.DataObject
) -> None:
    ambiguity = data.draw(sets)
    bounds = [bias_bound(ambiguity, n, 1.0) for n in (1, 2, 3, 7, 40, 1000, 10**6, 10**12)]
    assert np.all(np.isfinite(bounds))
    assert np.all(np.diff(bounds) <= SLACK)
    assert bounds[0] <= excess_bound(ambiguity, 1.0) <= 1
    assert bias_bound(ambiguity, 7, 0.0) == 0
    rescaled = dearer(ambiguity, 12)
    assert bias_bound(rescaled, 7, 12.0) == pytest.approx(12 * bounds[3])
    for variance in (0.001, 0.1):
        for bound in (excess_bound, partial(bias_bound, n=7)):
            once, twelvefold = bound(ambiguity, loss_range=1.0, variance=variance), 12 * 12 * variance
            assert bound(rescaled, loss_range=12.0, variance=twelvefold) == pytest.approx(12 * once)


@pytest.mark.parametrize("n", [1, 5, 64])
@pytest.mark.parametrize("alpha", [0.02, 0.25, 0.9])
def test_cvar_bias_bound_is_attained(alpha: float, n: int) -> None:
    attained = plugin_bias([0.0, 1.0], [1 - alpha, alpha], n, CVaR(alpha))
    assert bias_bound(CVaR(alpha), n, 1.0) == pytest.approx(attained, rel=1e-10)


@pytest.mark.parametrize("n", [1, 5, 64])
@pytest.mark.parametrize("strength", [1.0, 2.5])
def test_strong_chi_square_penalty_bias_bound_is_attained(strength: float, n: int) -> None:
    attained = plugin_bias([0.0, 1.0], [0.5, 0.5], n, ChiSquarePenalty(strength))
    assert bias_bound(ChiSquarePenalty(strength), n, 1.0) == pytest.approx(attained, rel=1e-10)
    known = plugin_bias([0.0, 1.0], [0.75, 0.25], n, ChiSquarePenalty(strength))
    assert bias_bound(ChiSquarePenalty(strength), n, 1.0, variance=3 / 16) == pytest.approx(known, rel=1e-10)


REFUTED = [  # a set, n, a factor by which its bound must not be shrunk, the probability of a loss of 1 that shows it
    (TotalVariation(0.2, max_ratio=8), 64, 0.73, 0.2 / 7),
    (TotalVariation(0.05, max_ratio=30), 64, 0.85, 0.0018),
    (Spectral((0.1, 0.2, 0.7)), 16, 0.82, 1 / 3),
    (ChiSquare(0.5), 1, 0.99, 0.5),
    (ChiSquare(0.5), 64, 0.28, 0.006),
    (ChiSquare(4.0), 2, 0.78, 0.11),
    (CressieRead(3.0, 0.5), 64, 0.26, 0.5),
    (CressieRead(1.5, 0.5), 64, 0.28, 0.0043),
    (CressieRead(1.1, 0.5), 64, 0.38, 0.0028),
    (KL(0.3), 64, 0.45, 0.0026),
    (KL(2.0), 256, 0.55, 0.0004),
    (ChiSquarePenalty(0.5), 1, 0.99, 0.5),
    (ChiSquarePenalty(0.5), 256, 0.39, 0.52),
    (ChiSquarePenalty(0.05), 2, 0.58, 0.12),
    (KLPenalty(0.05), 64, 0.59, 0.001),
    (KLPenalty(3.0), 64, 0.42, 0.46),
]


@pytest.mark.parametrize(("ambiguity", "n", "factor", "chance"), REFUTED, ids=str)
def test_a_smaller_bias_bound_is_refuted(ambiguity: AmbiguitySet, n: int, factor: float, chance: float) -> None:
    bias, bound = plugin_bias([0.0, 1.0], [1 - chance, chance], n, ambiguity), bias_bound(ambiguity, n, 1.0)
    assert factor * bound < bias <= bound + SLACK


@pytest.mark.parametrize("n", [1, 8, 64, 4096])
def test_bias_bounds_improve_on_the_published_ones(n: int) -> None:
    for level in (0.01, 0.1, 0.5, 1.0):
        assert bias_bound(CVaR(level), n, 1.0) <= min(1, 3 / sqrt(level * n))
        assert bias_bound(CVaR(level), n, 1.0) <= sqrt((1 - level) / (level * n)) / 2 + SLACK
        published = 3 * sqrt(1 + 2 * level) * sqrt((4 + log(n)) / (4 * n))
        assert bias_bound(ChiSquare(level), n, 1.0) <= published
        assert bias_bound(ChiSquarePenalty(level), n, 1.0) <= sqrt(2) / (level * n)
        share = 0.2 / 7
        repaired = 3 * (sqrt(0.8 / n) + 0.2 / sqrt(share * n))
        assert bias_bound(TotalVariation(0.2, max_ratio=8), n, 1.0) <= repaired


def test_kl_bias_falls_only_like_one_over_log_n() -> None:
    """Refutes any power of n for KL, so that its slow bound is not for want of a better proof."""
    worst = {
        n: max(plugin_bias([0.0, 1.0], [1 - p, p], n, KL(0.3)) for p in np.geomspace(0.1, 3, 20) / n) for n in (16, 256)
    }
    assert worst[256] > worst[16] * log(16) / log(256)
    assert worst[256] > worst[16] * (256 / 16) ** -0.25
    assert bias_bound(KL(0.3), 10**9, 1.0) < 4 * 0.3 / log(1e9)


@pytest.mark.parametrize("n", [4, 64])
def test_the_envelope_behind_the_bias_bounds(n: int) -> None:
    """E (a - K/n)_+ <= min(a, 1 - a, sqrt(a (1 - a)/n)/2), whose slope has mean square (2 + log 4n) / (8n)."""
    grid = np.linspace(0, 1, 2001)[1:-1]
    counts = np.arange(n + 1)
    chances = np.array([[comb(n, k) * a**k * (1 - a) ** (n - k) for k in counts] for a in grid])
    shortfall = np.sum(chances * np.clip(grid[:, None] - counts / n, 0, None), axis=1)
    assert np.all(shortfall <= np.minimum(np.minimum(grid, 1 - grid), np.sqrt(grid * (1 - grid) / n) / 2) + 1e-15)
    fine = np.linspace(0, 1, 2_000_001)
    envelope = np.minimum(np.minimum(fine, 1 - fine), np.sqrt(fine * (1 - fine) / n) / 2)
    square = np.sum(np.diff(envelope) ** 2) * 2_000_000
    assert bias_bound(ChiSquare(0.5), n, 1.0) ** 2 == pytest.approx(square, rel=1e-4)
    assert square == pytest.approx((2 + log(4 * n)) / (8 * n), rel=1e-4)


# Bias under a Lipschitz quantile function.


def expected_order_statistics(quantile: Callable[[np.ndarray], np.ndarray], n: int) -> np.ndarray:
    grid = (np.arange(8000) + 0.5) / 8000
    return np.array([np.mean(quantile(grid) * beta.pdf(grid, k + 1, n - k)) for k in range(n)])


QUANTILES: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda u: u,
    lambda u: np.minimum(u, 0.75),
    lambda u: np.maximum(u, 0.9),
    lambda u: np.clip(u, 0.3, 0.7),
    lambda u: u**2 / 2,
]
RANKED = [TotalVariation(0.2), TotalVariation(1.0), TotalVariation(0.3, max_ratio=4), CVaR(0.1), CVaR(0.7)]


@pytest.mark.parametrize("ambiguity", RANKED, ids=str)
@pytest.mark.parametrize("n", [1, 4, 25])
def test_lipschitz_quantiles_bound_the_bias_of_rank_weights(ambiguity: AmbiguitySet, n: int) -> None:
    """The weights depend on ranks alone, so the mean plug-in value is the value at the mean order statistics."""
    fine = (np.arange(8000) + 0.5) / 8000
    for quantile in QUANTILES:
        population = float(worst_case(quantile(fine), ambiguity).value)
        minibatch = float(worst_case(expected_order_statistics(quantile, n), ambiguity).value)
        assert -1e-4 <= population - minibatch <= inverse_cdf_bias_bound(ambiguity, n, 1.0) + 1e-4


def test_lipschitz_bound_is_attained_by_the_maximum_of_uniform_losses() -> None:
    assert inverse_cdf_bias_bound(TotalVariation(1.0), 9, 3.0) == pytest.approx(3 * (1 - 9 / 10))


@pytest.mark.exhaustive(turns=8)
@every_family
@given(data=st.data())
def test_lipschitz_quantiles_bound_the_bias_of_pairs(
    sets: st.SearchStrategy[AmbiguitySet], data: st.DataObject
) -> None:
    ambiguity, quantile = data.draw(sets), data.draw(st.sampled_from(QUANTILES))
    losses = quantile((np.arange(60) + 0.5) / 60)
    every = np.stack(np.meshgrid(losses, losses), axis=-1).reshape(-1, 2)
    pairs, counts = np.unique(np.sort(every), axis=0, return_counts=True)  # either order is worth the same
    minibatch = float(np.average(worst_case(pairs, ambiguity).value, weights=counts))
    assert float(worst_case(losses, ambiguity).value) - minibatch <= inverse_cdf_bias_bound(ambiguity, 2, 1.0) + 1e-3
