"""The adversary of a TRL run is the same whether it was stopped or not, and every rule trains."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from robust_trl import Halt, Letters, assert_same_training, logged, trainer_for

from llm.adversary.ledger import LEDGER
from llm.adversary.rules import state_of
from llm.adversary.schedule import AdaptiveStrength, RadiusSchedule
from llm.adversary.spec import parse_reweighting
from llm.training.resuming import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")
EXHAUSTIVE = pytest.mark.exhaustive
SAVED = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 1}


def held_out(tiny, name, **more):
    extra = {"eval_dataset": tiny.data.select(range(4)), "adaptive": AdaptiveStrength("loss", level=0.5), **more}
    return (
        {**SAVED, "extra": extra, "schedule": RadiusSchedule(ramp_share=0.9)}
        if name in ("reward", "dpo")
        else {key: value for key, value in SAVED.items() if "eval" not in key}
    )


def parameters(trainer):
    return torch.cat([part.detach().flatten() for part in trainer.model.parameters()])


@pytest.mark.parametrize("spec", ["tv:0.2", pytest.param("tv:0.3,by=source", marks=EXHAUSTIVE)])
@pytest.mark.parametrize("name", ["reward", pytest.param("dpo", marks=EXHAUSTIVE), "grpo",
                                  pytest.param("rloo", marks=EXHAUSTIVE)])  # fmt: skip
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tiny, tmp_path, name, spec):
    """Weights, and every robust number of every step, over a schedule that reads how far the run is."""
    shape = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2, "max_grad_norm": 1.0}
    shape |= {"schedule": RadiusSchedule(plain_share=0.25, ramp_share=0.5), "lr_scheduler_type": "linear"}
    whole = trainer_for(tiny, name, tmp_path, spec, **shape)
    whole.train()
    again = trainer_for(tiny, name, tmp_path, spec, **shape)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same_training(again, whole, steps=4)
    told = ["radius_fraction", "robust_loss", "mean_loss", "effective_sample_size"]
    assert logged(again, *told) == logged(whole, *told)
    fractions = [fraction for fraction, *_ in logged(whole, *told)]
    assert fractions[0] == 0 < fractions[1] < fractions[2] <= 1
    assert min(size for *_, size in logged(whole, *told)[2:]) < 3.99  # the adversary chose after the checkpoint, too
    for column in ("multiplier_sum", "visits", "last_loss"):  # as docs/trl.md says
        np.testing.assert_array_equal(getattr(again.ledger, column), getattr(whole.ledger, column))


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("reward", "gr_dpo:0.5,by=source"),
        pytest.param("reward", "tv:0.3", marks=EXHAUSTIVE),
        pytest.param("dpo", "micro:2:gr_dpo:0.5,by=source", marks=EXHAUSTIVE),
        ("rloo", "gr_dpo:0.5,by=source"),
        pytest.param("grpo", "shuffled:tv:0.3", marks=EXHAUSTIVE),
    ],
)
def test_a_stopped_run_ends_as_one_in_one_go(tiny, tmp_path, name, spec):
    """Weights and account to the last bit; what was counted before the stop counts."""
    whole = trainer_for(tiny, name, tmp_path / "whole", spec, **held_out(tiny, name))
    whole.train()
    first = trainer_for(tiny, name, tmp_path / "run", spec, callbacks=[Halt()], **held_out(tiny, name))
    first.train()
    assert first.state.global_step == 2
    second = trainer_for(tiny, name, tmp_path / "run", spec, **held_out(tiny, name))
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == 4
    assert torch.equal(parameters(second), parameters(whole))
    for column in ("multiplier_sum", "visits", "last_loss"):
        np.testing.assert_array_equal(getattr(second.ledger, column), getattr(whole.ledger, column))
    assert second.ledger.visits.sum() == 16
    assert (second.ledger.looks, second.ledger.largest_change) == (4, whole.ledger.largest_change)
    if (state := state_of(whole.ambiguity)) is not None:
        assert np.ptp(state.log_weights) > 0
        np.testing.assert_array_equal(state_of(second.ambiguity).log_weights, state.log_weights)
    if whole.adversary.adaptive is not None:
        assert second.adversary.adaptive.level == whole.adversary.adaptive.level != 0.5


def test_a_checkpoint_without_the_adversary_says_so_and_goes_on(tiny, tmp_path, caplog):
    """As the mixins wrote them before, and plain TRL does."""
    plain = {key: value for key, value in SAVED.items() if "eval" not in key}
    trainer_for(tiny, "reward", tmp_path, callbacks=[Halt()], **plain).train()
    assert not (tmp_path / "checkpoint-2" / LEDGER).exists()
    robust = trainer_for(tiny, "reward", tmp_path, "tv:0.3", **plain)
    with caplog.at_level(logging.WARNING, logger="llm.trl.mixin"):
        robust.train(resume_from_checkpoint=True)
    assert "has no account of the adversary, which begins anew" in caplog.text
    assert (robust.state.global_step, robust.ledger.visits.sum()) == (4, 8)


def test_a_damaged_state_is_one_sentence(tiny, tmp_path):
    trainer_for(tiny, "reward", tmp_path, "tv:0.3", callbacks=[Halt()], **held_out(tiny, "reward")).train()
    (tmp_path / "checkpoint-2" / LEDGER).write_bytes(b"PK")
    robust = trainer_for(tiny, "reward", tmp_path, "tv:0.3", **held_out(tiny, "reward"))
    with pytest.raises(CheckpointError, match=r"the state of the adversary in .*checkpoint-2 cannot be loaded"):
        robust.train(resume_from_checkpoint=True)


def test_a_set_without_a_choice_writes_what_trl_writes(tiny, tmp_path):
    settings = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    for folder, spec in (("plain", "plain"), ("zero", "tv:0")):
        trainer_for(tiny, "reward", tmp_path / folder, spec, **settings).train()
    names = [{path.name for path in (tmp_path / folder / "checkpoint-1").iterdir()} for folder in ("plain", "zero")]
    assert names[0] == names[1]


RULES = [
    "dr_dpo:1",
    "shuffled:tv:0.2",
    *[
        pytest.param(spec, marks=EXHAUSTIVE)
        for spec in (
            "kldpo:1",
            "random:0.4",
            "hardest:0.3,factor=4",
            "focal:2",
            "micro:2:tv:0.2",
            "gr_dpo:0.5,by=source",
        )
    ],
]


@pytest.mark.parametrize("spec", RULES)
@pytest.mark.parametrize("name", ["reward", "rloo"])
def test_every_rule_trains_by_its_text_or_itself(tiny, tmp_path, name, spec):
    if spec.startswith("focal") and name == "rloo":
        with pytest.raises(ValueError, match="the losses here are not -log"):
            trainer_for(tiny, name, tmp_path, spec)
        return
    found = []
    for given in (spec, parse_reweighting(spec)):
        trainer = trainer_for(tiny, name, tmp_path, given, steps=8 if name == "reward" else 4)
        trainer.train()
        found.append(parameters(trainer))
        assert trainer.ledger.acted
        assert trainer.ledger.multiplier_sum.sum() == pytest.approx(trainer.ledger.visits.sum(), rel=1e-5)
    assert torch.equal(*found)


def test_the_worst_of_several_evaluation_sets_moves_the_strength(tiny, tmp_path):
    sets = {"one": tiny.data.select(range(6)), "two": tiny.data.select(range(6, 12))}
    settings = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1}
    extra = {"eval_dataset": sets, "adaptive": AdaptiveStrength("loss", level=0.4)}
    trainer = trainer_for(tiny, "reward", tmp_path, "tv:0.3", extra=extra, **settings)
    trainer.train()
    rows = trainer.state.log_history
    worst = [
        max(
            row[f"eval_{name}_loss"]
            for name in sets
            for row in rows
            if row["step"] == step and f"eval_{name}_loss" in row
        )
        for step in (1, 2)
    ]
    level = 0.4 * 1.5 * (1.5 if worst[1] < worst[0] else 0.5)
    assert trainer.adversary.adaptive.level == pytest.approx(min(level, 1.0))
    assert trainer.adversary.adaptive.best == pytest.approx(-min(worst))
    fractions = [row["radius_fraction"] for row in rows if "loss" in row]
    assert fractions == pytest.approx([0.4, 0.6])


def test_rewards_of_evaluations_move_a_policy(tiny, tmp_path):
    """TRL logs them beside the metrics of the evaluation."""
    settings = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    extra = {"eval_dataset": tiny.data.select(range(4)), "adaptive": AdaptiveStrength("reward")}
    trainer = trainer_for(tiny, "rloo", tmp_path, "tv:0.3", extra=extra, **settings)
    assert isinstance(trainer.reward_funcs[0], Letters)
    trainer.train()
    rewards = [row["eval_reward"] for row in trainer.state.log_history if "eval_reward" in row]
    assert trainer.adversary.adaptive.best == pytest.approx(max(rewards))
    assert trainer.adversary.adaptive.level != 0.25


def test_what_cannot_move_the_strength_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="there are none: give eval_dataset and set eval_strategy"):
        trainer_for(tiny, "reward", tmp_path, "tv:0.3", extra={"adaptive": AdaptiveStrength("loss")})
    settings = {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    extra = {"eval_dataset": tiny.data.select(range(4)), "adaptive": AdaptiveStrength()}
    trainer = trainer_for(tiny, "reward", tmp_path, "tv:0.3", extra=extra, **settings)
    with pytest.raises(ValueError, match="has no worst_category_loss, which the radius should follow; it has accuracy"):
        trainer.train()
