"""What comes in and goes out: dtypes, memory layouts, batches, and what is left untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import dro_core
from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquarePenalty,
    CVaR,
    Grouped,
    TotalVariation,
    Wasserstein,
    robust_loss,
    worst_case,
)

from .examples import SETS, Maker, every_quick_set, every_set, every_set_without_places, line, three_groups
from .registry import BACKENDS, Backend

every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)


def generic(*shape: int) -> np.ndarray:
    return np.random.default_rng(4).standard_normal(shape)


# Dtypes


@every_set
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_costs_one_rounding(make: Maker, dtype: torch.dtype) -> None:
    losses = (20 * torch.rand(500, generator=torch.Generator().manual_seed(1)) + 1000).to(dtype)
    ambiguity = make(500)
    result, exact = worst_case(losses, ambiguity), worst_case(losses.double(), ambiguity)
    eps = torch.finfo(dtype).eps
    assert result.weights.dtype == result.value.dtype == robust_loss(losses, ambiguity).dtype == dtype
    torch.testing.assert_close(result.weights.double(), exact.weights, rtol=eps, atol=6e-8)
    torch.testing.assert_close(robust_loss(losses, ambiguity).double(), exact.value, rtol=eps, atol=0)


@every_set_without_places
def test_many_large_float32_losses_stay_accurate(make: Maker) -> None:
    losses = np.random.default_rng(2).random(100_000).astype(np.float32) + np.float32(1000)
    ambiguity = make(100_000)
    assert float(robust_loss(losses, ambiguity)) == np.float32(worst_case(losses.astype(np.float64), ambiguity).value)


@every_set
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numpy_dtype_is_kept(make: Maker, dtype: type) -> None:
    result = worst_case(np.arange(5, dtype=dtype), make(5))
    assert result.weights.dtype == result.value.dtype == dtype
    assert result.dual.multiplier.dtype == result.dual.threshold.dtype == np.float64


@every_quick_set
@every_backend
def test_integers_become_float64(make: Maker, backend: Backend) -> None:
    whole, exact = (worst_case(backend.array(np.array([3, 0, 1], dtype=d)), make(3)) for d in (np.int32, np.float64))
    assert backend.numpy(whole.weights).dtype == backend.numpy(whole.value).dtype == np.float64
    np.testing.assert_array_equal(backend.numpy(whole.weights), backend.numpy(exact.weights))


@every_set
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_short_reference_is_renormalised(make: Maker, dtype: type) -> None:
    reference = np.full(7, 1 / 7, dtype=dtype)
    assert abs(reference.astype(np.float64).sum() - 1) > 1e-9
    weights = worst_case(np.arange(7.0), make(7), reference=reference).weights
    np.testing.assert_allclose(weights, worst_case(np.arange(7.0), make(7)).weights, atol=1e-9, rtol=0)


@every_set
def test_the_uniform_reference_may_be_spelt_out(make: Maker) -> None:
    losses = np.round(generic(6, 12), 1)
    given, implied = (worst_case(losses, make(12), reference=reference) for reference in (np.full(12, 1 / 12), None))
    np.testing.assert_allclose(given.weights, implied.weights, rtol=0, atol=1e-9)
    np.testing.assert_allclose(given.value, implied.value, rtol=0, atol=1e-13)


# Memory layouts

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "strided": lambda array: array.repeat(2, axis=-1)[..., ::2],
    "reversed": lambda array: np.ascontiguousarray(array[..., ::-1])[..., ::-1],
    "transposed": lambda array: np.asfortranarray(array),
    "sliced": lambda array: np.pad(array, [(1, 2)] * array.ndim, constant_values=np.nan)[1:-2, 1:-2],
    "big_endian": lambda array: array.astype(">f8"),
}


@every_set
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_layout_in_memory_does_not_matter(make: Maker, layout: Callable[[Any], Any]) -> None:
    losses, reference = generic(3, 7), np.random.default_rng(1).dirichlet(np.ones(7), size=3)
    plain = worst_case(losses, make(7), reference=reference)
    other = worst_case(layout(losses), make(7), reference=layout(reference))
    np.testing.assert_allclose(other.weights, plain.weights, rtol=0, atol=1e-14)
    np.testing.assert_allclose(other.value, plain.value, rtol=0, atol=1e-14)


@every_set
def test_the_layout_of_a_tensor_does_not_matter(make: Maker) -> None:
    plain = torch.from_numpy(generic(3, 7))
    expected = worst_case(plain, make(7))
    for losses in (plain.repeat_interleave(2, -1)[..., ::2], plain.T.contiguous().T):
        assert not losses.is_contiguous()
        leaf = losses.detach().requires_grad_()
        robust_loss(leaf, make(7)).sum().backward()
        torch.testing.assert_close(leaf.grad, expected.weights, rtol=0, atol=1e-14)
    expanded = plain[:1].expand(3, 7)
    torch.testing.assert_close(worst_case(expanded, make(7)).weights, expected.weights[:1].expand(3, 7))


@every_set
@pytest.mark.parametrize("losses", [generic(6), np.round(generic(2, 6)), np.zeros(6), np.arange(6)], ids=str)
def test_the_arguments_are_read_only_to_us_and_the_results_yours(make: Maker, losses: np.ndarray) -> None:
    """Also where weights are the reference itself; so nothing may be handed out that someone else holds."""
    ambiguity, reference = make(6), np.random.default_rng(1).dirichlet(np.ones(6))
    held = [losses, reference, *(part for part in vars(ambiguity).values() if isinstance(part, np.ndarray))]
    before = [array.copy() for array in held]
    for array in held:
        array.flags.writeable = False
    for masses in (reference, None):
        result = worst_case(losses, ambiguity, reference=masses)
        expected = result.weights.copy()
        assert not any(np.shares_memory(result.weights, array) for array in held)
        result.weights[...] = result.value[...] = -1.0
        np.testing.assert_array_equal(worst_case(losses, ambiguity, reference=masses).weights, expected)
    for array, copy in zip(held, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@every_set
def test_tensors_are_not_written_to_either(make: Maker) -> None:
    losses, reference = torch.from_numpy(generic(6)), torch.full((6,), 1 / 6, dtype=torch.float64)
    before = losses.clone()
    for flat in (losses, torch.zeros(6, dtype=torch.float64)):
        result = worst_case(flat, make(6), reference=reference)
        result.weights.fill_(-1.0)
        result.value.fill_(-1.0)
    assert torch.equal(losses, before)
    assert torch.equal(reference, torch.full((6,), 1 / 6, dtype=torch.float64))


# Batches


@every_set
@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_an_empty_batch_has_no_answers(make: Maker, shape: tuple[int, ...]) -> None:
    for losses in (np.zeros(shape), torch.zeros(shape)):
        result = worst_case(losses, make(4))
        assert tuple(result.weights.shape) == shape
        assert tuple(result.value.shape) == shape[:-1]
        assert tuple(robust_loss(losses, make(4)).shape) == shape[:-1]


@every_set
@pytest.mark.parametrize("rows", [3, pytest.param(900, marks=pytest.mark.exhaustive)])
def test_a_batch_with_references_of_its_own_is_a_loop(make: Maker, rows: int) -> None:
    """900 rows are more than fit into one block of the solver."""
    n = 40
    losses, reference = generic(rows, n), np.random.default_rng(2).dirichlet(np.full(n, 0.5), size=rows)
    together, shared = worst_case(losses, make(n), reference=reference), worst_case(losses, make(n))
    cube = worst_case(losses.reshape(3, -1, n), make(n), reference=reference.reshape(3, -1, n))
    np.testing.assert_allclose(cube.weights.reshape(rows, n), together.weights, rtol=0, atol=1e-12)
    for k in range(0, rows, max(rows // 7, 1)):
        alone, uniform = worst_case(losses[k], make(n), reference=reference[k]), worst_case(losses[k], make(n))
        np.testing.assert_allclose(together.weights[k], alone.weights, rtol=0, atol=1e-12)
        np.testing.assert_allclose(together.value[k], alone.value, rtol=0, atol=1e-12)
        np.testing.assert_allclose(together.dual.multiplier[k], alone.dual.multiplier, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(shared.weights[k], uniform.weights, rtol=0, atol=1e-12)


@every_set
def test_rows_of_every_size_side_by_side(make: Maker) -> None:
    """A row of losses near 1e-150 is solved as well beside one near 1e150, except that prices are in their unit."""
    losses, sizes = generic(7), np.array([1e-150, 1.0, 1e150])
    together = worst_case(sizes[:, None] * losses, make(7))
    for weights, size in zip(together.weights, sizes, strict=True):
        np.testing.assert_allclose(weights, worst_case(size * losses, make(7)).weights, rtol=0, atol=1e-12)


def test_python_floats_of_the_sets_do_not_change_the_dtype_of_anything() -> None:
    for ambiguity in (KL(1), CVaR(1), TotalVariation(0), Wasserstein(0, line(3)), Grouped(KL(0), three_groups(3))):
        assert worst_case(np.ones(3, np.float32), ambiguity).weights.dtype == np.float32
    assert worst_case(torch.ones(3), ChiSquarePenalty(np.float64(2))).weights.dtype == torch.float32


def test_every_kind_of_set_has_an_example() -> None:
    """So that no test here forgets a new one. Cvxpy's sets, and those without masses, are tested apart."""
    public = {getattr(dro_core, name) for name in dro_core.__all__ if name not in ("ConvexSet", "Minibatch")}
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, AmbiguitySet)}
    assert {type(make(3)) for make in SETS.values()} == kinds - {AmbiguitySet}
