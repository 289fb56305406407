"""What exactness.py compares, by launcher, precision, adapter and rows, and the model that all of it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from llm.data.corpus.corpus import generate
from llm.models.loading import tiny_reward_model
from llm.text.encoding import encode_pairs
from llm.training.passes import Passes

PAIRS = generate(24, seed=7)
CATEGORIES = [pair.category for pair in PAIRS]
MICRO_BATCHES = 4
BATCH = 16  # pairs per optimizer step, over all ranks
CLIP, RATE = 1.0, 1e-3  # for more than one step: clipping by the global norm is part of what is compared


class Launcher(StrEnum):
    """How the ranks share the work."""

    SINGLE = "single process"
    DDP = "DDP"
    FSDP2 = "FSDP2"
    ZERO2 = "ZeRO-2"
    ZERO3 = "ZeRO-3"


class Precision(StrEnum):
    """What the forward pass computes in."""

    FP32 = "fp32"
    AUTOCAST = "bf16 autocast"  # weights and gradients stay float32
    WEIGHTS = "bf16 weights"  # what bf16=True means to FSDP2: weights, activations and gradients, all of them


class Adapter(StrEnum):
    """Which parameters are trained."""

    FULL = "full"
    LORA = "LoRA"


class Rows(StrEnum):
    """How the effective batch is cut."""

    EVEN = "even"
    UNEQUAL = "unequal rows per rank"
    RAGGED = "ragged last window"


@dataclass(frozen=True)
class Cell:
    """One comparison: the gradient of a step, or the parameters after several."""

    launcher: Launcher
    precision: Precision = Precision.FP32
    adapter: Adapter = Adapter.FULL
    checkpointing: bool = False
    rows: Rows = Rows.EVEN
    steps: int = 1
    ambiguity: str = "tv:0.4"
    device: str = "cpu"
    micro_batches: int = MICRO_BATCHES
    passes: Passes = "auto"

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Cell:
        """The cell that ``asdict`` turned into ``record``."""
        kinds = {"launcher": Launcher, "precision": Precision, "adapter": Adapter, "rows": Rows}
        return cls(**{name: kinds.get(name, lambda x: x)(value) for name, value in record.items()})


@dataclass(frozen=True)
class Start:
    """Where every cell begins: the model, its tokenizer, the encoded pairs."""

    model: nn.Module
    tokenizer: Any
    data: Any


def start(adapter: Adapter) -> Start:
    """The tiny model with a head so large that losses differ; adapters are random, so both factors have gradients."""
    set_seed(0)
    model: Any
    model, tokenizer = tiny_reward_model((pair.chosen + pair.rejected for pair in PAIRS), max_length=96)
    with torch.no_grad():
        model.classifier.weight *= 20
    if adapter is Adapter.LORA:
        from peft import LoraConfig, get_peft_model

        lora: Any = {"target_modules": "all-linear", "modules_to_save": ["classifier"], "init_lora_weights": False}
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, task_type="SEQ_CLS", **lora))
    return Start(model, tokenizer, encode_pairs(PAIRS, tokenizer, max_length=96))
