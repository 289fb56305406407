"""One long problem is solved by selection, two of them by a sort: the answers are the same, and certified."""

import numpy as np
import pytest

from dro_core import (
    ChiSquare,
    ChiSquarePenalty,
    CVaR,
    KLPenalty,
    Spectral,
    TotalVariation,
    Trimmed,
    duality_gap,
    worst_case,
)

N = 3000  # longer than what is sorted at once
SETS = (
    *(ChiSquare(radius) for radius in (0, 1e-12, 0.01, 0.5, 30, 0.4 * N, 1e9)),
    *(ChiSquarePenalty(price) for price in (1e-6, 0.05, 1, 1e6)),
    *(CVaR(alpha) for alpha in (1e-5, 0.2, 0.999, 1)),
    TotalVariation(0.3),
    TotalVariation(0.3, 1.5),
    *(Spectral(shares) for shares in ((0.1, 0.3, 0.6), (0.0, 0.0, 1.0), (0.25,) * 4)),
    Trimmed(CVaR(0.3), 0.1),
    Trimmed(ChiSquare(0.5), 0.02),
    Trimmed(KLPenalty(0.5), 0.1),
    *(KLPenalty(temperature) for temperature in (1e-3, 0.5, 40, 1e9)),
)


def losses_of(kind, rng):
    if kind == "levels":  # many ties
        return rng.integers(0, 7, N).astype(float)
    if kind == "few high":
        return np.where(rng.random(N) < 0.002, 5.0, rng.random(N))
    if kind == "constant":
        return np.full(N, 3.5)
    if kind == "sorted":
        return np.sort(rng.exponential(size=N))
    return {"normal": rng.normal, "heavy": lambda size: rng.standard_cauchy(size) ** 3}[kind](size=N)


def reference_of(kind, rng):
    if kind == "uniform":
        return None
    masses = rng.random(N)
    if kind == "with zeros":
        masses[rng.random(N) < 0.3] = 0
    if kind == "of all sizes":
        masses = 10.0 ** rng.uniform(-9, 0, N)
    return masses / masses.sum()


@pytest.mark.parametrize("masses", ["uniform", "random", "with zeros", "of all sizes"])
@pytest.mark.parametrize("kind", ["normal", "levels", "few high", "heavy", "sorted", "constant"])
def test_one_long_problem_is_solved_as_two_are(kind, masses):
    rng = np.random.default_rng([len(kind), len(masses)])
    losses, reference = losses_of(kind, rng), reference_of(masses, rng)
    for ambiguity in SETS:
        alone = worst_case(losses, ambiguity, reference=reference)
        both = worst_case(np.stack([losses, losses]), ambiguity, reference=reference)
        spread = np.ptp(losses) or 1.0
        np.testing.assert_allclose(alone.weights, both.weights[0], rtol=1e-6, atol=1e-11, err_msg=str(ambiguity))
        assert abs(alone.value - both.value[0]) <= 1e-11 * spread, ambiguity
        assert abs(duality_gap(losses, ambiguity, alone, reference=reference)) <= 1e-9 * spread, ambiguity
        assert alone.weights.sum() == pytest.approx(1, abs=1e-12)
        assert (alone.weights >= 0).all()


@pytest.mark.parametrize("ambiguity", SETS, ids=str)
def test_equal_losses_share_and_an_order_of_the_scenarios_is_kept(ambiguity):
    rng = np.random.default_rng(3)
    losses = rng.integers(0, 40, N).astype(float)
    masses = reference_of("random", rng)
    order = rng.permutation(N)
    found = worst_case(losses, ambiguity, reference=masses).weights
    again = worst_case(losses[order], ambiguity, reference=masses[order]).weights
    np.testing.assert_allclose(again, found[order], rtol=1e-9, atol=1e-15)
    ratio = found / masses
    for level in np.unique(losses):
        assert np.ptp(ratio[losses == level]) <= 1e-9 * max(ratio.max(), 1)


def test_what_lies_below_the_threshold_has_no_weight_at_all():
    losses = np.random.default_rng(0).normal(size=N)
    for ambiguity in (ChiSquare(0.5), ChiSquarePenalty(0.05)):
        worst = worst_case(losses, ambiguity)
        assert (worst.weights[losses < worst.dual.threshold] == 0).all()
        assert (worst.weights[losses > worst.dual.threshold + 1e-9] > 0).all()


@pytest.mark.parametrize("kind", ["normal", "levels", "few high", "heavy", "sorted", "constant"])
def test_many_short_rows_are_solved_as_each_of_them(kind):
    """They are sorted, for it takes less time than to find one of their losses; one problem is searched."""
    rng = np.random.default_rng([7, len(kind)])
    losses = np.stack([losses_of(kind, rng)[:60] for _ in range(4)])
    for ambiguity in SETS:
        together, alone = worst_case(losses, ambiguity), [worst_case(row, ambiguity) for row in losses]
        np.testing.assert_allclose(together.weights, [one.weights for one in alone], rtol=0, atol=1e-14)
        np.testing.assert_allclose(together.dual, np.transpose([one.dual for one in alone]), rtol=1e-12)
        np.testing.assert_allclose(together.weights.sum(-1), 1, atol=1e-12)
        spread = np.ptp(losses, axis=-1)
        assert (np.abs(duality_gap(losses, ambiguity, together)) <= 1e-9 * spread + 1e-15 * np.abs(losses).max()).all()
