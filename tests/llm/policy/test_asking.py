"""Which prompts a step asks, what they count, and groups whose answers tell nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bigram import Table, bigram, trainer
from hypothesis import given
from hypothesis import strategies as st
from policy_two_ranks import Fixed

from dro_core import parse_ambiguity, worst_case
from llm.policy.asking.order import drawn, in_turn, inclusion
from llm.policy.asking.signal import Group, draw, tells
from llm.policy.config import PolicyConfig
from llm.training.config import ConfigError

# Rewards of three actions to eight prompts: the second half are solved by every answer or by none.
REWARDS = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0.0]])


def subject(folder, *, rewards=REWARDS, arguments=None, **settings):
    settings = {"samples": 8, "prompts_per_step": len(rewards), **settings}
    found = trainer(bigram(len(rewards), 3), rewards, folder, actions=3, arguments=arguments, **settings)
    found.pen = Fixed(found.pen.tokenizer)
    return found


def policy_of(found):
    return found.core.policy.lm_head.weight.detach()


# -- groups without a signal ------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["erm", "tv:0.3", "kl_penalty:0.5"])
def test_groups_that_are_left_out_are_as_if_they_had_not_been_asked(spec, tmp_path):
    """The step is that of the other prompts alone: the same weights, the same mean."""
    whole = subject(tmp_path, ambiguity=spec, silent_groups="leave_out")
    kept = subject(tmp_path, ambiguity=spec)
    for one in (whole, kept):
        one.take_step()
    step = whole.adversary.ledger
    assert step.visits.tolist() == [1] * 4 + [0] * 4
    values = np.array([np.mean([REWARDS[i][a] for a in _actions(whole, i)]) for i in range(4)])
    expected = np.ones(4) if spec == "erm" else 4 * worst_case(-values, parse_ambiguity(spec)).weights
    np.testing.assert_allclose(step.multiplier_sum[:4], expected, rtol=1e-5, atol=1e-7)
    moved, less = policy_of(whole), policy_of(kept)
    if spec == "erm":  # half of the prompts are left out, so the others count twice
        torch.testing.assert_close(moved, 2 * less, rtol=1e-6, atol=1e-9)
    assert (moved - less).abs().max() > 1e-3


def _actions(found, prompt):
    rng = [np.random.default_rng([found.encoded[prompt][0], k]) for k in range(8)]
    return [int(draws.integers(2, 5, size=draws.integers(1, 5))[0]) - 2 for draws in rng]


@pytest.mark.parametrize("silent_groups", ["leave_out", "draw_again"])
def test_a_step_without_any_signal_is_skipped_and_counted(silent_groups, tmp_path):
    """Not even the momentum of the optimizer moves the policy."""
    told = {"optim": "adamw_torch", "max_steps": 2, "logging_steps": 1, "weight_decay": 0.1}
    found = subject(tmp_path, rewards=REWARDS.copy(), arguments=told, silent_groups=silent_groups)
    first = found.take_step()
    assert first["skipped"] == 0
    before = policy_of(found).clone()
    found.scorer = Table(np.ones_like(REWARDS))
    second = found.take_step()
    assert second["skipped"] == 1
    assert second["all_right"] == 1
    assert torch.equal(policy_of(found), before)
    assert all(np.isfinite(value) for name, value in second.items() if name != "samples")
    found.waiting = [first, second]
    found.step = 2
    found.train()  # logs nothing more: it has ended
    assert found.history == []


def test_the_log_counts_what_tells_nothing(tmp_path):
    found = subject(tmp_path, ambiguity="kl_penalty:0.5")
    said = found.take_step()
    assert (said["all_right"], said["all_wrong"], said["all_alike"], said["groups_per_prompt"]) == (0.25, 0.25, 0, 1)
    values = REWARDS.mean(axis=1)
    values[:4] = [np.mean([REWARDS[i][a] for a in _actions(found, i)]) for i in range(4)]
    q = worst_case(-values, parse_ambiguity("kl_penalty:0.5")).weights
    assert said["weight_without_signal"] == pytest.approx(q[4:].sum(), rel=1e-5)


def test_others_are_asked_in_place_of_those_without_a_signal(tmp_path):
    """Two of a step's four tell nothing; the six others hold two that do."""
    found = subject(tmp_path, silent_groups="draw_again", prompts_per_step=4, draw_rounds=9)
    rows = found.order.rows(0, None)
    silent = int((rows >= 4).sum())
    assert silent > 0  # of this seed
    said = found.take_step()
    visited = np.flatnonzero(found.adversary.ledger.visits)
    assert set(visited) == {0, 1, 2, 3}  # all that tell something
    assert said["groups_per_prompt"] > 1
    assert said["skipped"] == 0
    again = subject(tmp_path, silent_groups="draw_again", prompts_per_step=4, draw_rounds=9)
    assert again.take_step()["groups_per_prompt"] == said["groups_per_prompt"]
    assert torch.equal(policy_of(again), policy_of(found))


class Asking:
    """Groups whose scores the row decides: those of ``loud`` tell something."""

    def __init__(self, loud):
        self.loud, self.rounds = loud, []

    def __call__(self, rows):
        self.rounds.append(list(rows))
        return [Group(int(i), [], [], np.array([0.0, float(i in self.loud)])) for i in rows]


@given(st.sets(st.integers(0, 19)), st.integers(1, 8), st.integers(0, 5))
def test_no_prompt_is_asked_twice_and_silent_groups_is_thrown_away(loud, size, rounds):
    ask, others = Asking(loud), iter(range(size, 20))
    found = draw(ask, np.arange(size), others=others, rounds=rounds)
    asked = [row for some in ask.rounds for row in some]
    assert len(asked) == len(set(asked)) == found.asked
    assert len(found.groups) == size
    assert len(ask.rounds) <= rounds + 1
    told = [group.row for group in found.groups if tells(group.scores)]
    assert set(told) == set(asked) & loud
    assert found.all_wrong == len(set(asked) - loud)
    if len(told) < size:  # it stopped for a reason
        assert len(ask.rounds) == rounds + 1 or len(asked) == 20


def test_answers_of_one_score_tell_something_where_some_have_no_end(tmp_path):
    """The penalty is what they differ by, so such groups are neither left out nor replaced."""
    told = {"silent_groups": "leave_out", "missing_end_penalty": 0.5, "max_new_tokens": 4}
    found = subject(tmp_path, rewards=np.zeros_like(REWARDS), **told)

    class Half(Fixed):
        def _answer(self, ids, rng):
            answer = super()._answer(ids, rng)
            return replace(answer, ended=len(answer.ids) % 2 == 0)

    found.pen = Half(found.pen.tokenizer)
    said = found.take_step()
    assert (said["skipped"], said["prompts_counted"]) == (0, 8)
    assert said["all_wrong"] == 0
    assert found.adversary.ledger.visits.all()
    without = subject(tmp_path, rewards=np.zeros_like(REWARDS), silent_groups="leave_out")
    assert without.take_step()["skipped"] == 1


def test_the_log_of_weights_is_about_prompts_that_count(tmp_path):
    """Half of them are left out: they are no sign of too large a set."""
    found = subject(tmp_path, ambiguity="kl_penalty:0.5", silent_groups="leave_out")
    said = found.take_step()
    values = np.array([np.mean([REWARDS[i][a] for a in _actions(found, i)]) for i in range(4)])
    q = worst_case(-values, parse_ambiguity("kl_penalty:0.5")).weights
    assert said["prompts_counted"] == 4
    assert said["zero_share"] == 0
    assert said["largest_multiplier"] == pytest.approx(4 * q.max(), rel=1e-5)
    assert said["effective_sample_size"] == pytest.approx(1 / (q @ q), rel=1e-5)
    assert said["weight_without_signal"] == 0


def test_what_is_not_finite_tells():
    """So that it reaches the check that stops the run."""
    assert tells(np.array([[np.nan, np.nan], [1.0, np.nan], [1.0, 1.0], [0.0, 1.0]])).tolist() == [
        True, True, False, True,
    ]  # fmt: skip


# -- which prompts are asked -----------------------------------------------------------------------


def test_weights_that_are_all_but_nothing_are_drawn_last():
    found = inclusion(np.array([1.0, 2e-309, 0.0]), 2, floor=0.0)
    np.testing.assert_allclose(found, [1, 1, 0])
    np.testing.assert_allclose(inclusion(np.array([1.0, 0.0, 0.0]), 2, floor=0.0), [1, 0.5, 0.5])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(0, 1), st.data())
def test_inclusion_probabilities_are_in_proportion_up_to_one(weights, floor, data):
    size = data.draw(st.integers(1, len(weights)))
    q = np.array(weights) + (0 if sum(weights) > 1e-3 else 1)
    q /= q.sum()
    found = inclusion(q, size, floor=floor)
    assert found.sum() == pytest.approx(size)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-12
    mixed = (1 - floor) * q + floor / len(q)
    inside = (found < 1 - 1e-9) & (mixed > 1e-6)
    if (mixed > 1e-6).sum() >= size and inside.sum() > 1:  # else the rest is shared out
        ratios = found[inside] / mixed[inside]
        assert np.ptp(ratios) <= 1e-6 * ratios.max() or (mixed <= 1e-6).any()
    rows = drawn(found, np.random.default_rng(data.draw(st.integers(0, 99))))
    assert len(rows) == size == len(set(rows.tolist()))


def test_every_prompt_is_drawn_as_often_as_it_should_be():
    probabilities = inclusion(np.array([0.5, 0.2, 0.15, 0.1, 0.05]), 2, floor=0.1)
    rng, counts = np.random.default_rng(0), np.zeros(5)
    for _ in range(20_000):
        counts[drawn(probabilities, rng)] += 1
    np.testing.assert_allclose(counts / 20_000, probabilities, atol=4 * 0.5 / np.sqrt(20_000))


def test_an_epoch_asks_every_prompt_once():
    rows = np.concatenate([in_turn(step, 12, 3, seed=5) for step in range(4)])
    assert sorted(rows) == list(range(12))
    assert in_turn(4, 12, 3, seed=5).tolist() != rows[:3].tolist()


@pytest.mark.parametrize("acts", ["draws", "draws_corrected"])
def test_an_adversary_that_draws_asks_hard_prompts_more_often(acts, tmp_path):
    """By the worst case over all prompts of what they were worth; corrected draws count p / pi."""
    values = np.linspace(0, 1, 8)
    found = subject(tmp_path, ambiguity="kl_penalty:0.2", adversary_acts=acts, prompts_per_step=2, draw_floor=0.1)
    found.adversary.ledger.last_loss[:] = -values
    q = worst_case(-values, parse_ambiguity("kl_penalty:0.2")).weights
    rule = found.adversary.at(1.0)
    probabilities = inclusion(q, 2, floor=0.1)
    np.testing.assert_allclose(found.order.inclusion(rule), probabilities, rtol=1e-6)
    counts = np.zeros(8)
    for step in range(4000):
        counts[found.order.rows(step, rule)] += 1
    np.testing.assert_allclose(counts / 4000, probabilities, atol=4 * 0.5 / np.sqrt(4000))
    rows, scores = np.array([1, 6]), torch.tensor([[0.0, 1.0]] * 2, dtype=torch.float64)
    reference = found.order.reference(scores, rows, rule)
    if acts == "draws":
        assert reference is None
    else:
        np.testing.assert_allclose(reference, 1 / 8 / probabilities[rows], rtol=1e-6)
    assert found.order.answered(np.ones(2), rule).max() == pytest.approx(probabilities.max() * 4)


@pytest.mark.exhaustive(turns=8)
def test_corrected_draws_have_the_mean_of_plain_training(tmp_path):
    """The sum over the drawn of p / pi L, over all that can be drawn with their chances, is the mean of L."""
    found = subject(tmp_path, ambiguity="kl_penalty:0.2", adversary_acts="draws_corrected", prompts_per_step=3)
    found.adversary.ledger.last_loss[:] = -np.linspace(0, 1, 8)
    rule, losses = found.adversary.at(1.0), np.random.default_rng(1).normal(size=8)
    scores = torch.tensor([[0.0, 1.0]] * 3, dtype=torch.float64)
    sums = []
    for step in range(6000):
        rows = found.order.rows(step, rule)
        sums.append(float(found.order.reference(scores, rows, rule).numpy() @ losses[rows]))
    assert np.mean(sums) == pytest.approx(losses.mean(), abs=4 * np.std(sums) / np.sqrt(6000))


@pytest.mark.parametrize("rewards", [REWARDS, np.ones_like(REWARDS)], ids=["some tell", "none tells"])
def test_what_is_left_out_is_known_to_those_that_draw(rewards, tmp_path):
    """A prompt that is solved by now is worth 1, whatever it was worth when it last told something."""
    found = subject(tmp_path, rewards=rewards, ambiguity="kl_penalty:0.2", adversary_acts="draws",
                    silent_groups="leave_out", kl_coefficient=0.0)  # fmt: skip
    found.adversary.ledger.last_loss[:] = -0.1
    assert found.take_step()["skipped"] == float(rewards is not REWARDS)
    ledger, silent = found.adversary.ledger, rewards.min(axis=1) == rewards.max(axis=1)
    np.testing.assert_array_equal(ledger.last_loss[silent], -rewards[silent, 0])
    assert ledger.visits.tolist() == (~silent).astype(int).tolist()


def test_before_anything_is_known_all_are_drawn_alike(tmp_path):
    found = subject(tmp_path, ambiguity="tv:0.5", adversary_acts="draws", prompts_per_step=2)
    np.testing.assert_allclose(found.order.inclusion(found.adversary.at(1.0)), 0.25)
    found.take_step()
    found.step = 1
    found.take_step()
    assert found.adversary.ledger.acted


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"silent_groups": "drop"}, "silent_groups must be one of keep, leave_out, draw_again"),
        ({"silent_groups": "leave_out", "samples": 1}, "set samples to 2 or more"),
        ({"silent_groups": "leave_out", "version": "A"}, "take version B"),
        ({"silent_groups": "draw_again", "estimator": "ppo"}, "estimator=ppo learns from equal scores, too"),
        ({"draw_rounds": 0}, "draw_rounds must be at least 1"),
        ({"draw_floor": 1.5}, "draw_floor must lie in"),
        ({"adversary_acts": "draws"}, "name an ambiguity"),
        (
            {"adversary_acts": "draws", "ambiguity": "tv:0.2", "silent_groups": "draw_again"},
            "silent_groups=draw_again out",
        ),
        ({"adversary_acts": "draws", "ambiguity": "tv:0.2", "adversary_estimate": "split"}, "split and"),
        ({"adversary_acts": "draws_corrected", "ambiguity": "tv:0.2", "draw_floor": 0}, "set draw_floor above 0"),
        ({"adversary_acts": "both"}, "adversary_acts must be one of"),
        ({"silent_groups": "leave_out", "optimizer": "npg"}, "drop length_divisor and silent_groups"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(wrong, said):
    with pytest.raises(ConfigError) as caught:
        PolicyConfig(**{"model": "m", "train_file": "x", "samples": 4, "max_length": 128, **wrong})
    assert said in str(caught.value)
