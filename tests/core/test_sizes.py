"""Sizes that are arrays: one radius per problem is as good as a loop over problems."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    KLPenalty,
    MeanDiscrepancy,
    Wasserstein,
    bias_bound,
    duality_gap,
    effective_sample_size_bound,
    fit_linear,
    inverse_cdf_bias_bound,
    robust_loss,
    worst_case,
)
from dro_core.sets.ambiguity import Ball
from dro_core.sets.penalties import Priced

from .registry import BACKENDS, Backend, DeviceTensor
from .sized_sets import SIZED, N, Sized, close, every_size

SPECIAL = [0.0, 1e-300, 1e-15, 1e-9, 1e-4, 0.02, 0.3, 0.75, 1.0]


# One size per problem


@every_size
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("around", ["uniform", "reference"])
def test_a_row_is_what_it_is_alone(make: Sized, backend: Backend, around: str) -> None:
    """In two dimensions of problems, with sizes from nothing to all; a reference of a mass of zero."""
    rng = np.random.default_rng(0)
    sizes = np.array(SPECIAL).reshape(3, 3)
    losses, masses = rng.normal(size=(3, 3, N)), rng.dirichlet(np.ones(N), size=(3, 3))
    masses[..., 2] = 0.0
    masses /= masses.sum(-1, keepdims=True)
    if backend.name == "strict" and isinstance(make(0.5), MeanDiscrepancy):
        pytest.skip("solved in numpy")
    reference = None if around == "uniform" else backend.array(masses)
    result = worst_case(backend.array(losses), make(backend.array(sizes)), reference=reference)
    gap = duality_gap(backend.array(losses), make(sizes), result, reference=reference)
    assert np.abs(backend.numpy(gap)).max() <= 1e-9 * np.ptp(losses)
    for at in np.ndindex(sizes.shape):
        alone = worst_case(losses[at], make(float(sizes[at])), reference=None if around == "uniform" else masses[at])
        close(backend.numpy(result.weights)[at], alone.weights)
        close(backend.numpy(result.value)[at], alone.value)
        if sizes[at] > 1e-9:  # near 0 a multiplier is large, and good to some digits only
            close(backend.numpy(result.dual.multiplier)[at], alone.dual.multiplier, atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("kind", [KLPenalty, ChiSquarePenalty])
def test_an_infinite_price_beside_others_leaves_the_mean(kind: Any, backend: Backend) -> None:
    losses = backend.array(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    weights = backend.numpy(worst_case(losses, kind(np.array([np.inf, 1e-9, 1e9]))).weights)
    close(weights, [[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]], atol=1e-8)


@every_size
@given(data=st.data())
def test_any_sizes_of_any_losses(make: Sized, data: st.DataObject) -> None:
    eighths = st.integers(-16, 16).map(lambda k: k / 8)
    losses = np.array(data.draw(st.lists(st.lists(eighths, min_size=N, max_size=N), min_size=1, max_size=4)))
    sizes = np.array(data.draw(st.lists(st.integers(0, 64), min_size=len(losses), max_size=len(losses)))) / 64
    result = worst_case(losses, make(sizes))
    for k, row in enumerate(losses):
        alone = worst_case(row, make(float(sizes[k])))
        close(result.value[k], alone.value, atol=1e-10)
        if not isinstance(make(0.5), Wasserstein):  # of tied plans either will do
            close(result.weights[k], alone.weights, atol=1e-8)


@pytest.mark.parametrize("order", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("levels", [[1.0, 0.0], [1.0, 1 - 1e-6, 0.5, 0.0]], ids=str)
@pytest.mark.parametrize("device", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["host", "device"])
def test_rows_of_any_mass(order: float, levels: list[float], *, device: bool) -> None:
    """A top of mass 1e-3 to 1e-300 beside ordinary ones, and radii from nothing to all that helps, in one batch."""
    tops = np.array([0.3, 1e-3, 1e-8, 1e-18, 1e-60, 1e-150, 1e-300])
    rest = np.array([1.0] * (len(levels) - 1)) / (len(levels) - 1)
    p = np.stack([np.array([top, *((1 - top) * rest)]) for top in tops])[:, None, :].repeat(5, axis=1)
    with np.errstate(over="ignore"):
        most = np.minimum(np.expm1((1 - order) * np.log(p[..., 0])) / (order * (order - 1)), 1e290)
    sizes = np.array([1e-15, 1e-4, 0.5, 0.9, 0.999]) * most
    losses = np.broadcast_to(np.array(levels), p.shape)
    given = [torch.from_numpy(part.copy()).as_subclass(DeviceTensor) if device else part for part in (losses, p)]
    together = worst_case(given[0], CressieRead(order, sizes), reference=given[1])
    for at in np.ndindex(sizes.shape):
        alone = worst_case(given[0][at], CressieRead(order, float(sizes[at])), reference=given[1][at])
        assert float(together.value[at]) == pytest.approx(float(alone.value), abs=1e-11)


@every_size
def test_sizes_for_rows_of_a_wider_batch_and_for_many(make: Sized) -> None:
    """A size per column of problems; more problems than a block of the cache holds."""
    rng = np.random.default_rng(1)
    sizes = rng.uniform(0.05, 0.9, size=3)
    losses = rng.normal(size=(2, 3, N))
    wide = worst_case(losses, make(sizes)).value
    close(wide, [[worst_case(losses[i, j], make(float(sizes[j]))).value for j in range(3)] for i in range(2)])
    if isinstance(make(0.5), (MeanDiscrepancy, Wasserstein)):
        return
    many, sizes = rng.normal(size=(6000, N)), rng.choice([0.1, 0.4], size=6000)
    whole = worst_case(many, make(sizes)).weights
    for size in (0.1, 0.4):
        close(whole[sizes == size], worst_case(many[sizes == size], make(size)).weights)


@every_size
def test_strength_text_and_equality(make: Sized) -> None:
    sizes = np.array([0.25, 0.5])
    ball, other = make(sizes), make(np.array([0.25, 0.75]))
    assert ball == make(sizes.copy())
    assert hash(ball) == hash(make(sizes.copy()))
    assert (ball != other, ball != make(0.25), ball.has_rows) == (True, True, True)
    assert "(2 values)" in str(ball)
    sizes[:] = 0.0  # its own copy
    losses = np.random.default_rng(0).normal(size=(2, N))
    halved = [worst_case(losses[k], make(size).with_strength(0.5)).value for k, size in enumerate([0.25, 0.5])]
    close(worst_case(losses, ball.with_strength(0.5)).value, halved)
    assert ball.with_strength(0.0).holds_only_reference == make(0.25).with_strength(0.0).holds_only_reference
    assert ball.holds_only_reference == make(0.25).holds_only_reference


def test_a_batch_of_no_problems_has_no_answers() -> None:
    assert worst_case(np.zeros((0, N)), KL(np.zeros(0))).weights.shape == (0, N)
    with pytest.raises(ValueError, match=r"has shape \(0,\), the losses \(2, 7\)"):
        worst_case(np.zeros((2, N)), KL(np.zeros(0)))


def test_every_set_with_a_size_is_looked_at_here() -> None:
    """A new ball that reads its radius as a number would be wrong for an array without a word."""
    found: set[type] = set()
    waiting: list[type] = [Ball, Priced]
    while waiting:
        children = [kind for kind in waiting.pop().__subclasses__() if kind.__module__.startswith("dro_core")]
        found |= {kind for kind in children if "spec" in vars(kind)}
        waiting.extend(children)
    assert found <= {type(make(0.5).core) for make in SIZED.values()}


# What is refused


@every_size
@pytest.mark.parametrize("bad", [np.nan, -1000.0])
def test_the_row_of_a_bad_size_is_named(make: Sized, bad: float) -> None:
    refusal = r"`\w+\.\w+` is .* must lie in .*, got \S+ in row "
    for sizes in (np.array([0.1, 0.2, bad]), torch.tensor([0.1, 0.2, bad])):
        with pytest.raises(ValueError, match=refusal + r"2\. \w+"):
            make(sizes)
    with pytest.raises(ValueError, match=refusal + r"\(1, 0\)\. \w+"):
        make(np.array([[0.1, 0.2], [bad, 0.3]]))


@every_size
def test_sizes_must_fit_the_problems(make: Sized) -> None:
    losses = np.random.default_rng(0).normal(size=(2, N))
    for call in (worst_case, robust_loss):
        for shape in ((3,), (N,), (2, 1), (2, N), (1, 1, 1)):
            with pytest.raises(ValueError, match=r"has shape .*, the losses \(2, 7\); give one number per problem"):
                call(losses, make(np.full(shape, 0.25)))
    with pytest.raises(ValueError, match="give one number per problem"):
        worst_case(losses[0], make(np.full(2, 0.25)))


@pytest.mark.parametrize("sizes", [np.array([True]), np.array([0.5j]), np.array(["a"]), torch.tensor([True])], ids=str)
def test_sizes_must_be_real_numbers(sizes: Any) -> None:
    with pytest.raises(TypeError, match=r"`KL\.radius` must hold real numbers, got dtype"):
        KL(sizes)
    with pytest.raises(TypeError, match="fill masked ones first"):
        KL(np.ma.array([0.5], mask=[True]))


def test_integers_and_arrays_of_no_dimension_are_numbers() -> None:
    for one in (1, np.int64(1), np.float32(1), np.array(1), torch.tensor(1), torch.tensor(1.0)):
        assert KL(one) == KL(1.0)
        assert type(KL(one).radius) is float
    assert ChiSquare(np.array([1, 2])) == ChiSquare(np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    "call",
    [
        lambda ball: bias_bound(ball, 10, 1.0),
        lambda ball: effective_sample_size_bound(ball, 10),
        lambda ball: inverse_cdf_bias_bound(ball, 10, 1.0),
        lambda ball: fit_linear(np.eye(2), np.array([0, 1]), ball, penalty=0.1),
    ],
    ids=["bias", "size", "quantiles", "fit"],
)
@pytest.mark.parametrize("ball", [ChiSquare(np.array([0.1, 0.2])), CVaR(np.array([0.1, 0.2]))], ids=["chi2", "cvar"])
def test_where_there_is_one_problem_one_number_is_asked_for(call: Any, ball: AmbiguitySet) -> None:
    with pytest.raises(ValueError, match=r"`\w+\.\w+` must be one number here"):
        call(ball)
