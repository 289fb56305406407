"""A size that is a tensor gets the gradient it should, and is mapped as losses are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    ChiSquare,
    KLPenalty,
    MeanDiscrepancy,
    dual_objective,
    robust_loss,
    worst_case,
)

from .registry import DeviceTensor
from .sized_sets import N, Sized, close, every_size

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


# Sizes in a gradient graph


@every_size
def test_the_gradient_of_a_size(make: Sized) -> None:
    """Against central differences, away from kinks; as a number for all and as one per problem."""
    rng = torch.Generator().manual_seed(4)
    losses = torch.randn(3, N, dtype=torch.float64, generator=rng)
    masses = torch.softmax(torch.randn(N, dtype=torch.float64, generator=rng), 0)
    for size in (torch.tensor([0.11, 0.23, 0.37]).double(), torch.tensor(0.23).double()):
        assert torch.autograd.gradcheck(
            lambda size: robust_loss(losses, make(size), reference=masses), size.requires_grad_()
        )
    by_transform = torch.vmap(torch.func.grad(lambda size, row: robust_loss(row, make(size))))
    sizes = torch.tensor([0.11, 0.23, 0.37], dtype=torch.float64, requires_grad=True)
    (eager,) = torch.autograd.grad(robust_loss(losses, make(sizes)).sum(), sizes)
    if not isinstance(make(0.5), MeanDiscrepancy):
        torch.testing.assert_close(by_transform(sizes.detach(), losses), eager, rtol=0, atol=1e-9)
        tangent = torch.func.jvp(
            lambda s: robust_loss(losses, make(s)).sum(), (sizes.detach(),), (torch.ones(3).double(),)
        )
        torch.testing.assert_close(tangent[1], eager.sum(), rtol=0, atol=1e-9)


def test_a_size_and_losses_in_one_graph() -> None:
    """First derivatives are both there, in the dtype of each; no second one is finite, for none is known."""
    losses = torch.tensor([0.3, 1.0, -2.0], requires_grad=True)
    radius = torch.tensor(0.2, requires_grad=True)
    value = robust_loss(losses, KL(radius))
    gradients = torch.autograd.grad(value, (losses, radius), create_graph=True)
    plain = worst_case(losses.detach(), KL(0.2))
    torch.testing.assert_close(gradients[0].detach(), plain.weights)
    torch.testing.assert_close(gradients[1].detach(), plain.dual.multiplier.float())
    for first in (gradients[0] @ torch.tensor([1.0, 2.0, 3.0]), gradients[1]):
        for by in (losses, radius):
            assert not torch.isfinite(torch.autograd.grad(first, by, retain_graph=True)[0]).any()
    assert not torch.isfinite(torch.autograd.grad(worst_case(losses, KL(radius)).weights[0], radius)[0])


def test_losses_of_numpy_leave_no_gradient_unsaid() -> None:
    radius = torch.tensor(0.2, requires_grad=True)
    with pytest.raises(TypeError, match="give the losses as a tensor, too"):
        robust_loss(np.arange(3.0), KL(radius))


def test_a_learned_temperature() -> None:
    """The dual of KL(0.3), temperature * (0.3 + log E exp(l / temperature)), is least at its multiplier."""
    losses = torch.tensor([0.3, 1.0, -2.0, 0.1], dtype=torch.float64)
    log_price = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_price], max_iter=60, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        bound = 0.3 * log_price.exp() + robust_loss(losses, KLPenalty(log_price.exp()))
        bound.backward()
        return bound

    optimiser.step(closure)  # pyright: ignore[reportArgumentType]
    answer = worst_case(losses, KL(0.3))
    assert float(log_price.exp().detach()) == pytest.approx(float(answer.dual.multiplier), rel=1e-5)
    assert float(closure().detach()) == pytest.approx(float(answer.value), abs=1e-10)


# Under transforms, and where no one looks


@every_size
def test_mapped_sizes(make: Sized) -> None:
    if isinstance(make(0.5), MeanDiscrepancy):
        pytest.skip("solved in numpy")
    losses = torch.randn(3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    sizes = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
    mapped = torch.vmap(lambda row, size: worst_case(row, make(size)).weights)(losses, sizes)
    close(mapped, worst_case(losses, make(sizes)).weights, atol=1e-9)
    alone = torch.vmap(lambda size: worst_case(losses[0], make(size)).weights)(sizes)
    close(alone, worst_case(losses[:1].expand(3, N), make(sizes)).weights, atol=1e-9)
    bound = torch.vmap(lambda row, size: dual_objective(row, make(size), worst_case(row, make(size)).dual))
    close(bound(losses, sizes), worst_case(losses, make(sizes)).value, atol=1e-9)


@every_size
@pytest.mark.parametrize("bad", [torch.nan, -1000.0])
def test_a_bad_size_that_no_one_sees_makes_its_problem_nan(make: Sized, bad: float) -> None:
    if isinstance(make(0.5), MeanDiscrepancy):
        pytest.skip("solved in numpy")
    losses = torch.randn(3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    sizes = torch.tensor([0.1, bad, 0.8], dtype=torch.float64)
    weights, value, dual = torch.vmap(lambda row, size: worst_case(row, make(size)))(losses, sizes)
    for part in (weights[:, 0], weights[:, -1], value, *dual):
        assert torch.isnan(part).tolist() == [False, True, False]


def test_sizes_are_solved_where_the_losses_are() -> None:
    losses = torch.randn(2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for sizes in (np.array([0.1, 0.4]), torch.tensor([0.1, 0.4]), torch.tensor([0.1, 0.4]).as_subclass(DeviceTensor)):
        found = worst_case(losses.as_subclass(DeviceTensor), ChiSquare(sizes)).weights
        assert type(found) is DeviceTensor
        close(
            found.as_subclass(torch.Tensor),
            worst_case(losses, ChiSquare(np.asarray(sizes.tolist()))).weights,
            atol=1e-6,
        )
