"""What an adversary is shown of prompts: bias and variance against exact sums over all answers, padding, books."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
import torch

from dro_core import TotalVariation, worst_case
from llm.adversary.adversary import Adversary
from llm.adversary.effective_batch import EffectiveBatch
from llm.adversary.inaction import bound
from llm.adversary.rules import advance, exposed, reweighted
from llm.adversary.spec import parse_reweighting
from llm.adversary.weightings.estimates import with_answers
from llm.policy.prompt_weights import advance_prompts, prompt_multipliers

CHANCES, ANSWERS = np.array([0.1, 0.6, 0.9]), 3
FAMILIES = {"source": ["a", "a", "b"]}


def rule_of(spec):
    return with_answers(bound(parse_reweighting(spec), FAMILIES, batch=3), ANSWERS)


def outcomes():
    """Every count of right answers to the three prompts, with its probability."""
    for counts in product(range(ANSWERS + 1), repeat=3):
        each = [comb(ANSWERS, k) * p**k * (1 - p) ** (ANSWERS - k) for k, p in zip(counts, CHANCES, strict=True)]
        yield np.array(counts) / ANSWERS, np.prod(each)


def shown(rule, rates):
    return -exposed(rule, -torch.from_numpy(rates))[1].numpy()


def moments(estimates):
    """Mean and variance, exactly, of ``[(estimate, probability)]``."""
    mean = sum(chance * value for value, chance in estimates)
    return mean, sum(chance * (value - mean) ** 2 for value, chance in estimates)


DRAWN = CHANCES * (1 - CHANCES) / ANSWERS  # the variance of a share of three answers


def test_a_running_mean_has_no_bias_and_less_variance():
    """Over all pairs of two steps."""
    found, decay = [], 0.75
    for first, chance in outcomes():
        rule = rule_of(f"running:{decay}:tv:0.2")
        np.testing.assert_allclose(shown(rule, first), first)
        advance(rule, -torch.from_numpy(first))
        found += [(shown(rule, second), chance * also) for second, also in outcomes()]
    mean, variance = moments(found)
    np.testing.assert_allclose(mean, CHANCES)
    np.testing.assert_allclose(variance, (decay**2 + (1 - decay) ** 2) * DRAWN)


def test_the_variance_of_a_running_mean_falls_to_what_is_told():
    """Its state is linear in what was drawn: the response to one draw at a time gives the variance after many."""
    decay, steps = 0.8, 60
    responses = []
    for step in range(steps):
        rule = rule_of(f"running:{decay}:tv:0.2")
        for now in range(steps):
            rates = np.full(3, float(now == step))
            last = shown(rule, rates)
            advance(rule, -torch.from_numpy(rates))
        responses.append(last[0])
    assert sum(responses) == pytest.approx(1)
    assert sum(x**2 for x in responses) == pytest.approx((1 - decay) / (1 + decay), rel=1e-4)


def test_a_running_mean_lags_behind_a_policy_that_moves():
    rule = rule_of("running:0.5:tv:0.2")
    for rates in ([0.0] * 3, [1.0] * 3):
        last = shown(rule, np.array(rates))
        advance(rule, -torch.tensor(rates, dtype=torch.float64))
    np.testing.assert_allclose(last, 0.5)


@pytest.mark.parametrize("pseudo", [0.0, 1.0, 6.0])
def test_a_shrunk_share_has_the_bias_and_variance_of_its_prior(pseudo):
    """Against the posterior mean of a Beta prior of that many answers at the mean of the batch, over all outcomes."""
    found, wanted = [], []
    for rates, chance in outcomes():
        alpha = pseudo * rates.mean()
        wanted.append(((alpha + ANSWERS * rates) / (pseudo + ANSWERS), chance))
        found.append((shown(rule_of(f"shrunk:{pseudo:g}:tv:0.2"), rates), chance))
    for one, other in zip(moments(found), moments(wanted), strict=True):
        np.testing.assert_allclose(one, other)
    bias = pseudo / (pseudo + ANSWERS) * (CHANCES.mean() - CHANCES)
    np.testing.assert_allclose(moments(found)[0], CHANCES + bias)


def test_the_mean_that_is_shrunk_to_is_slow():
    rule = rule_of("shrunk:9:tv:0.2")
    before = shown(rule, np.zeros(3))
    advance(rule, -torch.zeros(3, dtype=torch.float64))
    after = shown(rule, np.ones(3))  # the mean is .1 now
    np.testing.assert_allclose(before, 0)
    np.testing.assert_allclose(after, (3 * 1 + 9 * 0.1) / 12)


def test_a_pooled_share_is_that_of_its_family():
    found = [(shown(rule_of("pooled:tv:0.2,by=source"), rates), chance) for rates, chance in outcomes()]
    mean, variance = moments(found)
    np.testing.assert_allclose(mean, [0.35, 0.35, 0.9])
    np.testing.assert_allclose(variance, [DRAWN[:2].sum() / 4] * 2 + [DRAWN[2]])


def test_estimates_are_nested_and_the_outer_one_is_shown_first():
    rule = rule_of("running:0.5:pooled:tv:0.2,by=source")
    advance(rule, -torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(shown(rule, np.array([1.0, 0.0, 1.0])), [0.25, 0.25, 0.5])


@pytest.mark.parametrize("spec", ["running:0.5:tv:0.3", "shrunk:2:tv:0.3", "pooled:tv:0.3,by=source"])
@pytest.mark.parametrize("outer", ["", "micro:3:", "shuffled:"])
def test_weights_are_those_of_the_set_on_what_is_shown_and_padding_is_not(spec, outer):
    rates = np.array([0.0, 1.0, 0.5])
    subject, plain = (Adversary(rule_of(outer + spec), 3) for _ in range(2))
    for _ in range(2):
        seen = shown(plain.rule, rates)
        losses = -torch.from_numpy(np.append(rates, 0.0))
        present = torch.tensor([1.0, 1, 1, 0], dtype=torch.float64)
        batch = EffectiveBatch(losses, torch.tensor([0, 1, 2, 0]), present, slice(0, 4), padded=True)
        found = subject.weigh(batch, step=0, strength=1.0, accuracy=None)
        assert found[3] == 0
        if outer != "shuffled:":
            np.testing.assert_allclose(found[:3], worst_case(-seen, TotalVariation(0.3)).weights)
        np.testing.assert_allclose(subject.ledger.last_loss, -rates, atol=1e-6)
        whole = EffectiveBatch(losses[:3], torch.arange(3), torch.ones(3), slice(0, 3), padded=False)
        plain.weigh(whole, step=0, strength=1.0, accuracy=None)
        np.testing.assert_allclose(shown(subject.rule, rates), shown(plain.rule, rates))
        rates = np.array([0.5, 0.5, 0.0])


def test_a_prompt_that_stands_twice_counts_once():
    rule = bound(parse_reweighting("running:0.5:tv:0.2"), {}, batch=3).take(np.array([7, 2, 7]))
    np.testing.assert_allclose(shown(rule, np.array([0.0, 0.25, 1.0])), [0.5, 0.25, 0.5])
    advance(rule, -torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(shown(rule, np.array([1.0, 0.25, 1.0])), [0.75, 0.25, 0.75])


def test_prompts_that_were_never_asked_have_no_past():
    rule = bound(parse_reweighting("running:0.9:tv:0.2"), {}, batch=2)
    advance(rule.take(np.array([5, 1])), -torch.tensor([1.0, 0.0]))
    np.testing.assert_allclose(shown(rule.take(np.array([9, 5, 0])), np.array([0.5, 0.0, 1.0])), [0.5, 0.9, 1.0])


@pytest.mark.parametrize("way", ["a batch", "a policy"])
def test_prompts_that_were_asked_tell_of_themselves_though_they_count_nothing(way):
    """Groups without a signal that are left out: estimates from the others alone would be of another policy."""
    rule, rates = rule_of("running:0.5:tv:0.3"), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    counts = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    for _ in range(2):
        if way == "a batch":
            given = (-rates, torch.arange(3), counts, slice(0, 3))
            batch = EffectiveBatch(*given, padded=True, asked=torch.ones(3, dtype=torch.bool))
            weights = Adversary(rule, 3).weigh(batch, step=0, strength=1.0, accuracy=None)
        else:
            asked = {"rows": np.arange(3), "reference": counts}
            weights = prompt_multipliers(rates[:, None].expand(3, 2), rule, **asked)[:, 0] / 3
            advance_prompts(rates[:, None].expand(3, 2), rule, **asked)
        torch.testing.assert_close(weights, counts)
        rates = 1 - rates
    np.testing.assert_allclose(-rule.memory.state, [0.5, 0.5, 0.5])


def test_a_count_of_answers_that_nobody_told_is_asked_for():
    with pytest.raises(ValueError, match="how many answers"):
        reweighted(parse_reweighting("shrunk:4:tv:0.2"), torch.tensor([-1.0, 0.0]))
