"""Groups of completions that all earned the same under TRL's online trainers: counted, left out, drawn again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import trl_signal_ranks
from forked import finished, start_ranks
from robust_trl import ROUNDING, Halt, load, logged, trainer_for
from tiny_trl import Gradients, flat_gradient, relative_error
from trl_signal import Checked, drawn, groups, mean_of_those_with_a_signal

from llm.trl.signal import Batch, Signals, drawn_together, further_rows, put_together

# TRL still asks by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")
EXHAUSTIVE = pytest.mark.exhaustive
PLAIN = {"grpo": {"scale_rewards": "none"}, "rloo": {}, "dapo": {"scale_rewards": "none", "loss_type": "dapo"}}


def made(tiny, name, folder, spec=None, *, judge=None, callbacks=None, config=None, **ours):
    told = PLAIN[name] | {"learning_rate": 1e-3} | (config or {})
    trainer = trainer_for(tiny, name.replace("dapo", "grpo"), folder, spec, callbacks=callbacks, extra=ours, **told)
    trainer.reward_funcs[0] = judge or Checked()
    return trainer


def shares(trainer):
    """Signals by hand, from what the reward function saw first: without signal, all right, all wrong."""
    first = list(groups(trainer.reward_funcs[0].judged).values())[:4]
    right, wrong = ([set(group) == {value} for group in first] for value in (1, 0))
    return [float(np.mean(x)) for x in ([len(set(group)) == 1 for group in first], right, wrong)]


@pytest.mark.parametrize("silent_groups", ["keep", "leave_out", "draw_again"])
@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_what_teaches_nothing_is_counted_in_every_case(tiny, tmp_path, name, silent_groups):
    trainer = made(tiny, name, tmp_path, "tv:0.25", silent_groups=silent_groups)
    trainer.train()
    (found,) = logged(trainer, *(f"groups/{what}" for what in ("without_signal", "all_right", "all_wrong")))
    assert found == pytest.approx(shares(trainer))
    assert 0 < found[0] < 1
    assert ("groups/skipped_step" in trainer.state.log_history[0]) is (silent_groups != "keep")


@pytest.mark.parametrize(
    ("name", "spec", "silent_groups"),
    [
        ("grpo", None, "leave_out"),
        ("rloo", "cvar:0.5", "leave_out"),
        ("dapo", None, "leave_out"),
        ("grpo", "tv:0.25", "draw_again"),
        ("rloo", None, "draw_again"),
        pytest.param("grpo", "tv:0.25", "leave_out", marks=EXHAUSTIVE),
        pytest.param("rloo", None, "leave_out", marks=EXHAUSTIVE),
        pytest.param("dapo", None, "draw_again", marks=EXHAUSTIVE),
    ],
)
def test_the_gradient_is_that_of_the_mean_over_groups_with_a_signal(tiny, tmp_path, name, spec, silent_groups):
    """Worked out without TRL; after drawing again every group has one, and the batch its size."""
    gradients = Gradients()
    trainer = made(tiny, name, tmp_path, spec, callbacks=[gradients], silent_groups=silent_groups, draw_rounds=20)
    trainer.train()
    batch = drawn(trainer)
    assert len(batch) == 16
    has = {prompt: max(group) > min(group) for prompt, group in groups(trainer.reward_funcs[0].judged).items()}
    prompts = {prompt for *_, prompt, _ in batch}
    assert len(prompts) == 4
    assert all(has[prompt] for prompt in prompts) is (silent_groups == "draw_again")
    model = load(tiny, "causal")
    mean_of_those_with_a_signal(trainer, model, batch, spec, name=name).backward()
    assert relative_error(gradients.steps[0], flat_gradient(model)) <= ROUNDING[name.replace("dapo", "grpo")]
    index = {row["prompt"]: i for i, row in enumerate(tiny.data)}
    visited = {index[prompt] for prompt in prompts if has[prompt]}
    assert set(np.flatnonzero(trainer.ledger.visits)) == visited


def test_rounds_end_and_what_is_still_silent_is_left_out(tiny, tmp_path):
    """Of one round: as many prompts as lacked a signal, none asked twice, each at most once in the batch."""
    trainer = made(tiny, "grpo", tmp_path, silent_groups="draw_again", draw_rounds=1)
    trainer.train()
    judged = groups(trainer.reward_funcs[0].judged)
    assert {len(group) for group in judged.values()} == {4}
    lively = [max(group) > min(group) for group in judged.values()]
    assert len(judged) == 4 + lively[:4].count(False)
    assert logged(trainer, "groups/rounds") == [[1.0]]
    assert len(np.flatnonzero(trainer.ledger.visits)) == sum(lively) < 4


class Fading(Checked):
    """Tells answers apart for the first steps alone, and then finds all of them wrong."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def __call__(self, prompts, completions, **kwargs):
        rewards = super().__call__(prompts, completions, **kwargs)
        self.left -= 1
        return rewards if self.left >= 0 else [0.0] * len(rewards)


@pytest.mark.parametrize("silent_groups", ["leave_out", "draw_again"])
@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_a_step_without_any_signal_is_skipped_whole(tiny, tmp_path, name, silent_groups):
    """Momentum and weight decay would move the model, too; and the KL that a trainer charges."""
    config = {"max_steps": 3, "weight_decay": 0.1, "beta": 0.1}
    weights = {}
    for steps in (1, 3):
        trainer = made(
            tiny,
            name,
            tmp_path / str(steps),
            judge=Fading(1),
            silent_groups=silent_groups,
            config=config | {"max_steps": steps},
        )
        trainer.train()
        weights[steps] = torch.cat([part.detach().flatten() for part in trainer.model.parameters()])
    assert torch.equal(weights[1], weights[3])
    assert not torch.equal(weights[1], torch.cat([part.flatten() for part in load(tiny, "causal").parameters()]))
    rows = logged(trainer, "groups/skipped_step", "groups/without_signal", "loss")
    assert [row[0] for row in rows] == [0.0, 1.0, 1.0]
    assert [row[1] for row in rows][1:] == [1.0, 1.0]
    assert np.isfinite(rows).all()


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("name", ["grpo", pytest.param("rloo", marks=EXHAUSTIVE)])
def test_what_is_drawn_again_is_decided_by_the_seed_also_after_a_stop(tiny, tmp_path, name):

    def run(folder, *, again=None, **told):
        config = {"max_steps": 4, "save_steps": 2, "save_strategy": "steps"}
        trainer = made(tiny, name, folder, "running:0.5:tv:0.2", silent_groups="draw_again", config=config, **told)
        trainer.train(resume_from_checkpoint=again)
        return trainer

    whole = run(tmp_path / "whole")
    assert run(tmp_path / "again").reward_funcs[0].judged == whole.reward_funcs[0].judged
    first = run(tmp_path / "run", callbacks=[Halt()])
    second = run(tmp_path / "run", again=True)
    asked = first.reward_funcs[0].judged + second.reward_funcs[0].judged
    assert asked == whole.reward_funcs[0].judged
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    np.testing.assert_array_equal(whole.ledger.multiplier_sum, second.ledger.multiplier_sum)


@pytest.mark.exhaustive(turns=8)
def test_two_ranks_draw_the_same_and_take_the_mean_of_all(tmp_path):
    """Three prompts of four completions, so that one is shared out; the mean is over the groups of both ranks."""
    finished(start_ranks(trl_signal_ranks.main, tmp_path))
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 4
    for name, error, prompts, rounds in found:
        assert error <= ROUNDING[name.split()[0]], name
        assert len(set(map(tuple, prompts))) == 1, name  # both ranks know the same prompts
        assert len(set(rounds)) == 1, name
    assert max(rounds[0] for *_, rounds in found) > 0


@pytest.mark.parametrize(
    ("name", "config", "ours", "said"),
    [
        ("grpo", {}, {"silent_groups": "drop"}, "silent_groups is one of keep, leave_out, draw_again"),
        ("grpo", {}, {"silent_groups": "draw_again", "draw_rounds": 0}, "draw_rounds at least 1"),
        ("grpo", {"loss_type": "bnpo"}, {"silent_groups": "leave_out"}, "'bnpo' is not one: take one of grpo"),
        ("grpo", {"scale_rewards": "batch"}, {"silent_groups": "draw_again"}, "set scale_rewards to 'group'"),
        ("rloo", {"normalize_advantages": True}, {"silent_groups": "draw_again"}, "normalize_advantages=False"),
    ],
)
def test_what_would_not_be_a_mean_over_groups_is_refused(tiny, tmp_path, name, config, ours, said):
    with pytest.raises(ValueError, match=said):
        made(tiny, name, tmp_path, config=config, **ours)


def test_values_that_are_no_shares_are_refused_by_a_weighting_of_prompts(tiny, tmp_path):
    trainer = trainer_for(tiny, "grpo", tmp_path, "maxrl")
    with pytest.raises(ValueError, match="share of right answers"):
        trainer.train()


@pytest.mark.parametrize("spec", ["maxrl", "shrunk:4:rs_grpo:2", "curverl,bins=5", "pooled:riskpo,by=source"])
def test_every_kind_of_weighting_trains_under_trl(tiny, tmp_path, spec):
    trainer = made(tiny, "rloo", tmp_path, spec, silent_groups="draw_again", config={"max_steps": 2})
    trainer.train()
    assert trainer.ledger.multiplier_sum.sum() == pytest.approx(trainer.ledger.visits.sum())
    assert getattr(trainer.ambiguity, "answers", 4) == 4  # what a mean is of, told to what shrinks it
    assert trainer.ledger.acted


def test_a_running_mean_counts_groups_that_are_left_out(tiny, tmp_path):
    trainer = made(tiny, "grpo", tmp_path, "running:0.5:tv:0.25", silent_groups="leave_out")
    trainer.train()
    judged = {prompt: np.mean(group) for prompt, group in groups(trainer.reward_funcs[0].judged).items()}
    known = -trainer.ambiguity.memory.state
    found = {tiny.data[int(i)]["prompt"]: known[i] for i in np.flatnonzero(~np.isnan(known))}
    assert found == pytest.approx(judged)
    assert len(found) == 4 > len(np.flatnonzero(trainer.ledger.visits))


@pytest.mark.parametrize(("loss_type", "wanted"), [("dapo", 36 / 20), ("cispo", 36 / 20), ("dr_grpo", 4 / 2)])
def test_the_denominator_is_what_the_loss_is_divided_by(tiny, tmp_path, loss_type, wanted):
    """Of four prompts two have a signal, whose completions hold 20 of 36 tokens; one could not be judged."""
    trainer = made(tiny, "grpo", tmp_path, silent_groups="leave_out", config={"loss_type": loss_type})
    rewards = torch.tensor([[0.0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1], [torch.nan] * 4])
    trainer._seen_rewards = rewards.reshape(-1, 1)
    lengths = torch.tensor([[1, 2, 3, 4], [4, 4, 4, 3], [4, 3, 2, 1], [1, 0, 0, 0]]).reshape(-1, 1)
    mask = (torch.arange(4) < lengths).int()
    factors = trainer._multipliers(torch.arange(4), {"completion_mask": mask}).reshape(4, 4)
    there = torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)
    torch.testing.assert_close(factors, wanted * there[:, None].expand(4, 4))


def test_groups_are_told_by_their_rewards():
    nan = torch.nan
    rewards = torch.tensor([[0.0, 0], [1, 1], [0, 1], [nan, 1], [nan, nan], [0.5, 0.5], [2, 2], [-1, -1]])
    found = Signals.of(rewards)
    assert found.signal.tolist() == [False, False, True, *[False] * 5]
    assert found.right.tolist() == [False, True, False, True, False, False, True, False]
    assert found.wrong.tolist() == [True, *[False] * 6, True]


def test_batches_of_different_widths_are_put_together():
    """By hand: prompts are padded on the left, completions on the right."""

    def batch(prompts, completions, first):
        count = len(completions)
        tensors = {
            "prompt_ids": torch.tensor(prompts), "completion_ids": torch.tensor(completions),
            "completion_mask": torch.ones(count, len(completions[0])), "advantages": torch.arange(count) + first,
        }  # fmt: skip
        return Batch(tensors, torch.arange(count)[:, None] + first, torch.arange(count // 2) + first)

    one = batch([[1], [2], [3], [4]], [[11, 12], [21, 22], [31, 32], [41, 42]], 0)
    other = batch([[5, 6], [7, 8]], [[51], [71]], 10)
    found = put_together([one, other], [(1, 0), (0, 1)], samples=2, blank=9)
    assert found.tensors["prompt_ids"].tolist() == [[5, 6], [7, 8], [9, 3], [9, 4]]
    assert found.tensors["completion_ids"].tolist() == [[51, 9], [71, 9], [31, 32], [41, 42]]
    assert found.tensors["completion_mask"].tolist() == [[1, 0], [1, 0], [1, 1], [1, 1]]
    assert found.tensors["advantages"].tolist() == [10, 11, 2, 3]
    assert (found.rewards.flatten().tolist(), found.index.tolist()) == ([10, 11, 2, 3], [10, 1])
    counted = found.mine({"num_items_in_batch": torch.tensor(99), "advantages": None}, start=1, size=2)
    assert counted["num_items_in_batch"] == 6
    assert counted["advantages"].tolist() == [11, 2]


def test_draws_divide_among_ranks_and_never_repeat():
    for lacking, left, samples, ranks in [(0, 9, 4, 2), (3, 9, 4, 2), (3, 9, 3, 2), (5, 4, 3, 4), (2, 1, 3, 2)]:
        many = drawn_together(lacking, left, samples=samples, ranks=ranks)
        assert many * samples % ranks == 0
        assert many <= left
        assert many >= min(lacking, left - ranks + 1)
    rows = further_rows(20, [3, 4], [1, 2])
    assert sorted(rows) == [i for i in range(20) if i not in (3, 4)]
    assert rows != further_rows(20, [3, 4], [1, 3])
