"""Pairs with noisy labels and a linear reward on their features, trained by ``RobustTrainer`` as any model is."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments

from llm.adversary.radius.slices import Slice
from llm.data.pairs import Pair
from llm.training.pair_trainer import PairTrainer
from llm.training.settings import TRAINING_DEFAULTS

WIDTH = 8


class Head(nn.Module):
    """A reward that is linear in the features of an answer, here of chosen minus rejected."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.dropout = nn.Parameter(torch.zeros(WIDTH)), nn.Dropout(0.0)

    def forward(self, features):
        return self.dropout(features) @ self.weight


class HeadTrainer(PairTrainer):
    def margins(self, model, inputs):
        return model(inputs["features"]).float()

    def take_rows(self, inputs, rows):
        return {name: part[rows] for name, part in inputs.items()}


class Features(torch.utils.data.Dataset):
    """Differences of features as a data set of pairs."""

    def __init__(self, differences):
        self.differences = torch.as_tensor(differences, dtype=torch.float32)

    def __len__(self):
        return len(self.differences)

    def __getitem__(self, row):
        return {"features": self.differences[row], "index": row, "chosen": [0], "rejected": [0]}


def collated(items):
    return {
        "features": torch.stack([item["features"] for item in items]),
        "index": torch.tensor([item["index"] for item in items]),
    }


def noisy(n, *, seed, strength=1.2):
    """Differences ``(n, WIDTH)`` turned so that the chosen answer comes first, by a Bradley-Terry model."""
    draws = np.random.default_rng(seed)
    features = draws.standard_normal((n, WIDTH))
    wins = draws.random(n) < 1 / (1 + np.exp(-strength * features[:, 0]))
    return np.where(wins, 1, -1)[:, None] * features


def pairs_of(prompts):
    """Pairs that ask these prompts."""
    return [
        Pair(id=str(k), prompt=[{"role": "user", "content": text}], chosen="a", rejected="b")
        for k, text in enumerate(prompts)
    ]


def arguments(folder, **kwargs):
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 64,
        "max_steps": 200,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 0.0,
        "optim": "sgd",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "dataloader_drop_last": True,
        "use_cpu": True,
    }
    return TrainingArguments(**{**TRAINING_DEFAULTS, **defaults, **kwargs})


def head_trainer(folder, spec, *, train, aside=None, evaluated=None, every=20, columns=None, **kwargs):
    """A trainer on these differences; ``aside`` are those of the slice."""
    torch.manual_seed(0)
    trainer = HeadTrainer(
        model=Head(),
        args=arguments(folder, **kwargs),
        train_dataset=Features(train),
        eval_dataset=None if evaluated is None else Features(evaluated),
        data_collator=collated,
        ambiguity=spec,
        columns={name: values[: len(train)] for name, values in (columns or {}).items()},
    )
    if aside is not None:
        rest = {name: values[len(train) :] for name, values in (columns or {}).items()}
        prompts = pairs_of(map(str, range(len(aside))))
        trainer.slice = Slice(Features(aside), prompts, rest, every=every)
    return trainer


def norm_of(trainer):
    return float(trainer.model.weight.detach().norm())
