"""What the log says that margins bear, on the trainers themselves: reward models, DPO, TRL's, and those without any."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import test_dpo
import test_sft
import torch
from robust_trainers import Gradients, arguments, seen_rows, trainer_for

from dro_core import parse_ambiguity, worst_case
from llm.adversary.radius.bearing import resized
from llm.adversary.schedule import RadiusSchedule
from llm.text.batches import PairCollator

STILL = {"learning_rate": 0.0}


def row_of(trainer):
    (row,) = [row for row in trainer.state.log_history if "mean_loss" in row]
    return row


def assert_borne(row, spec, margins):
    """A little below the radius the worst mean of these margins is positive, a little above it is not."""
    radius, ambiguity = row["collapse_radius"], parse_ambiguity(spec)
    below, above = (worst_case(-margins, resized(ambiguity, radius * (1 + step))).value for step in (-2e-3, 2e-3))
    assert below < 0 <= above + 1e-9
    assert row["radius_used"] == ambiguity.radius
    assert row["radius_ratio"] == pytest.approx(ambiguity.radius / radius)
    assert row["collapse_margins"] == len(margins)


@pytest.fixture(scope="module")
def right(start):
    """The start, turned so that most pairs are right: as it was drawn, most are wrong and bear nothing."""
    model = copy.deepcopy(start[0])
    with torch.no_grad():
        model.classifier.weight *= -1
    return model, *start[1:]


@pytest.mark.parametrize(("micro", "steps"), [(16, 1), (4, 4)])
def test_reward_models(right, tmp_path, micro, steps):
    trainer = trainer_for(right, arguments(tmp_path, micro=micro, steps=steps, **STILL), "tv:0.3")
    trainer.train()
    model, tokenizer, data = right
    batch = PairCollator(tokenizer)([data[int(i)] for i in seen_rows(trainer)])
    with torch.no_grad():
        rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    chosen, rejected = rewards.double().numpy().reshape(2, -1)
    assert_borne(row_of(trainer), "tv:0.3", chosen - rejected)


@pytest.mark.slow("a step of every kind")
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "cdpo:0.1"])
def test_dpo_under_losses_that_tell_margins_and_such_that_do_not(tmp_path, loss, steps):
    begin = test_dpo.begin()
    args = arguments(tmp_path, micro=16 // steps, steps=steps, **STILL)
    trainer = test_dpo.trainer_for(begin, args, "chi2:0.3", loss=loss)
    trainer.train()
    model, reference, _, data = begin
    margins = [
        sum(
            sign * test_dpo.BETA * (test_dpo.plain_logps(model, *side) - test_dpo.plain_logps(reference, *side))
            for sign, side in (
                (1, (item["chosen"], item["chosen_span"])),
                (-1, (item["rejected"], item["rejected_span"])),
            )
        )
        for item in (data[int(row)] for row in seen_rows(trainer))
    ]
    assert_borne(row_of(trainer), "chi2:0.3", torch.stack(margins).detach().double().numpy())


def test_margins_of_a_second_pass_are_not_those_of_the_next_step(tmp_path):
    """Two passes a step see every margin twice; it is pooled once."""
    args = arguments(tmp_path, micro=8, steps=2, max_steps=3, **STILL)
    trainer = test_dpo.trainer_for(test_dpo.begin(), args, "chi2:0.3", loss="ipo")
    trainer.train()
    pooled = [row["collapse_margins"] for row in trainer.state.log_history if "mean_loss" in row]
    assert pooled == [16, 32, 48]


def test_supervised_fine_tuning_has_a_radius_in_use_and_none_that_margins_bear(tmp_path):
    trainer = test_sft.trainer_for(test_sft.begin(), test_sft.arguments(tmp_path, micro=4, steps=2), "tv:0.3")
    trainer.train()
    row = row_of(trainer)
    assert row["radius_used"] == 0.3
    assert not {"collapse_radius", "radius_ratio"} & row.keys()


def test_the_plain_phase_pools_margins_too_and_uses_no_radius(right, tmp_path):
    args = arguments(tmp_path, micro=4, steps=2, max_steps=2, **STILL)
    trainer = trainer_for(right, args, "tv:0.3", schedule=RadiusSchedule(plain_share=0.5))
    trainer.train()
    plain, robust = [row for row in trainer.state.log_history if "mean_loss" in row]
    assert (plain["radius_used"], plain["radius_ratio"], plain["collapse_margins"]) == (0.0, 0.0, 8)
    assert (robust["radius_used"], robust["collapse_margins"]) == (0.3, 16)
    losses = trainer.ledger.last_loss[seen_rows(trainer)]
    margins = -np.log(np.expm1(losses))
    assert_borne(robust, "tv:0.3", margins)


def test_no_gather_more_and_plain_training_as_it_was(start, tmp_path, monkeypatch):
    """Under a loss that tells margins nothing is computed or fetched for them; erm logs what it logged."""
    args = arguments(tmp_path, micro=8, steps=1, **STILL)
    trainer = trainer_for(start, args, "tv:0.3", callbacks=[Gradients()])
    trainer.train()
    assert trainer.told == []
    plain = trainer_for(start, args, "erm")
    plain.train()
    assert not {"radius_used", "collapse_radius", "radius_ratio"} & row_of(plain).keys()
