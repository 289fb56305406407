"""torch: the gradient of the robust loss is the worst-case weights, eager and compiled, without host sync."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
import torch

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, TotalVariation, robust_loss, worst_case

SETS = [
    TotalVariation(0.2),
    TotalVariation(0.3, max_ratio=2.5),
    CVaR(0.3),
    ChiSquare(0.5),
    ChiSquare(1e-4),
    KL(0.3),
    KL(1e-6),
]
every_set = pytest.mark.parametrize("ambiguity", SETS, ids=str)


def generic(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@every_set
def test_gradcheck(ambiguity: AmbiguitySet) -> None:
    losses = generic(2, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda batch: robust_loss(batch, ambiguity), losses)


@every_set
def test_gradient_is_the_weights(ambiguity: AmbiguitySet) -> None:
    losses = generic(12).requires_grad_()
    reference = torch.softmax(generic(12), 0)
    loss = robust_loss(losses, ambiguity, reference=reference)
    loss.backward()
    result = worst_case(losses, ambiguity, reference=reference)
    assert torch.equal(losses.grad, result.weights)
    assert torch.equal(loss.detach(), result.value)
    assert not result.weights.requires_grad


def chi_square_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return eta + (2 * torch.relu(losses - eta).square().mean()).sqrt()


def kl_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return multiplier * (0.3 + torch.logsumexp(losses / multiplier, 0) - math.log(len(losses)))


def cvar_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return eta + torch.relu(losses - eta).mean() / 0.3


def total_variation_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return 0.2 * (losses.max() - eta) + eta + torch.relu(losses - eta).mean()


@pytest.mark.parametrize(
    ("ambiguity", "dual", "between"),
    [
        (ChiSquare(0.5), chi_square_dual, None),
        (KL(0.3), kl_dual, None),
        (CVaR(0.3), cvar_dual, [6, 7]),
        (TotalVariation(0.2), total_variation_dual, [1, 2]),
    ],
    ids=["chi2", "kl", "cvar", "tv"],
)
def test_autograd_of_the_dual_formula_agrees(
    ambiguity: AmbiguitySet, dual: Callable[..., torch.Tensor], between: list[int] | None
) -> None:
    """Danskin against the envelope theorem. No atom of ten is split, so any eta between two neighbours is optimal."""
    losses = generic(10).requires_grad_()
    result = worst_case(losses, ambiguity)
    multiplier, eta = (float(part) for part in result.dual)
    if between is not None:
        eta = float(losses.detach().sort().values[between].mean())
    value = dual(losses, multiplier, eta)
    value.backward()
    torch.testing.assert_close(value.detach(), result.value, atol=1e-12, rtol=0)
    torch.testing.assert_close(losses.grad, result.weights, atol=1e-12, rtol=0)


def test_at_ties_the_gradient_is_a_shared_subgradient() -> None:
    losses = torch.tensor([2.0, 2.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    robust_loss(losses, TotalVariation(0.25)).backward()
    assert losses.grad.tolist() == [0.375, 0.375, 0.25, 0.0]


def test_second_derivatives_are_absent_not_wrong() -> None:
    losses = generic(5).requires_grad_()
    (gradient,) = torch.autograd.grad(robust_loss(losses, KL(0.3)), losses, create_graph=True)
    assert not gradient.requires_grad


@pytest.mark.parametrize("ambiguity", [*SETS[:4], KL(0.3)], ids=str)
def test_compiles_to_one_graph_under_a_radius_schedule(ambiguity: AmbiguitySet) -> None:
    """From the second size on the compiler treats it as a symbol, which no Python branch may look at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dynamo's remark on the cache inside array_api_compat
        compiled = torch.compile(robust_loss, fullgraph=True, backend="eager")
        for fraction in (1.0, 0.5):
            losses, part = generic(3, 9).requires_grad_(), ambiguity.with_strength(fraction)
            loss = compiled(losses, part)
            loss.sum().backward()
            result = worst_case(losses, part)
            torch.testing.assert_close(loss.detach(), result.value, atol=1e-12, rtol=0)
            torch.testing.assert_close(losses.grad, result.weights, atol=1e-12, rtol=0)


@every_set
def test_never_looks_at_values(ambiguity: AmbiguitySet) -> None:
    """A tensor on the meta device has no values: any .item() or branch on data would raise, as it would stall a GPU."""
    losses = torch.empty(4, 16, device="meta")
    reference = torch.empty(16, device="meta")
    assert robust_loss(losses, ambiguity, reference=reference).shape == (4,)


def test_importing_and_solving_on_numpy_leaves_torch_alone() -> None:
    script = (
        "import sys, numpy, dro_core; dro_core.robust_loss(numpy.arange(4.0), dro_core.KL(0.3)); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
