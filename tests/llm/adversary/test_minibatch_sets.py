"""Sets that stand for batches of another size: refused where the batch is smaller, solved wherever examples count."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from bigram import bigram
from bigram import trainer as policy_trainer
from robust_trainers import arguments, full_batch_gradient, relative_error, seen_rows, trained_gradient, trainer_for
from scipy.integrate import quad

from dro_core import CVaR, worst_case
from llm.adversary.comparisons import PerMicroBatch, Shuffled
from llm.adversary.effective_batch import EffectiveBatch, batch_weights
from llm.adversary.inaction import bound
from llm.adversary.spec import parse_reweighting
from llm.sweep.heads import HeadData, HeadTraining, train_head

LOSSES = torch.tensor([0.3, 2.0, 1.0, 0.1, 0.7])
SMALL = parse_reweighting("cvar:0.5,minibatch=3")


def mean_over_subsets(losses, draws):
    """Weights of all subsets of that size, one by one."""
    weights = np.zeros(len(losses))
    chosen = list(combinations(range(len(losses)), draws))
    for rows in map(list, chosen):
        weights[rows] += worst_case(np.asarray(losses)[rows], CVaR(0.5)).weights / len(chosen)
    return weights


def weights_of(rule, losses, present):
    batch = EffectiveBatch(losses, torch.arange(len(losses)), present, slice(0, len(losses)), padded=True)
    return batch.weights(rule, 1.0).numpy()


@pytest.mark.parametrize(
    ("spec", "batch", "message"),
    [
        ("tv:0.2,minibatch=17", 16, "stands for batches of 17, and the adversary weighs 16 .* at most 16"),
        ("shuffled:cvar:0.3,minibatch=17", 16, "stands for batches of 17"),
        ("micro:4:tv:0.2,minibatch=5", 16, "stands for batches of 5, and the adversary weighs 4 examples"),
    ],
)
def test_a_smaller_batch_is_refused(spec, batch, message):
    with pytest.raises(ValueError, match=message):
        bound(parse_reweighting(spec), {}, batch=batch)


@pytest.mark.parametrize("spec", ["tv:0.2,minibatch=16", "micro:4:tv:0.2,minibatch=4", "shuffled:tv:0.2,minibatch=9"])
def test_a_batch_of_that_size_is_not(spec):
    assert bound(parse_reweighting(spec), {}, batch=16) is not None


def test_trainers_heads_and_policies_refuse_it_before_the_run(start, tmp_path):
    small = "tv:0.2,minibatch=5"
    with pytest.raises(ValueError, match="weighs 4 examples together: raise per_device_train_batch_size"):
        trainer_for(start, arguments(tmp_path, micro=2, steps=2), small)
    data = HeadData(np.eye(8), {"source": ["a"] * 8}, np.zeros((0, 8)), np.array([]))
    head = {"batch_size": 4, "learning_rate": 0.1, "epochs": 1, "seed": 0}
    with pytest.raises(ValueError, match="weighs 4 examples together: raise batch_size"):
        train_head(data, parse_reweighting(small), HeadTraining(), **head)
    more = {"actions": 3, "samples": 2, "prompts_per_step": 4}
    with pytest.raises(ValueError, match=r"raise prompts_per_step, .* at most 4"):
        policy_trainer(bigram(4, 3), np.ones((4, 3)), tmp_path, ambiguity=small, **more)


def test_examples_count_and_padding_does_not():
    """On several ranks every batch may be padded; the examples that are there are weighed as one rank would."""
    there = torch.ones(7)
    there[[1, 5]] = 0.0
    padded = torch.zeros(7)
    padded[there > 0] = LOSSES
    weights = weights_of(SMALL, padded, there)
    assert (weights[[1, 5]] == 0).all()
    np.testing.assert_allclose(weights[there.numpy() > 0], mean_over_subsets(LOSSES, 3), atol=1e-6)
    alone = batch_weights(SMALL, LOSSES.double().numpy(), np.arange(5), strength=1.0)
    np.testing.assert_allclose(weights[there.numpy() > 0], alone, atol=1e-6)


def test_a_batch_that_lost_examples_is_weighed_by_its_own_worst_case():
    there = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    expected = np.zeros(5)
    expected[:2] = worst_case(LOSSES[:2].numpy(), CVaR(0.5)).weights
    np.testing.assert_allclose(weights_of(SMALL, LOSSES, there), expected, atol=1e-7)


def test_comparisons_hold_it_too():
    dealt = weights_of(Shuffled(SMALL), LOSSES, torch.ones(5))
    np.testing.assert_allclose(np.sort(dealt), np.sort(mean_over_subsets(LOSSES, 3)), atol=1e-6)
    parts = weights_of(PerMicroBatch(SMALL, 3), LOSSES, torch.ones(5))
    np.testing.assert_allclose(parts[:3], 0.6 * mean_over_subsets(LOSSES[:3], 3), atol=1e-6)
    np.testing.assert_allclose(parts[3:], 0.4 * mean_over_subsets(LOSSES[3:], 2), atol=1e-6)


def test_unequal_masses_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="equally likely scenarios"):
        Shuffled(SMALL).weights(LOSSES, torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2]))


def density_of_three(u):
    """Of CVaR(0.5) on three losses, whose weights are 0, 1/3 and 2/3: three times the mean weight at the rank u."""
    return 3 * sum(q * comb(2, i) * u**i * (1 - u) ** (2 - i) for i, q in enumerate((0, 1 / 3, 2 / 3)))


def test_a_step_of_the_trainer_is_the_mean_of_the_steps_of_all_small_batches(start, tmp_path):
    """Of eight pairs; the shares of the density of three pairs on eight ranks are only near it."""
    args = arguments(tmp_path, micro=2, steps=4)
    found, trainer = trained_gradient(start, args, "cvar:0.5,minibatch=3")
    rows = seen_rows(trainer)
    subsets = [full_batch_gradient(start, rows[list(chosen)], "cvar:0.5") for chosen in combinations(range(8), 3)]
    expected = torch.stack(subsets).mean(dim=0)
    assert relative_error(found, expected) < 1e-5
    shares = [quad(density_of_three, j / 8, (j + 1) / 8)[0] for j in range(8)]
    near = full_batch_gradient(start, rows, "spectral:" + "/".join(f"{share:.12f}" for share in shares))
    assert 1e-3 < relative_error(near, expected) < 0.2
