"""Heads on the real pairs, trained by minibatches: what becomes of their norm, and of unseen pairs.

Rules, set before anything was trained: over five seeds, ``tv:auto=0.5`` keeps at least KEPT of the norm that plain
training gives, and ``regret:`` at every radius at least KEPT of that of plain training on the same soft labels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from llm.adversary.radius.settings import SliceSettings
from llm.adversary.radius.slices import Slice, set_apart
from llm.adversary.spec import parse_reweighting
from llm.data.pairs import Pair
from llm.data.questions import asked
from llm.statistics.crossfit import crossfit
from llm.statistics.intervals import accuracy_interval, paired_difference
from llm.statistics.ties import credit
from llm.training.pair_trainer import PairTrainer
from llm.training.settings import TRAINING_DEFAULTS

KEPT = 0.7
HARD = ("erm", "tv:0.05", "tv:0.2", "tv:0.4", "tv:0.8", "tv:auto=0.5")
SOFT = ("erm", "tv:0.4", "regret:tv:0.2", "regret:tv:0.4", "regret:tv:0.8")
SEEDS = range(5)
SETTINGS: dict[str, Any] = {  # of the heads of the study
    "per_device_train_batch_size": 32, "num_train_epochs": 5, "learning_rate": 0.003, "lr_scheduler_type": "cosine",
    "optim": "adamw_torch", "weight_decay": 0.0, "warmup_steps": 0, "max_grad_norm": 0.0,
}  # fmt: skip


class Head(nn.Module):
    """A reward that is linear in features ``(n, d)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(width))

    def forward(self, features: Tensor) -> Tensor:
        """Rewards ``(n,)``; of differences of features, margins."""
        return features @ self.weight


class HeadTrainer(PairTrainer):
    """The trainer of reward models on features that are known."""

    def margins(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Margins ``(n,)`` of a batch."""
        return model(inputs["features"]).float()

    def take_rows(self, inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """The pairs ``rows``."""
        return {name: part[rows] for name, part in inputs.items()}


class Differences(torch.utils.data.Dataset[Any]):
    """Differences of features as a data set of pairs."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = torch.as_tensor(rows, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"features": self.rows[place], "index": place, "chosen": [0], "rejected": [0]}


def _collated(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    features = torch.stack([item["features"] for item in items])
    return {"features": features, "index": torch.tensor([item["index"] for item in items])}


def trained(rows: np.ndarray, pairs: Sequence[Pair], spec: str, *, seed: int, labels: np.ndarray | None) -> np.ndarray:
    """Weights ``(d,)`` of one head.

    Args:
        rows: Differences of features, ``(n, d)``.
        pairs: Theirs, for prompts.
        spec: The set or rule.
        seed: Of the initial weights and the order; the slice is the same for all.
        labels: Probabilities that the labels are right, ``(n,)``; None: they are certain.
    """
    places = {pair.id: place for place, pair in enumerate(pairs)}
    kept, aside = set_apart(pairs, parse_reweighting(spec), SliceSettings(), seed=0)
    own, held = ([places[pair.id] for pair in part] for part in (kept, aside))
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        told = {"output_dir": folder, "seed": seed, "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
        trainer = HeadTrainer(
            model=Head(rows.shape[1]),
            args=TrainingArguments(**{**TRAINING_DEFAULTS, "logging_steps": 1000, **SETTINGS, **told}),
            train_dataset=Differences(rows[own]),
            data_collator=_collated,
            ambiguity=spec,
        )
        if aside:
            trainer.slice = Slice(Differences(rows[held]), aside, {}, every=SliceSettings().auto_every)
        if labels is not None:
            trainer.soften(labels[own].tolist())
        trainer.train()
    model: Any = trainer.model
    return model.weight.detach().numpy().astype(np.float64)


def table(
    rows: np.ndarray, pairs: Sequence[Pair], test: np.ndarray, test_pairs: Sequence[Pair]
) -> Iterator[tuple[str, ...]]:
    """Norm against plain training, and accuracy on pairs of the same sources, of every arm; means over seeds."""
    scale = np.sqrt(np.mean(rows**2, axis=0))
    rows, test = rows / scale, test / scale
    prompts = [asked(pair.prompt) for pair in test_pairs]
    codes = np.unique([asked(pair.prompt) for pair in pairs], return_inverse=True)[1]
    soft = crossfit(rows, codes)
    yield ("labels", "adversary", "norm / plain", "accuracy, %", "difference to plain", f"keeps {KEPT:g}")
    hard = np.zeros(0)
    for name, labels, arms in (("as they are", None, HARD), ("cross-fitted", soft, SOFT)):
        plain: tuple[float, np.ndarray] | None = None
        for spec in arms:
            heads = [trained(rows, pairs, spec, seed=seed, labels=labels) for seed in SEEDS]
            norm = float(np.mean([np.linalg.norm(head) for head in heads]))
            right = np.mean([credit(test @ head) for head in heads], axis=0)
            plain = (norm, right) if plain is None else plain
            hard = right if labels is None and spec == "erm" else hard
            change = paired_difference(right, hard if spec == "erm" else plain[1], prompts)
            told = f"{_percent(change)}{' (to labels as they are)' if spec == 'erm' else ''}"
            judged = spec == "tv:auto=0.5" or spec.startswith("regret:")
            yield (
                name, f"`{spec}`", f"{norm / plain[0]:.2f}", _percent(accuracy_interval(right, prompts)),
                told if labels is not None or spec != "erm" else "",
                ("yes" if norm >= KEPT * plain[0] else "no") if judged else "",
            )  # fmt: skip


def _percent(interval: Any) -> str:
    mean, low, high = (100 * value for value in interval)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"
