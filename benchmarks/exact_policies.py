"""What exactness.py compares of policies, and where all of it starts.

A rollout is given: every prompt has answers of its own, of different lengths, whoever asks. Its scores put the weight
of the adversary on the prompts of the first rank: the second has fewer answers left to look at in an update.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from exact_cells import Adapter, Launcher
from torch import nn
from transformers import set_seed

from llm.models.loading import tiny_policy
from llm.policy.asking.order import in_turn
from llm.policy.generation.engine import Answer

PROMPTS, SAMPLES, LONGEST, MICRO = 8, 3, 6, 4
SEED = 42
SECOND = set(in_turn(0, PROMPTS, PROMPTS, seed=SEED)[PROMPTS // 2 :].tolist())  # prompts of the second rank, at first
AMBIGUITY, CHARGE, LAMBDA, VALUE_WEIGHT = "tv:0.4", 0.1, 0.9, 0.5
RATE, CLIP = 1e-3, 1.0  # for more than one step


@dataclass(frozen=True)
class PolicyCell:
    """One comparison: the gradient of the first update, or the parameters after several rollouts."""

    launcher: Launcher
    adapter: Adapter = Adapter.FULL
    estimator: str = "rloo"  # rloo and ppo charge KL to the reward, grpo adds its estimate k3 to the loss
    steps: int = 1

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> PolicyCell:
        """The cell that ``asdict`` turned into ``record``."""
        kinds = {"launcher": Launcher, "adapter": Adapter}
        return cls(**{name: kinds.get(name, lambda x: x)(value) for name, value in record.items()})


@dataclass(frozen=True)
class Beginning:
    """Where a cell begins: policy, the reference that it has left, a tokenizer, and prompts by their ids."""

    policy: nn.Module
    reference: nn.Module | None
    tokenizer: Any
    encoded: list[list[int]]

    def answers(self, prompt: int) -> list[Answer]:
        """Its answers, of one to ``LONGEST`` tokens."""
        rng = np.random.default_rng([7, prompt])
        lengths = rng.integers(1, LONGEST + 1, size=SAMPLES)
        return [Answer(self.encoded[prompt], rng.integers(3, 60, size=n).tolist(), ended=True) for n in lengths]

    def scores(self, prompt: int) -> np.ndarray:
        """What they are worth, ``(SAMPLES,)``: more on the second rank, which the adversary leaves with one prompt."""
        return np.random.default_rng([8, prompt]).normal(size=SAMPLES) + 4.0 * (prompt in SECOND)


def begin(adapter: Adapter) -> Beginning:
    """The tiny policy with weights so large that log-probabilities differ; adapters are random, as for rewards."""
    set_seed(0)
    policy: Any
    policy, tokenizer = tiny_policy(["some words to make tokens of, and a few others"], max_length=48)
    with torch.no_grad():
        for part in policy.parameters():
            part += 0.05 * torch.randn_like(part)
    reference = None
    if adapter is Adapter.LORA:
        from peft import LoraConfig, get_peft_model

        settings: Any = {"target_modules": "all-linear", "init_lora_weights": False}
        policy = get_peft_model(policy, LoraConfig(r=4, lora_alpha=4, task_type="CAUSAL_LM", **settings))
    else:
        reference = copy.deepcopy(policy)
        with torch.no_grad():
            for part in reference.parameters():
                part += 0.01 * torch.randn_like(part)
    rng = np.random.default_rng(3)
    encoded = [rng.integers(3, 60, size=rng.integers(2, 6)).tolist() for _ in range(PROMPTS)]
    return Beginning(policy, reference, tokenizer, encoded)
