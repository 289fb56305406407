"""Every bound against exact enumeration: upheld on generated losses, nearly reached on the worst known ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import comb, exp, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import beta, multinomial

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    Grouped,
    KLPenalty,
    Spectral,
    TotalVariation,
    Trimmed,
    effective_sample_size,
    worst_case,
)
from dro_core.sampling.bounds import (
    bias_bound,
    effective_sample_size_bound,
    excess_bound,
    gradient_variance_bound,
    inverse_cdf_bias_bound,
    multilevel_second_moment_bound,
)
from dro_core.sampling.moments import tail_mixture
from synthetic import plugin_bias, sample_counts

SLACK = 1e-9  # rounding, of the range
GROUPED = Grouped(CVaR(0.5), (0, 0, 1))


def sixty_fourths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda k: k / 64)


LEVELS = sixty_fourths(1, 64)
RADII = sixty_fourths(0, 256)
SPECTRA = st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any)
BOUNDED = {  # sets with a bias bound that falls with n
    "cvar": LEVELS.map(CVaR),
    "tv_capped": st.builds(TotalVariation, sixty_fourths(0, 64), st.sampled_from([1.0, 1.25, 2.0, 8.0, 1e6])),
    "spectral": SPECTRA.map(lambda s: Spectral(tuple(np.sort(s) / np.sum(s)))),
    "chi2": RADII.map(ChiSquare),
    "kl": RADII.map(KL),
    "cressie_read": st.builds(CressieRead, st.sampled_from([1.125, 1.5, 1.875, 2.0, 2.5, 3.0]), RADII),
    "chi2_penalty": sixty_fourths(1, 256).map(ChiSquarePenalty),
    "kl_penalty": sixty_fourths(1, 256).map(KLPenalty),
}
every_family = pytest.mark.parametrize("sets", BOUNDED.values(), ids=BOUNDED)


@st.composite
def populations(draw: st.DrawFn, most: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Losses with range exactly 1 and their masses, some of them rare."""
    k = draw(st.integers(2, most))
    inner = draw(st.lists(sixty_fourths(0, 64), min_size=k - 2, max_size=k - 2))
    masses = np.array(draw(st.lists(st.sampled_from([1.0, 8.0, 64.0]), min_size=k, max_size=k)))
    return np.array([0.0, 1.0, *inner]), masses / masses.sum()


def variance_of(losses: np.ndarray, masses: np.ndarray) -> float:
    return float(masses @ (losses - masses @ losses) ** 2)


def longest(k: int) -> int:
    """Draws for which every minibatch of k values is enumerated in milliseconds."""
    return {2: 64, 3: 12, 4: 6}[k]


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
    rescaled = ambiguity  # a price is in the units of the losses
    if isinstance(ambiguity, ChiSquarePenalty):
        rescaled = ChiSquarePenalty(12 * ambiguity.strength)
    elif isinstance(ambiguity, KLPenalty):
        rescaled = KLPenalty(12 * ambiguity.temperature)
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


@every_family
@given(data=st.data())
def test_lipschitz_quantiles_bound_the_bias_of_pairs(
    sets: st.SearchStrategy[AmbiguitySet], data: st.DataObject
) -> None:
    ambiguity, quantile = data.draw(sets), data.draw(st.sampled_from(QUANTILES))
    losses = quantile((np.arange(120) + 0.5) / 120)
    pairs = np.stack(np.meshgrid(losses, losses), axis=-1)
    minibatch = float(np.mean(worst_case(pairs, ambiguity).value))
    assert float(worst_case(losses, ambiguity).value) - minibatch <= inverse_cdf_bias_bound(ambiguity, 2, 1.0) + 1e-3


# Excess over the mean.


@every_family
@given(data=st.data())
def test_excess_stays_below_its_bound(sets: st.SearchStrategy[AmbiguitySet], data: st.DataObject) -> None:
    ambiguity, (losses, masses) = data.draw(sets), data.draw(populations())
    excess = float(worst_case(losses, ambiguity, reference=masses).value - masses @ losses)
    assert excess <= excess_bound(ambiguity, 1.0) + SLACK
    assert excess <= excess_bound(ambiguity, 1.0, variance=variance_of(losses, masses)) + SLACK


@given(radius=sixty_fourths(0, 64), population=populations())
def test_excess_of_plain_total_variation(radius: float, population: tuple[np.ndarray, np.ndarray]) -> None:
    losses, masses = population
    excess = float(worst_case(losses, TotalVariation(radius), reference=masses).value - masses @ losses)
    assert excess <= excess_bound(TotalVariation(radius), 1.0) + SLACK == radius + SLACK


ATTAINED = [  # a set, and the probability of a loss of 1 that makes its excess the largest
    (TotalVariation(0.3), 0.3, 1.0),
    (TotalVariation(0.3, max_ratio=1.25), 0.8, 1.0),
    (CVaR(0.3), 0.3, 1.0),
    (ChiSquare(0.125), 0.5, 1.0),
    (CressieRead(2.0, 0.125), 0.5, 1.0),
    (Spectral((0.25, 0.75)), 0.5, 1.0),
    (ChiSquarePenalty(1.5), 0.5, 1.0),
    (KL(0.05), 0.5, 0.99),
    (CressieRead(1.5, 0.05), 0.45, 0.8),
    (KLPenalty(2.0), 0.4, 0.98),
]


@pytest.mark.parametrize(("ambiguity", "chance", "share"), ATTAINED, ids=str)
def test_excess_bound_is_reached(ambiguity: AmbiguitySet, chance: float, share: float) -> None:
    value = float(worst_case(np.array([0.0, 2.0]), ambiguity, reference=np.array([1 - chance, chance])).value)
    reached = value - 2 * chance
    bound = excess_bound(ambiguity, 2.0)
    assert share * bound - SLACK <= reached <= bound + SLACK


def test_excess_bound_uses_a_small_variance() -> None:
    rare, masses = np.array([0.0, 1.0]), np.array([0.99, 0.01])
    for ambiguity in (KL(0.05), CVaR(0.5), ChiSquare(0.1), TotalVariation(0.5, max_ratio=3), ChiSquarePenalty(2.0)):
        excess = float(worst_case(rare, ambiguity, reference=masses).value) - 0.01
        sharp = excess_bound(ambiguity, 1.0, variance=0.0099)
        assert excess <= sharp + SLACK < 0.9 * excess_bound(ambiguity, 1.0)
    assert excess_bound(KL(0.3), 1.0, variance=0.0) == 0


# Effective sample size.


SIZED = {name: sets for name, sets in BOUNDED.items() if name != "kl"} | {
    "tv_plain": sixty_fourths(0, 64).map(TotalVariation)
}


@pytest.mark.parametrize("sets", SIZED.values(), ids=SIZED)
@given(data=st.data())
def test_effective_sample_size_is_at_least_its_bound(
    sets: st.SearchStrategy[AmbiguitySet], data: st.DataObject
) -> None:
    ambiguity = data.draw(sets)
    inner = data.draw(st.lists(sixty_fourths(0, 64), max_size=20))
    losses = np.array([0.0, 1.0, *inner])
    size = float(effective_sample_size(worst_case(losses, ambiguity).weights))
    bound = effective_sample_size_bound(ambiguity, len(losses), loss_range=1.0)
    assert 1 <= bound <= len(losses)
    assert size >= bound * (1 - SLACK)


@pytest.mark.parametrize(
    ("ambiguity", "losses"),
    [
        (CVaR(0.25), np.arange(16.0)),
        (TotalVariation(0.25), np.arange(16.0)),
        (TotalVariation(0.25, max_ratio=3), np.arange(16.0)),
        (TotalVariation(0.5, max_ratio=1.25), np.arange(20.0)),
        (Spectral((0.1, 0.2, 0.3, 0.4)), np.arange(16.0)),
        (ChiSquare(0.25), np.arange(16.0)),
        (CressieRead(3.0, 0.5), np.repeat([0.0, 1.0], [6, 6])),
        (ChiSquarePenalty(0.25), np.repeat([0.0, 1.0], [12, 4])),
        (ChiSquarePenalty(2.0), np.repeat([0.0, 1.0], [8, 8])),
        (KLPenalty(0.5), np.repeat([0.0, 1.0], [881, 119])),
        (KLPenalty(3.0), np.repeat([0.0, 1.0], [583, 417])),
    ],
    ids=str,
)
def test_effective_sample_size_bound_is_attained(ambiguity: AmbiguitySet, losses: np.ndarray) -> None:
    size = float(effective_sample_size(worst_case(losses, ambiguity).weights))
    spread = float(np.ptp(losses))
    if isinstance(ambiguity, CressieRead):  # Lyapunov is an equality for weights of one size
        ambiguity = CressieRead(3.0, (2**2 - 1) / 6)
        size = float(effective_sample_size(worst_case(losses, ambiguity).weights))
    assert size == pytest.approx(effective_sample_size_bound(ambiguity, len(losses), loss_range=spread), rel=1e-5)


def test_total_variation_leaves_at_most_one_over_radius_squared() -> None:
    for radius in (0.125, 0.25):
        sizes = [
            float(effective_sample_size(worst_case(np.arange(n), TotalVariation(radius)).weights))
            for n in (64, 4096, 2**18)
        ]
        assert sizes == pytest.approx(
            [effective_sample_size_bound(TotalVariation(radius), n) for n in (64, 4096, 2**18)], rel=1e-9
        )
        assert sizes[-1] == pytest.approx(1 / radius**2, rel=1e-3)
        assert np.all(np.diff(sizes) > 0)
        assert sizes[-1] < 1 / radius**2


# Variance of the gradient.


def gradient_variance(
    losses: np.ndarray, masses: np.ndarray, gradients: np.ndarray, n: int, ambiguity: AmbiguitySet
) -> float:
    """Variance of sum_i q_i g_i over every minibatch of n draws; atoms have gradients (k, d)."""
    counts = sample_counts(n, len(losses))
    weights = worst_case(np.broadcast_to(losses, counts.shape), ambiguity, reference=counts / n).weights
    chances = multinomial.pmf(counts, n, masses)
    drawn = weights @ gradients
    return float(chances @ np.sum((drawn - chances @ drawn) ** 2, axis=-1))


ORDERED = {name: BOUNDED[name] for name in ("cvar", "tv_capped", "spectral", "chi2_penalty", "kl_penalty")} | {
    "tv_plain": sixty_fourths(0, 64).map(TotalVariation)
}


@pytest.mark.parametrize("sets", ORDERED.values(), ids=ORDERED)
@given(data=st.data())
def test_gradient_variance_stays_below_its_bound(sets: st.SearchStrategy[AmbiguitySet], data: st.DataObject) -> None:
    ambiguity, (losses, masses) = data.draw(sets), data.draw(populations())
    n = data.draw(st.integers(1, longest(len(losses))))
    gradients = np.array([data.draw(st.sampled_from([(1.0, 0.0), (-1.0, 0.0), (0.6, -0.8)])) for _ in losses])
    variance = gradient_variance(losses, masses, gradients, n, ambiguity)
    assert variance <= gradient_variance_bound(ambiguity, n, 1.0, loss_range=1.0) + SLACK


UP, DOWN = [1.0], [-1.0]
RISKY = [  # losses, masses, gradients, n, set, factor that refutes the bound
    ([1, 2], [0.985, 0.015], [DOWN, UP], 2000, CVaR(0.02), 0.67),
    ([1, 2], [0.803, 0.197], [DOWN, UP], 256, CVaR(0.25), 0.6),
    ([1, 2], [0.57, 0.43], [DOWN, UP], 400, Spectral((0.2, 0.8)), 0.45),
    ([1, 2], [1 - log(2) / 400, log(2) / 400], [DOWN, UP], 400, TotalVariation(0.5), 0.7),
    ([1, 2], [1 - log(2) / 400, log(2) / 400], [DOWN, UP], 400, TotalVariation(1.0), 0.95),
    ([1, 2], [0.915, 0.085], [DOWN, UP], 1000, TotalVariation(0.1, max_ratio=2), 0.24),
    ([0, 1], [0.925, 0.075], [DOWN, UP], 512, ChiSquarePenalty(0.1), 0.59),
    ([0, 1], [0.985, 0.015], [DOWN, UP], 512, KLPenalty(0.3), 0.39),
    ([0, 1], [0.71, 0.29], [DOWN, UP], 64, KLPenalty(2.0), 0.26),
]


@pytest.mark.parametrize(("losses", "masses", "gradients", "n", "ambiguity", "factor"), RISKY, ids=str)
def test_a_smaller_gradient_variance_bound_is_refuted(
    losses: list[float],
    masses: list[float],
    gradients: list[list[float]],
    n: int,
    ambiguity: AmbiguitySet,
    factor: float,
) -> None:
    variance = gradient_variance(np.array(losses, float), np.array(masses), np.array(gradients), n, ambiguity)
    bound = gradient_variance_bound(ambiguity, n, 1.0, loss_range=1.0)
    assert factor * bound < variance <= bound


def test_gradient_variance_falls_with_n_except_for_plain_total_variation() -> None:
    sizes = (1, 8, 64, 10**4, 10**8)
    for ambiguity in (CVaR(0.1), TotalVariation(0.2, max_ratio=8), ChiSquarePenalty(0.2), KLPenalty(0.5)):
        bounds = [gradient_variance_bound(ambiguity, n, 2.0, loss_range=1.0) for n in sizes]
        assert bounds[0] == 4
        assert np.all(np.diff(bounds) <= 0)
        assert bounds[-1] < 1e-4
    floor = [gradient_variance_bound(TotalVariation(0.2), n, 2.0) for n in sizes]
    assert np.all(np.diff(floor) <= 0)
    assert floor[-1] == pytest.approx(0.2**2 * 2**2, rel=1e-2)


def test_multilevel_second_moment_bound_grows_with_the_levels() -> None:
    for ambiguity in (CVaR(0.1), TotalVariation(0.2, max_ratio=8), Spectral((0.2, 0.8)), ChiSquarePenalty(0.2)):
        bounds = [multilevel_second_moment_bound(ambiguity, 8, 8 << k, 1.0, loss_range=1.0) for k in range(20)]
        assert bounds[0] == 1
        assert np.all(np.diff(bounds) > 0)
        assert bounds[-1] < 1000
    plain = [multilevel_second_moment_bound(TotalVariation(0.2), 8, 8 << k, 1.0) for k in (10, 12)]
    assert plain[1] > 3 * plain[0]


# Refusals.


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: bias_bound(TotalVariation(0.2), 64, 1.0), r"missed by most minibatches.*0\.2.*max_ratio"),
        (lambda: bias_bound(CressieRead(0.5, 0.1), 64, 1.0), "missed by most minibatches.*order above 1"),
        (lambda: bias_bound(Trimmed(CVaR(0.5), 0.1), 64, 1.0), r"no supremum over a set \(trimming\)"),
        (lambda: bias_bound(GROUPED, 64, 1.0), "groups, costs, constraints"),
        (lambda: inverse_cdf_bias_bound(GROUPED, 64, 1.0), "groups, costs, constraints"),
        (lambda: excess_bound(GROUPED, 1.0), "groups, costs, constraints"),
        (lambda: excess_bound(CressieRead(0.5, 0.1), 1.0), "no such bound is known"),
        (lambda: effective_sample_size_bound(KL(0.1), 64), "a few draws may carry"),
        (lambda: effective_sample_size_bound(GROUPED, 64), "groups, costs, constraints"),
        (lambda: effective_sample_size_bound(ChiSquarePenalty(0.1), 64), "`loss_range` is needed"),
        (lambda: gradient_variance_bound(KLPenalty(0.1), 64, 1.0), "`loss_range` is needed"),
        (lambda: gradient_variance_bound(ChiSquare(0.1), 64, 1.0), "move against each other.*Use CVaR or a penalty"),
        (lambda: gradient_variance_bound(KL(0.1), 64, 1.0), "move against each other"),
        (lambda: multilevel_second_moment_bound(ChiSquare(0.1), 2, 8, 1.0), "move against each other"),
        (lambda: multilevel_second_moment_bound(CVaR(0.1), 2, 12, 1.0), "power of 2.*Use n_max=8"),
        (lambda: bias_bound(CVaR(0.1), 0, 1.0), r"`n` is a number of draws, an integer in \[1, inf\), got 0"),
        (lambda: bias_bound(CVaR(0.1), n=True, loss_range=1.0), "`n` is a number of draws.*got True"),
        (lambda: bias_bound(CVaR(0.1), 2.5, 1.0), r"`n` is a number of draws.*got 2\.5"),  # type: ignore[arg-type]
        (lambda: bias_bound(CVaR(0.1), 8, -1.0), r"`loss_range`.*\[0, inf\), got -1\.0"),
        (lambda: bias_bound(CVaR(0.1), 8, inf), "`loss_range`"),
        (lambda: bias_bound(CVaR(0.1), 8, 1.0, variance=-1.0), "`variance`"),
        (lambda: inverse_cdf_bias_bound(CVaR(0.1), 8, -2.0), "`lipschitz`"),
        (lambda: inverse_cdf_bias_bound(CVaR(0.1), 0, 2.0), "`n`"),
        (lambda: gradient_variance_bound(CVaR(0.1), 8, -2.0), "`gradient_norm`"),
        (lambda: multilevel_second_moment_bound(CVaR(0.1), 0, 8, 2.0), "`n_min`"),
    ],
)
def test_what_has_no_bound_says_why(refused: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refused()


def test_plain_total_variation_keeps_its_bias() -> None:
    """Why it is refused: the bias is nearly the radius at any n."""
    for n in (8, 64, 1024):
        rare = 1e-3 / n
        assert plugin_bias([0.0, 1.0], [1 - rare, rare], n, TotalVariation(0.3)) > 0.99 * 0.3 * exp(-1e-3)
    assert bias_bound(TotalVariation(0.0), 8, 1.0) == 0


def test_infinite_prices_are_the_mean() -> None:
    for penalty in (ChiSquarePenalty(inf), KLPenalty(inf)):
        assert bias_bound(penalty, 8, 1.0) == excess_bound(penalty, 1.0) == 0
        assert effective_sample_size_bound(penalty, 8, loss_range=1.0) == 8
    assert all(bias_bound(KLPenalty(t), 8, 1.0) <= bias_bound(KLPenalty(s), 8, 1.0) for s, t in pairwise([1e-4, 1, 9]))
