"""Bounds on what the weights do, the excess over the mean, the effective sample size and the gradient's variance."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    BurgPenalty,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CressieReadPenalty,
    CVaR,
    Hellinger,
    KLPenalty,
    Spectral,
    TotalVariation,
    effective_sample_size,
    worst_case,
)
from dro_core.sampling.bounds import (
    effective_sample_size_bound,
    excess_bound,
    gradient_variance_bound,
    multilevel_second_moment_bound,
)
from synthetic import sample_counts

from .bound_cases import BOUNDED, SLACK, every_family, longest, populations, sixty_fourths, variance_of

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
    (CressieReadPenalty(2.0, 2.0), 0.5, 1.0),
    (CressieReadPenalty(3.0, 2.0), 0.5, 0.66),
    (Burg(0.05), 0.5, 0.95),
    (Hellinger(0.1), 0.5, 0.95),
    (BurgPenalty(4.0), 0.5, 0.9),
    (CVaR(0.3) + KLPenalty(1e-9), 0.3, 1 - 1e-6),
]


@pytest.mark.parametrize(("ambiguity", "chance", "share"), ATTAINED, ids=str)
def test_excess_bound_is_reached(ambiguity: AmbiguitySet, chance: float, share: float) -> None:
    value = float(worst_case(np.array([0.0, 2.0]), ambiguity, reference=np.array([1 - chance, chance])).value)
    reached = value - 2 * chance
    bound = excess_bound(ambiguity, 2.0)
    assert share * bound - SLACK <= reached <= bound + SLACK


@pytest.mark.parametrize("kind", [Burg, BurgPenalty, Hellinger])
@given(size=sixty_fourths(1, 127), population=populations())
def test_excess_of_sets_without_a_bias_bound(
    kind: type[Burg], size: float, population: tuple[np.ndarray, np.ndarray]
) -> None:
    losses, masses = population
    excess = float(worst_case(losses, kind(size), reference=masses).value - masses @ losses)
    assert excess <= excess_bound(kind(size), 1.0) + SLACK


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
        (CVaR(0.25) + KLPenalty(1e-9), np.arange(16.0)),
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


_BY_ONE_THRESHOLD = ("cvar", "tv_capped", "spectral", "chi2_penalty", "kl_penalty", "cressie_read_penalty")
ORDERED = {name: BOUNDED[name] for name in _BY_ONE_THRESHOLD} | {"tv_plain": sixty_fourths(0, 64).map(TotalVariation)}


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
