"""The policy gradient on answers of several tokens, by enumerating every answer of up to three of them.

One prompt, two actions and an end: after each token the policy has another distribution, the reference a third. All
expectations are sums over all answers (or all tuples of them) with their exact probabilities, in float64.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import binom

from dro_core import TotalVariation, worst_case
from llm.adversary.rules import GroupAscent
from llm.adversary.spec import parse_reweighting
from llm.policy.config import PolicyConfig
from llm.policy.experience import Experience, Objective
from llm.policy.prompt_weights import advance_prompts, held_out_value, prompt_multipliers, split_multipliers
from llm.training.config import ConfigError
from synthetic import sample_counts

LONGEST, END, PLACES = 3, 2, 4  # states: start, after action 0, after action 1 (the end has none)


def answers() -> list[tuple[int, ...]]:
    """Every answer: actions 0 and 1, closed by the end or cut at the longest length."""
    found = []
    for length in range(LONGEST + 1):
        for actions in itertools.product((0, 1), repeat=length):
            found.append(actions if length == LONGEST else (*actions, END))
    return found


ANSWERS = answers()
LENGTHS = torch.tensor([len(answer) for answer in ANSWERS])
MASK = torch.arange(LONGEST) < LENGTHS[:, None]
REWARDS = torch.tensor(np.random.default_rng(3).normal(size=len(ANSWERS)), dtype=torch.float64)
REFERENCE = torch.tensor(np.random.default_rng(4).normal(size=(3, 3)))


def logits() -> torch.Tensor:
    return torch.tensor(np.random.default_rng(5).normal(size=(3, 3)), requires_grad=True)


def token_logps(table: torch.Tensor) -> torch.Tensor:
    """Log-probability of every token of every answer, ``(answers, LONGEST)``, 0 after the end."""
    logs = table.log_softmax(dim=1)
    rows = []
    for answer in ANSWERS:
        states = [0, *(action + 1 for action in answer[:-1])]
        told = [logs[state, action] for state, action in zip(states, answer, strict=True)]
        rows.append(torch.stack(told + [logs.new_zeros(())] * (LONGEST - len(answer))))
    return torch.stack(rows)


def exact_gradient(beta: float, rewards: torch.Tensor = REWARDS) -> np.ndarray:
    """Of E [reward] - beta KL(pi || ref), by autograd through the sum over all answers."""
    table = logits()
    logps = token_logps(table).sum(1)
    kl = logps - token_logps(REFERENCE).sum(1)
    (logps.exp() * (rewards - beta * kl)).sum().backward()
    return table.grad.numpy()


def expected_gradient(samples: int = 2, rewards: torch.Tensor = REWARDS, **settings) -> np.ndarray:
    """Mean over all tuples of answers of the gradient that the trainer's own objective has."""
    config = PolicyConfig(model="m", train_file="x", samples=samples, max_new_tokens=LONGEST, max_length=8,
                          **{"kl_coefficient": 0.0, **settings})  # fmt: skip
    objective, table = Objective(config), logits()
    per_answer, reference = token_logps(table), token_logps(REFERENCE)
    chosen = torch.tensor(list(itertools.product(range(len(ANSWERS)), repeat=samples)))  # (tuples, samples)
    flat, known = chosen.flatten(), per_answer.detach()
    rollout = Experience(rewards[flat], torch.ones(len(flat)).bool(), LENGTHS[flat], known[flat], reference[flat],
                         torch.zeros(len(flat), LONGEST, dtype=torch.float64))  # fmt: skip
    losses = objective.losses(per_answer[flat], torch.zeros_like(known[flat]), None, rollout,
                              objective.weighed(rollout, None))  # fmt: skip
    chances = known.sum(1).exp()[chosen].prod(dim=1)
    assert float(chances.sum()) == pytest.approx(1)
    (losses.reshape(chosen.shape).mean(dim=1) * chances).sum().backward()
    return -LONGEST * table.grad.numpy()


def off(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def test_there_are_as_many_answers_as_there_should_be():
    assert len(ANSWERS) == 1 + 2 + 4 + 8
    assert float(token_logps(REFERENCE).sum(1).exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("samples", [2, 3])
def test_leave_one_out_has_the_gradient_of_the_return(samples):
    """With a constant divisor; one that depends on the lengths of the answers is off by more than a tenth."""
    assert off(expected_gradient(samples), exact_gradient(0.0)) < 1e-13


@pytest.mark.parametrize("settings", [{"kl_in": "reward"}, {"kl_in": "loss", "kl_estimator": "k1"}, {"kl_in": "loss"}])
def test_kl_has_the_gradient_of_the_divergence_of_whole_answers(settings):
    """Beside the reward, and alone, where the gradient of k1 as it stands would be zero."""
    for rewards in (REWARDS, 0 * REWARDS):
        found = expected_gradient(kl_coefficient=0.7, rewards=rewards, **settings)
        assert off(found, exact_gradient(0.7, rewards)) < 1e-13


def test_k2_and_k3_know_the_next_token_alone():
    """As their docstrings say; with answers of one token k2 is exact."""
    exact = exact_gradient(0.7, 0 * REWARDS)
    for estimator in ("k2", "k3"):
        found = expected_gradient(kl_coefficient=0.7, rewards=0 * REWARDS, kl_in="loss", kl_estimator=estimator)
        assert off(found, exact) > 0.05


@pytest.mark.parametrize("settings", [{"whiten": "rewards"}, {"whiten": "rewards", "estimator": "grpo"}])
def test_equal_returns_have_no_deviation_to_divide_by(settings):
    """The mean of equal float32 numbers may round away from them."""
    for score, samples in ((0.1, 7), (0.3, 8), (0.7, 10)):
        config = PolicyConfig(model="m", train_file="x", samples=samples, max_length=128, kl_coefficient=0, **settings)
        table = torch.zeros(samples, 2)
        known = Experience(torch.full((samples,), score), torch.ones(samples).bool(),
                           torch.full((samples,), 2), table, table, table)  # fmt: skip
        assert Objective(config).weighed(known, None).advantages.abs().max() < 1e-5


# -- the weights of the prompts --------------------------------------------------------------------

SUCCESS = np.array([0.3, 0.5, 0.7])  # of three prompts whose answers are right or wrong
RULE = TotalVariation(0.34)


def every_draw(samples: int) -> tuple[torch.Tensor, np.ndarray]:
    """All returns of three prompts up to the order of their answers within each half, and their probabilities."""
    half = samples // 2
    counts = np.array(list(itertools.product(range(half + 1), repeat=6)))
    chances = binom.pmf(counts, half, np.repeat(SUCCESS, 2)).prod(axis=1)
    first = np.arange(half) < counts.reshape(-1, 3, 2, 1)  # (draws, prompts, halves, answers)
    returns = np.moveaxis(first, 2, 3).reshape(len(counts), 3, samples)  # the halves alternate
    return torch.tensor(returns, dtype=torch.float64), chances


def mean_gradients(samples: int, weigh) -> np.ndarray:
    """E [n q_i (R_ij - baseline) score_ij] / 3 per prompt: d p / d logit is p (1 - p)."""
    returns, chances = every_draw(samples)
    total = np.zeros(3)
    for draw, chance in zip(returns, chances, strict=True):
        multipliers = weigh(draw, RULE).numpy()
        r = draw.numpy()
        advantages = (r - r.mean(axis=1, keepdims=True)) * samples / (samples - 1)
        total += chance * (multipliers * advantages * (r - SUCCESS[:, None])).mean(axis=1) / 3
    return total


@pytest.mark.parametrize("samples", [2, 4])
def test_split_weights_do_not_bias_the_gradient_of_a_prompt(samples):
    """Given its mean weight; weights from the same answers do."""
    slopes = SUCCESS * (1 - SUCCESS)
    returns, chances = every_draw(samples)
    mean_weight = sum(
        c * split_multipliers(d, RULE).numpy().mean(axis=1) for d, c in zip(returns, chances, strict=True)
    )
    np.testing.assert_allclose(mean_gradients(samples, split_multipliers), mean_weight * slopes / 3, atol=1e-12)
    same = sum(c * prompt_multipliers(d, RULE).numpy().mean(axis=1) for d, c in zip(returns, chances, strict=True))
    assert off(mean_gradients(samples, prompt_multipliers), same * slopes / 3) > 0.01


def test_the_logged_value_is_no_longer_below_the_worst_case():
    """The mean of what chose the weights is below it, the held-out value is not."""
    returns, chances = every_draw(4)
    exact = -float(worst_case(-SUCCESS, RULE).value)
    same = sum(c * float((prompt_multipliers(d, RULE) * d).mean()) for d, c in zip(returns, chances, strict=True))
    held_out = sum(c * float(held_out_value(d, RULE)) for d, c in zip(returns, chances, strict=True))
    assert same < exact - 0.03
    assert exact < held_out < SUCCESS.mean()
    assert float(held_out_value(returns[7], None)) == pytest.approx(float(returns[7].mean()))


@pytest.mark.parametrize("estimate", ["same", "split"])
def test_a_rule_with_a_state_moves_once_a_step_whatever_is_logged(estimate):
    config = PolicyConfig(model="m", train_file="x", samples=4, max_new_tokens=LONGEST, max_length=8, kl_coefficient=0,
                          ambiguity="gr_dpo:0.5,by=source", adversary_estimate=estimate)  # fmt: skip
    rule, flat = parse_reweighting(config.ambiguity), torch.arange(12) % len(ANSWERS)
    assert isinstance(rule, GroupAscent)
    rule, logps = rule.bind({"source": ["a", "b", "b"]}), token_logps(REFERENCE)[flat]
    rollout = Experience(REWARDS[flat], torch.ones(12).bool(), LENGTHS[flat], logps, logps, torch.zeros(12, LONGEST))
    for step in (1, 2):
        weighed = Objective(config).weighed(rollout, rule, np.arange(3))
        advance_prompts(weighed.returns.reshape(3, 4), rule, np.arange(3))
        values = REWARDS[flat].reshape(3, 4).mean(dim=1).numpy()
        raised = np.exp(-0.5 * step * np.array([values[0], values[1:].mean()]))
        np.testing.assert_allclose(np.exp(rule.log_weights), raised / raised.sum(), rtol=1e-6)


def test_sampled_counts_are_those_of_synthetic():
    """The enumeration above has as many draws of one prompt as there are ways to count successes in two halves."""
    assert len(every_draw(4)[1]) == len(sample_counts(2, 2)) ** 6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"minibatches": 3}, "does not divide the 64 answers"),
        ({"adversary_estimate": "split", "version": "A"}, "take version B"),
        ({"adversary_estimate": "split", "optimizer": "npg"}, "take version B and optimizer=optim"),
        ({"adversary_estimate": "split", "samples": 1, "estimator": "ppo"}, "samples to 2 or more"),
    ],
)
def test_settings_that_would_bias_in_silence_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        PolicyConfig(model="m", train_file="x", **wrong)


def test_a_set_asks_for_more_answers():
    assert PolicyConfig(model="m", train_file="x").samples == 4
    assert PolicyConfig(model="m", train_file="x", ambiguity="tv:0.2").samples == 16
    assert PolicyConfig(model="m", train_file="x", ambiguity="tv:0.2", samples=5).samples == 5
