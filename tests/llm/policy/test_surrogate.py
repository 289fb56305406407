"""Losses of a policy and its value function against numpy, enumeration and torch.distributions; padding stays out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact import close, normal, spoiled

from llm.policy.surrogate import (
    clip_fraction,
    clipped_surrogate,
    clipped_value_loss,
    entropy,
    explained_variance,
    k1,
    k2,
    k3,
    kl_estimate,
)

RAGGED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()


def test_padding_reaches_neither_losses_nor_gradients():
    clean = [normal(seed, 5, 5) for seed in range(10, 14)]
    for loss in (clipped_surrogate, clipped_value_loss):
        results = []
        for padding in (lambda x: x, lambda x: spoiled(x, RAGGED)):
            leaf, *rest = (padding(x).detach().requires_grad_() for x in clean[:3])
            losses = loss(leaf, *rest, RAGGED, divisor=RAGGED.sum(1))
            losses.sum().backward()
            assert rest[0].grad is None
            assert rest[1].grad is None
            assert leaf.grad[~RAGGED].eq(0).all()
            results.append((losses.detach(), leaf.grad))
        close(results[0][0], results[1][0])
        close(results[0][1], results[1][1])
        assert results[0][0][4] == 0
    logits = spoiled(normal(14, 5, 5, 3), RAGGED[..., None]).requires_grad_()
    estimate = kl_estimate(spoiled(clean[0], RAGGED), spoiled(clean[1], RAGGED), RAGGED).sum()
    (entropy(logits, RAGGED).sum() + estimate).backward()
    assert logits.grad.isfinite().all()
    assert estimate.isfinite()
    assert explained_variance(spoiled(clean[0], RAGGED), spoiled(clean[0], RAGGED), RAGGED) == 1
    assert clip_fraction(spoiled(clean[0] + 1, RAGGED), spoiled(clean[0], RAGGED), RAGGED) == 1


def test_surrogate_is_the_formula_and_positively_homogeneous_for_each_sequence():
    logps, old, advantages = (normal(seed, 5, 5) for seed in (15, 16, 17))
    ratio, a = np.exp((logps - old).numpy()), advantages.numpy()
    terms = np.where(RAGGED, np.minimum(ratio * a, np.clip(ratio, 0.7, 1.3) * a), 0.0)
    close(clipped_surrogate(logps, old, advantages, RAGGED, clip=0.3), -terms.sum(1))
    close(clipped_surrogate(logps, old, advantages, RAGGED, clip=0.3, divisor=4.0), -terms.sum(1) / 4)
    scale = torch.tensor([0.0, 0.5, 1.0, 3.0, 20.0], dtype=torch.float64)
    scaled = clipped_surrogate(logps, old, scale[:, None] * advantages, RAGGED)
    close(scaled, scale * clipped_surrogate(logps, old, advantages, RAGGED))
    flipped = clipped_surrogate(logps, old, -advantages, RAGGED)
    assert (flipped + clipped_surrogate(logps, old, advantages, RAGGED))[:4].abs().min() > 1e-3
    outside = (np.abs(ratio - 1) > 0.3)[RAGGED.numpy()].mean()
    close(clip_fraction(logps, old, RAGGED, clip=0.3), outside)
    assert 0 < outside < 1


def test_value_loss_takes_the_worse_of_the_two_errors_and_stops_where_the_clipped_one_is_worse():
    one = torch.ones(4, 1).bool()
    values = torch.tensor([[1.0], [0.1], [-1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    old, targets = torch.zeros(4, 1, dtype=torch.float64), torch.full((4, 1), 2.0, dtype=torch.float64)
    losses = clipped_value_loss(values, old, targets, one, clip=0.2)
    close(losses, [1.8**2 / 2, 1.9**2 / 2, 9 / 2, 1.8**2 / 2])  # clipped to .2, inside, plain is worse, clipped to .2
    losses.sum().backward()
    close(values.grad, [[0.0], [-1.9], [-3.0], [0.0]])
    close(clipped_value_loss(values, old, targets, one, clip=np.inf), [0.5, 1.9**2 / 2, 4.5, 0.5])


def test_explained_variance_compares_with_the_best_constant():
    targets, values, mask = normal(18, 5, 5), normal(19, 5, 5), RAGGED
    t, v = targets[mask].numpy(), values[mask].numpy()
    close(explained_variance(values, targets, mask), 1 - np.var(t - v) / np.var(t))
    assert explained_variance(torch.full_like(targets, 9.0), targets, mask).abs() < 1e-12
    assert explained_variance(values, torch.ones_like(targets), mask).isnan()


def test_kl_estimators_by_enumeration_as_values_and_as_losses():
    logits, reference = normal(20, 6).requires_grad_(), normal(21, 6).log_softmax(0)
    logs = logits.log_softmax(0)
    exact = {
        "pi||ref": (logs.exp() * (logs - reference)).sum(),
        "ref||pi": (reference.exp() * (reference - logs)).sum(),
    }
    gradient = {name: torch.autograd.grad(kl, logits, retain_graph=True)[0] for name, kl in exact.items()}
    gradient["nothing"] = torch.zeros(6, dtype=torch.float64)
    drawn = logs.detach().exp()  # fixed, as the share of each token among the samples is
    for estimator, direction in ((k1, "nothing"), (k2, "pi||ref"), (k3, "ref||pi")):
        constant = reference[:, None].clone().requires_grad_()
        losses = kl_estimate(logs[:, None], constant, torch.ones(6, 1).bool(), estimator=estimator)
        mean = (drawn * losses).sum()
        slope, none = torch.autograd.grad(mean, [logits, constant], retain_graph=True, allow_unused=True)
        close(slope, gradient[direction])
        assert none is None
        assert (estimator is k2) == bool((mean - exact["pi||ref"]).abs() > 1e-3)
    assert k3(logs, reference).min() >= 0 > k1(logs, reference).min()


def test_entropy_is_that_of_torch_and_survives_forbidden_actions():
    logits = normal(22, 5, 5, 4)
    exact = torch.distributions.Categorical(logits=logits).entropy()
    close(entropy(logits, RAGGED), (exact * RAGGED).sum(1))
    logits[..., 0] = -torch.inf
    logits.requires_grad_()
    total = entropy(logits, RAGGED).sum()
    total.backward()
    close(total, entropy(logits[..., 1:], RAGGED).sum())
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [clipped_surrogate, clipped_value_loss])
def test_negative_clips_are_refused(loss):
    with pytest.raises(ValueError, match="use inf to turn clipping off"):
        loss(*[normal(1, 5, 5)] * 3, RAGGED, clip=-0.1)
