"""Published advantages of groups: exact expectations, closed forms, and derivatives of what they say they climb."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from llm.policy.advantages.groups import (
    group_mean,
    group_standardised,
    leave_one_out,
    max_of_k,
    maximum_likelihood,
    prompt_weight,
    risk_seeking,
)

RATES = [0.05, 0.3, 0.5, 0.9]
SIZES = [2, 3, 8]
OURS = {
    "leave_one_out": leave_one_out, "group_mean": group_mean, "standardised": group_standardised,
    "max_of_2": partial(max_of_k, k=2), "maximum_likelihood": maximum_likelihood,
    "risk_seeking": partial(risk_seeking, beta=2.0),
}  # fmt: skip


def binomial(advantage, rate, size):
    """w by another way: the numbers of successes and their chances, in numpy."""
    from scipy.stats import binom

    total = 0.0
    for k in range(size + 1):
        rewards = np.r_[np.ones(k), np.zeros(size - k)]
        a = advantage(torch.tensor(rewards)).numpy()
        total += binom.pmf(k, size, rate) * np.mean(a * (rewards - rate)) / (rate * (1 - rate))
    return total


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("size", SIZES)
def test_the_enumeration_agrees_with_the_binomial(name, size):
    for rate in RATES:
        assert prompt_weight(OURS[name], rate, size) == pytest.approx(binomial(OURS[name], rate, size), rel=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("p", RATES)
def test_expectations_are_those_that_are_claimed(p, size):
    assert prompt_weight(leave_one_out, p, size) == pytest.approx(1.0)
    assert prompt_weight(group_mean, p, size) == pytest.approx((size - 1) / size)
    plain = partial(maximum_likelihood, baseline=False)
    truncated = (1 - (1 - p) ** size) / p
    assert prompt_weight(plain, p, size) == pytest.approx(truncated)
    assert prompt_weight(maximum_likelihood, p, size) == pytest.approx(truncated - (1 - p) ** (size - 1))
    for k in range(1, size + 1):
        assert prompt_weight(partial(max_of_k, k=k), p, size) == pytest.approx(k * (1 - p) ** (k - 1))


def test_eight_answers_weigh_a_hard_prompt_as_the_theory_counts():
    assert prompt_weight(partial(maximum_likelihood, baseline=False), 0.05, 8) == pytest.approx(6.73, abs=0.005)


def test_standardised_advantages_rise_towards_both_ends_where_groups_are_large():
    middle, hard, easy = (prompt_weight(group_standardised, p, 16) for p in (0.5, 0.15, 0.85))
    assert hard == pytest.approx(easy)
    assert hard > middle
    for size in (2, 8, 16):
        assert prompt_weight(group_standardised, 1e-7, size) == pytest.approx((size - 1) / size**0.5, rel=1e-5)


def test_risk_seeking_tends_to_its_limit_and_to_the_mean():
    p, beta = 0.3, 2.0
    limit = 1 / (beta * p + beta / np.expm1(beta))
    found = [prompt_weight(partial(risk_seeking, beta=beta), p, size) for size in (4, 8, 16)]
    assert np.all(np.diff(np.abs(np.array(found) - limit)) < 0)
    rewards = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(risk_seeking(rewards, 1e-6), group_mean(rewards), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_best_of_k_is_climbed_for_any_rewards(k):
    """Against the gradient of the exact expectation over all answers, by autograd; answers have real rewards."""
    size = 4
    values = torch.tensor([-1.0, 0.5, 2.0, 0.5], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64, requires_grad=True)
    chances = torch.softmax(logits, 0)
    best = sum(chances[list(draw)].prod() * values[list(draw)].max() for draw in itertools.product(range(4), repeat=k))
    (expected,) = torch.autograd.grad(best, logits)
    found = torch.zeros(4, dtype=torch.float64)
    fixed = chances.detach()
    for draw in itertools.product(range(4), repeat=size):
        advantages = max_of_k(values[list(draw)], k)
        scores = torch.eye(4, dtype=torch.float64)[list(draw)] - fixed
        found += fixed[list(draw)].prod() * (advantages[:, None] * scores).mean(dim=0)
    torch.testing.assert_close(found, expected)


def test_the_best_of_k_counts_all_choices():
    """Ties included, in any order of the answers, against every choice of the others."""
    rewards = torch.tensor([[1.0, 3.0, 3.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    for k in (2, 3, 5):
        for row in rewards:
            expected = []
            for j in range(5):
                others = [float(row[i]) for i in range(5) if i != j]
                gains = [max(float(row[j]) - max(s), 0.0) for s in itertools.combinations(others, k - 1)]
                expected.append(k * np.mean(gains))
            assert max_of_k(row, k).tolist() == pytest.approx(expected)
        assert torch.equal(max_of_k(rewards, k)[0], max_of_k(rewards[0], k))


@pytest.mark.parametrize("name", OURS)
def test_groups_without_signal_have_no_advantage(name):
    for reward in (0.0, 1.0):
        advantages = OURS[name](torch.full((2, 4), reward))
        assert advantages.isfinite().all()
        assert not advantages.any()


@pytest.mark.parametrize("name", OURS)
def test_groups_of_equal_shares_have_no_advantage_beyond_rounding(name):
    """The mean of equal numbers is another number now and then, and what is divided by their deviation is not small."""
    for size, share, precision in itertools.product(
        (3, 6, 7, 8, 10), (0.1, 0.3, 1 / 3, 0.7), (torch.float32, torch.float64)
    ):
        for groups in (1, 4):  # one alone is summed in another order
            advantages = OURS[name](torch.full((groups, size), share, dtype=precision))
            assert advantages.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: group_standardised(torch.ones(3, 1)), "at least 2 answers"),
        (lambda: group_mean(torch.ones(3, 0)), "at least 1 answers"),
        (lambda: max_of_k(torch.ones(3), 4), "draw at least 4"),
        (lambda: max_of_k(torch.ones(3), 0), "draw at least 1"),
        (lambda: maximum_likelihood(torch.tensor([-1.0, 1.0])), "at least 0, got -1"),
        (lambda: risk_seeking(torch.ones(2), 0.0), "beta must be positive"),
        (lambda: prompt_weight(group_mean, 1.0, 4), "a rate in"),
        (lambda: prompt_weight(group_mean, 0.5, 17), "1 to 16 answers"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(call, said):
    with pytest.raises(ValueError, match=said):
        call()
