"""torch: the gradient of the robust loss is the worst-case weights, eager and compiled, without host sync."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

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
    Wasserstein,
    robust_loss,
    worst_case,
)

from .examples import SETS, Maker, every_set, every_set_in_arrays, line, over
from .registry import DeviceTensor

DELICATE: dict[str, Maker] = {  # near the mean, where rounding could hide the tilt
    "chi2_small": lambda n: ChiSquare(1e-4),
    "kl_small": lambda n: KL(1e-6),
    "cressie_read_small": lambda n: CressieRead(3, 1e-5),
    "kl_penalty_high": lambda n: KLPenalty(1e4),
    "chi2_penalty_high": lambda n: ChiSquarePenalty(1e4),
}


def generic(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("make", [*SETS.values(), *DELICATE.values()], ids=[*SETS, *DELICATE])
def test_gradcheck(make: Maker) -> None:
    losses = generic(2, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda batch: robust_loss(batch, make(7)), losses)


@pytest.mark.parametrize("make", [*SETS.values(), *DELICATE.values()], ids=[*SETS, *DELICATE])
@pytest.mark.parametrize("device", [False, True], ids=["by_numpy", "by_torch"])
def test_gradient_is_the_weights(make: Maker, *, device: bool) -> None:
    losses, reference = generic(2, 12), torch.softmax(generic(12), 0)
    reference[3] = 0.0
    reference /= reference.sum()
    if device:
        losses, reference = (array.as_subclass(DeviceTensor) for array in (losses, reference))
    losses.requires_grad_()
    loss = robust_loss(losses, make(12), reference=reference)
    result = worst_case(losses, make(12), reference=reference)
    (loss @ torch.tensor([1.0, -3.0], dtype=torch.float64)).backward()
    assert torch.equal(losses.grad, result.weights * torch.tensor([[1.0], [-3.0]]))
    assert torch.equal(loss.detach(), result.value)
    assert not result.value.requires_grad


@every_set
def test_torch_agrees_with_numpy(make: Maker) -> None:
    """The two ways a tensor may take; many rows, because torch takes the same number of steps for all of them."""
    rng = torch.Generator().manual_seed(0)
    losses = torch.randn(40, 9, dtype=torch.float64, generator=rng) ** 3
    reference = torch.rand(40, 9, dtype=torch.float64, generator=rng) ** 4
    reference /= reference.sum(-1, keepdim=True)
    for fraction in (1.0, 0.1):
        ambiguity = make(9).with_strength(fraction)
        for masses in (None, reference):
            host = worst_case(losses, ambiguity, reference=masses)
            device_masses = None if masses is None else masses.as_subclass(DeviceTensor)
            device = worst_case(losses.as_subclass(DeviceTensor), ambiguity, reference=device_masses)
            for ours, theirs in ((device.weights, host.weights), (device.value, host.value)):
                torch.testing.assert_close(ours.as_subclass(torch.Tensor), theirs, rtol=0, atol=1e-11)


def chi_square_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return eta + (2 * torch.relu(losses - eta).square().mean()).sqrt()


def kl_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return multiplier * (0.3 + torch.logsumexp(losses / multiplier, 0) - math.log(len(losses)))


def cvar_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return eta + torch.relu(losses - eta).mean() / 0.3


def total_variation_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return 0.2 * (losses.max() - eta) + eta + torch.relu(losses - eta).mean()


def kl_penalty_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return 0.7 * (torch.logsumexp(losses / 0.7, 0) - math.log(len(losses)))


def chi_square_penalty_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return eta + 0.35 + torch.relu(losses - eta).square().mean() / 1.4


def cubic_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    """k = 3, radius 1/2: a threshold below that of the multiplier form, by a third of it, and the norm of L(3/2)."""
    eta = eta - multiplier / 2
    return eta + 4 ** (1 / 3) * torch.relu(losses - eta).pow(1.5).mean() ** (2 / 3)


def hellinger_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    """t - (1 - radius/2)^2 / E 1 / (t - l), in which t = multiplier + threshold."""
    level = multiplier + eta
    return level - 0.85**2 / (1 / (level - losses)).mean()


def spectral_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    """0.2 of the mean of all ten and 0.8 of that of the worst five."""
    return 0.2 * losses.mean() + 0.8 * losses.topk(5).values.mean()


def transport_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return 0.1 * multiplier + (losses - multiplier * torch.from_numpy(line(10))).max(-1).values.mean()


def group_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    means = losses.reshape(5, 2).mean(-1)
    return multiplier * (0.3 + torch.logsumexp(means / multiplier, 0) - math.log(5))


def trimmed_dual(losses: torch.Tensor, multiplier: float, eta: float) -> torch.Tensor:
    return kl_dual(losses.sort().values[:8], multiplier, eta)


@pytest.mark.parametrize(
    ("ambiguity", "dual", "between"),
    [
        (ChiSquare(0.5), chi_square_dual, None),
        (KL(0.3), kl_dual, None),
        (CVaR(0.3), cvar_dual, [6, 7]),
        (TotalVariation(0.2), total_variation_dual, [1, 2]),
        (KLPenalty(0.7), kl_penalty_dual, None),
        (ChiSquarePenalty(0.7), chi_square_penalty_dual, None),
        (CressieRead(3, 0.5), cubic_dual, None),
        (Hellinger(0.3), hellinger_dual, None),
        (Spectral((0.1, 0.9)), spectral_dual, None),
        (Grouped(KL(0.3), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]), group_dual, None),
        (Trimmed(KL(0.3), 0.2), trimmed_dual, None),
    ],
    ids=lambda item: item.__name__ if callable(item) else str(item),
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


@pytest.fixture
def _one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unroll less: every step has the same operations, and tracing all of them takes a minute."""
    for steps in ("_solvers.duals._DEVICE_STEPS", "_solvers.powers._STEPS", "_solvers.powers._PIVOT_STEPS"):
        monkeypatch.setattr(f"dro_core.{steps}", 1)
    monkeypatch.setattr("dro_core.sets.transport._STEPS", 1)


def agrees_with_eager(compiled: Callable[..., torch.Tensor], ambiguity: AmbiguitySet) -> None:
    """In as many steps: so the tensors of ``DeviceTensor``, which are not solved by numpy."""
    losses = generic(3, 9).requires_grad_()
    loss = compiled(losses, ambiguity)
    loss.sum().backward()
    eager = worst_case(generic(3, 9).as_subclass(DeviceTensor), ambiguity)
    torch.testing.assert_close(loss.detach(), eager.value.as_subclass(torch.Tensor), atol=1e-12, rtol=0)
    torch.testing.assert_close(losses.grad, eager.weights.as_subclass(torch.Tensor), atol=1e-12, rtol=0)


@pytest.mark.exhaustive(turns=8)
@over(["tv_capped", "chi2", "kl"], rest=["tv", "cvar", "kl_penalty", "chi2_penalty"])
@pytest.mark.usefixtures("_one_step")
@pytest.mark.filterwarnings("ignore")  # dynamo's remark on the cache inside array_api_compat
def test_two_graphs_serve_a_radius_schedule(make: Maker) -> None:
    """From the second size on the compiler treats it as a symbol, which no Python branch may look at.

    Spectra and powers of q/p other than 2 are compiled anew for every size, at most eight times.
    """
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=2):
        compiled = torch.compile(robust_loss, fullgraph=True, backend="eager")
        for fraction in (1.0, 0.5, 0.3):
            agrees_with_eager(compiled, make(9).with_strength(fraction))


@pytest.mark.exhaustive(turns=8)
@over(["spectral", "cressie_read_above_1", "wasserstein"])
@pytest.mark.usefixtures("_one_step")
@pytest.mark.filterwarnings("ignore")
def test_compiles_to_a_graph_per_size(make: Maker) -> None:
    """Groups and trimming are compiled below; all other sets are solved by what is compiled here and above."""
    torch.compiler.reset()
    agrees_with_eager(torch.compile(robust_loss, fullgraph=True, backend="eager"), make(9))


@pytest.mark.exhaustive(turns=8)
@every_set_in_arrays
@pytest.mark.usefixtures("_one_step")
def test_never_looks_at_values(make: Maker) -> None:
    """A tensor on the meta device has no values: any .item() or branch on data would raise, as it would stall a GPU."""
    losses, reference = torch.empty(4, 16, device="meta"), torch.empty(16, device="meta")
    for masses in (None, reference):
        result = worst_case(losses, make(16), reference=masses)
        assert (result.weights.shape, result.value.shape, result.weights.device.type) == ((4, 16), (4,), "meta")
    assert robust_loss(losses, make(16), reference=reference).shape == (4,)


@pytest.mark.parametrize("labels", [[2, 0, 1, 1, 0, 2, 2, 1, 0], torch.tensor([2, 0, 1, 1, 0, 2, 2, 1, 0])], ids=type)
@pytest.mark.filterwarnings("ignore")
def test_bound_and_taken_sets_stay_in_the_graph(labels: Any) -> None:
    """As a trainer uses them: bound once to a column, then taken for the rows of a batch, on whatever device."""
    bound = Trimmed(Grouped(CVaR(0.5), "source"), 0.1).bind({"source": labels})
    rows = torch.tensor([8, 1, 1, 4, 0])
    for ambiguity in (bound.take(rows), Wasserstein(0.1, torch.from_numpy(line(9))).take(rows)):
        losses = generic(5).requires_grad_()
        robust_loss(losses, ambiguity).backward()
        assert torch.equal(losses.grad, worst_case(losses, ambiguity).weights)
        assert robust_loss(torch.empty(2, 5, device="meta"), ambiguity).device.type == "meta"
    compiled = torch.compile(robust_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(generic(5), bound.take(rows)), robust_loss(generic(5), bound.take(rows)))


@every_set_in_arrays
def test_functional_transforms(make: Maker) -> None:
    """torch.func hands over tensors without storage, one of which may stand for a batch."""
    losses, ambiguity = generic(3, 7), make(7)
    expected = worst_case(losses, ambiguity)
    by_row = torch.func.vmap(torch.func.grad_and_value(lambda row: robust_loss(row, ambiguity)))
    gradient, value = by_row(losses)
    torch.testing.assert_close(gradient, expected.weights, rtol=0, atol=1e-11)
    torch.testing.assert_close(value, expected.value, rtol=0, atol=1e-11)


def test_importing_and_solving_on_numpy_leaves_torch_alone() -> None:
    script = (
        "import sys, numpy, dro_core; dro_core.robust_loss(numpy.arange(4.0), dro_core.KL(0.3)); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
