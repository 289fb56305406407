"""Tiny models, data and arguments for the tests against TRL; nothing here trains or judges anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from tokenizers import processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
    TrainerCallback,
    set_seed,
)

from llm.data.corpus.corpus import generate
from llm.models.loading import _byte_level_tokenizer

PAIRS = generate(24, seed=7)
LENGTH = 128


class Tiny(NamedTuple):
    """Folders of a causal model, a reference beside it and a reward model; tokenizer; the pairs as TRL reads them."""

    causal: str
    reference: str
    reward: str
    tokenizer: PreTrainedTokenizerBase
    data: Dataset


def build(folder: Path) -> Tiny:
    """Two layers of 32, random but far enough from zero that losses differ."""
    texts = [text for pair in PAIRS for text in (pair.prompt[-1]["content"], pair.chosen, pair.rejected)]
    tokenizer: Any = _byte_level_tokenizer(texts, max_length=LENGTH)
    tokenizer.eos_token = "[SEP]"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    set_seed(0)
    for name in ("causal", "reference"):
        LlamaForCausalLM(config).save_pretrained(folder / name)
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folder / "reward")
    for name in ("causal", "reference", "reward"):
        tokenizer.save_pretrained(folder / name)
    rows = [
        {"prompt": p.prompt[-1]["content"], "chosen": " " + p.chosen, "rejected": " " + p.rejected, "source": p.source}
        for p in PAIRS
    ]
    folders = (str(folder / name) for name in ("causal", "reference", "reward"))
    return Tiny(*folders, tokenizer, Dataset.from_list(rows))


def arguments(kind: Any, folder: Path, *, micro: int = 1, steps: int = 4, **kwargs: Any) -> Any:
    """TRL's own arguments, on a CPU, in float32, one optimizer step, every step logged."""
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": steps,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "activation_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    return kind(**{**defaults, **kwargs})


class Gradients(TrainerCallback):
    """Keeps the gradient of every optimizer step."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Before the optimizer uses it."""
        self.steps.append(flat_gradient(kwargs["model"]))


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    """The gradient of all parameters that have one, as one vector."""
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Distance over the length of ``expected``."""
    return float((found - expected).norm() / expected.norm())
