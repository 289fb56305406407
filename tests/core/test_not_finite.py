"""Losses that are not finite where no one looks, and losses of zero mass, which may be anything."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from dro_core import ConvexSet, robust_loss, worst_case

from .examples import PLACES, SETS, Maker, every_set, every_set_without_places, over
from .registry import BACKENDS, Backend, DeviceTensor

DEVICES = [backend for backend in BACKENDS if backend.name in ("torch_device", "strict")]
every_device = pytest.mark.parametrize("backend", DEVICES, ids=lambda backend: backend.name)
BAD = [np.nan, np.inf, -np.inf]


@every_set
@every_device
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, on which the standard's own library stands
def test_no_weight_looks_fine_beside_a_loss_that_is_not(make: Maker, backend: Backend, bad: float) -> None:
    """Zeros would be a clean step of zero; another problem of the batch is left alone."""
    losses = np.array([[1.0, 2.0, bad, 0.5], [1.0, 2.0, 3.0, 0.5], [bad, bad, bad, bad]])
    for reference in (None, np.array([0.1, 0.2, 0.3, 0.4])):
        masses = None if reference is None else backend.array(reference)
        result = worst_case(backend.array(losses), make(4), reference=masses)
        alone = worst_case(losses[1], make(4), reference=reference)
        weights, value = backend.numpy(result.weights), backend.numpy(result.value)
        assert np.isnan(weights[[0, 2]]).all()
        assert np.isnan(value[[0, 2]]).all()
        assert all(np.isnan(backend.numpy(part)[[0, 2]]).all() for part in result.dual)
        np.testing.assert_allclose(weights[1], alone.weights, rtol=0, atol=1e-11)
        assert value[1] == pytest.approx(float(alone.value), abs=1e-11)


@every_set
@pytest.mark.parametrize("bad", BAD)
def test_neither_does_a_gradient(make: Maker, bad: float) -> None:
    losses = torch.tensor([1.0, 2.0, bad], dtype=torch.float64).as_subclass(DeviceTensor).requires_grad_()
    robust_loss(losses, make(3)).backward()
    assert torch.isnan(losses.grad).all()


@every_set
def test_nor_in_main_memory_where_no_one_is_to_look(make: Maker) -> None:
    losses = np.array([1.0, np.nan, 2.0])
    for array in (losses, torch.from_numpy(losses)):
        assert np.isnan(np.asarray(worst_case(array, make(3), check_finite=False).weights)).all()


@every_set_without_places
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("hidden", [*BAD, 1.7e308])
def test_a_loss_of_zero_mass_may_be_anything(make: Maker, backend: Backend, hidden: float) -> None:
    reference = np.array([[0.0, 0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.0, 0.25, 0.25]])
    calm = np.array([[2.0, 1.0, 2.0, 3.0, 1.0], [1.0, 3.0, 2.0, 0.0, -1.0]])
    masked = np.where(reference > 0, calm, hidden)
    ours, theirs = (
        worst_case(backend.array(losses), make(5), reference=backend.array(reference)) for losses in (masked, calm)
    )
    parts = zip((ours.weights, ours.value, *ours.dual), (theirs.weights, theirs.value, *theirs.dual), strict=True)
    for one, other in parts:
        np.testing.assert_array_equal(backend.numpy(one), backend.numpy(other))
    assert (backend.numpy(ours.weights)[reference == 0] == 0).all()


def gradients(losses: Any, reference: Any, make: Maker) -> Any:
    leaf = losses.clone().requires_grad_()
    value = robust_loss(leaf, make(4), reference=reference)
    assert torch.isfinite(value)
    value.backward()
    return leaf.grad.as_subclass(torch.Tensor)


@every_set_without_places
@pytest.mark.parametrize("device", [False, True], ids=["by_numpy", "by_torch"])
def test_the_gradient_of_a_masked_loss_is_zero(make: Maker, *, device: bool) -> None:
    losses = torch.tensor([1.0, torch.nan, 3.0, 0.0], dtype=torch.float64)
    reference = torch.tensor([0.5, 0.0, 0.25, 0.25], dtype=torch.float64)
    calm = losses.nan_to_num(2.0)
    if device:
        losses, calm, reference = (array.as_subclass(DeviceTensor) for array in (losses, calm, reference))
    assert torch.equal(gradients(losses, reference, make), gradients(calm, reference, make))


@over(PLACES)
def test_a_set_that_moves_mass_there_sees_it(make: Maker) -> None:
    losses, reference = np.array([1.0, np.nan, 3.0]), np.array([0.5, 0.0, 0.5])
    with pytest.raises(ValueError, match="losses must be finite, got nan at index 1"):
        worst_case(losses, make(3), reference=reference)


@pytest.mark.parametrize("name", ["tv", "kl"])
def test_a_bad_loss_of_positive_mass_is_named_beside_masked_ones(name: str) -> None:
    losses = np.array([[np.nan, 1.0, 2.0], [1.0, 2.0, np.inf]])
    reference = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5]])
    with pytest.raises(ValueError, match=r"losses must be finite, got inf at index \(1, 2\)"):
        worst_case(losses, SETS[name](3), reference=reference)
    with pytest.raises(ValueError, match=r"losses must be smaller than 4\.5e\+307 in size"):
        worst_case(np.array([np.nan, 1.0, 1.7e308]), SETS[name](3), reference=np.array([0.0, 0.5, 0.5]))


@pytest.mark.parametrize("bad", BAD)
def test_neither_does_a_conic_program(bad: float) -> None:
    losses = torch.tensor([[1.0, 2.0, bad], [1.0, 2.0, 0.0]], dtype=torch.float64).as_subclass(DeviceTensor)
    nearby = ConvexSet(lambda q, p: [cp.norm(q - p, "inf") <= 0.125])
    result = worst_case(losses, nearby)
    assert torch.isnan(result.weights[0]).all()
    assert torch.isnan(result.value[0])
    assert torch.isfinite(result.weights[1]).all()
