"""The objective of small batches on large ones, against every sub-batch and every sample of a small population."""

from __future__ import annotations

import itertools
import re
from math import comb
from typing import Any

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    AmbiguitySet,
    CVaR,
    Grouped,
    KLPenalty,
    Minibatch,
    Spectral,
    TotalVariation,
    duality_gap,
    minibatch,
    parse_ambiguity,
    robust_loss,
    worst_case,
)

LINEAR = [
    TotalVariation(0.2),
    TotalVariation(0.3, max_ratio=1.5),
    TotalVariation(0.6, max_ratio=8),
    CVaR(0.4),
    CVaR(0),
    Spectral((0.1, 0.3, 0.6)),
]
every_linear = pytest.mark.parametrize("inner", LINEAR, ids=str)


@every_linear
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_value_and_weights_are_the_mean_over_all_sub_batches(inner: AmbiguitySet, n: int) -> None:
    for seed in (0, 1):
        losses = np.random.default_rng(seed).standard_normal(7)
        losses = np.round(losses) if seed else losses
        values, weights = [], np.zeros(7)
        for chosen in itertools.combinations(range(7), n):
            found = worst_case(losses[list(chosen)], inner)
            values.append(float(found.value))
            weights[list(chosen)] += found.weights / comb(7, n)
        ours = worst_case(losses, minibatch(inner, n))
        assert float(ours.value) == pytest.approx(np.mean(values), abs=1e-14)
        assert abs(float(duality_gap(losses, minibatch(inner, n), ours))) <= 1e-13
        if not seed:
            np.testing.assert_allclose(ours.weights, weights, atol=1e-14)
        else:  # equal losses share
            for level in np.unique(losses):
                assert weights[losses == level].sum() == pytest.approx(ours.weights[losses == level].sum(), abs=1e-14)


@every_linear
def test_a_large_batch_has_the_mean_value_of_a_small_one(inner: AmbiguitySet) -> None:
    """Every sample of 2 and of 5 from a population of three losses, with its probability."""
    levels, p = np.array([0.0, 1.0, 5.0]), np.array([0.5, 0.375, 0.125])

    def mean(draws: int, ambiguity: AmbiguitySet) -> float:
        samples = np.array(list(itertools.product(range(3), repeat=draws)))
        return float(np.prod(p[samples], axis=1) @ worst_case(levels[samples], ambiguity).value)

    assert mean(5, minibatch(inner, 2)) == pytest.approx(mean(2, inner), abs=1e-13)
    if inner != CVaR(0.93):
        assert abs(mean(5, inner) - mean(2, inner)) > 1e-3  # which a batch of five alone does not have


@pytest.mark.parametrize(("n", "batch"), [(24, 96), (3, 1000), (500, 501)])
def test_large_batches_have_the_weights_of_the_formula(n: int, batch: int) -> None:
    q = [1 / n] * n  # TV(.2) by hand: drained from below, all of it to the top
    left = 0.2
    for i in range(n):
        q[i], left = q[i] - min(left, q[i]), left - min(left, q[i])
    q[-1] += 0.2
    expected = [
        sum(
            q[i - 1] * comb(j - 1, i - 1) * comb(batch - j, n - i) / comb(batch, n) for i in range(1, n + 1) if q[i - 1]
        )
        for j in range(1, batch + 1, 37)
    ]
    losses = np.arange(float(batch))
    weights = worst_case(losses, minibatch(TotalVariation(0.2), n)).weights
    np.testing.assert_allclose(weights[::37], expected, rtol=1e-9, atol=1e-15)


def test_torch_has_the_weights_as_the_gradient() -> None:
    losses = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ambiguity = minibatch(CVaR(0.5), 4)
    robust_loss(losses, ambiguity).backward()
    np.testing.assert_allclose(losses.grad, worst_case(losses.detach().numpy(), ambiguity).weights, atol=1e-15)


def test_it_has_a_text_and_a_strength() -> None:
    ambiguity = parse_ambiguity("tv:0.2,max_ratio=8,minibatch=24")
    assert ambiguity == minibatch(TotalVariation(0.2, max_ratio=8), 24)
    assert str(ambiguity) == "tv:0.2,max_ratio=8,minibatch=24"
    assert ambiguity.with_strength(0.5) == Minibatch(TotalVariation(0.1, max_ratio=8), 24)
    assert ambiguity.with_strength(0).holds_only_reference
    assert minibatch(CVaR(0.5), 1).holds_only_reference
    assert not ambiguity.holds_only_reference
    assert minibatch(CVaR(0.5), np.int64(4)) == minibatch(CVaR(0.5), 4)


@pytest.mark.parametrize(
    "inner", [KL(0.3), KLPenalty(1), Grouped(CVaR(0.3), [0, 1]), CVaR(0.3) + KLPenalty(1)], ids=str
)
def test_only_sets_linear_in_the_sorted_losses(inner: AmbiguitySet) -> None:
    with pytest.raises(ValueError, match=r"`Minibatch\.inner` must be linear in the sorted losses.*Use TotalVariation"):
        minibatch(inner, 2)


@pytest.mark.parametrize("text", ["tv:0.2,minibatch=8,by=source", "cvar:0.3,minibatch=8,trim=0.1"])
def test_nothing_that_makes_masses_unequal_stands_around_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"inner` must bear unequal masses, which .*minibatch=8 does not; leave out"):
        parse_ambiguity(text)


@pytest.mark.parametrize("size", [0, -1, 2.5, np.nan, True, "4", None])
def test_bad_sizes(size: Any) -> None:
    with pytest.raises(ValueError, match=rf"`Minibatch\.draws` is how many.*got {re.escape(repr(size))}"):
        minibatch(CVaR(0.3), size)


def test_what_it_cannot_be_solved_for() -> None:
    with pytest.raises(
        ValueError, match=r"`Minibatch\.draws` is 4, the losses have 3 scenarios; give at least as many"
    ):
        worst_case(np.zeros(3), minibatch(CVaR(0.5), 4))
    with pytest.raises(ValueError, match=r"equally likely scenarios.*drop `reference`"):
        worst_case(np.zeros(3), minibatch(CVaR(0.5), 2), reference=np.full(3, 1 / 3))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_its_weights_are_constant_between_ties_and_sizes_are_numbers() -> None:
    losses = torch.tensor([0.3, 2.0, 1.0, -1.0, 0.7], dtype=torch.float64)
    second = torch.func.hessian(lambda row: robust_loss(row, minibatch(CVaR(0.5), 2)))(losses)
    assert torch.equal(second, torch.zeros(5, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="must have one number as its size"):
        minibatch(TotalVariation(np.array([0.1, 0.2])), 4)
    with pytest.raises(ValueError, match="each must have one number as its size"):
        TotalVariation(np.array([0.1, 0.2])) + KLPenalty(1.0)
