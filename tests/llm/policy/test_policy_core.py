"""The core of robust policy optimisation against exact bandits, enumeration, numpy recursions and explicit matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact import close, normal, spoiled

from dro_core import CVaR, Grouped, TotalVariation, worst_case
from llm.adversary.rules import DrDPO, reweighted
from llm.adversary.spec import parse_reweighting
from llm.policy.advantages.tokens import generalised_advantages, leave_one_out, penalised_rewards, whitened
from llm.policy.prompt_weights import prompt_multipliers, scale_losses, scale_rewards
from llm.policy.surrogate import clipped_surrogate, k2, kl_estimate
from synthetic.bandits import policies
from synthetic.bandits.mdp import KLRegulariser, prompts
from synthetic.bandits.natural_gradient import worst_value

RAGGED = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
# Every row holds 8 answers, each answer as often as its probability says: means over samples are expectations.
PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5], [0.25, 0.625, 0.125]])
ANSWERS = torch.tensor(np.array([np.repeat(np.arange(3), (8 * row).astype(int)) for row in PROBABILITIES]))
REWARDS = np.array([[1.0, 0.2, -0.5], [0.3, 0.1, 2.0], [-1.0, 0.4, 0.2], [0.0, 0.7, 0.9]])
BANDIT = prompts(REWARDS)
RETURNS = torch.tensor(REWARDS).gather(1, ANSWERS)
SETS = [TotalVariation(0.3), CVaR(0.4), parse_reweighting("kldpo:0.5")]


def sampled_logps(theta):
    """Log-probabilities of the enumerated samples under a tabular policy, shape (prompts, 8, 1): one token each."""
    return theta.reshape(4, 3).log_softmax(1).gather(1, ANSWERS)[..., None]


def surrogate_of(logps, old, **options):
    mask = torch.ones_like(logps, dtype=torch.bool)
    return lambda a: clipped_surrogate(logps, old, a.reshape(logps.shape[:2])[..., None], mask, **options)


def weighted_losses(version, rewards, multipliers, advantages, surrogate, **terms):
    weighted = version(rewards, multipliers, advantages)
    return weighted.losses(surrogate(weighted.advantages), **terms)


@pytest.mark.parametrize(("discount", "lambda_"), [(1.0, 0.95), (0.9, 0.0), (0.7, 1.0), (0.8, 0.5)])
def test_gae_is_the_discounted_sum_of_one_step_errors(discount, lambda_):
    rewards, values, bootstrap = normal(1, 5, 5), normal(2, 5, 5), normal(3, 5)
    expected = np.zeros((5, 5))
    for row, kept in enumerate(RAGGED.numpy()):
        (places,) = np.nonzero(kept)
        r, v = rewards.numpy()[row][places], np.append(values.numpy()[row][places], bootstrap[row])
        for i, place in enumerate(places):
            deltas = [r[k] + discount * v[k + 1] - v[k] for k in range(i, len(r))]
            expected[row, place] = sum((discount * lambda_) ** k * delta for k, delta in enumerate(deltas))
    options = {"discount": discount, "lambda_": lambda_}
    spoilt = spoiled(rewards, RAGGED), spoiled(values, RAGGED)
    close(generalised_advantages(*spoilt, RAGGED, bootstrap=bootstrap, **options), expected)
    ended = generalised_advantages(*spoilt, RAGGED, **options)
    close(ended, generalised_advantages(rewards, values, RAGGED, bootstrap=torch.zeros_like(bootstrap), **options))


def test_leave_one_out_is_the_return_less_the_mean_of_the_others():
    returns = normal(4, 3, 5)
    expected = [[float(r[j] - np.delete(r, j).mean()) for j in range(5)] for r in returns.numpy()]
    close(leave_one_out(returns), expected)


def test_whitening_has_mean_zero_and_variance_one_inside_the_mask_only():
    advantages = 7 + 3 * normal(5, 5, 5)
    white = whitened(spoiled(advantages, RAGGED), RAGGED, floor=0.0)
    kept = advantages[RAGGED].numpy()
    close(white[RAGGED], (kept - kept.mean()) / kept.std(ddof=1))
    assert white[~RAGGED].eq(0).all()
    assert whitened(torch.full((4,), 3.0)).eq(0).all()


def test_rewards_of_tokens_sum_to_the_score_less_the_kl_charge_and_end_with_the_score():
    scores, logps, reference = normal(6, 5), normal(7, 5, 5), normal(8, 5, 5)
    rewards = penalised_rewards(scores, spoiled(logps, RAGGED), spoiled(reference, RAGGED), RAGGED, strength=0.3)
    charge = 0.3 * ((logps - reference) * RAGGED).sum(1)
    close(rewards.sum(1)[:4], (scores - charge)[:4])
    plain = penalised_rewards(scores, logps, reference, RAGGED, strength=0.0)
    close(plain[range(4), [4, 2, 0, 3]], scores[:4])
    assert plain[4].eq(0).all()
    assert plain.count_nonzero() == 4


@pytest.mark.parametrize("rule", [None, *SETS], ids=str)
def test_policy_gradient_at_ratio_one_is_the_robust_gradient_of_the_exact_bandit(rule):
    start = np.log(PROBABILITIES).ravel()
    q = np.full(4, 0.25) if rule is None else np.asarray(worst_case(-BANDIT.values(PROBABILITIES), rule).weights)
    exact = policies.policy_gradient(policies.TabularPolicy(4, 3), start, BANDIT, start=q)
    multipliers = prompt_multipliers(RETURNS, rule)
    close(multipliers, np.repeat(4 * q[:, None], 8, axis=1))
    for advantages, factor in ((lambda r: r, 1.0), (leave_one_out, 8 / 7)):  # a baseline from 7 of 8 stratified draws
        for version in (scale_rewards, scale_losses):
            theta = torch.tensor(start, requires_grad=True)
            logps = sampled_logps(theta)
            weighted_losses(
                version, RETURNS, multipliers, advantages, surrogate_of(logps, logps.detach())
            ).mean().backward()
            close(theta.grad, -factor * exact)


def test_that_gradient_is_the_slope_of_the_worst_case_value_with_kl_inside():
    """Finite differences of the exact worst value; the charge is in the returns, so the adversary sees it."""
    start, reference, tv = np.log(PROBABILITIES).ravel(), np.full((4, 3), 1 / 3), TotalVariation(0.3)
    policy, regulariser = policies.TabularPolicy(4, 3), KLRegulariser(reference, 0.4)

    def value(theta):
        return worst_value(policies.policy_values(policy, theta, BANDIT, regulariser=regulariser), tv, BANDIT.start)

    slopes = [(value(start + 1e-5 * e) - value(start - 1e-5 * e)) / 2e-5 for e in np.eye(12)]
    theta = torch.tensor(start, requires_grad=True)
    logps = sampled_logps(theta)
    mask = torch.ones_like(logps, dtype=torch.bool)
    uniform = torch.full_like(logps, np.log(1 / 3))
    charged = penalised_rewards(RETURNS, logps, uniform, mask, strength=0.4)
    multipliers = prompt_multipliers(charged.sum(-1), tv)
    loss = weighted_losses(scale_losses, charged, multipliers, lambda r: r, surrogate_of(logps, logps.detach())).mean()
    close(torch.autograd.grad(loss, theta, retain_graph=True)[0], -np.array(slopes), 1e-8)
    penalty = 0.4 * kl_estimate(logps, uniform, mask, estimator=k2)  # the same charge, as a term of the loss
    inside = weighted_losses(
        scale_rewards, RETURNS, multipliers, lambda r: r, surrogate_of(logps, logps.detach()), inside=penalty
    )
    close(torch.autograd.grad(inside.mean(), theta)[0], -np.array(slopes), 1e-8)


def both_versions(advantages, rewards=RETURNS, seed=23, **terms):
    """Losses and gradients of A and of B far from ratio 1."""
    theta, old = torch.tensor(np.log(PROBABILITIES)).requires_grad_(), sampled_logps(normal(seed, 12))
    multipliers = prompt_multipliers(RETURNS, TotalVariation(0.4))
    logps = sampled_logps(theta)
    found = []
    for version in (scale_rewards, scale_losses):
        losses = weighted_losses(version, rewards, multipliers, advantages, surrogate_of(logps, old), **terms)
        found += [losses, torch.autograd.grad(losses.mean(), theta, retain_graph=True)[0]]
    return (*found, multipliers)


def test_versions_coincide_where_every_map_is_positively_homogeneous():
    mask, values, terms = torch.ones(4, 8, 1).bool(), normal(24, 4, 8, 1), {"inside": normal(25, 4, 8), "outside": 0.3}
    tokens = lambda v: lambda r: generalised_advantages(r, v, mask, lambda_=0.9)  # noqa: E731
    for advantages, rewards in (
        (lambda r: r, RETURNS),
        (leave_one_out, RETURNS),
        (tokens(0 * values), RETURNS[..., None]),
    ):
        losses_a, gradient_a, losses_b, gradient_b, multipliers = both_versions(advantages, rewards, **terms)
        close(losses_a, losses_b)
        close(gradient_a, gradient_b)
        assert multipliers.min() == 0  # a prompt that drops out, and others that do not
    together = generalised_advantages(
        multipliers[..., None] * RETURNS[..., None], multipliers[..., None] * values, mask
    )
    close(together, multipliers[..., None] * generalised_advantages(RETURNS[..., None], values, mask))


def test_versions_differ_where_theory_says():
    mask, values = torch.ones(4, 8, 1).bool(), normal(24, 4, 8, 1)
    fixed_values = both_versions(lambda r: generalised_advantages(r, values, mask), RETURNS[..., None])
    charged_later = both_versions(lambda r: leave_one_out(r) - 0.3)
    whitening = both_versions(lambda r: whitened(leave_one_out(r)))
    for losses_a, gradient_a, losses_b, gradient_b, _ in (fixed_values, charged_later, whitening):
        assert (losses_a - losses_b).abs().max() > 0.1
        assert (gradient_a - gradient_b).norm() > 0.1 * gradient_b.norm()
    by_group = lambda r: leave_one_out(r) / r.std(dim=1, keepdim=True).clamp_min(1e-9)  # noqa: E731
    losses_a, _, losses_b, _, multipliers = both_versions(by_group)
    kept = multipliers > 0
    close(losses_a[kept], (losses_b / multipliers)[kept])  # A's own normalisation undoes the adversary
    assert (losses_a - losses_b)[kept].abs().max() > 0.1


def test_penalties_outside_are_not_weighted_and_those_inside_are():
    penalty, multipliers = normal(26, 4, 8), prompt_multipliers(RETURNS, TotalVariation(0.3))
    for version in (scale_rewards, scale_losses):
        scaled = lambda **terms: weighted_losses(version, RETURNS, multipliers, leave_one_out, lambda a: -a, **terms)  # noqa: B023, E731
        bare = scaled()
        close(scaled(outside=penalty) - bare, penalty)
        close(scaled(inside=penalty) - bare, multipliers * penalty)


def test_on_policy_rloo_weights_are_known_before_any_forward_pass():
    advantages, logps = leave_one_out(RETURNS).flatten(), sampled_logps(normal(27, 12)).reshape(32, 1)
    losses = clipped_surrogate(logps, logps, advantages[:, None], torch.ones(32, 1).bool())
    for rule in (*SETS, DrDPO(0.5)):
        assert torch.equal(reweighted(rule, losses), reweighted(rule, -advantages))
    assert leave_one_out(RETURNS).mean(1).abs().max() < 1e-15  # over prompts they say nothing


@pytest.mark.parametrize("count", [3, 49, 1000])
def test_radius_zero_is_plain_training_bit_by_bit(count):
    returns, labels = normal(28, count, 2), np.arange(count) % 3
    for rule in (None, TotalVariation(0.0), CVaR(1.0)):
        assert torch.equal(prompt_multipliers(returns, rule), torch.ones_like(returns))  # n (1/n) is not 1 for n = 49
    grouped = prompt_multipliers(returns.float(), Grouped(TotalVariation(0.0), labels))
    assert torch.equal(grouped, torch.ones(count, 2))


def test_rules_are_bound_once_and_take_the_places_of_the_prompts():
    rule = parse_reweighting("tv:0.4,by=source").bind({"source": ["a", "b", "c", "a", "b", "b"]})
    multipliers = prompt_multipliers(RETURNS, rule, rows=np.array([5, 0, 3, 1]))
    direct = worst_case(-RETURNS.mean(1), Grouped(TotalVariation(0.4), np.array([1, 0, 0, 1]))).weights
    close(multipliers[:, 0], 4 * direct)
    masses = torch.tensor([0.5, 0.0, 0.25, 0.25], dtype=torch.float64)
    weighted = prompt_multipliers(RETURNS, TotalVariation(0.2), reference=masses)[:, 0]
    close(weighted, 4 * worst_case(-RETURNS.mean(1), TotalVariation(0.2), reference=masses).weights)
    close(prompt_multipliers(RETURNS, None, reference=masses)[:, 0], 4 * masses)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x, m: leave_one_out(x[:, :1]), "at least 2 samples"),
        (lambda x, m: generalised_advantages(x, x, m, lambda_=1.2), r"`lambda_` .* \[0, 1\], got 1.2"),
        (lambda x, m: penalised_rewards(x[:, 0], x, x, m, strength=-1.0), "at least 0, got -1"),
    ],
)
def test_wrong_sizes_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call(normal(35, 5, 5), RAGGED)
