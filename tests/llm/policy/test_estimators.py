"""Estimators by name in the trainer's own objective, and the divisors of lengths, by enumerating every answer."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_policy_sequences import ANSWERS, LENGTHS, LONGEST, REWARDS, expected_gradient, logits, off, token_logps

from llm.policy.advantages.estimators import ESTIMATORS, group_advantage, least_samples
from llm.policy.advantages.groups import prompt_weight
from llm.policy.config import PolicyConfig
from llm.training.config import ConfigError

RIGHT = (REWARDS.median() < REWARDS).double()  # rewards that are checked: 0 or 1
NAMES = ("dr_grpo", "grpo", "maxrl", "pass_at_k:2", "rs_grpo:2", "rloo")


def test_every_estimator_but_ppo_is_tried_here():
    assert {name.partition(":")[0] for name in NAMES} == ESTIMATORS.keys() - {"ppo"}


def slope(value):
    """Of a function of the success rate of the policy, by autograd."""
    table = logits()
    value((token_logps(table).sum(1).exp() * RIGHT).sum()).backward()
    return table.grad.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_a_prompt_is_its_weight_times_that_of_the_rate(name):
    """The weight from outcomes right or wrong alone, the gradient from all answers of up to three tokens."""
    rate = float((token_logps(logits().detach()).sum(1).exp() * RIGHT).sum())
    weight = prompt_weight(group_advantage(name), rate, 3)
    assert off(expected_gradient(3, RIGHT, estimator=name), weight * slope(lambda p: p)) < 1e-12


def test_the_best_of_k_has_its_own_gradient_whatever_the_rewards():
    pairs = torch.tensor(list(itertools.product(range(len(ANSWERS)), repeat=2)))
    table = logits()
    chances = token_logps(table).sum(1)[pairs].sum(dim=1).exp()
    (chances * REWARDS[pairs].amax(dim=1)).sum().backward()
    assert off(expected_gradient(2, REWARDS, estimator="pass_at_k:2"), table.grad.numpy()) < 1e-12


@pytest.mark.parametrize("divisor", ["answer", "batch"])
def test_divisors_of_lengths_are_those_of_grpo_and_dapo(divisor):
    """Against loops by hand over all pairs of answers."""
    table, expected = logits(), torch.zeros((), dtype=torch.float64)
    per_token = token_logps(table)
    chances = per_token.detach().sum(1).exp()
    mean = sum(float(chances[a] * chances[b] * (LENGTHS[a] + LENGTHS[b]) / 2) for a, b in _pairs())
    for a, b in _pairs():
        difference = float(REWARDS[a] - REWARDS[b])
        for one, sign in ((a, 1), (b, -1)):
            length = LENGTHS[one] if divisor == "answer" else 0
            tokens = per_token[one, : LENGTHS[one]].sum()
            expected = expected + chances[a] * chances[b] * sign * difference * tokens / 2 / (length or 1)
    expected.backward()
    found = expected_gradient(2, length_divisor=divisor) / LONGEST
    if divisor == "answer":
        assert off(found, table.grad.numpy()) < 1e-12
        return
    # One rollout of every pair: divided by the mean length of its answers, each as often as it stands there.
    alike = float(LENGTHS.double().mean())
    assert off(found * alike, table.grad.numpy()) < 1e-12
    assert abs(alike - mean) > 1e-3


def _pairs():
    return itertools.product(range(len(ANSWERS)), repeat=2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"estimator": "ppo2"}, "unknown estimator 'ppo2', did you mean 'ppo'"),
        ({"estimator": "pass_at_k"}, "lacks its k"),
        ({"estimator": "pass_at_k:1"}, "pass_at_k:1 is rloo"),
        ({"estimator": "pass_at_k:2.5"}, "takes a whole k"),
        ({"estimator": "pass_at_k:8", "samples": 4}, "set samples to 8 or more"),
        ({"estimator": "rs_grpo:0"}, "near 0 it is dr_grpo"),
        ({"estimator": "rs_grpo:inf"}, "a positive number"),
        ({"estimator": "grpo:3"}, "grpo"),
        ({"estimator": "grpo", "samples": 1}, "set samples to 2 or more"),
        ({"estimator": "grpo", "version": "A"}, "does not pass on as a factor: take version B"),
        ({"estimator": "grpo"}, "that of the KL charge alone where all scores are equal: use kl_in=loss"),
        ({"estimator": "maxrl"}, "kl_in=reward makes returns negative"),
        ({"estimator": "dr_grpo", "optimizer": "npg"}, "use estimator=rloo"),
        ({"length_divisor": "tokens"}, "length_divisor must be one of longest, answer, batch"),
        ({"length_divisor": "answer", "optimizer": "npg"}, "drop length_divisor"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(wrong, said):
    with pytest.raises(ConfigError) as caught:
        PolicyConfig(**{"model": "m", "train_file": "x", "samples": 4, "max_length": 128, **wrong})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_how_many_answers_each_needs():
    assert [least_samples(name) for name in ("ppo", "rloo", "grpo", "pass_at_k:8")] == [1, 2, 2, 8]
