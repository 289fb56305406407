"""The trainer against full-batch autograd, against ``transformers.Trainer``, and against bad luck."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from robust_trainers import (
    PAIRS,
    Gradients,
    arguments,
    bradley_terry_loss,
    full_batch_gradient,
    relative_error,
    seen_rows,
    trained_gradient,
    trainer_for,
)
from transformers import Trainer, TrainerCallback

from llm.adversary.schedule import RadiusSchedule
from llm.kinds.reward import RewardTrainer
from llm.text.batches import SIDES, PairCollator
from llm.training.averaging import IterateAverage
from llm.training.guards import NonFiniteLoss

SETS = ["tv:0.2", "tv:0.4,max_ratio=3", "cvar:0.3", "chi2:0.5", "kl:0.3", "tv:0.3,by=category", "kl:0.3,trim=0.2"]
EXHAUSTIVE = pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("spec", "micro", "steps", "checkpointing"),
    [
        *[(spec, 4, 4, False) for spec in SETS],
        *[
            pytest.param(spec, *shape, marks=[] if spec in ("tv:0.2", "tv:0.3,by=category") else EXHAUSTIVE)
            for shape in [(4, 4, True), (16, 1, False)]
            for spec in SETS
        ],
    ],
)
def test_gradient_is_that_of_the_full_batch(start, tmp_path, spec, micro, steps, checkpointing):
    args = arguments(tmp_path, micro=micro, steps=steps, activation_checkpointing=checkpointing)
    found, trainer = trained_gradient(start, args, spec, passes="two")
    rows = seen_rows(trainer)
    assert len(rows) == 16
    assert trainer.model.is_activation_checkpointing == checkpointing
    assert relative_error(found, full_batch_gradient(start, rows, spec)) <= 1e-6


def test_a_set_by_an_unknown_column_is_refused(start, tmp_path):
    with pytest.raises(ValueError, match="names the column 'language'; the columns are: category"):
        trainer_for(start, arguments(tmp_path), "tv:0.2,by=language")


def test_checkpoints_within_a_step_are_refused(start, tmp_path):
    with pytest.raises(ValueError, match="enable_jit_checkpoint saves in the middle of a step"):
        trainer_for(start, arguments(tmp_path, enable_jit_checkpoint=True), "tv:0.2")


class PerMicroBatch(RewardTrainer):
    """What everyone writes first: each micro-batch solved alone, the accumulation averaged."""

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        return Trainer.get_batch_samples(self, epoch_iterator, num_batches, device)

    def compute_loss(self, model, inputs, **kwargs):
        return super().compute_loss(model, inputs, **kwargs) / self.current_gradient_accumulation_steps


@pytest.mark.parametrize("spec", [*SETS[:1], *[pytest.param(spec, marks=EXHAUSTIVE) for spec in SETS[1:]]])
def test_weights_per_micro_batch_give_another_gradient(start, tmp_path, spec):
    found, trainer = trained_gradient(start, arguments(tmp_path), spec, kind=PerMicroBatch)
    assert relative_error(found, full_batch_gradient(start, seen_rows(trainer), spec)) > 0.05


class PlainTrainer(Trainer):
    """``transformers.Trainer`` with the shortest possible Bradley-Terry loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: FBT002
        rewards = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
        return bradley_terry_loss(*rewards.chunk(2)).mean()


@pytest.mark.parametrize("steps", [pytest.param(1, marks=EXHAUSTIVE), 2])
def test_no_ambiguity_is_plain_training_step_by_step(start, tmp_path, steps):
    model, tokenizer, data = start
    args = arguments(tmp_path, micro=5, steps=steps, max_steps=-1, num_train_epochs=2, max_grad_norm=1.0)
    plain = PlainTrainer(
        model=copy.deepcopy(model), args=args, train_dataset=data, data_collator=PairCollator(tokenizer)
    )
    robust = trainer_for(start, args, "erm")
    plain.train()
    robust.train()
    losses = [[row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in (plain, robust)]
    assert len(losses[0]) >= 6
    rounding = 0.0 if steps == 1 else 1e-4  # micro-batches of one step are put together by length, and sums rounded
    np.testing.assert_allclose(losses[0], losses[1], rtol=rounding)
    for ours, theirs in zip(robust.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=rounding)


@pytest.mark.parametrize("spec", ["tv:0.2", "cvar:1"])
def test_plain_phase_and_full_tail_mass_are_the_mean(start, tmp_path, spec):
    schedule = RadiusSchedule(plain_share=1.0) if spec == "tv:0.2" else RadiusSchedule()
    gradients = Gradients()
    trainer = trainer_for(start, arguments(tmp_path), spec, callbacks=[gradients], schedule=schedule)
    trainer.train()
    assert relative_error(gradients.first, full_batch_gradient(start, seen_rows(trainer), "erm")) <= 1e-6


@pytest.mark.parametrize("spec", ["erm", "tv:0.25"])
def test_micro_batches_of_a_step_hold_pairs_of_similar_length(start, tmp_path, spec):
    """The longest first, so that padding costs little and what runs out of memory does so at once."""
    widths, trainer = [], trainer_for(start, arguments(tmp_path), spec)
    trainer.model.register_forward_pre_hook(
        lambda module, args, inputs: widths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    trainer.train()
    longest = sorted((max(len(start[2][int(i)][side]) for side in SIDES) for i in seen_rows(trainer)), reverse=True)
    assert widths[:4] == [-(-length // 8) * 8 for length in longest[::4]]
    assert len(set(widths)) > 1


def test_ignored_examples_skip_the_second_pass(start, tmp_path):
    differentiated = []
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.5")
    trainer.model.register_forward_pre_hook(
        lambda model, args, kwargs: differentiated.append((torch.is_grad_enabled(), len(kwargs["input_ids"]) // 2)),
        with_kwargs=True,
    )
    trainer.train()
    weighted = int((trainer.ledger.multiplier_sum > 0).sum())
    second_pass = [rows for grad, rows in differentiated if grad]
    assert [rows for grad, rows in differentiated if not grad] == [4, 4, 4, 4]
    assert len(second_pass) == 4
    assert weighted <= sum(second_pass) <= weighted + 3  # a micro-batch without weight keeps one dummy row
    assert weighted <= 9


def test_log_reports_what_the_adversary_did(start, tmp_path):
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.25")
    trainer.train()
    row = next(row for row in trainer.state.log_history if "loss" in row)
    losses = trainer.ledger.last_loss[seen_rows(trainer)]
    assert row["mean_loss"] == pytest.approx(losses.mean(), rel=1e-6)
    expected = (losses.sum() - np.sort(losses)[:4].sum()) / 16 + 0.25 * losses.max()
    assert row["loss"] == pytest.approx(expected, rel=1e-6)
    assert row["robust_loss"] == pytest.approx(expected, rel=1e-6)
    assert row["zero_share"] == pytest.approx(0.25)
    assert row["largest_multiplier"] == pytest.approx(1 + 0.25 * 16, rel=1e-6)
    assert row["effective_sample_size"] == pytest.approx(1 / (11 / 256 + (5 / 16) ** 2), rel=1e-6)


def test_radius_follows_the_schedule(start, tmp_path):
    args = arguments(tmp_path, micro=8, steps=1, max_steps=8)
    trainer = trainer_for(start, args, "tv:0.4", schedule=RadiusSchedule(plain_share=0.5, ramp_share=0.25))
    trainer.train()
    fractions = [row["radius_fraction"] for row in trainer.state.log_history if "loss" in row]
    assert fractions == [0, 0, 0, 0, 0.5, 1, 1, 1]


def test_log_weighs_steps_alike_across_the_end_of_the_plain_phase(start, tmp_path):
    """A plain step books each of its four micro-batches, a robust one the whole window."""
    args = arguments(tmp_path, micro=2, steps=4, max_steps=5, logging_steps=5)
    trainer = trainer_for(start, args, "tv:0.25", schedule=RadiusSchedule(plain_share=0.4))
    trainer.train()
    row = next(row for row in trainer.state.log_history if "loss" in row)
    assert row["radius_fraction"] == pytest.approx(3 / 5)
    assert row["zero_share"] == pytest.approx(3 / 5 * 0.25)


def test_ragged_last_window_has_the_gradient_of_its_own_examples(start, tmp_path):
    """Six micro-batches in windows of four: the second optimizer step sees two of them."""
    batches, kept = [], []

    class Last(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == 1:
                kept.append(copy.deepcopy(kwargs["model"]))
                kept.append(
                    torch.cat([p.grad.flatten().clone() for p in kwargs["model"].parameters() if p.requires_grad])
                )

    kept_rest = {"callbacks": [Last()], "last_window": "keep"}
    trainer = trainer_for(start, arguments(tmp_path, max_steps=2), "tv:0.3", **kept_rest)
    collate = trainer.data_collator
    trainer.data_collator = lambda items: batches.append([item["index"] for item in items]) or collate(items)
    trainer.train()
    assert [len(batch) for batch in batches] == [4] * 6
    model, gradient = kept
    model.zero_grad()
    expected = full_batch_gradient((model, *start[1:]), batches[4] + batches[5], "tv:0.3")
    assert relative_error(gradient, expected) <= 1e-6


def test_average_is_the_mean_of_the_iterates(start, tmp_path):
    iterates = []

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            iterates.append(copy.deepcopy(kwargs["model"].state_dict()))

    trainer = trainer_for(start, arguments(tmp_path, micro=8, steps=1, max_steps=6), "tv:0.2", callbacks=[Keep()])
    average = IterateAverage(trainer.model, after=0.5)
    trainer.add_callback(average)
    trainer.train()
    average.copy_to(trainer.model)
    for name, tensor in trainer.model.state_dict().items():
        expected = torch.stack([iterate[name] for iterate in iterates[3:]]).mean(0)
        torch.testing.assert_close(tensor, expected)


def test_average_of_half_precision_iterates_does_not_stall():
    model = torch.nn.Linear(4, 4, bias=False, dtype=torch.bfloat16)
    average = IterateAverage(model)
    values = torch.linspace(1, 2, 400).to(torch.bfloat16)
    for value in values:
        model.weight.data.fill_(value)
        average.average.update_parameters(model)
    average.copy_to(model)
    assert model.weight.dtype == torch.bfloat16
    assert float(model.weight.detach()[0, 0]) == pytest.approx(float(values.double().mean()), rel=2**-8)


def test_diverged_training_stops_and_names_the_examples(start, tmp_path):
    args = arguments(tmp_path, micro=8, steps=2, max_steps=20, learning_rate=1e30)
    trainer = trainer_for(start, args, "tv:0.2", example_ids=[pair.id for pair in PAIRS])
    with pytest.raises(NonFiniteLoss, match=r"builtin-\d{5}|is not finite after step"):
        trainer.train()


def test_dropout_is_refused_only_where_two_passes_would_disagree(start, tmp_path):
    model, tokenizer, data = start
    noisy = copy.deepcopy(model)
    noisy.drop = torch.nn.Dropout(0.1)
    with pytest.raises(ValueError, match="disable_dropout"):
        trainer_for((noisy, tokenizer, data), arguments(tmp_path), "tv:0.2").train()
    trainer_for((noisy, tokenizer, data), arguments(tmp_path, micro=16, steps=1), "tv:0.2").train()


def test_two_visible_gpus_without_a_launcher_are_refused(start, tmp_path):
    args = arguments(tmp_path)
    args._n_gpu = 2
    with pytest.raises(ValueError, match="accelerate launch"):
        trainer_for(start, args, "tv:0.2")
