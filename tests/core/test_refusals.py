"""Bad input is refused with the field, what is wrong, and what to do; nothing is ever silently uniform."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    AmbiguitySet,
    CVaR,
    Dual,
    Wasserstein,
    WorstCase,
    dual_objective,
    duality_gap,
    robust_loss,
    worst_case,
)

from .examples import Maker, every_set, every_set_in_arrays, line
from .registry import BACKENDS, Backend

every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)


def answer_for(losses: Any) -> WorstCase:
    """Any answer, in the library of the losses."""
    return worst_case(torch.arange(3.0) if isinstance(losses, torch.Tensor) else np.arange(3.0), CVaR(0.5))


CALLS = {
    "worst_case": worst_case,
    "robust_loss": robust_loss,
    "dual_objective": lambda losses, ambiguity: dual_objective(losses, ambiguity, Dual(0.0, 0.0)),
    "duality_gap": lambda losses, ambiguity: duality_gap(losses, ambiguity, answer_for(losses)),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


# Losses


@every_call
@pytest.mark.parametrize(
    "losses",
    [
        np.array([True, False, True]),
        np.array([1.0 + 1j, 2.0, 3.0]),
        np.array(["a", "b", "c"]),
        np.array([1.0, None, 2.0]),
        np.array([1, 2, 3], dtype="m8[s]"),
        np.array([1, 2, 3], dtype="M8[D]"),
    ],
    ids=lambda losses: losses.dtype.name,
)
def test_only_real_numbers(call: Any, losses: np.ndarray) -> None:
    with pytest.raises(
        TypeError, match=rf"losses must hold real numbers, got dtype {re.escape(str(losses.dtype))}; cast"
    ):
        call(losses, KL(0.3))


@every_backend
@pytest.mark.parametrize("losses", [np.array([True, False]), np.array([1.0 + 1j, 2.0])], ids=["bool", "complex"])
def test_only_real_numbers_in_every_library(losses: np.ndarray, backend: Backend) -> None:
    with pytest.raises(TypeError, match="losses must hold real numbers"):
        worst_case(backend.array(losses), KL(0.3))


@every_call
@pytest.mark.parametrize("losses", [[1.0, 2.0], (1.0,), 3.0, None, "abc", {1.0}], ids=repr)
def test_only_arrays(call: Any, losses: Any) -> None:
    with pytest.raises(TypeError, match=r"losses.*convert lists with numpy\.asarray or torch\.tensor"):
        call(losses, KL(0.3))


@every_call
@pytest.mark.parametrize("mask", [False, [True, False, False]], ids=["nothing_masked", "masked"])
def test_masked_arrays_are_refused(call: Any, mask: Any) -> None:
    """Their mask would be lost: it hides losses, not mass."""
    with pytest.raises(TypeError, match=r"losses.*fill masked arrays first"):
        call(np.ma.array([1.0, 2.0, 3.0], mask=mask), KL(0.3))


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_matrices_are_refused() -> None:
    with pytest.raises(TypeError, match=r"of one library .*got matrix"):
        worst_case(np.matrix([[1.0, 2.0]]), KL(0.3))


@every_set
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_named(make: Maker, bad: float) -> None:
    losses = np.array([[1.0, 2.0, 3.0], [4.0, bad, 6.0]])
    for array in (losses, torch.from_numpy(losses), torch.from_numpy(losses).to(torch.bfloat16)):
        with pytest.raises(ValueError, match=rf"losses must be finite, got {bad} at index \(1, 1\); drop or clip"):
            robust_loss(array, make(3))


@every_backend
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_every_library_looks_when_asked_to(bad: float, backend: Backend) -> None:
    for losses, at in (([4.0, bad, 6.0], 1), ([bad, bad], 0), ([-bad, bad], 0)):
        with pytest.raises(ValueError, match=rf"losses must be finite, got \S+ at index {at}; drop or clip"):
            worst_case(backend.array(np.array(losses)), KL(0.3), check_finite=True)


@every_set_in_arrays
def test_losses_are_looked_at_by_default_in_main_memory_only(make: Maker) -> None:
    """On a device that would wait for it, so there it is asked for; and then nothing looks uniform, but is NaN."""
    device = next(backend for backend in BACKENDS if backend.name == "torch_device")
    losses = np.array([0.0, np.nan, 1.0])
    assert torch.isnan(robust_loss(device.array(losses), make(3)))
    with pytest.raises(ValueError, match="losses must be finite, got nan at index 1"):
        robust_loss(device.array(losses), make(3), check_finite=True)


@every_call
def test_tensors_in_main_memory_are_looked_at(call: Any) -> None:
    for losses in (torch.tensor([1.0, torch.nan, 2.0]), torch.tensor([1.0, torch.inf, 2.0], requires_grad=True)):
        with pytest.raises(ValueError, match=r"losses must be finite, got \S+ at index 1; drop or clip"):
            call(losses, KL(0.3))


@every_call
@pytest.mark.parametrize("losses", [[1.7e308, -1.7e308, 0.0], [-1.2e308, 1.0, 1.2e308]], ids=str)
def test_losses_too_far_apart_for_float64(call: Any, losses: list[float]) -> None:
    for array in (np.array(losses), torch.tensor(losses, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"losses must .*; divide them by a constant first"):
            call(array, KL(0.3))


def test_float32_losses_span_all_of_float32() -> None:
    losses = np.array([3e38, -3e38, 0.0], dtype=np.float32)
    assert worst_case(losses, CVaR(1 / 3)).weights.tolist() == [1.0, 0.0, 0.0]


@every_set
@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_no_scenario(make: Maker, shape: tuple[int, ...]) -> None:
    for losses in (np.zeros(shape), torch.zeros(shape), torch.zeros(shape, device="meta")):
        with pytest.raises(ValueError, match=rf"at least one scenario.*got shape {re.escape(str(shape))}; skip empty"):
            robust_loss(losses, make(1))


# The reference


@every_set
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ([0.5, 0.6, 0.0], r"must sum to 1 over its last axis, it is off by 0\.1; divide it by its sum"),
        ([0.0, 0.0, 0.0], "must sum to 1"),
        ([1.5, -0.5, 0.0], "must be nonnegative.*clip it at zero and renormalise"),
        ([np.nan, 0.5, 0.5], "must be nonnegative"),
        ([np.inf, 0.0, 0.0], "must sum to 1"),
        ([0.5, 0.5], r"must have shape \(n,\) or that of losses, \(3,\), got \(2,\)"),
        ([[0.5, 0.5, 0.0]], "must have shape"),
        (1.0, "must have shape"),
    ],
)
def test_bad_reference(make: Maker, reference: Any, message: str) -> None:
    for array in (np.asarray, torch.tensor):
        with pytest.raises(ValueError, match="reference " + message):
            worst_case(array([0.0, 1.0, 2.0]), make(3), reference=array(reference))


@pytest.mark.parametrize("shape", [(3, 3), (2, 1), (5, 2, 3), (1, 3)])
def test_a_reference_for_another_batch(shape: tuple[int, ...]) -> None:
    for array in (np.asarray, torch.from_numpy):
        with pytest.raises(ValueError, match="reference must have shape"):
            worst_case(array(np.zeros((2, 3))), KL(0.3), reference=array(np.full(shape, 1 / shape[-1])))


def test_a_row_of_a_reference_is_looked_at_too() -> None:
    with pytest.raises(ValueError, match=r"off by 0\.3"):
        worst_case(np.zeros((2, 2)), KL(0.3), reference=np.array([[0.5, 0.5], [0.5, 0.8]]))


@pytest.mark.parametrize("reference", [np.array([True, False]), np.array([0.5j, 0.5]), np.array(["a", "b"])], ids=str)
def test_a_reference_of_real_numbers(reference: np.ndarray) -> None:
    with pytest.raises(TypeError, match="reference must hold real numbers"):
        worst_case(np.zeros(2), KL(0.3), reference=reference)


def test_a_whole_number_may_be_all_the_mass() -> None:
    assert worst_case(np.arange(3.0), KL(0.3), reference=np.array([0, 1, 0])).weights.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "reference", [[0.5, 0.5], torch.ones(2) / 2, np.ma.array([0.5, 0.5])], ids=["list", "torch", "masked"]
)
def test_one_array_library(reference: Any) -> None:
    with pytest.raises(TypeError, match="losses and reference must be arrays of one library"):
        worst_case(np.ones(2), KL(0.3), reference=reference)
    if not isinstance(reference, torch.Tensor):
        with pytest.raises(TypeError, match="losses and reference must be arrays of one library"):
            worst_case(torch.ones(2), KL(0.3), reference=reference)


@pytest.mark.parametrize("ambiguity", [KL(0.3), CVaR(0.3), Wasserstein(0.1, line(4))], ids=str)
@pytest.mark.parametrize(("here", "there"), [("cpu", "meta"), ("meta", "cpu")])
def test_one_device(ambiguity: AmbiguitySet, here: str, there: str) -> None:
    with pytest.raises((TypeError, ValueError), match=r"(?s)reference.*device"):
        worst_case(torch.zeros(4, device=here), ambiguity, reference=torch.ones(4, device=there) / 4)


@every_set
def test_no_gradient_reaches_the_reference(make: Maker) -> None:
    """Danskin's theorem is about the losses; a reference that is learned is a constant here."""
    losses, reference = torch.arange(4.0, requires_grad=True), (torch.ones(4) / 4).requires_grad_()
    robust_loss(losses, make(4), reference=reference).backward()
    assert reference.grad is None
    assert losses.grad is not None
    assert not worst_case(losses, make(4), reference=reference).value.requires_grad


# The set and the dual


@every_call
@pytest.mark.parametrize("ambiguity", [None, 0.3, "tv:0.2", KL, CVaR], ids=str)
def test_the_set_is_a_set(call: Any, ambiguity: Any) -> None:
    with pytest.raises(TypeError, match=r"ambiguity must be.*such as"):
        call(np.arange(3.0), ambiguity)


@every_set
@pytest.mark.parametrize("dual", [Dual(-0.5, 1.0), Dual(np.inf, 1.0), Dual(1.0, -np.inf), Dual(np.nan, 0.0)])
def test_an_infeasible_dual_bounds_nothing(make: Maker, dual: Dual) -> None:
    assert dual_objective(np.arange(4.0), make(4), dual) == np.inf
    assert dual_objective(torch.arange(4.0), make(4), dual) == np.inf


def test_the_gap_exposes_a_wrong_answer() -> None:
    losses = np.arange(4.0)
    result = worst_case(losses, CVaR(0.5))
    uniform = result._replace(weights=np.full(4, 0.25))
    assert float(duality_gap(losses, CVaR(0.5), uniform)) == pytest.approx(1.0, abs=1e-14)


@every_set
def test_the_gap_exposes_the_mean(make: Maker) -> None:
    """No set passes plain averaging off as its worst case; only the penalties count the price that this saves."""
    losses, ambiguity = np.array([4.0, 0.0, 1.0, 2.0, 8.0, -3.0]), make(6)
    result = worst_case(losses, ambiguity)
    lazy = result._replace(weights=np.full(6, 1 / 6))
    assert float(duality_gap(losses, ambiguity, lazy)) > 0.2
    assert abs(float(duality_gap(losses, ambiguity, result))) < 1e-12


def test_what_is_no_set_of_ours_may_be_written_by_anyone() -> None:
    """The contract of CONTRIBUTING: a subclass is enough, and the abstract class itself is none."""
    with pytest.raises(TypeError, match="abstract"):
        AmbiguitySet()  # type: ignore[abstract]
