"""Who steps: our trainer's ways to have the weights, the wrong way, and TRL's plain trainers, on one tiny Llama."""

from __future__ import annotations

import copy
import logging
import random
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from dro_core import parse_ambiguity
from llm.kinds.dpo import DPOTrainer
from llm.kinds.reward import RewardTrainer
from llm.models.adapters import with_adapter
from llm.text.batches import PairCollator
from llm.text.encoding import EncodedPairs
from llm.text.truncation import Truncation
from llm.training.config import RewardConfig as Settings
from llm.training.losses import Sigmoid
from llm.training.settings import TRAINING_DEFAULTS

KINDS = ("reward", "dpo")
MODES = {"full": "all weights", "lora": "LoRA, rank 4", "checkpointing": "all weights, activation checkpointing"}
RADII = (0.1, 0.2, 0.4)
MICRO, WINDOW, PAIRS = 4, 4, 64
PROMPT, ANSWER, WORDS = 20, 27, 400
SHAPE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}


class WithoutSkipping:
    """The second pass runs over all examples."""

    def _weighted(self: Any, inputs, weights, *, drop):
        del drop
        return {**inputs, "weights": weights}


class HeldGraphs:
    """A way of earlier versions: one forward pass of every micro-batch, whose graphs all wait for the weights."""

    def _first_pass(self: Any, window):
        """As the trainer's, with what the backward passes need."""
        self.model_wrapped.train()
        with self.compute_loss_context_manager():
            window = [self.with_constants(self.model_wrapped, inputs) for inputs in window]
            losses = [self.example_losses(self.model_wrapped, inputs) for inputs in window]
        held = [{**inputs, "losses": part} for inputs, part in zip(window, losses, strict=True)]
        return held, torch.cat(losses).detach()

    def _weighted(self: Any, inputs, weights, *, drop):
        del drop
        return {**inputs, "weights": weights}

    def compute_loss(self: Any, model, inputs, **kwargs):
        """The share of the robust loss that is known by now."""
        del model, kwargs
        return (inputs["weights"] * inputs["losses"]).sum()


class PerMicroBatch:
    """The wrong way: every micro-batch is its own ambiguity set."""

    def get_batch_samples(self: Any, epoch_iterator, num_batches, device):
        """The window as it is."""
        return Trainer.get_batch_samples(self, epoch_iterator, num_batches, device)

    def compute_loss(self: Any, model, inputs, **kwargs):
        """The mean of the micro-batches' robust losses."""
        loss = super().compute_loss(model, inputs, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return loss / self.current_gradient_accumulation_steps


def _both(change: type) -> tuple[type, type]:
    return type("Reward", (change, RewardTrainer), {}), type("DPO", (change, DPOTrainer), {})


_TRAINERS: dict[str, tuple[Any, Any]] = {
    "ours": (RewardTrainer, DPOTrainer),
    "without skipping": _both(WithoutSkipping),
    "held": _both(HeldGraphs),
    "per micro-batch": _both(PerMicroBatch),
}


@dataclass(frozen=True)
class Way:
    """One way to take a step.

    Attributes:
        name: As in the tables.
        trainer: A key of the trainers, or ``trl``.
        passes: The setting.
        micro: Pairs a micro-batch, of the MICRO * WINDOW that all ways take a step on.
        radii: Of total variation; empty for plain training.
    """

    name: str
    trainer: str = "ours"
    passes: str = "two"
    micro: int = MICRO
    radii: tuple[float, ...] = (0.2,)

    @property
    def single(self) -> bool:
        """Whether one micro-batch holds the whole effective batch."""
        return self.micro == MICRO * WINDOW


WAYS = (
    Way("plain", radii=()),
    Way("TRL, plain", trainer="trl", radii=()),
    Way("two passes, nothing skipped", trainer="without skipping"),
    Way("two passes", radii=RADII),
    Way("single pass", micro=MICRO * WINDOW),
    Way("per micro-batch (wrong)", trainer="per micro-batch", passes="two"),
)


def texts(rows: int) -> list[tuple[str, str, str]]:
    """Prompts and two answers of random words, all of the same length."""
    rng = random.Random(0)

    def words(count: int) -> str:
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(count))

    return [(words(PROMPT), " " + words(ANSWER), " " + words(ANSWER)) for _ in range(rows)]


@cache
def tokenizer() -> Any:
    """One token a word, and a token for the end."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {name: place for place, name in enumerate(["[PAD]", "[SEP]", *(f"w{i}" for i in range(WORDS))])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="[SEP]")


def encoded(rows: int) -> EncodedPairs:
    """The texts for our trainers."""
    items: Any = []
    for prompt, *answers in texts(rows):
        start = tokenizer()(prompt)["input_ids"]
        chosen, rejected = ([*start, *tokenizer()(answer)["input_ids"], 1] for answer in answers)
        span = len(start), len(chosen)
        item = {"index": len(items), "chosen": chosen, "rejected": rejected, "chosen_span": span, "rejected_span": span}
        items.append(item)
    return EncodedPairs([], items, {}, Truncation())


def model_of(kind: str, mode: str) -> Any:
    """A Llama of under a million parameters, random; with an adapter in the mode ``lora``."""
    set_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    config = LlamaConfig(vocab_size=WORDS + 2, num_labels=1, max_position_embeddings=64, **SHAPE, **ids)  # pyright: ignore
    model = (LlamaForSequenceClassification if kind == "reward" else LlamaForCausalLM)(config)
    if mode != "lora":
        return model
    task = "SEQ_CLS" if kind == "reward" else "CAUSAL_LM"
    return with_adapter(model, Settings(train_file="-", lora_rank=4).adapter(), task=task)


def trained_a_little(model: Any) -> Any:
    """The policy away from its reference: at the start of DPO all losses are equal and no weight is zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return model


def _arguments(kind: Any, folder: Path, way: Way, mode: str) -> Any:
    return kind(
        output_dir=str(folder),
        per_device_train_batch_size=way.micro,
        gradient_accumulation_steps=MICRO * WINDOW // way.micro,
        activation_checkpointing=mode == "checkpointing",
        max_steps=1,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
    )


def _trl(kind: str, mode: str, way: Way, folder: Path) -> Any:
    import trl
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    common: dict[str, Any] = {"model": model_of(kind, mode), "processing_class": tokenizer()}
    if kind == "reward":
        items = encoded(PAIRS)
        rows = [{f"{side}_ids": items[row][side] for side in ("chosen", "rejected")} for row in range(PAIRS)]  # pyright: ignore
        arguments = _arguments(trl.RewardConfig, folder, way, mode)
        return trl.RewardTrainer(args=arguments, train_dataset=Dataset.from_list(rows), **common)
    rows = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in texts(PAIRS)]
    if mode != "lora":
        common["ref_model"] = copy.deepcopy(common["model"])
    common["model"] = trained_a_little(common["model"])
    arguments = _arguments(trl.DPOConfig, folder, way, mode)
    return trl.DPOTrainer(args=arguments, train_dataset=Dataset.from_list(rows), **common)


def trainer_of(
    kind: str, mode: str, way: Way, radius: float | None, folder: Path, *, model: Any = None, data: Any = None
) -> Any:
    """The trainer of a contestant; ours also of another model than the Llama, and on other pairs."""
    if way.trainer == "trl":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _trl(kind, mode, way, folder)
    model = model_of(kind, mode) if model is None else model
    common: dict[str, Any] = {
        "args": _arguments(lambda **kwargs: TrainingArguments(**{**TRAINING_DEFAULTS, **kwargs}), folder, way, mode),
        "train_dataset": encoded(PAIRS) if data is None else data,
        "data_collator": PairCollator(tokenizer()),
        "ambiguity": None if radius is None else parse_ambiguity(f"tv:{radius}"),
        "passes": "auto" if radius is None or way.single else way.passes,
    }
    reward, dpo = _TRAINERS[way.trainer]
    if kind == "reward":
        return reward(model=model, **common)
    reference = None if mode == "lora" else copy.deepcopy(model).requires_grad_(requires_grad=False).eval()
    return dpo(model=trained_a_little(model), beta=0.1, pair_loss=Sigmoid(), reference=reference, **common)


def quiet() -> None:
    """Keep the libraries from talking into the table."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("trl", "accelerate", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
