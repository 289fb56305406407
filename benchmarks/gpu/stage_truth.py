"""MiniLM, all of it, trained on the real pairs where they were carried: plain, tv:0.2, by=source; curves are kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import Record, Room, kept_going
from pack import restored
from surroundings import Setting
from transformers import TrainerCallback, TrainingArguments, set_seed

from llm.data.corpus.corpus import generate
from llm.data.grouping.columns import PairColumns
from llm.data.pairs import read_pairs
from llm.judging.margins import reward_margins
from llm.kinds.reward import RewardTrainer
from llm.models.loading import load_reward_model, tiny_reward_model
from llm.statistics.ties import credit
from llm.text.batches import PairCollator
from llm.text.encoding import EncodedPairs, encode_pairs
from llm.training.pair_trainer import texts_of
from llm.training.settings import TRAINING_DEFAULTS

ARMS = ("erm", "tv:0.2", "tv:0.2,by=source")
LENGTH, BATCH, RATE = 128, 64, 1e-4
PROBE = 10  # steps that tell how long one takes


@dataclass(frozen=True)
class Material:
    """Encoded pairs, and how a fresh model is had."""

    train: EncodedPairs
    suites: dict[str, EncodedPairs]
    fresh: Callable[[], tuple[Any, Any]]
    steps: int


class Curve(TrainerCallback):
    """Mean and robust loss of every logged step."""

    def __init__(self) -> None:
        self.rows: list[Record] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep what is told of the training."""
        names = ("mean_loss", "robust_loss", "effective_sample_size")
        if logs and "mean_loss" in logs:
            self.rows.append({"step": state.global_step, **{name: round(logs[name], 4) for name in names}})


def measure(setting: Setting, say: Callable[[Record], Any]) -> None:
    """Seeds one after the other, all arms of a seed before the next, as many as fit."""
    with tempfile.TemporaryDirectory() as folder:
        found = invented() if setting.tiny else carried(Path(setting.carried), Path(folder), say)
        if found is None:
            return
        fitted, room = replace(found, steps=fitting_steps(found, setting, folder)), Room(setting)
        for seed in range(1 if setting.tiny else 20):
            for arm in ARMS:
                if setting.has(arm=arm, seed=seed, steps=fitted.steps):
                    continue
                if not room.is_left():
                    return
                with room.taken(), kept_going(say, arm=arm, seed=seed):
                    say({"arm": arm, "seed": seed, **trained(fitted, arm, seed, setting, folder)})


def fitting_steps(material: Material, setting: Setting, folder: str) -> int:
    """Steps of a run: all of an epoch, or as many as let every arm be trained once; as an earlier start chose."""
    for steps in range(1, material.steps + 1):
        if setting.has(steps=steps):
            return steps
    if setting.tiny:
        return material.steps
    trained(replace(material, steps=2, suites={}), ARMS[0], 0, setting, folder)  # warms up
    warmed = time.perf_counter()
    trained(replace(material, steps=PROBE, suites={}), ARMS[-1], 0, setting, folder)
    pace = (time.perf_counter() - warmed) / PROBE
    judged = pace * sum(map(len, material.suites.values())) / BATCH  # a forward pass alone, but in float32
    return max(PROBE, min(material.steps, int((0.9 * setting.left / len(ARMS) - judged) / pace)))


def carried(folder: Path, scratch: Path, say: Callable[[Record], Any]) -> Material | None:
    """The real pairs and MiniLM, where both were carried along."""
    train, model = folder / "data" / "train.jsonl.gz", folder / "minilm"
    if not train.exists() or not model.exists():
        say({"skipped": f"no {train} or no {model}: docs/gpu.md says how to pack them"})
        return None
    start = restored(model, scratch / "minilm")

    def fresh() -> tuple[Any, Any]:
        return load_reward_model(str(start))

    tokenizer = fresh()[1]
    files = sorted((folder / "data").glob("*_*.jsonl.gz"))
    suites = {file.name.split(".")[0]: read_pairs(file).pairs for file in files}
    pairs = read_pairs(train).pairs
    encoded = {name: encode_pairs(rows, tokenizer, max_length=LENGTH) for name, rows in suites.items()}
    return Material(encode_pairs(pairs, tokenizer, max_length=LENGTH), encoded, fresh, len(pairs) // BATCH)


def invented() -> Material:
    """The built-in corpus and a tiny model, for a dry run."""
    pairs = generate(2 * BATCH, seed=1)

    def fresh() -> tuple[Any, Any]:
        return tiny_reward_model(texts_of(pairs), max_length=64)

    encoded = encode_pairs(pairs, fresh()[1], max_length=64)
    return Material(encoded, {"train": encoded}, fresh, 2)


def trained(material: Material, arm: str, seed: int, setting: Setting, folder: str) -> Record:
    """One run: accuracy by suite, category and source, the curve, seconds."""
    set_seed(seed)
    model, tokenizer = material.fresh()
    curve, given = Curve(), {
        "output_dir": folder, "per_device_train_batch_size": BATCH, "max_steps": material.steps, "learning_rate": RATE,
        "save_strategy": "no", "logging_steps": max(material.steps // 40, 1), "disable_tqdm": True, "seed": seed,
        "use_cpu": setting.tiny, "bf16": not setting.tiny, "weight_decay": 0.01, "optim": "adamw_torch",
        "lr_scheduler_type": "linear", "dataloader_num_workers": 0,
    }  # fmt: skip
    trainer = RewardTrainer(
        model=model,
        args=TrainingArguments(**{**TRAINING_DEFAULTS, **given}),
        train_dataset=material.train,
        data_collator=PairCollator(tokenizer, max_length=LENGTH),
        ambiguity=arm,
        columns=PairColumns(material.train.pairs),
        callbacks=[curve],
    )
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # accelerate left it in autocast
    judged = {name: accuracies(model, tokenizer, suite) for name, suite in material.suites.items()}
    return {"seconds": round(seconds, 1), "steps": material.steps, "suites": judged, "curve": curve.rows}


def accuracies(model: Any, tokenizer: Any, suite: EncodedPairs) -> Record:
    """Accuracy over all, of every category, and how many pairs stand behind each."""
    right = credit(np.concatenate(list(margins(model, tokenizer, suite))))
    categories = np.array([pair.category for pair in suite.pairs])
    groups = {name: right[categories == name] for name in sorted(set(categories))}
    told = {name: [round(float(part.mean()), 4), len(part)] for name, part in groups.items()}
    return {"accuracy": round(float(right.mean()), 4), "pairs": len(right), "categories": told}


@torch.no_grad()
def margins(model: Any, tokenizer: Any, suite: EncodedPairs) -> Iterator[np.ndarray]:
    """Margins of the suite in its order, a batch at a time, in float32."""
    model.eval()
    collate, device = PairCollator(tokenizer, max_length=LENGTH), next(model.parameters()).device
    for first in range(0, len(suite), 256):
        batch = collate([suite[row] for row in range(first, min(first + 256, len(suite)))])
        yield reward_margins(model, {name: part.to(device) for name, part in batch.items()}).float().cpu().numpy()
