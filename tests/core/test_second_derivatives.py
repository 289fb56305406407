"""Second derivatives: how worst-case weights move with the losses, against 60 digits, KKT systems and autograd."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    Grouped,
    Hellinger,
    KLPenalty,
    MeanDiscrepancy,
    Trimmed,
    robust_loss,
    worst_case,
)

from . import sixty_digits as exact
from .curved_sets import CURVED, FLAT, N, every_curved_set, every_homogeneous_set, generic, hessian, masses
from .examples import Maker, every_set_in_arrays, over
from .registry import DeviceTensor

# torch compiles its own rules of forward mode at their first use, in a way that it warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


# Against arithmetic of 60 digits, and systems of equations that share nothing with the formulas


def digits(ambiguity: Any) -> Callable[[Any, Any], Any]:
    match ambiguity:
        case KL(radius):
            return lambda losses, p: exact.divergence_ball(1, radius, losses, p)
        case ChiSquare(radius):
            return lambda losses, p: exact.divergence_ball(2, radius, losses, p)
        case CressieRead(order, radius):
            return lambda losses, p: exact.divergence_ball(order, radius, losses, p)
        case Hellinger(radius):
            return lambda losses, p: exact.divergence_ball(0.5, 2 * radius, losses, p)
        case KLPenalty(price):
            return lambda losses, p: exact.kl_penalty(price, losses, p)
        case ChiSquarePenalty(price):
            return lambda losses, p: exact.chi_square_penalty(price, losses, p)
        case _:
            raise NotImplementedError


def high_precision_hessian(ambiguity: AmbiguitySet, losses: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Second central differences of the value, steps of 1e-12 in 60 digits: good to some 1e-20."""
    mp, n, step = exact.mp, len(losses), exact.mp.mpf(10) ** -12
    value = digits(ambiguity)

    def at(moves: dict[int, int]) -> Any:
        moved = [mp.mpf(float(loss)) + moves.get(i, 0) * step for i, loss in enumerate(losses)]
        order = sorted(range(n), key=lambda i: -moved[i])
        whole = mp.fsum(float(mass) for mass in p)
        return value([moved[i] for i in order], [mp.mpf(float(p[i])) / whole for i in order])

    found, middle = np.empty((n, n)), at({})
    for i, j in itertools.combinations_with_replacement(range(n), 2):
        if i == j:
            second = at({i: 1}) - 2 * middle + at({i: -1})
        else:
            second = (at({i: 1, j: 1}) - at({i: 1, j: -1}) - at({i: -1, j: 1}) + at({i: -1, j: -1})) / 4
        found[i, j] = found[j, i] = float(second / step**2)
    return found


@pytest.mark.parametrize(
    "ambiguity",
    [
        KL(0.3),
        ChiSquare(0.5),
        CressieRead(0.5, 0.3),
        KLPenalty(0.7),
        ChiSquarePenalty(0.4),
        *(
            pytest.param(more, marks=pytest.mark.exhaustive)
            for more in (KL(1e-4), ChiSquare(1e-4), CressieRead(1.5, 0.3), CressieRead(3, 0.4), Hellinger(0.3))
        ),
    ],
    ids=str,
)
def test_against_sixty_digits(ambiguity: AmbiguitySet) -> None:
    losses = np.array([0.3, -1.1, 0.9, 0.2])
    p = np.array([0.4, 0.3, 0.1, 0.2])
    ours = hessian(ambiguity, torch.from_numpy(losses), reference=torch.from_numpy(p)).numpy()
    expected = high_precision_hessian(ambiguity, losses, p)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-10 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3


def kkt_jacobian(ambiguity: Any, losses: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Differentiate the optimality conditions on the support: a linear system in weights, multiplier and threshold.

    They are l - multiplier grad d(q) - threshold = 0, sum q = 1, d(q) = radius, with d written in q itself.
    """
    worst = worst_case(losses, ambiguity, reference=p)
    q, multiplier = worst.weights, float(worst.dual.multiplier)
    kept = np.flatnonzero(q > 0)
    r, k = q[kept] / p[kept], len(kept)
    match ambiguity:
        case ChiSquare():
            slope, bend = r - 1, np.diag(1 / p[kept])
        case KL():
            slope, bend = np.log(r) + 1, np.diag(1 / q[kept])
        case CressieRead(order, _):
            slope, bend = (r ** (order - 1) - 1) / (order - 1), np.diag(r ** (order - 2) / p[kept])
        case Hellinger():
            slope, bend = 1 - r**-0.5, np.diag(r**-1.5 / 2 / p[kept])
        case MeanDiscrepancy(radius, kernel):
            matrix = kernel + 1e-6 * np.diag(kernel).max() * np.eye(len(p))
            slope, bend = (matrix @ (q - p))[kept] / radius, matrix[np.ix_(kept, kept)] / radius
        case _:
            raise NotImplementedError
    system = np.zeros((k + 2, k + 2))
    system[:k, :k], system[:k, k], system[:k, k + 1] = multiplier * bend, slope, 1.0
    system[k, :k], system[k + 1, :k] = slope, 1.0
    right = np.vstack([np.eye(k), np.zeros((2, k))])
    found = np.zeros((len(p), len(p)))
    found[np.ix_(kept, kept)] = np.linalg.solve(system, right)[:k]
    return found


@pytest.mark.parametrize(
    "name", ["chi2", "chi2_sparse", "kl", "cressie_read_below_1", "cubic", "hellinger", "mean_discrepancy"]
)
def test_against_the_optimality_conditions(name: str) -> None:
    losses, p = generic(9).numpy(), torch.softmax(generic(9, seed=5), 0).numpy()
    ambiguity = CURVED[name](9)
    ours = hessian(ambiguity, torch.from_numpy(losses), reference=torch.from_numpy(p)).numpy()
    np.testing.assert_allclose(ours, kkt_jacobian(ambiguity, losses, p), rtol=0, atol=1e-9)


@every_curved_set
@pytest.mark.parametrize("batched", [False, True], ids=["uniform", "reference"])
def test_gradgradcheck(make: Maker, *, batched: bool) -> None:
    """Numerical derivatives of the gradient, for which the solver runs again, in every mode that autograd has."""
    losses = generic(2, N).requires_grad_()
    how: Any = {"reference": masses(N) if batched and not make(N).sees_zero_mass else None}
    assert torch.autograd.gradgradcheck(
        lambda rows: robust_loss(rows, make(N), **how),
        losses,
        check_batched_grad=True,
        check_fwd_over_rev=True,
    )
    assert torch.autograd.gradcheck(lambda rows: worst_case(rows, make(N), **how).weights, losses)


@over(FLAT)
def test_weights_that_are_piecewise_constant_have_the_jacobian_zero(make: Maker) -> None:
    assert torch.equal(hessian(make(N), generic(N)), torch.zeros(N, N, dtype=torch.float64))
    losses = generic(N).requires_grad_()
    assert torch.autograd.gradcheck(lambda row: worst_case(row, make(N)).weights, losses)


@every_homogeneous_set
def test_a_scale_and_an_offset_of_the_losses(make: Maker) -> None:
    """The Hessian of the value at scale l + offset is that at l over the scale."""
    for scale, offset in ((1e-100, 0.0), (1e100, 0.0), (4.0, 1e6)):
        losses = generic(N)
        found = hessian(make(N), scale * losses + offset) * scale
        torch.testing.assert_close(found, hessian(make(N), losses), rtol=0, atol=1e-8)


# Stated values where the second derivative does not exist, and what is refused


@every_homogeneous_set
@pytest.mark.parametrize("level", [0.0, -3.0])
def test_at_constant_losses(make: Maker, level: float) -> None:
    """The first step of DPO: a ball has a kink there, of all directions, and its stated value is zero."""
    found = hessian(make(6), torch.full((6,), level, dtype=torch.float64))
    assert torch.equal(found, torch.zeros(6, 6, dtype=torch.float64))


@pytest.mark.parametrize("kind", [KLPenalty, ChiSquarePenalty])
def test_a_penalty_is_smooth_at_constant_losses(kind: type[AmbiguitySet]) -> None:
    """(diag p - p p') / price: that of the first term, Var l / (2 price)."""
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    make: Any = kind
    found = hessian(make(0.5), torch.ones(3, dtype=torch.float64), reference=p)
    torch.testing.assert_close(found, (torch.diag(p) - torch.outer(p, p)) / 0.5, rtol=0, atol=1e-14)


@pytest.mark.parametrize("ambiguity", [KL(9), ChiSquare(40), CressieRead(0.5, 3.9), Hellinger(1.9), KL(0)], ids=str)
def test_saturated_and_empty_balls_stand_still(ambiguity: AmbiguitySet) -> None:
    losses = torch.tensor([3.0, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(hessian(ambiguity, losses), torch.zeros(5, 5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_where_a_loss_is_about_to_enter_the_support_it_is_the_derivative_before() -> None:
    """Of l = (1, 0, -1) at strength 1/3 the first has all weight, and 0 lies right at the threshold."""
    before, after = (hessian(ChiSquarePenalty(1 / 3), torch.tensor([1.0, at, -1.0]).double()) for at in (0.0, 1e-9))
    assert torch.equal(before, torch.zeros(3, 3, dtype=torch.float64))
    pair = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(after, pair / 2, rtol=0, atol=1e-14)


@every_set_in_arrays
def test_a_loss_that_is_not_finite_makes_them_nan(make: Maker) -> None:
    """Where no one looks: a clean zero would pass for a flat loss."""
    losses = torch.tensor([1.0, 2.0, torch.nan, 0.5]).double().as_subclass(DeviceTensor)
    assert torch.isnan(hessian(make(4), losses).as_subclass(torch.Tensor)).any()


def test_a_masked_loss_may_be_nan() -> None:
    losses = torch.tensor([1.0, torch.nan, 0.0, 0.7], dtype=torch.float64)
    p = torch.tensor([0.3, 0.0, 0.4, 0.3], dtype=torch.float64)
    seen = torch.tensor([0, 2, 3])
    for ambiguity in (KL(0.2), ChiSquare(0.3), KLPenalty(1.0), Trimmed(KL(0.2), 0.1), Grouped(KL(0.2), [0, 0, 1, 2])):
        found = hessian(ambiguity, losses, reference=p)
        assert torch.equal(found[1], torch.zeros(4).double())
        given = losses.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(robust_loss(given, ambiguity, reference=p), given, create_graph=True)
        assert torch.isfinite(torch.stack([gradient, worst_case(given, ambiguity, reference=p).weights])).all()
        upstream = torch.tensor([1.0, torch.nan, 2.0, 3.0], dtype=torch.float64)
        assert torch.isfinite(torch.autograd.grad(gradient, given, upstream)[0]).all()
        if not isinstance(ambiguity, Grouped):
            torch.testing.assert_close(
                found[seen][:, seen], hessian(ambiguity, losses[seen], reference=p[seen]), rtol=0, atol=1e-14
            )
