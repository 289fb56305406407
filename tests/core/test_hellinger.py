"""The Hellinger ball against a conic solver, CressieRead, the angle between two atoms, and finite differences."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from dro_core import (
    CressieRead,
    Dual,
    Hellinger,
    dual_objective,
    duality_gap,
    parse_ambiguity,
    radius_from_confidence,
    robust_loss,
    worst_case,
)

from . import tolerances as tol

RADII = [1e-4, 0.05, 0.3, 1.0, 1.6]
every_radius = pytest.mark.parametrize("radius", RADII)


def instance(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of range 1, two equal, and a random reference with an atom of zero mass that has the largest loss."""
    rng = np.random.default_rng(seed)
    losses = rng.standard_normal(n)
    losses[1] = losses[0]
    masses = rng.dirichlet(np.ones(n))
    masses[losses.argmax()] = 0.0
    seen = losses[masses > 0]
    return losses / np.ptp(seen), masses / masses.sum()


def conic_value(losses: np.ndarray, p: np.ndarray, radius: float) -> float:
    """Clarabel on E (sqrt(q/p) - 1)^2 = 2 - 2 sum sqrt(p q)."""
    losses, p = losses[p > 0], p[p > 0]
    q = cp.Variable(len(p), nonneg=True)
    affinity = cp.sum(cp.multiply(np.sqrt(p), cp.sqrt(q)))
    problem = cp.Problem(cp.Maximize(q @ losses), [cp.sum(q) == 1, affinity >= 1 - radius / 2])
    return float(problem.solve(solver=cp.CLARABEL))


@every_radius
@pytest.mark.parametrize("n", [4, 8, 40])
@pytest.mark.parametrize("seed", range(2))
def test_agrees_with_clarabel(radius: float, n: int, seed: int) -> None:
    losses, p = instance(seed, n)
    result = worst_case(losses, Hellinger(radius), reference=p)
    assert float(result.value) == pytest.approx(conic_value(losses, p, radius), abs=tol.CONIC)
    assert abs(float(duality_gap(losses, Hellinger(radius), result, reference=p))) <= tol.CERTIFICATE


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-9, 1.999), st.floats(0.125, 8.0))
def test_two_atoms_turn_by_an_angle(p: float, radius: float, span: float) -> None:
    """(sqrt(q), sqrt(1 - q)) are unit vectors: the ball turns the one of p by at most arccos(1 - radius/2)."""
    angle = 2 * np.arcsin(np.sqrt(radius) / 2)  # the same without cancellation
    turned = np.arctan2(np.sqrt(p), np.sqrt(1 - p)) + angle
    result = worst_case(np.array([span, 0.0]), Hellinger(radius), reference=np.array([p, 1 - p]))
    inside = turned < np.pi / 2
    assert float(result.value) == pytest.approx(span * (np.sin(turned) ** 2 if inside else 1.0), abs=1e-12 * span)
    price = span * np.sin(2 * turned) / (2 * np.sin(angle)) if inside else 0.0
    assert float(result.dual.multiplier) == pytest.approx(price, rel=1e-6, abs=1e-9 * span)


@every_radius
def test_is_cressie_read_of_order_one_half_and_twice_the_radius(radius: float) -> None:
    losses, p = instance(5, 12)
    ours = worst_case(losses, Hellinger(radius), reference=p)
    theirs = worst_case(losses, CressieRead(order=0.5, radius=2 * radius), reference=p)
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-12)
    assert float(ours.dual.multiplier) == pytest.approx(2 * float(theirs.dual.multiplier), abs=1e-12)
    assert float(ours.dual.threshold) == pytest.approx(float(theirs.dual.threshold), abs=1e-12)


@every_radius
def test_the_multiplier_is_the_price_of_the_radius(radius: float) -> None:
    losses, p = instance(7, 9)
    step = 1e-4 * radius
    higher, lower = (float(robust_loss(losses, Hellinger(r), reference=p)) for r in (radius + step, radius - step))
    price = float(worst_case(losses, Hellinger(radius), reference=p).dual.multiplier)
    assert price == pytest.approx((higher - lower) / (2 * step), rel=1e-6)


def docstring_dual(losses: np.ndarray, p: np.ndarray, radius: float, dual: Dual) -> float:
    room = dual.multiplier + dual.threshold - losses[p > 0]
    if room.min() <= 0:
        return np.inf
    mean = p[p > 0] @ ((losses[p > 0] - dual.threshold) / room)
    return float(radius * dual.multiplier + dual.threshold + dual.multiplier * mean)


@every_radius
def test_the_dual_is_the_one_of_the_docstring(radius: float) -> None:
    losses, p = instance(3, 10)
    top = losses[p > 0].max()
    duals = [Dual(m, top + (t - 1) * m) for m in (0.01, 0.7, 30.0) for t in (-0.5, -0.01, 0.01, 0.5, 2.0)]
    for dual in duals:
        expected = docstring_dual(losses, p, radius, dual)
        value = float(dual_objective(losses, Hellinger(radius), dual, reference=p))
        assert value == pytest.approx(expected, rel=1e-11, abs=1e-11)


@every_radius
def test_the_one_dimensional_dual_has_this_minimum(radius: float) -> None:
    losses, p = instance(11, 10)
    seen, masses = losses[p > 0], p[p > 0]

    def bound(log_room: float) -> float:
        level = seen.max() + np.exp(log_room)
        return float(level - (1 - radius / 2) ** 2 / (masses @ (1 / (level - seen))))

    found = minimize_scalar(bound, bounds=(-30.0, 10.0), method="bounded", options={"xatol": 1e-9})
    value = float(robust_loss(losses, Hellinger(radius), reference=p))
    assert value == pytest.approx(found.fun, abs=1e-9)


def test_all_mass_moves_to_the_top_exactly_where_the_docstring_says() -> None:
    losses, p = np.array([0.0, 1.0, 3.0, 3.0]), np.array([0.5, 0.3, 0.15, 0.05])
    enough = 2 - 2 * np.sqrt(0.2)
    np.testing.assert_allclose(
        worst_case(losses, Hellinger(enough * (1 + 1e-12)), reference=p).weights, [0.0, 0.0, 0.75, 0.25], atol=1e-15
    )
    assert np.all(worst_case(losses, Hellinger(enough * (1 - 1e-4)), reference=p).weights > 0)


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(3)
    losses = torch.randn(2, 7, dtype=torch.float64, generator=generator).requires_grad_()
    reference = torch.softmax(torch.randn(7, dtype=torch.float64, generator=generator), 0)
    for radius in (1e-4, 0.3):
        assert torch.autograd.gradcheck(
            lambda batch, radius=radius: robust_loss(batch, Hellinger(radius), reference=reference), losses
        )


def test_goes_to_text_and_back() -> None:
    assert parse_ambiguity("hellinger:0.3") == Hellinger(0.3)
    assert str(Hellinger(0.3)) == "hellinger:0.3"
    assert str(parse_ambiguity("hellinger:0.3,by=source")) == "hellinger:0.3,by=source"


@pytest.mark.parametrize("outside", [-1e-9, 2.0, np.inf, np.nan, True, "0.5"])
def test_the_radius_is_checked_at_construction(outside: object) -> None:
    with pytest.raises(ValueError, match=r"`Hellinger\.radius`.*\[0, 2\), got .* For the mean use radius=0"):
        Hellinger(outside)


def test_its_confidence_radius_is_that_of_the_same_set_by_another_name() -> None:
    ours, theirs = (radius_from_confidence(kind, 500, 0.05) for kind in (Hellinger, CressieRead))
    assert 2 * ours == pytest.approx(theirs, rel=1e-12)
