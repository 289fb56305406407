"""A robust trainer of rewards on a tiny model, and the gradient of its effective batch by autograd alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, TrainingArguments, set_seed

from dro_core import parse_ambiguity, robust_loss
from llm.data.corpus.corpus import generate
from llm.kinds.reward import RewardTrainer
from llm.models.loading import tiny_reward_model
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.settings import TRAINING_DEFAULTS

PAIRS = generate(24, seed=7)
CATEGORIES = [pair.category for pair in PAIRS]


@pytest.fixture(scope="module")
def start():
    """A tiny model a few steps away from its initialisation (losses differ), its tokenizer, the data."""
    set_seed(0)
    model, tokenizer = tiny_reward_model((pair.chosen + pair.rejected for pair in PAIRS), max_length=96)
    with torch.no_grad():
        model.classifier.weight *= 20
    return model, tokenizer, encode_pairs(PAIRS, tokenizer, max_length=96)


class Gradients(TrainerCallback):
    """Keeps the gradient of the first step."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.first = torch.cat(
                [p.grad.flatten().clone() for p in kwargs["model"].parameters() if p.grad is not None]
            )


def arguments(folder, *, micro=4, steps=4, **kwargs):
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": steps,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "use_cpu": True,
    }
    return TrainingArguments(**{**TRAINING_DEFAULTS, **defaults, **kwargs})


def trainer_for(start, args, spec, *, kind=RewardTrainer, callbacks=None, **kwargs):
    model, tokenizer, data = start
    return kind(
        model=copy.deepcopy(model),
        args=args,
        train_dataset=data,
        data_collator=PairCollator(tokenizer),
        ambiguity=parse_ambiguity(spec),
        columns={"category": CATEGORIES},
        callbacks=callbacks,
        **kwargs,
    )


def trained_gradient(start, args, spec, *, kind=RewardTrainer, **kwargs):
    gradients = Gradients()
    trainer = trainer_for(start, args, spec, kind=kind, callbacks=[gradients], **kwargs)
    trainer.train()
    return gradients.first, trainer


def bradley_terry_loss(chosen, rejected):
    """-log of the probability that the chosen answer wins, shape ``(n,)``."""
    return -torch.nn.functional.logsigmoid(chosen - rejected)


def seen_rows(trainer):
    return np.flatnonzero(trainer.ledger.visits)


def full_batch_gradient(start, rows, spec):
    """One forward of the whole effective batch, one backward: no trainer involved."""
    model, tokenizer, data = start
    model = copy.deepcopy(model)
    batch = PairCollator(tokenizer)([data[int(i)] for i in rows])
    rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    losses = bradley_terry_loss(*rewards.chunk(2))
    if spec == "erm":
        losses.mean().backward()
    else:
        ambiguity = parse_ambiguity(spec).bind({"category": [CATEGORIES[i] for i in rows]})
        robust_loss(losses, ambiguity).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())
