"""Held-out pairs: read by length, and measured as one pair after the other would be, on one process and on two."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed
from forked import finished, start_ranks
from robust_trainers import PAIRS, arguments
from test_dpo import BETA, plain_logps
from transformers import set_seed

from llm.kinds.dpo import DPOTrainer
from llm.kinds.reward import RewardTrainer
from llm.kinds.sft import SFTTrainer
from llm.models.loading import tiny_policy, tiny_reward_model
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.losses import Sigmoid

LENGTH, BATCH = 160, 4
LONG = [replace(p, chosen=p.chosen + " and so on" * (7 * n % 12)) for n, p in enumerate(PAIRS[:21])]  # no full batches
CATEGORIES = np.array([pair.category for pair in LONG])
KINDS = {
    "reward": (tiny_reward_model, RewardTrainer, {}),
    "sft": (tiny_policy, SFTTrainer, {}),
    "dpo": (tiny_policy, DPOTrainer, {"beta": BETA, "pair_loss": Sigmoid()}),
}


def begin(kind):
    """A model in float64 away from its initialisation, its reference, tokenizer and data."""
    set_seed(0)
    make, *_ = KINDS[kind]
    model, tokenizer = make((pair.chosen + pair.rejected for pair in LONG), max_length=LENGTH)
    models = [model.double(), make((pair.chosen + pair.rejected for pair in LONG), max_length=LENGTH)[0].double()]
    with torch.no_grad():
        for parameter in (parameter for one in models for parameter in one.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return *models, tokenizer, encode_pairs(LONG, tokenizer, max_length=LENGTH)


def measured(kind, folder):
    """Metrics of an evaluation, and the shapes of the batches that this rank's model read."""
    model, reference, tokenizer, data = begin(kind)
    _, trainer_class, settings = KINDS[kind]
    settings = settings | ({"reference": reference} if kind == "dpo" else {})
    args = arguments(folder, per_device_eval_batch_size=BATCH, dataloader_drop_last=True)
    trainer = trainer_class(
        model=model, args=args, train_dataset=data, eval_dataset=data, data_collator=PairCollator(tokenizer),
        ambiguity=None, **settings,
    )  # fmt: skip
    trainer.compute_metrics = trainer.held_out_metrics(LONG)
    shapes = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(list(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = {name: value for name, value in trainer.evaluate().items() if "runtime" not in name}
    trainer.compute_metrics = None
    return found, shapes, trainer.evaluate()["eval_loss"]


def on_a_rank(folder):
    found = {kind: measured(kind, folder) for kind in KINDS}
    (folder / f"found-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


def one_by_one(kind):
    """Losses and margins of every pair alone, without padding."""
    model, reference, _, data = begin(kind)
    items = [data[row] for row in range(len(data))]

    def said(model, side):
        if kind == "reward":
            return np.array([float(model(input_ids=torch.tensor([item[side]])).logits[0, 0]) for item in items])
        return np.array([float(plain_logps(model, item[side], item[f"{side}_span"])) for item in items])

    with torch.no_grad():
        chosen, rejected = said(model, "chosen"), said(model, "rejected")
        if kind == "dpo":
            chosen, rejected = (
                BETA * (x - said(reference, s)) for x, s in ((chosen, "chosen"), (rejected, "rejected"))
            )
    if kind == "sft":
        return -chosen / [end - first for first, end in (item["chosen_span"] for item in items)], chosen - rejected
    return np.logaddexp(0, rejected - chosen), chosen - rejected


def fewest_tokens():
    """Of batches of this size: sorted by length, both sides padded to the longer answer and to a multiple of 8."""
    *_, data = begin("reward")
    lengths = sorted((max(len(data[n]["chosen"]), len(data[n]["rejected"])) for n in range(len(data))), reverse=True)
    together = [lengths[start : start + BATCH] for start in range(0, len(lengths), BATCH)]
    return [[2 * len(batch), -(-batch[0] // 8) * 8] for batch in together]


@pytest.fixture(scope="module")
def two_ranks(once):
    def build(folder):
        finished(start_ranks(on_a_rank, folder))

    folder = once("held-out-ranks", build)
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]


def assert_right(kind, found, loss_alone):
    losses, margins = one_by_one(kind)
    assert np.ptp(losses) > 0.05
    groups = [name == CATEGORIES for name in set(CATEGORIES)]
    expected = {
        "eval_loss": losses.mean(),
        "eval_accuracy": (margins > 0).mean(),
        "eval_worst_category_loss": max(losses[group].mean() for group in groups),
        "eval_worst_category_accuracy": min((margins > 0)[group].mean() for group in groups),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert loss_alone == pytest.approx(losses.mean(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_reads_pairs_by_length_and_measures_each(kind, tmp_path):
    found, shapes, loss_alone = measured(kind, tmp_path)
    assert_right(kind, found, loss_alone)
    assert shapes[: len(fewest_tokens())] == fewest_tokens()
    assert len({columns for _, columns in shapes}) > 3  # lengths differ, or there is nothing to put together


@pytest.mark.slow("two processes load everything")
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_measure_each_pair_once(kind, two_ranks):
    """The third round has five pairs for eight places: ranks fill up with pairs that were seen."""
    for rank in two_ranks:
        found, _, loss_alone = rank[kind]
        assert_right(kind, found, loss_alone)
    batches = [shape for turn in zip(*(rank[kind][1] for rank in two_ranks), strict=True) for shape in turn]
    assert batches[:5] == fewest_tokens()[:5]
