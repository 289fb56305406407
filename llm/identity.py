"""What a resumed run must have in common with the one it continues."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from .config import RunConfig

# What a resumed run may have differently; the files count by their content.
_MAY_CHANGE = {
    "dry_run",
    "eval_pairs",
    "force",
    "overwrite",
    "publish",
    "resume",
    "skip_damaged",
    "suites",
    "train_file",
    "eval_file",
}
_DECISIVE = (
    *("seed", "learning_rate"),
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "lr_scheduler_type",
    "weight_decay",
    "max_grad_norm",
    "bf16",
    "fp16",
    "warmup_steps",
    "lr_scheduler_kwargs",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "data_seed",
    "dataloader_drop_last",
)
_OF_A_MODEL = (".safetensors", ".json", ".jinja")  # chat templates are files of their own
_DECISIVE_IF_JUDGED = ("eval_strategy", "eval_steps", "save_strategy", "save_steps", "metric_for_best_model")


def identity(config: RunConfig, arguments: TrainingArguments, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that decide the result, and the content of the files.

    Args:
        config: Ours.
        arguments: Those of transformers.
        files: Their records by role, each with its ``sha256``.
    """
    ours = {name: value for name, value in asdict(config).items() if name not in _MAY_CHANGE}
    judged = ours.get("final") == "best" or ours.get("adapt_radius")
    theirs = {name: getattr(arguments, name) for name in _DECISIVE + (_DECISIVE_IF_JUDGED if judged else ())}
    return ours | theirs | {f"sha256 of the {name} file": record["sha256"] for name, record in files.items()}


def digest(path: Path) -> str:
    """Hash of a file, or of what makes the model in a folder: weights, tokenizer and configuration, not its card."""
    hashed = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in _OF_A_MODEL)
    for file in files:
        with file.open("rb") as stream:
            hashed.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}".encode())
    return hashed.hexdigest()
