"""A set plus a penalty: text, refusals, limits, multipliers, and what other packages assert of their smoothed risks."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    BurgPenalty,
    Charged,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CressieReadPenalty,
    CVaR,
    Grouped,
    KLPenalty,
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
    parse_ambiguity,
    robust_loss,
    worst_case,
)

from .examples import line
from .oracles import instance

SORTED = [CVaR(0.4), CVaR(0), TotalVariation(0.2), TotalVariation(0.3, max_ratio=2.5), Spectral((0.1, 0.3, 0.6))]
PRICES = [KLPenalty, ChiSquarePenalty]
every_sorted = pytest.mark.parametrize("base", SORTED, ids=str)
every_price = pytest.mark.parametrize("price", PRICES, ids=lambda kind: kind.__name__)
BALLS = [
    (KL(0.3), KLPenalty),
    (ChiSquare(0.4), ChiSquarePenalty),
    (Burg(0.2), BurgPenalty),
    (CressieRead(1.5, 0.3), lambda price: CressieReadPenalty(1.5, price)),
    (CressieRead(0.5, 0.3), lambda price: CressieReadPenalty(0.5, price)),
]
every_ball = pytest.mark.parametrize(("ball", "price"), BALLS, ids=lambda item: str(item) if item in SORTED else "")


@pytest.mark.parametrize(
    ("spec", "ambiguity"),
    [
        ("cvar:0.4+kl_penalty:0.1", CVaR(0.4) + KLPenalty(0.1)),
        ("tv:0.2+chi2_penalty:1,max_ratio=8", TotalVariation(0.2, max_ratio=8) + ChiSquarePenalty(1)),
        ("spectral:0.1/0.3/0.6+kl_penalty:inf", Spectral((0.1, 0.3, 0.6)) + KLPenalty(np.inf)),
        ("cressie_read:0.3+cressie_read_penalty:2,order=1.5", CressieRead(1.5, 0.3) + CressieReadPenalty(1.5, 2)),
        ("burg:0.3+burg_penalty:2,by=source", Grouped(Burg(0.3) + BurgPenalty(2), "source")),
        ("cvar:0.4+kl_penalty:0.1,by=source,trim=0.1", Trimmed(Grouped(CVaR(0.4) + KLPenalty(0.1), "source"), 0.1)),
    ],
)
def test_sums_go_both_ways(spec: str, ambiguity: AmbiguitySet) -> None:
    assert parse_ambiguity(spec) == ambiguity
    assert str(ambiguity) == spec
    spaced = re.sub(r"([,:/=+])", r" \1 ", spec)
    assert parse_ambiguity(f" {spaced} ") == ambiguity


def test_the_order_of_a_sum_does_not_matter_and_wrappers_keep_outside() -> None:
    assert KLPenalty(0.1) + CVaR(0.4) == CVaR(0.4) + KLPenalty(0.1) == Charged(CVaR(0.4), KLPenalty(0.1))
    assert Grouped(CVaR(0.4), [0, 1]) + KLPenalty(1) == Grouped(CVaR(0.4) + KLPenalty(1), [0, 1])
    assert KLPenalty(1) + Trimmed(CVaR(0.4), 0.1) == Trimmed(CVaR(0.4) + KLPenalty(1), 0.1)


@pytest.mark.parametrize("sign", ["kl_penalty:+inf", "kl_penalty:1e+5", "kl_penalty: +2"])
def test_a_plus_before_a_number_is_its_sign(sign: str) -> None:
    assert isinstance(parse_ambiguity(sign), KLPenalty)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cvar:0.4+", "'0.4+' where a number belongs"),
        ("+kl_penalty:1", "unknown ambiguity '+kl_penalty:1', did you mean"),
        ("+", "unknown ambiguity '+'"),
        ("cvar:0.4++kl_penalty:1", "where a number belongs"),
        ("cvar:0.4+kl_penalty", "lacks its temperature"),
        ("cvar:0.4+kl_penalty:x", "has 'x' where a number belongs"),
        ("cvar:0.4+nothing:1", "cannot add 'nothing:1': it takes a set and a penalty, as in 'cvar:0.4+kl_penalty:0.1'"),
        ("erm+kl_penalty:1", "cannot add 'kl_penalty:1'"),
        ("cvar:0.4+erm", "cannot add 'erm'"),
        ("cvar:0.4+tv:0.2", "cvar:0.4 and tv:0.2 cannot be added: one must be a set, the other a penalty"),
        ("kl_penalty:1+chi2_penalty:1", "cannot be added: one must be a set, the other a penalty"),
        ("cvar:0.4+kl_penalty:1+chi2_penalty:1", "cannot be added: one must be a set, the other a penalty"),
        ("kl:0.3+chi2_penalty:1", "a ball the penalty of its own divergence and order. Use ConvexSet for others."),
        ("cvar:0.4+burg_penalty:1", "CVaR and Spectral take KLPenalty or ChiSquarePenalty"),
        ("hellinger:0.3+kl_penalty:1", "cannot be added"),
        ("cressie_read:0.3+cressie_read_penalty:2", "lacks order"),
        ("cvar:0.4+kl_penalty:0", "`KLPenalty.temperature` is"),
        ("cvar:0.4,max_ratio=2+kl_penalty:1", "has the option 'max_ratio=2+kl_penalty:1'"),
    ],
)
def test_a_bad_sum_is_explained(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_ambiguity(spec)


def test_only_sets_can_be_added() -> None:
    with pytest.raises(TypeError):
        CVaR(0.4) + 1  # type: ignore[operator]
    with pytest.raises(ValueError, match="cannot be added"):
        CressieRead(1.5, 0.3) + CressieReadPenalty(2.5, 1)
    with pytest.raises(ValueError, match="cannot be added"):
        Wasserstein(0.1, line(3)) + KLPenalty(1)
    for one, other in ((None, KLPenalty(1)), (KLPenalty(1), CVaR(0.4))):
        given: Any = one, other
        with pytest.raises(TypeError, match="is made of a set and a penalty"):
            Charged(*given)


@every_sorted
@every_price
def test_next_to_no_price_is_the_set_and_any_price_is_the_mean(base: AmbiguitySet, price: Any) -> None:
    """The limits that packages of smoothed risks assert: vanishing smoothing, and smoothing without end."""
    losses, p = instance(0, 12)
    sharp = float(worst_case(losses, base, reference=p).value)
    assert float(worst_case(losses, base + price(1e-9), reference=p).value) == pytest.approx(sharp, abs=1e-7)
    far = worst_case(losses, base + price(1e9), reference=p)
    np.testing.assert_allclose(far.weights, p, atol=1e-8)
    between = [float(worst_case(losses, base + price(t), reference=p).value) for t in (1e-3, 0.03, 0.3, 3.0, 1e3)]
    assert all(one > other for one, other in pairwise([sharp, *between, losses @ p]))


@every_sorted
@every_price
def test_neither_the_size_of_the_batch_nor_a_shift_matters(base: AmbiguitySet, price: Any) -> None:
    """A price per unit of divergence, not per example: twice the same batch costs the same."""
    losses = np.random.default_rng(1).standard_normal(9)
    once, twice = (worst_case(batch, base + price(0.3)) for batch in (losses, np.tile(losses, 2)))
    assert float(twice.value) == pytest.approx(float(once.value), abs=1e-13)
    np.testing.assert_allclose(twice.weights[:9], once.weights / 2, atol=1e-13)
    far = worst_case(losses.astype(np.float32) + np.float32(100), base + price(0.3))  # exp(100 / 0.3) is no float
    assert float(far.value) == pytest.approx(float(once.value) + 100, abs=1e-4)
    assert far.weights.sum() == pytest.approx(1, abs=1e-6)


def test_a_cap_on_a_softmax_by_hand() -> None:
    """Softmax of (log 6, log 2, log 1, log 1) is (.6, .2, .1, .1); of none above 1/2 the rest share 1/2 as before."""
    weights = worst_case(np.log([6.0, 2.0, 1.0, 1.0]), CVaR(0.5) + KLPenalty(1.0)).weights
    np.testing.assert_allclose(weights, [0.5, 0.25, 0.125, 0.125], atol=1e-15)
    loose = worst_case(np.log([6.0, 2.0, 1.0, 1.0]), CVaR(0.3) + KLPenalty(1.0)).weights
    np.testing.assert_allclose(loose, softmax(np.log([6.0, 2.0, 1.0, 1.0])), atol=1e-15)


@every_price
@pytest.mark.parametrize("base", [CVaR(0.5), TotalVariation(0.3, max_ratio=2), Spectral((0.0, 1.0))], ids=str)
def test_a_mass_that_vanishes_beside_the_others_has_its_ratio(base: AmbiguitySet, price: Any) -> None:
    """Next to no price: the largest losses have twice their mass, and so has one of mass 1e-17 among them."""
    p = np.array([0.2, 1e-17, 0.8])
    weights = worst_case(np.array([3.0, 2.0, 1.0]), base + price(1e-6), reference=p).weights
    np.testing.assert_allclose(weights / p, [2.0, 2.0, 0.75], rtol=1e-12)


def test_spectral_weights_with_a_quadratic_cost_are_an_isotonic_regression() -> None:
    """With uniform p: q n - 1 = (l - eta) / price, eta the best falling fit to l - price (n spectrum - 1)."""
    from sklearn.isotonic import isotonic_regression

    rng = np.random.default_rng(4)
    for _ in range(20):
        n = int(rng.integers(2, 30))
        losses, spectrum = rng.standard_normal(n), np.sort(rng.exponential(size=n))
        spectrum /= spectrum.sum()
        order, price = np.argsort(losses), 0.5
        fit = isotonic_regression(losses[order] - price * (n * spectrum - 1), increasing=True)
        expected = np.empty(n)
        expected[order] = (1 + (losses[order] - fit) / price) / n
        weights = worst_case(losses, Spectral(tuple(spectrum)) + ChiSquarePenalty(price)).weights
        np.testing.assert_allclose(weights, expected, atol=1e-12)


@every_ball
@pytest.mark.parametrize("seed", range(3))
def test_a_ball_with_its_own_penalty_has_the_higher_of_two_prices(ball: Any, price: Any, seed: int) -> None:
    losses, p = instance(seed, 12)
    alone = worst_case(losses, ball, reference=p)
    needed = float(alone.dual.multiplier)
    dear, cheap = (worst_case(losses, ball + price(part * needed), reference=p) for part in (2.0, 0.25))
    free = worst_case(losses, price(2.0 * needed), reference=p)
    np.testing.assert_allclose(dear.weights, free.weights, atol=1e-14)
    assert (float(dear.dual.multiplier), float(dear.value)) == (0.0, pytest.approx(float(free.value), abs=1e-14))
    np.testing.assert_allclose(cheap.weights, alone.weights, atol=1e-14)
    assert float(cheap.value) == pytest.approx(float(alone.value) - 0.25 * needed * ball.radius, abs=1e-10)
    assert float(cheap.dual.multiplier) == pytest.approx(0.75 * needed, rel=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda r: TotalVariation(r) + KLPenalty(0.1),
        lambda r: TotalVariation(r, max_ratio=2.5) + ChiSquarePenalty(0.1),
        lambda r: TotalVariation(r, max_ratio=1.5) + KLPenalty(0.01),  # the cap binds too, and has a price of its own
        lambda r: KL(r) + KLPenalty(0.1),
        lambda r: Burg(r) + BurgPenalty(0.02),
        lambda r: Burg(r),
    ],
)
def test_the_multiplier_is_what_a_little_more_radius_is_worth(make: Any) -> None:
    losses, p = instance(2, 12)
    step, radius = 1e-6, 0.17
    more, less = (float(worst_case(losses, make(radius + s), reference=p).value) for s in (step, -step))
    multiplier = float(worst_case(losses, make(radius), reference=p).dual.multiplier)
    assert multiplier > 1e-3
    assert float(worst_case(losses, CVaR(0.5) + KLPenalty(0.05), reference=p).dual.multiplier) == 0
    assert (more - less) / (2 * step) == pytest.approx(multiplier, rel=1e-4)


@pytest.mark.parametrize(
    "ambiguity", [CVaR(0.4) + KLPenalty(0.2), Spectral((0.2, 0.8)) + ChiSquarePenalty(0.3)], ids=str
)
def test_gradients_are_the_weights_and_change_smoothly(ambiguity: AmbiguitySet) -> None:
    losses = torch.randn(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: robust_loss(given, ambiguity), losses)
    moved = worst_case((losses + 1e-6).detach() + 1e-6 * torch.arange(7.0), ambiguity).weights
    assert float((moved - worst_case(losses.detach(), ambiguity).weights).abs().max()) < 1e-4  # no jump


def test_entmax_is_a_cressie_read_penalty() -> None:
    """entmax_k(z) = ((k - 1) z - tau)_+^{1/(k-1)}: z = losses / strength n^(1-k), tau by bisection."""
    losses = np.random.default_rng(0).standard_normal(11)
    for k in (1.25, 1.5, 1.75):
        z, low, high = (k - 1) * losses / (0.4 * 11 ** (k - 1)), -10.0, 10.0
        for _ in range(100):
            tau = (low + high) / 2
            low, high = (tau, high) if (np.maximum(z - tau, 0) ** (1 / (k - 1))).sum() > 1 else (low, tau)
        expected = np.maximum(z - low, 0) ** (1 / (k - 1))
        weights = worst_case(losses, CressieReadPenalty(k, 0.4)).weights
        np.testing.assert_allclose(weights, expected, atol=1e-12)


def test_sums_hold_the_reference_alone_where_a_part_does() -> None:
    assert (CVaR(1) + KLPenalty(1)).holds_only_reference
    assert (CVaR(0.4) + KLPenalty(np.inf)).holds_only_reference
    assert not (CVaR(0.4) + KLPenalty(1)).holds_only_reference
    assert (TotalVariation(0.4) + KLPenalty(1)).with_strength(0.5) == TotalVariation(0.2) + KLPenalty(1)
