"""torch.vmap over every set, with and without gradients, whichever of losses and reference has the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dro_core import Dual, WorstCase, dual_objective, duality_gap, robust_loss, worst_case

from .examples import Maker, every_set_in_arrays
from .registry import DeviceTensor

ROWS, N = 3, 7
AXES = {"losses": (0, None), "reference": (None, 0), "both": (0, 0), "columns": (1, 0)}
every_axis = pytest.mark.parametrize("axes", AXES.values(), ids=AXES)


def generic(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def arguments(axes: tuple[int | None, int | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and reference, of the shapes that the axes ask for; a mass of zero in each row."""
    shapes = {None: (N,), 0: (ROWS, N), 1: (N, ROWS)}
    losses, reference = generic(*shapes[axes[0]]), torch.softmax(generic(*shapes[axes[1]]), -1)
    reference[..., 2] = 0.0
    return losses, reference / reference.sum(-1, keepdim=True)


def one_by_one(make: Maker, axes: tuple[int | None, int | None], losses: Any, reference: Any) -> list[WorstCase]:
    return [
        worst_case(
            losses if axes[0] is None else losses.select(axes[0], k),
            make(N),
            reference=reference if axes[1] is None else reference[k],
        )
        for k in range(ROWS)
    ]


def agree(ours: torch.Tensor, theirs: list[torch.Tensor]) -> None:
    torch.testing.assert_close(
        ours, torch.stack([part.as_subclass(torch.Tensor) for part in theirs]), rtol=0, atol=1e-9
    )


@every_set_in_arrays
@pytest.mark.parametrize("kind", [torch.Tensor, DeviceTensor])
def test_a_mapped_row_is_a_row(make: Maker, kind: type[torch.Tensor]) -> None:
    losses = generic(ROWS, N).as_subclass(kind)
    mapped = torch.vmap(lambda row: tuple(worst_case(row, make(N))[:2]))(losses)
    expected = [worst_case(row, make(N)) for row in generic(ROWS, N)]
    for part in range(2):
        agree(mapped[part].as_subclass(torch.Tensor), [row[part] for row in expected])


@every_set_in_arrays
@every_axis
def test_a_reference_may_be_mapped_too(make: Maker, axes: tuple[int | None, int | None]) -> None:
    losses, reference = arguments(axes)
    solve = torch.vmap(lambda row, masses: worst_case(row, make(N), reference=masses), in_dims=axes)
    result, expected = solve(losses, reference), one_by_one(make, axes, losses, reference)
    agree(result.weights, [row.weights for row in expected])
    agree(result.value, [row.value for row in expected])


@every_set_in_arrays
@every_axis
def test_so_may_gradients(make: Maker, axes: tuple[int | None, int | None]) -> None:
    losses, reference = arguments(axes)
    slope = torch.func.grad(lambda row, masses: robust_loss(row, make(N), reference=masses))
    gradient = torch.vmap(slope, in_dims=axes)(losses, reference)
    agree(gradient, [row.weights for row in one_by_one(make, axes, losses, reference)])


@every_set_in_arrays
def test_maps_may_be_nested(make: Maker) -> None:
    losses = generic(2, ROWS, N)
    nested = torch.vmap(torch.vmap(lambda row: worst_case(row, make(N)).weights))(losses)
    agree(nested.reshape(-1, N), [worst_case(row, make(N)).weights for row in losses.reshape(-1, N)])


@every_set_in_arrays
def test_certificates_may_be_mapped(make: Maker) -> None:
    losses = generic(ROWS, N)
    answer = worst_case(losses, make(N))

    def both(row: Any, weights: Any, value: Any, multiplier: Any, threshold: Any) -> Any:
        result = WorstCase(weights, value, Dual(multiplier, threshold))
        return duality_gap(row, make(N), result), dual_objective(row, make(N), result.dual)

    gap, bound = torch.vmap(both)(losses, answer.weights, answer.value, *answer.dual)
    torch.testing.assert_close(gap, duality_gap(losses, make(N), answer), rtol=0, atol=1e-9)
    torch.testing.assert_close(bound, dual_objective(losses, make(N), answer.dual), rtol=0, atol=1e-9)
