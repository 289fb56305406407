"""Random models of known shapes, random pairs of known length, and trainers on them: speed needs no weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from clock import settle
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from llm.text.batches import PairCollator
from llm.text.encoding import EncodedPairs
from llm.text.truncation import Truncation
from llm.training.settings import TRAINING_DEFAULTS

Record = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A Llama: its sizes, and tokens of a sequence."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tokens: int = 512

    def config(self) -> LlamaConfig:
        """For transformers."""
        sizes = {name: value for name, value in vars(self).items() if name not in ("name", "tokens")}
        return LlamaConfig(
            **sizes, num_labels=1, pad_token_id=0, bos_token_id=None, eos_token_id=1, tie_word_embeddings=True
        )

    def model(self, task: str, device: str, *, attention: str = "sdpa") -> Any:
        """A model with random weights, in bfloat16 on a GPU, made where it lives."""
        set_seed(0)
        kind: Any = AutoModelForSequenceClassification if task == "reward" else AutoModelForCausalLM
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        with torch.device(device):
            model = kind.from_config(self.config(), dtype=dtype, attn_implementation=attention)
        if task == "reward":
            with torch.no_grad():
                model.score.weight *= 20  # losses differ, as they do in training, so that a set can choose
        return model


TINY = Shape("tiny", 64, 128, 2, 4, 2, 256, tokens=16)
SMALL = Shape("0.1 B", 576, 1536, 30, 9, 3, 49152)
MIDDLE = Shape("1 B", 2048, 8192, 16, 32, 8, 128256)
LARGE = Shape("7 B", 4096, 11008, 32, 32, 32, 32000)
MICRO, WINDOW = 4, 4  # pairs of a micro-batch, micro-batches of a step


def parameters(model: Any) -> int:
    """Weights that a forward pass multiplies with, its embedding table left out where it is only looked up."""
    table = model.get_input_embeddings().weight.numel()
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return sum(part.numel() for part in model.parameters()) - (0 if head is not None else table)


def pairs(shape: Shape, rows: int) -> EncodedPairs:
    """Random pairs of which both answers fill the length; the second half of a sequence is the answer."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, shape.vocab_size, (rows, 2, shape.tokens), generator=generator)
    ids[:, 1, : shape.tokens // 2] = ids[:, 0, : shape.tokens // 2]
    span = shape.tokens // 2, shape.tokens
    items: Any = [
        {"index": i, "chosen": first, "rejected": second, "chosen_span": span, "rejected_span": span}
        for i, (first, second) in enumerate(ids.tolist())
    ]
    return EncodedPairs([], items, {}, Truncation())


class PlainTrainer(Trainer):
    """``transformers.Trainer`` with the Bradley-Terry loss and nothing of this project."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        """Mean of -log sigmoid(margin) over the micro-batch."""
        del kwargs
        scores = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0].float()
        chosen, rejected = scores.chunk(2)
        loss = -logsigmoid(chosen - rejected).mean()
        return (loss, {}) if return_outputs else loss


class StepTimes(TrainerCallback):
    """Seconds of every optimizer step, the device waited for."""

    def __init__(self, device: str) -> None:
        self.device, self.ends = device, []

    def _note(self) -> None:
        settle(self.device)
        self.ends.append(time.perf_counter())

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The first step begins."""
        self._note()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A step ends."""
        self._note()

    @property
    def seconds(self) -> list[float]:
        """One entry per step."""
        return [after - before for before, after in zip(self.ends, self.ends[1:], strict=False)]


def arguments(device: str, folder: str, *, single: bool, steps: int, **more: Any) -> TrainingArguments:
    """The same for every contestant: one effective batch, in one micro-batch or in several."""
    given = {
        "output_dir": folder,
        "per_device_train_batch_size": MICRO * WINDOW if single else MICRO,
        "gradient_accumulation_steps": 1 if single else WINDOW,
        "max_steps": steps,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "dataloader_drop_last": True,
        "optim": "adamw_torch",
        **more,
    }
    return TrainingArguments(**{**TRAINING_DEFAULTS, **given})


def collator() -> PairCollator:
    """For the random pairs."""
    return PairCollator(SimpleNamespace(pad_token_id=0))


def step_seconds(make: Callable[[Any], Any], device: str) -> list[float]:
    """Seconds of the steps of a trainer after the first, which warms up; ``make`` takes the callback."""
    times = StepTimes(device)
    trainer = make(times)
    trainer.train()
    return times.seconds[1:]
