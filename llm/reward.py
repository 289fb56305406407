"""Bradley-Terry reward models, trained against the worst reweighting of each effective batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from dro_core import parse_ambiguity

from .averaging import IterateAverage
from .card import environment, model_card
from .checkpoints import (
    CheckpointError,
    TrainingClock,
    check_output,
    latest_checkpoint,
    start_output,
    write_folder,
    write_json,
)
from .config import RewardConfig
from .data import Pair
from .encoding import EncodedPairs, PairCollator, encode_pairs
from .guards import check_weights
from .interrupts import checkpoint_on_interrupt
from .ledger import describe_adversary
from .losses import bradley_terry_loss
from .models import check_length, load_reward_model, tiny_reward_model
from .robust_trainer import RobustTrainer
from .selection import load_training_pairs
from .tables import json_ready, write_metrics, write_text

_MAY_CHANGE = {"resume", "overwrite", "suites", "train_file", "eval_file"}  # the files count by their content
_DECISIVE = (
    "seed",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "lr_scheduler_type",
    "weight_decay",
    "max_grad_norm",
)


class RewardTrainer(RobustTrainer):
    """``RobustTrainer`` with the Bradley-Terry loss; batches as ``llm.encoding.PairCollator`` makes them."""

    def example_losses(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Negative log-likelihood of every pair, shape ``(n,)``, in float32."""
        chosen, rejected = _rewards(model, inputs).chunk(2)
        return bradley_terry_loss(chosen, rejected)

    def take_rows(self, inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """The pairs ``rows``: their chosen and their rejected sequences."""
        both = torch.cat([rows, rows + len(inputs["index"])])
        sequences = {name: inputs[name][both] for name in ("input_ids", "attention_mask")}
        return {**sequences, "index": inputs["index"][rows]}

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Mean loss and the margins r(chosen) - r(rejected) of one evaluation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            chosen, rejected = _rewards(model, inputs).chunk(2)
        loss = bradley_terry_loss(chosen, rejected).mean()
        return (loss, None, None) if prediction_loss_only else (loss, chosen - rejected, inputs["index"])


def _rewards(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    return output.logits[:, 0].float()


def accuracy_by_category(pairs: Sequence[Pair]):
    """The ``compute_metrics`` of a held-out set: accuracy, and that of its worst category."""
    categories = np.array([pair.category for pair in pairs])

    def metrics(prediction: Any) -> dict[str, float]:
        correct = prediction.predictions > 0
        group = categories[prediction.label_ids]
        return {
            "accuracy": float(correct.mean()),
            "worst_category_accuracy": float(min(correct[group == name].mean() for name in set(group))),
        }

    return metrics


class StepBar(TrainerCallback):
    """One bar for the optimizer steps, with the latest losses behind it instead of a line for every log."""

    bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the bar, where a resumed run left off."""
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", dynamic_ncols=True)

    def on_step_end(self, args, state, control, **kwargs):
        """One step further."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the latest mean and robust loss."""
        logs = logs or {}
        if self.bar is not None and "mean_loss" in logs:
            self.bar.set_postfix({name: f"{logs[name]:.3f}" for name in ("mean_loss", "robust_loss")})

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


@dataclass(frozen=True)
class TrainedReward:
    """A finished training run: the model, and what the report and the model card say about it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: list[dict]
    adversary: dict
    data: dict
    steps: int
    seconds: float


def train_reward(config: RewardConfig, arguments: TrainingArguments) -> TrainedReward:
    """Train a reward model; the run folder holds checkpoints, ``model/``, ``run.json``.

    Raises:
        DataError: The training file cannot be used.
        ModelError: The model cannot be loaded.
        FileExistsError: The run folder exists and neither resume nor overwrite is set.
        NonFiniteLoss, CheckpointError: See ``RobustTrainer``.
        llm.interrupts.Interrupted: Ctrl-C; a checkpoint of the last finished step stands in the run folder.
    """
    output = check_output(str(arguments.output_dir), resume=config.resume, overwrite=config.overwrite)
    train, held_out, files = load_training_pairs(config)
    set_seed(arguments.seed)
    model, tokenizer = build_model(config, train)
    disable_progress_bar()  # a bar for every written shard; the one for the steps is ours
    check_length(model, config.max_length)
    tokenizer.model_max_length = config.max_length  # travels with the model, so that judging cuts alike
    encoded = encode_pairs(train, tokenizer, max_length=config.max_length, progress=not arguments.disable_tqdm)
    trainer = reward_trainer(config, arguments, model, tokenizer, encoded, held_out)
    average = IterateAverage(model, after=config.average_after) if config.final == "average" else None
    if average:
        trainer.add_callback(average)
        trainer.resumable.append(average)
    clock = TrainingClock()
    trainer.resumable.append(clock)
    start_output(output, _identity(config, arguments, files), overwrite=config.overwrite)
    checkpoint = latest_checkpoint(output) if config.resume else None
    with checkpoint_on_interrupt(trainer):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if average:
        average.copy_to(model)
    if config.final == "best" and trainer.state.best_model_checkpoint is None:
        raise CheckpointError(
            "no checkpoint was judged, so there is no best one: lower save_steps below the run's length"
        )
    check_weights(model, trainer.state.global_step)
    result = TrainedReward(
        model=model,
        tokenizer=tokenizer,
        history=trainer.state.log_history,
        adversary=describe_adversary(trainer.ledger, train),
        data=files | {"trained_on": len(train), "truncation": asdict(encoded.truncation)},
        steps=trainer.state.global_step,
        seconds=clock.seconds(),
    )
    if trainer.is_world_process_zero():
        save_run(output, config, arguments, result)
    return result


def _identity(config: RewardConfig, arguments: TrainingArguments, files: dict) -> dict[str, Any]:
    """The settings that decide the result: a resumed run must have the same."""
    ours = {name: value for name, value in asdict(config).items() if name not in _MAY_CHANGE}
    theirs = {name: getattr(arguments, name) for name in _DECISIVE}
    return ours | theirs | {f"sha256 of the {name} file": record["sha256"] for name, record in files.items()}


GROUPINGS = ("source", "category")  # what ``by=`` may name


def reward_trainer(
    config: RewardConfig,
    arguments: TrainingArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedPairs,
    held_out: Sequence[Pair],
) -> RewardTrainer:
    """Assemble the trainer that ``config`` and ``arguments`` describe."""
    trainer = RewardTrainer(
        model=model,
        args=arguments,
        train_dataset=encoded,
        eval_dataset=encode_pairs(held_out, tokenizer, max_length=config.max_length) if held_out else None,
        processing_class=tokenizer,
        data_collator=PairCollator(tokenizer),
        compute_metrics=accuracy_by_category(held_out) if held_out else None,
        ambiguity=parse_ambiguity(config.ambiguity),
        schedule=config.schedule(),
        example_ids=[pair.id for pair in encoded.pairs],
        columns={name: [getattr(pair, name) or "" for pair in encoded.pairs] for name in GROUPINGS},
    )
    if not arguments.disable_tqdm:
        trainer.pop_callback(ProgressCallback)
        trainer.add_callback(StepBar)
    return trainer


def build_model(config: RewardConfig, train: Sequence[Pair]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that ``config`` names; ``tiny`` learns its tokenizer from the training pairs."""
    if config.model != "tiny":
        return load_reward_model(
            config.model, trust_remote_code=config.trust_remote_code, disable_dropout=config.disable_dropout
        )
    texts = (text for pair in train for text in (pair.prompt[-1]["content"], pair.chosen, pair.rejected))
    return tiny_reward_model(texts, max_length=config.max_length)


def save_run(output: Path, config: RewardConfig, arguments: TrainingArguments, result: TrainedReward) -> None:
    """Write ``model/`` (safetensors, tokenizer, card) and ``run.json`` into the run folder."""
    record = {
        "config": asdict(config),
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "effective_batch": arguments.per_device_train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size,
        "steps": result.steps,
        "seconds": result.seconds,
        "data": result.data,
        "environment": environment(),
        "history": result.history,
        "adversary": result.adversary,
    }

    def fill(folder: Path) -> None:
        result.model.save_pretrained(folder)
        result.tokenizer.save_pretrained(folder)
        write_text(folder / "README.md", model_card(record))

    write_folder(output / "model", fill)
    write_json(output / "run.json", json_ready(record))


def add_results(output: Path, judged: dict[str, Any], suites: Mapping[str, Sequence[Pair]]) -> None:
    """Put an evaluation beside the model: metrics.json, metrics.csv, margins.jsonl, and the card's table."""
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    write_text(output / "model" / "README.md", model_card(record, judged["suites"]))
    write_metrics(judged, suites, output)
