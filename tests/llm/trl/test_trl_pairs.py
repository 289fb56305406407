"""TRL's trainers of pairs made robust: against plain TRL, and against autograd on losses computed without it."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from robust_trl import (
    KINDS,
    ROUNDING,
    assert_same_training,
    full_batch_gradient,
    load,
    logged,
    seen,
    trained,
    trainer_for,
)
from tiny_trl import Gradients, relative_error

import llm.trl as ours
from dro_core import KL, worst_case
from llm.adversary.schedule import RadiusSchedule
from llm.training.guards import NonFiniteLoss

# TRL still asks by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")
EXHAUSTIVE = pytest.mark.exhaustive
SETS = [("tv:0.2", 4), ("cvar:0.5,minibatch=3", 4), ("tv:0.3,by=source", 8)]
SETS += [pytest.param("cvar:0.3", 8, marks=EXHAUSTIVE)]


@pytest.mark.parametrize("name", ["reward", "dpo"])
@pytest.mark.parametrize(("spec", "steps"), SETS)
def test_gradient_is_that_of_the_full_batch(tiny, tmp_path, name, spec, steps):
    trainer, (gradient,) = trained(tiny, name, tmp_path, spec, steps=steps)
    assert len(seen(trainer)) == steps
    assert relative_error(gradient, full_batch_gradient(tiny, name, seen(trainer), spec)) <= ROUNDING[name]


@pytest.mark.parametrize("name", ["reward", "dpo"])
def test_single_examples_are_the_mean_at_a_tiny_radius_and_in_the_plain_phase(tiny, tmp_path, name):
    trainer, (gradient,) = trained(tiny, name, tmp_path, "tv:1e-9")
    expected = full_batch_gradient(tiny, name, seen(trainer), "erm")
    assert relative_error(gradient, expected) <= ROUNDING[name]
    plain_phase, (gradient,) = trained(tiny, name, tmp_path, "tv:0.4", schedule=RadiusSchedule(plain_share=1.0))
    assert relative_error(gradient, expected) <= ROUNDING[name]
    assert logged(plain_phase, "radius_fraction", "zero_share") == [[0.0, 0.0]]


@pytest.mark.parametrize("name", ["reward", "dpo", "grpo", "rloo"])
def test_no_ambiguity_is_trl_step_by_step(tiny, tmp_path, name):
    shape = {"micro": 4, "steps": 2, "max_steps": 3, "max_grad_norm": 1.0}
    plain, _ = trained(tiny, name, tmp_path, **shape)
    robust, _ = trained(tiny, name, tmp_path, None, **shape)
    assert_same_training(robust, plain, steps=3)


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("reward", ["accuracy", "margin", "min_reward", "max_reward", "num_tokens"]),
        ("dpo", ["rewards/accuracies", "rewards/margins", "logps/chosen", "entropy", "num_tokens"]),
    ],
)
def test_metrics_are_those_of_every_example_counted_once(tiny, tmp_path, name, metrics):
    plain, _ = trained(tiny, name, tmp_path, steps=8)
    robust, _ = trained(tiny, name, tmp_path, "tv:0.5", steps=8)
    assert logged(robust, *metrics) == logged(plain, *metrics)
    assert logged(robust, "mean_loss")[0] == pytest.approx(logged(plain, "loss")[0], rel=1e-6)
    losses = robust.ledger.last_loss[seen(robust)]
    assert logged(robust, "loss")[0] == pytest.approx([np.sort(losses)[4:].mean() / 2 + losses.max() / 2], rel=1e-6)
    assert logged(robust, "zero_share") == [[0.5]]


def test_examples_without_weight_are_not_differentiated(tiny, tmp_path):
    passes = []
    trainer = trainer_for(tiny, "reward", tmp_path, "tv:0.5", steps=8)
    trainer.model.register_forward_pre_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    trainer.train()
    assert passes == [False] * 8 + [True] * int((trainer.ledger.multiplier_sum > 0).sum())
    assert len(passes) == 12


def test_last_window_of_one_example_trains_on_that_example(tiny, tmp_path):
    five = tiny._replace(data=tiny.data.select(range(5)))
    gradients, rows = Gradients(), []
    settings = {"callbacks": [gradients], "max_steps": 2, "learning_rate": 0.0, "extra": {"last_window": "keep"}}
    trainer = trainer_for(five, "reward", tmp_path, "tv:0.3", **settings)
    collate = trainer.data_collator
    trainer.data_collator = lambda items: rows.append(items[0]["robust_index"]) or collate(items)
    trainer.train()
    assert sorted(rows) == [0, 1, 2, 3, 4]
    assert relative_error(gradients.steps[0], full_batch_gradient(five, "reward", rows[:4], "tv:0.3")) <= 1e-6
    assert relative_error(gradients.steps[1], full_batch_gradient(five, "reward", rows[4:], "erm")) <= 1e-6


def test_evaluation_is_not_weighted(tiny, tmp_path):
    extra = {"eval_dataset": tiny.data.select(range(6))}
    found = [trainer_for(tiny, "dpo", tmp_path, s, extra=extra).evaluate() for s in ("plain", "tv:0.4")]
    names = [name for name in found[0] if not name.endswith(("runtime", "per_second"))]
    assert len(names) > 5
    assert [found[0][name] for name in names] == [found[1][name] for name in names]


def test_lora_gradient_is_that_of_the_full_batch(tiny, tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    gradients = Gradients()
    trainer = trainer_for(tiny, "dpo", tmp_path, "tv:0.2", callbacks=[gradients], extra={"peft_config": config})
    model = peft.get_peft_model(load(tiny, "dpo"), config)
    peft.set_peft_model_state_dict(model, peft.get_peft_model_state_dict(trainer.model))
    trainer.train()
    base = tiny._replace(reference=tiny.causal)  # the adapter switched off
    assert (
        relative_error(gradients.steps[0], full_batch_gradient(base, "dpo", seen(trainer), "tv:0.2", model))
        <= ROUNDING["dpo"]
    )


def test_a_loss_that_is_none_stops_training(tiny, tmp_path):
    trainer = trainer_for(tiny, "reward", tmp_path, "tv:0.2", max_steps=5, learning_rate=1e30)
    with pytest.raises(NonFiniteLoss, match="examples #"):
        trainer.train()


@pytest.mark.parametrize("name", ["reward", "dpo"])
def test_losses_equal_to_within_rounding_are_trained_on_alike(tiny, tmp_path, name, monkeypatch, caplog):
    """All losses are log 2 up to what rounding leaves, and the log says that the adversary did nothing."""
    kind, (noise, looks) = KINDS[name][0], (torch.Generator().manual_seed(0), [])

    def flat(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: FBT002
        loss = 0 * super(ours.RobustPairs, self).compute_loss(
            model, {k: v for k, v in inputs.items() if "robust" not in k}
        )
        looks.append(loss)
        return loss + 0.6931472 + 4e-7 * torch.randn((), generator=noise)

    monkeypatch.setattr(kind, "_theirs", flat)
    trainer = trainer_for(tiny, name, tmp_path, "tv:0.4")
    trainer.train()
    assert looks
    assert not trainer.ledger.acted
    assert "the adversary did not act" in caplog.text


@pytest.mark.parametrize(
    ("name", "more", "tells"),
    [
        ("reward", {}, True),
        ("dpo", {}, True),
        ("reward", {"center_rewards_coefficient": 0.1}, False),
        ("dpo", {"loss_type": ["ipo"]}, False),
    ],
)
def test_what_margins_bear_is_told_where_losses_tell_them(tiny, tmp_path, name, more, tells):
    """From the losses alone, by the worst case of their margins; under other losses there is the radius in use."""
    turned = tiny._replace(data=tiny.data.rename_columns({"chosen": "rejected", "rejected": "chosen"}))
    for data in (tiny, turned):  # of one of them most pairs are right, as the model was drawn
        trainer, _ = trained(data, name, tmp_path, "kl:0.2", steps=8, learning_rate=0.0, **more)
        assert logged(trainer, "radius_used") == [[0.2]]
        assert any({"collapse_radius", "radius_ratio"} & row.keys() for row in trainer.state.log_history) == tells
        margins = -np.log(np.expm1(trainer.ledger.last_loss[seen(trainer)]))
        if tells and margins.mean() > 0:
            ((radius, ratio),) = logged(trainer, "collapse_radius", "radius_ratio")
            above, below = (float(worst_case(-margins, KL(radius * (1 + step))).value) for step in (1e-2, -1e-2))
            assert below < 0 < above
            assert ratio == pytest.approx(min(0.2 / radius, 99))
        elif tells:
            assert logged(trainer, "collapse_radius") == [[0.0]]
