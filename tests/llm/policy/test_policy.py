"""The policy trainer on tabular bandits and chains with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bigram import bigram, one_action, trainer
from exact import close

from dro_core import worst_case
from llm.adversary.spec import parse_reweighting
from llm.policy.config import PolicyConfig
from llm.policy.experience import Experience
from llm.policy.observation import observed
from llm.policy.update import Rollout
from llm.training.config import ConfigError
from synthetic.bandits import policies
from synthetic.bandits.mdp import prompts as bandit_of

# Every row holds 8 answers, each as often as its probability says: means over samples are expectations.
PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5], [0.25, 0.625, 0.125]])
REWARDS = np.array([[1.0, 0.2, -0.5], [0.3, 0.1, 2.0], [-1.0, 0.4, 0.2], [0.0, 0.7, 0.9]])
BANDIT = bandit_of(REWARDS)
RULES = ["erm", "tv:0.3", "cvar:0.4", "chi2:0.5", "kl:0.3", "tv:0.4,by=source", "kldpo:0.5"]


def enumerated(subject) -> Rollout:
    """All answers in exact proportion, looked at and weighed by the trainer's own code."""
    actions = [np.repeat(np.arange(3), (8 * row).astype(int)) for row in PROBABILITIES]
    answers = [one_action(i, int(a), actions=3) for i, row in enumerate(actions) for a in row]
    scores = torch.tensor([REWARDS[i, a] for i, row in enumerate(actions) for a in row])
    seen = observed(subject.core, subject.reference, answers, pad=0, size=7)
    ended = torch.zeros(32, dtype=torch.bool)
    experience = Experience(scores, ended, seen.lengths, seen.logps, seen.reference, seen.values)
    return Rollout(answers, experience, subject.weigh(experience, np.arange(4)), 0)


def table_gradient(model) -> np.ndarray:
    """Of the logits of the actions after each prompt, as synthetic lays a tabular policy out."""
    return model.lm_head.weight.grad[2:5, 5:].T.numpy().ravel()


def weights_of(rule: str, reference=None) -> np.ndarray:
    found = parse_reweighting(rule)
    losses = -BANDIT.values(PROBABILITIES)
    if found is None:
        return np.full(4, 0.25) if reference is None else reference
    bound = found.bind({"source": ["a", "b", "a", "b"], "category": [""] * 4})
    if rule.startswith("kldpo"):
        tilted = np.exp(losses / 0.5) * (1 if reference is None else reference)
        return tilted / tilted.sum()
    return np.asarray(worst_case(losses, bound, reference=reference).weights)


@pytest.mark.parametrize("version", ["A", "B"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("estimator", ["rloo", "ppo"])
def test_policy_gradient_is_the_exact_robust_gradient(estimator, rule, version, tmp_path):
    """Micro-batches of 5 rows, whatever their composition, add up to the gradient of the worst-case value."""
    model, start = bigram(4, 3, np.log(PROBABILITIES)), np.log(PROBABILITIES).ravel()
    told = {"per_device_train_batch_size": 5}
    subject = trainer(
        model, REWARDS, tmp_path, actions=3, estimator=estimator, ambiguity=rule, version=version, samples=8,
        lambda_=1.0, value_coefficient=0.0, arguments=told,
    )  # fmt: skip
    rollout = enumerated(subject)
    subject.update.minibatch(rollout, torch.randperm(32, generator=torch.Generator().manual_seed(1)))
    exact = policies.policy_gradient(policies.TabularPolicy(4, 3), start, BANDIT, start=weights_of(rule))
    baseline = 8 / 7 if estimator == "rloo" else 1.0  # from 7 of 8 stratified draws
    close(table_gradient(model), -baseline * exact, 1e-12)


@pytest.mark.parametrize("version", ["A", "B"])
@pytest.mark.parametrize("rule", RULES)
def test_weights_of_prompts_are_the_reference_of_the_exact_gradient(rule, version, tmp_path):
    model, start = bigram(4, 3, np.log(PROBABILITIES)), np.log(PROBABILITIES).ravel()
    weights = [2.0, None, 0.5, 4.0]
    reference = np.array([2.0, 1.0, 0.5, 4.0]) / 7.5
    subject = trainer(
        model, REWARDS, tmp_path, actions=3, ambiguity=rule, version=version, samples=8, weights=weights
    )  # fmt: skip
    rollout = enumerated(subject)
    subject.update.minibatch(rollout, torch.arange(32))
    found = weights_of(rule, reference)
    exact = policies.policy_gradient(policies.TabularPolicy(4, 3), start, BANDIT, start=found)
    close(table_gradient(model), -8 / 7 * exact, 1e-6)  # masses are float32
    np.testing.assert_allclose(subject.ledger.multiplier_sum, found / reference, rtol=1e-6)


@pytest.mark.parametrize("rule", ["erm", "tv:0.3"])
def test_weights_of_prompts_that_are_equal_change_no_bit(rule, tmp_path):
    found = []
    for name, weights in (("none", None), ("equal", [3.0] * 4)):
        model = bigram(4, 3, np.log(PROBABILITIES))
        subject = trainer(model, REWARDS, tmp_path / name, actions=3, ambiguity=rule, samples=4, weights=weights)
        subject.take_step()
        found.append(model.lm_head.weight.detach().clone())
    assert torch.equal(*found)


def test_rules_that_deal_weights_refuse_weights_of_prompts(tmp_path):
    with pytest.raises(ValueError, match="which must count alike"):
        trainer(bigram(4, 3), REWARDS, tmp_path, actions=3, ambiguity="shuffled:tv:0.3", weights=[1.0, 2.0, 1.0, 1.0])


def test_an_answer_without_weight_takes_no_forward_pass(tmp_path, monkeypatch):
    model = bigram(4, 3, np.log(PROBABILITIES))
    subject = trainer(model, REWARDS, tmp_path, actions=3, ambiguity="tv:0.4", samples=8)
    rollout = enumerated(subject)
    seen = []
    look = subject.update.look
    monkeypatch.setattr(subject.update, "look", lambda r, rows, m: seen.append(len(rows)) or look(r, rows, m))
    subject.update.minibatch(rollout, torch.arange(32))
    weightless = int((weights_of("tv:0.4") == 0).sum())
    assert weightless > 0
    assert sum(seen) == 32 - 8 * weightless


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"estimator": "ppo"},
        {"estimator": "ppo", "value_model": "shared"},
        {"version": "A", "whiten": "advantages"},
        {"optimizer": "npg"},
    ],
    ids=str,
)
def test_radius_zero_takes_the_steps_of_plain_training(settings, tmp_path):
    found = []
    for rule in ("erm", "tv:0", "cvar:1", "tv:0,by=source"):
        model = bigram(4, 3, np.log(PROBABILITIES))
        subject = trainer(model, REWARDS, tmp_path / rule.replace(":", ""), actions=3, ambiguity=rule, samples=4,
                          arguments={"max_steps": 3}, **settings)  # fmt: skip
        for _ in range(3):
            subject.take_step()
            subject.step += 1
            found.append(model.lm_head.weight.detach().clone())
    for row in range(3, 12):
        assert torch.equal(found[row], found[row % 3])
    assert not torch.equal(found[0], found[2])


@pytest.mark.slow("it trains to the optimum")
@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "rloo"},
        {"estimator": "rloo", "kl_in": "loss", "kl_estimator": "k2"},
        {"estimator": "ppo", "lambda_": 0.95, "epochs": 2, "minibatches": 2},
        {"estimator": "ppo", "value_model": "shared", "ambiguity": "tv:0.2"},
        {"estimator": "rloo", "optimizer": "npg", "npg_damping": 1e-3},
    ],
    ids=str,
)
def test_training_reaches_the_kl_regularised_optimum(settings, tmp_path):
    """pi_ref exp(r / beta) / Z, also for the worst mixture of prompts: the optimum of every prompt is its own."""
    reference, beta, prompts = PROBABILITIES[:2], 0.5, 2
    model = bigram(prompts, 3, np.log(reference))
    rate, steps = (0.4, 40) if settings.get("optimizer") == "npg" else (0.1, 40 if "epochs" in settings else 100)
    told = {"optim": "adamw_torch", "learning_rate": rate, "max_steps": steps, "lr_scheduler_type": "linear"}
    subject = trainer(
        model, REWARDS[:2], tmp_path, actions=3, samples=32, kl_coefficient=beta, arguments=told, **settings
    )
    subject.train()
    learned = model.lm_head.weight[2:5, 5:].T.detach().softmax(1).numpy()
    optimum = reference * np.exp(REWARDS[:2] / beta)
    optimum /= optimum.sum(axis=1, keepdims=True)
    assert np.abs(learned - optimum).sum(axis=1).max() / 2 < 0.05
    assert np.abs(reference - optimum).sum(axis=1).min() / 2 > 0.2


class FirstAction:
    """An answer is worth 1 if it begins with action 0, and that is said at its end."""

    def __call__(self, prompts, answers):
        return np.array([float(text.startswith("a0")) for text in answers])


def test_credit_reaches_the_first_of_six_actions(tmp_path):
    """A learner that pays every action its immediate reward, a bandit at every token, cannot learn this."""
    learned = []
    for discount in (1.0, 0.0):
        model = bigram(1, 2, np.zeros((1, 2)))
        told = {"optim": "adamw_torch", "learning_rate": 0.1, "max_steps": 25}
        subject = trainer(
            model, [[0, 0]], tmp_path, actions=2, scorer=FirstAction(), estimator="ppo", discount=discount,
            samples=64, max_new_tokens=6, arguments=told,
        )  # fmt: skip
        subject.train()
        learned.append(float(model.lm_head.weight[2:4, 4].detach().softmax(0)[0]))
    assert learned[0] > 0.95
    assert abs(learned[1] - 0.5) < 0.2


def test_natural_step_is_the_weighted_one_of_explicit_matrices(tmp_path):
    """Damped F_q from the same samples, built entry by entry."""
    model, rule = bigram(4, 3, np.log(PROBABILITIES)), "tv:0.3"
    before = model.lm_head.weight.detach().clone()
    subject = trainer(model, REWARDS, tmp_path, actions=3, ambiguity=rule, samples=8, optimizer="npg",
                      npg_damping=0.05, npg_steps=50)  # fmt: skip
    rollout = enumerated(subject)
    subject.update(rollout, generator=torch.Generator())
    q, probabilities = weights_of(rule), PROBABILITIES
    fisher, gradient = np.zeros((12, 12)), np.zeros(12)
    for i in range(4):
        for a in range(3):
            score = np.zeros(12)
            score[3 * i : 3 * i + 3] = np.eye(3)[a] - probabilities[i]
            advantage = 8 / 7 * (REWARDS[i, a] - probabilities[i] @ REWARDS[i])
            fisher += q[i] * probabilities[i, a] * np.outer(score, score)
            gradient += q[i] * probabilities[i, a] * advantage * score
    step = np.linalg.solve(fisher + 0.05 * np.eye(12), gradient)
    moved = (model.lm_head.weight.detach() - before)[2:5, 5:].T.numpy().ravel()
    np.testing.assert_allclose(moved, 0.1 * step, atol=1e-6)


def test_versions_part_where_rewards_are_whitened_or_values_learned(tmp_path):
    for settings, same in (({}, True), ({"whiten": "advantages"}, False), ({"whiten": "rewards"}, False)):
        found = []
        for version in "AB":
            model = bigram(4, 3, np.log(PROBABILITIES))
            subject = trainer(
                model, REWARDS, tmp_path, actions=3, ambiguity="tv:0.3", samples=8, version=version, **settings
            )
            rollout = enumerated(subject)
            subject.update.minibatch(rollout, torch.arange(32))
            found.append(table_gradient(model))
        assert (np.abs(found[0] - found[1]).max() < 1e-12) == same


def test_score_alone_may_decide_the_weights(tmp_path):
    """With the KL charge outside, the adversary sees scores, and in version A the charge is not weighted."""
    model = bigram(4, 3, np.zeros((4, 3)))
    shared = {"actions": 3, "ambiguity": "tv:0.3", "samples": 8, "kl_coefficient": 0.7, "version": "A"}
    for sees in ("score", "return"):
        subject = trainer(model, REWARDS, tmp_path, adversary_sees=sees, **shared)
        subject.reference.model.lm_head.weight.data[2:5, 5:] = torch.tensor(np.log(PROBABILITIES).T)
        rollout = enumerated(subject)
        known, multipliers = rollout.experience, rollout.weighed.multipliers.reshape(4, 8)[:, 0]
        charge = 0.7 * known.kl
        value = (known.scores - charge if sees == "return" else known.scores).reshape(4, 8).mean(1)
        close(multipliers, 4 * worst_case(-value, parse_reweighting("tv:0.3")).weights)
        m = rollout.weighed.multipliers
        reward = m * known.scores - charge if sees == "score" else m * (known.scores - charge)
        table = reward.reshape(4, 8)
        close(rollout.weighed.advantages.flatten(), (8 / 7 * (table - table.mean(1, keepdim=True))).flatten())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": 1}, "samples to 2"),
        ({"max_new_tokens": 40, "max_length": 32}, "no room for a prompt"),
        ({"version": "B", "adversary_sees": "score"}, "kl_in=loss, version A"),
        ({"optimizer": "npg", "epochs": 2}, "takes one step"),
        ({"reference": "adapter"}, "set lora_rank"),
        ({"model": "tiny"}, "writes noise"),
        ({"estimator": "reinforce"}, "unknown estimator 'reinforce'; the known ones are: rloo, ppo"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"lambda_": 1.5}, r"lambda_ must lie in \[0, 1\]"),
        ({"clip": -0.1}, "clip must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        PolicyConfig(**{"train_file": "x", "model": "m", **wrong})
