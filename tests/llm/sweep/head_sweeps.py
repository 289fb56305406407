"""A sweep of heads and whole models on pairs whose labels are uncertain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tiny_models import save_models

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs

LENGTH = 96
SURE = np.random.default_rng(4).choice([0.5, 0.6, 0.9, 1.0, np.nan], size=200)
REGIMES = {
    "noisy": {"label_noise": 0.25},
    "soft": {"label_noise": 0.25, "soft_labels": "data"},
    "fitted": {"label_noise": 0.25, "soft_labels": "crossfit", "soft_folds": 4},
    "crossed": {"label_noise": 0.25, "cross_prompt": 0.5},
    "both": {"soft_labels": "crossfit", "soft_folds": 3, "cross_prompt": 0.3},
}


def build(folder):
    """Pairs of which most say how sure they are, and a model."""
    pairs = generate(200, seed=2)
    (folder / "data").mkdir()
    told = [replace(pair, preference=None if np.isnan(p) else p) for pair, p in zip(pairs, SURE, strict=True)]
    write_pairs(told, folder / "data" / "train.jsonl")
    write_pairs(generate(16, seed=3), folder / "data" / "suite.jsonl")
    save_models(folder, pairs, max_length=LENGTH)


def settings(folder, grid, **more):
    heads = {"kind": "head", "model": str(folder / "rm"), "max_length": LENGTH, "epochs": 2, "batch_size": 16}
    whole = {"kind": "full", "recipe": "reward-tiny", "model": str(folder / "rm"), "max_length": LENGTH,
             "use_cpu": True, "max_steps": 4, "save_steps": 4, "plain_share": 0, "ramp_share": 0, "logging_steps": 1,
             "per_device_train_batch_size": 16, "auto_slice": 24, "auto_every": 2}  # fmt: skip
    told = {"data": str(folder / "data"), "models": {"heads": heads, "whole": whole}, "regimes": REGIMES}
    return told | {"head": {"auto_slice": 24, "auto_every": 5}, "grid": grid} | more
