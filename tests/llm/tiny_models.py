"""A small policy and a small reward model with another vocabulary, as folders to start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from llm.data.pairs import Pair
from llm.models.loading import tiny_policy, tiny_reward_model


def save_models(
    folder: Path, pairs: Sequence[Pair], *, max_length: int, policy: str = "start", reward: str = "rm"
) -> None:
    """Write both below ``folder``; their words are those of the pairs."""
    torch.manual_seed(0)
    for name, (model, tokenizer) in {
        policy: tiny_policy((pair.prompt[-1]["content"] for pair in pairs), max_length=max_length),
        reward: tiny_reward_model((pair.chosen for pair in pairs), max_length=max_length),
    }.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
