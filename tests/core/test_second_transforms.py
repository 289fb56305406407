"""Second derivatives by every way that torch has to ask for them, and what is refused."""

from __future__ import annotations

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
    ConvexSet,
    CVaR,
    Grouped,
    KLPenalty,
    Spectral,
    TotalVariation,
    Wasserstein,
    robust_loss,
    worst_case,
)

from .convex_twins import mmd_ball
from .curved_sets import N, generic, hessian, masses
from .examples import Maker, every_set_in_arrays, line, over, three_groups
from .registry import DeviceTensor

# torch compiles its own rules of forward mode at their first use, in a way that it warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


WAYS: dict[str, Callable[[Callable[..., Any]], Callable[[torch.Tensor], Any]]] = {
    "hessian": torch.func.hessian,
    "reverse_twice": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    "forward_twice": lambda f: torch.func.jacfwd(torch.func.jacfwd(f)),
    "reverse_over_forward": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "mapped": lambda f: lambda row: torch.vmap(torch.func.hessian(f))(torch.stack([row, 2 * row]))[0],
    "in_a_batch": lambda f: lambda row: torch.autograd.functional.hessian(f, row, vectorize=True),
    "eager_forward": lambda f: (
        lambda row: torch.autograd.functional.hessian(f, row, vectorize=True, outer_jacobian_strategy="forward-mode")
    ),
    "on_a_device": lambda f: lambda row: torch.autograd.functional.hessian(f, row.as_subclass(DeviceTensor)),
}


@every_set_in_arrays
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_all_transforms_agree(make: Maker, way: Callable[..., Any]) -> None:
    losses, reference = generic(N), None if make(N).sees_zero_mass else masses(N)
    found = way(lambda row: robust_loss(row, make(N), reference=reference))(losses)
    expected = hessian(make(N), losses, reference=reference)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), expected, rtol=0, atol=1e-9)


@every_set_in_arrays
def test_weights_have_that_jacobian_too(make: Maker) -> None:
    losses = generic(N)
    expected = hessian(make(N), losses)
    for way in (torch.func.jacrev, torch.func.jacfwd):
        found = way(lambda row: worst_case(row, make(N)).weights)(losses)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.slow("it compiles")
@pytest.mark.filterwarnings("ignore")
def test_compiled_graphs_agree() -> None:
    """With a compiler that keeps torch's own autograd: the ahead-of-time one refuses second derivatives by itself."""
    compiled = torch.compile(robust_loss, fullgraph=True, backend="eager")
    for ambiguity in (ChiSquare(0.5), Grouped(ChiSquarePenalty(0.5), three_groups(N)), CVaR(0.3)):
        losses = generic(N).requires_grad_()
        (gradient,) = torch.autograd.grad(compiled(losses, ambiguity), losses, create_graph=True)
        (product,) = torch.autograd.grad(gradient @ generic(N, seed=8), losses)
        expected = hessian(ambiguity, generic(N)) @ generic(N, seed=8)
        torch.testing.assert_close(product, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@over(["chi2", "kl", "kl_penalty", "trimmed", "mean_discrepancy"])
def test_in_the_dtype_of_the_losses(make: Maker, dtype: torch.dtype) -> None:
    losses = generic(N).to(dtype)
    found = hessian(make(N), losses)
    assert found.dtype == dtype
    expected = hessian(make(N), losses.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    "ball", [ConvexSet(mmd_ball(np.exp(-line(4)), 0.2).constraints), CVaR(0.4) + KLPenalty(0.1)], ids=type
)
def test_a_set_without_a_formula_refuses(ball: AmbiguitySet) -> None:
    losses = generic(4).requires_grad_()
    robust_loss(losses, ball).backward()
    assert not worst_case(losses, ball).weights.requires_grad
    (gradient,) = torch.autograd.grad(robust_loss(losses, ball), losses, create_graph=True)
    assert losses.grad is not None
    assert torch.equal(gradient, losses.grad)
    with pytest.raises(NotImplementedError, match=f"{type(ball).__name__} has no second derivatives; take first"):
        torch.autograd.grad(gradient.sum(), losses)


@over(["kl", "chi2_penalty", "tv"])
def test_third_derivatives_are_never_silently_zero(make: Maker) -> None:
    losses = generic(5).requires_grad_()
    (gradient,) = torch.autograd.grad(robust_loss(losses, make(5)), losses, create_graph=True)
    (second,) = torch.autograd.grad(gradient @ generic(5, seed=8), losses, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), losses)
    assert not torch.isfinite(third).any()
    transformed = torch.func.jacfwd(torch.func.hessian(lambda row: robust_loss(row, make(5))))(generic(5))
    assert not torch.isfinite(transformed).all()
    vector = generic(5, seed=8)
    of_weights = torch.func.hessian(lambda row: worst_case(row, make(5)).weights @ vector)(generic(5))
    assert not torch.isfinite(of_weights).all()


@over(["kl", "chi2_penalty"])
def test_products_with_the_hessian_need_no_third_derivative(make: Maker) -> None:
    """``hvp`` differentiates a product with the Hessian by the vector it is with."""
    losses, vector = generic(N), generic(N, seed=8)
    product: Any = torch.autograd.functional.hvp(lambda row: robust_loss(row, make(N)), losses, vector)[1]
    torch.testing.assert_close(product, hessian(make(N), losses) @ vector, rtol=0, atol=1e-12)


def test_the_first_derivative_costs_no_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does building a graph for a second one that is never taken."""

    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(KL, "jacobian_product", refuse)
    losses = generic(3, N).requires_grad_()
    robust_loss(losses, KL(0.3)).sum().backward()
    torch.autograd.grad(robust_loss(losses, KL(0.3)).sum(), losses, create_graph=True)
    assert worst_case(losses, KL(0.3)).weights.requires_grad


def test_a_newton_step_on_the_robust_loss_of_a_regression() -> None:
    """The Hessian through a model's losses: Newton's method ends at a gradient of zero in a handful of steps."""
    features, targets = generic(40, 3, seed=1), generic(40, seed=2)
    weights = torch.zeros(3, dtype=torch.float64)

    def objective(at: torch.Tensor) -> torch.Tensor:
        return robust_loss((features @ at - targets) ** 2, ChiSquare(0.05))

    for _ in range(8):
        slope, bend = torch.func.grad(objective)(weights), torch.func.hessian(objective)(weights)
        weights = weights - torch.linalg.solve(bend, slope)
    assert torch.func.grad(objective)(weights).abs().max() < 1e-12


SPECTRUM = Spectral((0.1, 0.9))
LABELLED = Grouped(TotalVariation(0.3), [0, 0, 1, 1])
PLACED = Wasserstein(0.1, line(4))


@pytest.mark.parametrize("ambiguity", [SPECTRUM, LABELLED, PLACED, KL(0.3), ChiSquare(0.1)], ids=str)
def test_weights_times_losses_of_a_set_have_the_weights_as_gradient(ambiguity: AmbiguitySet) -> None:
    """The weights of a set keep <l, change> = 0; those of a penalty do not, and are to be detached there."""
    losses = generic(4).requires_grad_()
    worst = worst_case(losses, ambiguity)
    (worst.weights @ losses).backward()
    torch.testing.assert_close(losses.grad, worst.weights.detach(), rtol=0, atol=1e-12)
