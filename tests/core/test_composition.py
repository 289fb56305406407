"""Groups and trimming, against their definition as a program and against the set inside."""

from __future__ import annotations

import numpy as np
import pytest

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    Grouped,
    Hellinger,
    KLPenalty,
    Spectral,
    TotalVariation,
    Trimmed,
    duality_gap,
    worst_case,
)

from . import tolerances as tol
from .oracles import instance, worst_value

INNER = [
    TotalVariation(0.3),
    TotalVariation(0.4, max_ratio=1.5),
    CVaR(0.35),
    Spectral((0.1, 0.3, 0.6)),
    ChiSquare(0.5),
    KL(0.3),
    CressieRead(0.5, 0.4),
    CressieRead(1.5, 0.4),
    Hellinger(0.2),
    KLPenalty(0.2),
    ChiSquarePenalty(0.2),
]
every_inner = pytest.mark.parametrize("inner", INNER, ids=str)
seeds = pytest.mark.parametrize("seed", range(4))


def value(losses: np.ndarray, ambiguity: AmbiguitySet, p: np.ndarray | None = None) -> float:
    return float(worst_case(losses, ambiguity, reference=p).value)


def labels(seed: int, n: int) -> np.ndarray:
    """Up to five groups, some of them empty; at even seeds one holds nothing but the scenario of zero mass."""
    drawn = np.random.default_rng(seed).integers(0, 4, n)
    if seed % 2 == 0:
        drawn[n // 2] = 5
    return drawn


# Against HiGHS and Clarabel


@every_inner
@pytest.mark.parametrize(("seed", "n"), [(0, 2), (1, 7), (2, 20), (3, 20)])
def test_groups_agree_with_the_definition(inner: AmbiguitySet, seed: int, n: int) -> None:
    losses, p = instance(seed, n)
    ambiguity = Grouped(inner, labels(seed, n))
    result = worst_case(losses, ambiguity, reference=p)
    assert float(result.value) == pytest.approx(worst_value(losses, p, ambiguity), abs=tol.CONIC)
    assert abs(float(duality_gap(losses, ambiguity, result, reference=p))) <= tol.CERTIFICATE


@every_inner
@pytest.mark.parametrize("fraction", [0.03, 0.4])
@pytest.mark.parametrize(("seed", "n"), [(0, 2), (1, 7), (2, 20)])
def test_trimming_agrees_with_the_definition(inner: AmbiguitySet, fraction: float, seed: int, n: int) -> None:
    losses, p = instance(seed, n)
    ambiguity = Trimmed(inner, fraction)
    result = worst_case(losses, ambiguity, reference=p)
    assert float(result.value) == pytest.approx(worst_value(losses, p, ambiguity), abs=tol.CONIC)
    assert abs(float(duality_gap(losses, ambiguity, result, reference=p))) <= tol.CERTIFICATE


@pytest.mark.parametrize("seed", [0, 2])  # without ties: which of two equal losses goes would matter to the groups
@pytest.mark.parametrize("inner", [TotalVariation(0.3), KL(0.3), ChiSquarePenalty(0.2)], ids=str)
def test_trimming_before_grouping_and_after(seed: int, inner: AmbiguitySet) -> None:
    losses, p = instance(seed, 12)
    groups = labels(seed, 12)
    before = Trimmed(Grouped(inner, groups), 0.15)
    assert value(losses, before, p) == pytest.approx(worst_value(losses, p, before), abs=tol.CONIC)
    member = np.equal.outer(np.arange(6), groups)
    masses = member @ p
    means = np.divide(member @ (p * losses), masses, out=np.zeros(6), where=masses > 0)
    after = value(losses, Grouped(Trimmed(inner, 0.15), groups), p)
    assert after == pytest.approx(worst_value(means, masses, Trimmed(inner, 0.15)), abs=tol.CONIC)


@seeds
def test_groups_of_groups(seed: int) -> None:
    losses, p = instance(seed, 12)
    fine, coarse = np.arange(12) % 6, np.array([0, 1, 1, 0, 2, 2])
    twice = Grouped(Grouped(KL(0.3), coarse), fine)
    assert value(losses, twice, p) == pytest.approx(value(losses, Grouped(KL(0.3), coarse[fine]), p), abs=1e-13)


# Identities


@every_inner
@seeds
def test_groups_of_one_are_the_inner_set(inner: AmbiguitySet, seed: int) -> None:
    losses, p = instance(seed, 12)
    alone = worst_case(losses, inner, reference=p)
    grouped = worst_case(losses, Grouped(inner, np.random.default_rng(seed).permutation(12)), reference=p)
    np.testing.assert_allclose(grouped.weights, alone.weights, rtol=0, atol=tol.WEIGHT)
    assert float(grouped.value) == pytest.approx(float(alone.value), abs=1e-13)
    assert float(grouped.dual.multiplier) == pytest.approx(float(alone.dual.multiplier), abs=1e-9)
    assert float(grouped.dual.threshold) == pytest.approx(float(alone.dual.threshold), abs=1e-9)


@every_inner
@pytest.mark.parametrize("label", [0, 3])
def test_one_group_is_the_mean(inner: AmbiguitySet, label: int) -> None:
    losses, p = instance(0, 12)
    result = worst_case(losses, Grouped(inner, np.full(12, label)), reference=p)
    np.testing.assert_allclose(result.weights, p, rtol=1e-13, atol=1e-16)
    assert float(result.value) == pytest.approx(losses @ p, abs=1e-14)


@seeds
def test_a_full_ball_over_groups_is_group_dro(seed: int) -> None:
    losses, p = instance(seed, 12)
    groups = labels(seed, 12)
    means = [p[groups == g] @ losses[groups == g] / p[groups == g].sum() for g in set(groups[p > 0])]
    assert value(losses, Grouped(TotalVariation(1.0), groups), p) == pytest.approx(max(means), abs=1e-14)


@every_inner
@seeds
def test_trimming_nothing_is_the_inner_set(inner: AmbiguitySet, seed: int) -> None:
    losses, p = instance(seed, 12)
    alone, untouched = (worst_case(losses, kind, reference=p) for kind in (inner, Trimmed(inner, 0)))
    np.testing.assert_allclose(untouched.weights, alone.weights, rtol=0, atol=1e-13)
    assert float(untouched.value) == pytest.approx(float(alone.value), abs=1e-14)


@seeds
@pytest.mark.parametrize("fraction", [0.1, 0.45])
def test_the_trimmed_mean(seed: int, fraction: float) -> None:
    """What is left of a CVaR of everything is the mean less its upper tail; the tail is CVaR's business."""
    losses, p = instance(seed, 12)
    tail = fraction * value(losses, CVaR(fraction), p)
    expected = (losses @ p - tail) / (1 - fraction)
    assert value(losses, Trimmed(CVaR(1), fraction), p) == pytest.approx(expected, abs=1e-13)


@every_inner
def test_no_other_trimming_gives_less(inner: AmbiguitySet) -> None:
    """Dropping the scenarios in random order, those of large loss mostly first."""
    losses, p = instance(0, 12)
    ours, rng = value(losses, Trimmed(inner, 0.3), p), np.random.default_rng(0)
    for noise in np.repeat([0.1, 1.0, 10.0], 10):
        order = np.argsort(-losses - noise * rng.standard_normal(12))
        before = np.cumsum(p[order]) - p[order]
        kept = p.copy()
        kept[order] -= np.clip(0.3 - before, 0, p[order])
        assert value(losses, inner, np.clip(kept, 0, None) / 0.7) >= ours - 1e-13


@pytest.mark.parametrize("inner", INNER[:8], ids=str)
@pytest.mark.parametrize("short", [1e-3, 1e-9, 1e-13, 1e-15, 2.0**-53])
def test_almost_everything_is_trimmed(inner: AmbiguitySet, short: float) -> None:
    """The smallest loss is left."""
    result = worst_case(np.array([3.0, -2.0, 5.0, 4.0]), Trimmed(inner, 1 - short))
    assert float(result.value) == pytest.approx(-2.0, abs=1e-12)
    np.testing.assert_allclose(result.weights, [0, 1, 0, 0], atol=1e-12)


def test_a_mass_that_is_trimmed_gets_nothing() -> None:
    weights = worst_case(np.arange(10.0), Trimmed(KL(0.3), 0.3)).weights
    assert np.flatnonzero(weights).tolist() == list(range(7))
    ties = worst_case(np.array([1.0, 2.0, 2.0, 0.0]), Trimmed(CVaR(1), 0.25)).weights
    np.testing.assert_allclose(ties, np.array([1.0, 0.5, 0.5, 1.0]) / 3, atol=1e-15)
