"""Radii that cover the truth: coverage by exact enumeration where outcomes are few, by simulation elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import kl_div
from scipy.stats import binom, multinomial

from dro_core import (
    KL,
    Burg,
    BurgPenalty,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    Grouped,
    KLPenalty,
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
    robust_loss,
)
from dro_core.sampling.radius import radius_from_confidence

DELTA = 0.05
MAKERS: dict[str, Callable[[float], Any]] = {
    "chi2": ChiSquare,
    "kl": KL,
    "burg": Burg,
    "power 1/2": lambda radius: CressieRead(0.5, radius),
    "power 3": lambda radius: CressieRead(3.0, radius),
}
divergences = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


# A radius from a confidence level: one mean


def mean_coverage(ambiguity: Any, n: int) -> np.ndarray:
    """P(p <= worst case of the mean of n tosses) for coins p from 0.2 to 0.8, summed over all outcomes."""
    heads = np.arange(n + 1)
    reference = np.stack([1 - heads / n, heads / n], axis=-1)
    upper = robust_loss(np.broadcast_to([0.0, 1.0], reference.shape), ambiguity, reference=reference)
    coins = np.linspace(0.2, 0.8, 61)
    covered = coins <= upper[:, None] + 1e-12
    return np.sum(np.where(covered, binom.pmf(heads[:, None], n, coins), 0.0), axis=0)


@divergences
@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_the_upper_bound_of_one_mean_covers_as_often_as_it_says(make: Callable[[float], Any], delta: float) -> None:
    n = 400
    radius = radius_from_confidence(make(1.0), n, delta)
    exact = mean_coverage(make(radius), n)
    # A step of the lattice is worth up to 0.02 of coverage at one coin; the average over coins has none.
    assert exact.mean() == pytest.approx(1 - delta, abs=0.003)
    assert exact.min() >= 1 - delta - 0.03
    for wrong in (radius / 2, 2 * radius):  # [DGN21]'s constant without our 1/2, or the 1/2 counted twice
        assert abs(mean_coverage(make(wrong), n).mean() - (1 - delta)) > 0.03


@pytest.mark.parametrize("n", [50, 400])
def test_total_variation_is_exact_for_a_fair_coin_and_generous_for_others(n: int) -> None:
    radius = radius_from_confidence(TotalVariation, n, DELTA)
    exact = mean_coverage(TotalVariation(radius), n)
    assert exact[30] == pytest.approx(1 - DELTA, abs=0.8 / math.sqrt(n) / 2)  # half a lattice step at coin 0.5
    assert np.all(exact >= 1 - DELTA - 0.01)
    assert np.all(exact[[0, -1]] >= 1 - DELTA + 0.015)
    assert mean_coverage(TotalVariation(radius / math.sqrt(2)), n).mean() < 1 - DELTA - 0.03


# The whole distribution on known atoms

TRUTHS = np.array([[0.3, 0.3, 0.4], [0.2, 0.3, 0.5], [0.15, 0.25, 0.6]])


def total_variation(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.abs(q - p).sum(axis=-1) / 2


def power(order: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def divergence(q: np.ndarray, p: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            moment = np.sum(q**order * p ** (1 - order), axis=-1)
        return (moment - 1) / (order * (order - 1))

    return divergence


DISTANCES = {
    "chi2": power(2.0),
    "kl": lambda q, p: kl_div(q, p).sum(axis=-1),
    "burg": lambda q, p: kl_div(p, q).sum(axis=-1),
    "power 1/2": power(0.5),
    "power 3": power(3.0),
}


def atom_coverage(distance: Callable[[np.ndarray, np.ndarray], np.ndarray], radius: float, n: int) -> np.ndarray:
    """P(truth within radius of the frequencies), summed over all samples of n from three atoms."""
    counts = np.array([(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)])
    return np.array(
        [multinomial.pmf(counts, n, truth)[distance(truth, counts / n) <= radius].sum() for truth in TRUTHS]
    )


@pytest.mark.parametrize("name", MAKERS)
def test_a_divergence_ball_around_frequencies_covers_the_truth(name: str) -> None:
    n, make, distance = 400, MAKERS[name], DISTANCES[name]
    radius = radius_from_confidence(make(0.0), n, DELTA, atoms=3)
    exact = atom_coverage(distance, radius, n)
    assert np.all(np.abs(exact - (1 - DELTA)) <= 0.01)
    for wrong in (radius / 2, 2 * radius, radius_from_confidence(make(0.0), n, DELTA, atoms=4)):
        assert np.all(np.abs(atom_coverage(distance, wrong, n) - (1 - DELTA)) > 0.02)


def test_the_figures_of_the_docstring() -> None:
    """At n = 60 and an atom of 0.1 KL covers .94, chi-square .91."""
    counts = np.array([(a, b, 60 - a - b) for a in range(61) for b in range(61 - a)])
    truth = np.array([0.1, 0.3, 0.6])
    chance = multinomial.pmf(counts, 60, truth)
    for kind, name, figure in [(KL, "kl", 0.94), (ChiSquare, "chi2", 0.91)]:
        radius = radius_from_confidence(kind, 60, DELTA, atoms=3)
        covered = DISTANCES[name](truth, counts / 60) <= radius
        assert chance[covered].sum() == pytest.approx(figure, abs=0.005)


@pytest.mark.parametrize("n", [1, 5, 20, 60])
@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_total_variation_covers_at_every_n(n: int, delta: float) -> None:
    radius = radius_from_confidence(TotalVariation, n, delta, atoms=3)
    assert np.all(atom_coverage(total_variation, radius, n) >= 1 - delta)
    if n == 60:
        assert np.all(atom_coverage(total_variation, radius / 2, n) < 1 - delta)


def test_many_atoms_take_the_mean_and_mcdiarmid() -> None:
    atoms, n = 400, 800
    radius = radius_from_confidence(TotalVariation, n, DELTA, atoms=atoms)
    assert radius == pytest.approx(math.sqrt(399 / 800) / 2 + math.sqrt(math.log(20) / 1600))
    frequencies = np.random.default_rng(0).multinomial(n, np.full(atoms, 1 / atoms), size=400) / n
    distances = total_variation(frequencies, np.full(atoms, 1 / atoms))
    assert np.mean(distances <= radius) >= 1 - DELTA
    assert np.mean(distances <= radius / 2) < 0.5


def test_two_atoms_are_hoeffding_on_both_sides() -> None:
    radius = radius_from_confidence(TotalVariation, 100, DELTA, atoms=2)
    assert radius == pytest.approx(math.sqrt(math.log(2 / DELTA) / 200))


def test_radii_shrink_with_n_and_grow_with_confidence_and_atoms() -> None:
    for kind in (ChiSquare, KL, CressieRead, TotalVariation):
        for atoms in (None, 2, 10, 1000):
            by_n = [radius_from_confidence(kind, n, 0.1, atoms=atoms) for n in (1, 10, 10**3, 10**6)]
            by_delta = [radius_from_confidence(kind, 10**6, delta, atoms=atoms) for delta in (0.4, 0.1, 1e-3, 1e-9)]
            assert by_n == sorted(by_n, reverse=True)
            assert by_n[-1] > 0
            assert by_delta == sorted(by_delta)
        by_atoms = [radius_from_confidence(kind, 10**6, 0.1, atoms=atoms) for atoms in (2, 3, 50, 10**5)]
        assert by_atoms == sorted(by_atoms)
        assert radius_from_confidence(kind, 10, 0.5) == 0
    assert radius_from_confidence(TotalVariation, 1, 1e-9, atoms=9) == 1


@pytest.mark.parametrize(
    ("ambiguity", "message"),
    [
        (CVaR, "CVaR.*a cap on q/p leaves out"),
        (CVaR(0.3), "use ChiSquare"),
        (Spectral, "a cap on q/p"),
        (TotalVariation(0.1, max_ratio=2.0), "max_ratio leaves out.*drop it"),
        (Wasserstein, "dimension and tails"),
        (KLPenalty(1.0), "no radius; use KL"),
        (ChiSquarePenalty, "no radius; use ChiSquare"),
        (BurgPenalty, "no radius; use Burg"),
        (Grouped(KL(0.1), [0, 1]), "number of groups"),
        (Trimmed(KL(0.1), 0.1), "Trimmed.*no theorem is known"),
    ],
    ids=str,
)
def test_sets_without_a_theorem_say_why(ambiguity: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        radius_from_confidence(ambiguity, 100, DELTA)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"n": 0}, ValueError, r"`n`.*\[1, inf\), got 0"),
        ({"delta": 0.0}, ValueError, r"`delta`.*\(0, 1\)"),
        ({"delta": 1.0}, ValueError, "`delta`"),
        ({"atoms": 1}, ValueError, "`atoms`.*at least 2, got 1"),
        ({"atoms": 2.0}, ValueError, "`atoms`"),
        ({"atoms": True}, ValueError, "`atoms`"),
        ({"ambiguity": "chi2"}, TypeError, "set or its class, such as ChiSquare, got 'chi2'"),
        ({"ambiguity": int}, TypeError, "set or its class"),
    ],
)
def test_errors_of_the_radius_teach(changed: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        radius_from_confidence(**{"ambiguity": ChiSquare, "n": 100, "delta": DELTA, **changed})


def test_radii_for_atoms_and_bad_counts() -> None:
    visits = np.array([[10.0, 1000.0]])
    for kind in (ChiSquare, TotalVariation):
        expected = [[radius_from_confidence(kind, n, 0.05, atoms=5) for n in visits[0]]]
        np.testing.assert_allclose(radius_from_confidence(kind, visits, 0.05, atoms=5), expected, rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match=r"`n` is the number of observations .* got 0\.0 in row \(0, 1\)"):
        radius_from_confidence(KL, np.array([[5, 0]]), 0.05)
