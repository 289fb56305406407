"""Sets written in cvxpy: compiling, copies, threads, array libraries, and what is refused."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.reductions.dcp2cone.dcp2cone import Dcp2Cone

from dro_core import ConvexSet, TotalVariation, duality_gap, gaussian_kernel, robust_loss, worst_case
from dro_core.sets import convex

from .convex_twins import embeddings, instance, mmd_ball, total_variation
from .registry import BACKENDS, Backend

# The machinery.


def test_compiled_once_for_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    written, compiled = [], []
    apply = Dcp2Cone.apply
    monkeypatch.setattr(Dcp2Cone, "apply", lambda self, problem: compiled.append(1) or apply(self, problem))
    ball = ConvexSet(lambda q, p: written.append(q.size) or total_variation(q, p))
    for losses, p in (instance(0), instance(1)):
        result = worst_case(losses, ball, reference=p)
        duality_gap(losses, ball, result, reference=p)
        worst_case(np.stack([losses, -losses]), ball.with_strength(0.5))
    assert (written, len(compiled)) == ([6], 1)
    worst_case(np.arange(4.0), ball.with_strength(0.25))
    worst_case(np.arange(4.0), ball)
    assert (written, len(compiled)) == ([6, 4], 2)


@pytest.mark.parametrize(
    "renew", [copy.deepcopy, lambda ball: pickle.loads(pickle.dumps(ball))], ids=["copy", "pickle"]
)
def test_copies_leave_the_compiled_problem_behind(renew: Callable[[ConvexSet], ConvexSet]) -> None:
    losses, p = instance(2)
    ball = mmd_ball(gaussian_kernel(embeddings()), 0.2).with_strength(0.5)
    value = worst_case(losses, ball, reference=p).value
    other = renew(ball)
    assert not other._programs
    assert worst_case(losses, other, reference=p).value == value
    assert str(other) == "convex:WithinDiscrepancy(radius=0.2),strength=0.5"


def test_threads_share_a_set() -> None:
    ball, given = ConvexSet(total_variation), [instance(seed) for seed in range(40)]
    alone = [worst_case(losses, ball, reference=p).value for losses, p in given]
    patient = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: worst_case(pair[0], ball, reference=pair[1]).value, given))
    sys.setswitchinterval(patient)
    assert together == alone


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_every_array_library_and_batch(backend: Backend) -> None:
    rows, p = np.random.default_rng(1).standard_normal((2, 3, 6)), instance(1)[1]
    ball = ConvexSet(total_variation)
    result = worst_case(backend.array(rows), ball, reference=backend.array(p))
    assert type(result.weights) is type(result.dual.threshold) is type(backend.array(rows))
    expected = worst_case(rows, TotalVariation(0.25), reference=p)
    np.testing.assert_allclose(backend.numpy(result.value), expected.value, atol=1e-9)
    np.testing.assert_allclose(backend.numpy(result.weights), expected.weights, atol=1e-7)
    gap = backend.numpy(duality_gap(backend.array(rows), ball, result, reference=backend.array(p)))
    assert gap.shape == (2, 3)
    assert np.all((gap >= -1e-14) & (gap <= 1e-8))


def test_an_empty_batch() -> None:
    assert worst_case(np.zeros((0, 6)), ConvexSet(total_variation)).weights.shape == (0, 6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_gradient_is_the_weights(dtype: torch.dtype) -> None:
    losses = torch.tensor(instance(3)[0], dtype=dtype, requires_grad=True)
    ball = mmd_ball(gaussian_kernel(embeddings()), 0.2)
    loss = robust_loss(losses, ball)
    loss.backward()
    assert losses.grad is not None
    assert loss.dtype == losses.grad.dtype == dtype
    torch.testing.assert_close(losses.grad, worst_case(losses, ball).weights, rtol=0, atol=0)
    if dtype == torch.float64:
        step = 1e-4
        moved = [losses.detach() + sign * step * torch.eye(6, dtype=dtype) for sign in (1, -1)]
        slopes = (robust_loss(moved[0], ball) - robust_loss(moved[1], ball)) / (2 * step)
        torch.testing.assert_close(losses.grad, slopes, rtol=0, atol=1e-5)


# Refusals.


def refused(constraints: Any) -> Any:
    return worst_case(np.arange(3.0), ConvexSet(constraints))


@pytest.mark.parametrize(
    ("constraints", "error", "message"),
    [
        (None, TypeError, "must be a function of q and p, got None"),
        (lambda q, p: q <= 2 * p, TypeError, "must return a list of cvxpy constraints, got Inequality"),
        (lambda q, p: [True], TypeError, r"must return a list of cvxpy constraints, got \[True\]"),
        (
            lambda q, p: [cp.norm1(q - p) >= 0.1],
            ValueError,
            r"be convex \(DCP\): write it as .* does not: 0\.1 <= norm1",
        ),
        (lambda q, p: [cp.quad_over_lin(q, p[0]) <= 1], ValueError, r"compile once for all p \(DPP\): give p to a var"),
        (lambda q, p: [q == cp.Variable(3, boolean=True)], ValueError, "must not use integer variables"),
        (
            lambda q, p: [np.ones(4) @ q <= 1],
            ValueError,
            "cannot be built for 3 losses: .* need one entry for each loss",
        ),
        (lambda q, p: [q >= 0.4], ValueError, "no q satisfies the constraints .* relax them"),
    ],
)
def test_wrong_constraints_are_explained(constraints: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        refused(constraints)


@pytest.mark.parametrize("strength", [-0.1, 1.1, np.nan, True, "1"])
def test_strength_is_checked(strength: Any) -> None:
    with pytest.raises(ValueError, match=r"`ConvexSet\.strength` .* \[0, 1\], got"):
        ConvexSet(total_variation, strength)


def test_an_inaccurate_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convex, "_REFUSED", 1e-30)
    with pytest.raises(RuntimeError, match=r"solved to .* only \(\w+\), not to 1e-30\. Write constraints with numbers"):
        refused(total_variation)


def test_without_cvxpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"pip install 'robust-rlhf\[convex\]'"):
        refused(total_variation)
