"""One training run, whatever is trained: read, check, train, export; resumable at every point."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProgressCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from ..adversary.acting import check_reached, verdict_of
from ..adversary.ledger import describe_adversary
from ..adversary.schedule import AdaptiveStrength
from ..adversary.spec import parse_reweighting
from ..data.pairs import Pair
from ..judging.margins import MarginOf
from ..judging.tables import write_metrics
from ..models.adapters import merged, with_adapter
from ..models.architectures import check_length
from ..models.card import model_card
from ..models.saving import save_model
from ..models.sharding import is_sharded, whole_model
from ..models.usage import licence_of
from ..run.environment import environment
from ..run.files import json_ready, write_json, write_text
from ..run.finished import RECORD, read_record, seal
from ..run.folder import SETTINGS, CheckpointError, TrainingClock, check_output, write_folder
from ..run.resumption import other_versions
from ..text.chat_templates import holds_frame
from ..text.encoding import SIDES, EncodedPairs, PairCollator, Side, encode_pairs
from .averaging import IterateAverage
from .config import ConfigError, TrainConfig
from .examples import load_training_pairs
from .guards import check_weights
from .identity import identity
from .interrupts import checkpoint_on_interrupt
from .pair_trainer import GROUPINGS, PairTrainer, StepBar
from .processes import bounded_waiting, locked_for_all, on_main_process
from .requests import check_requests
from .resuming import start_run
from .sessions import Sums

Config = TypeVar("Config", bound=TrainConfig)
_log = logging.getLogger(__name__)


class PublishError(RuntimeError):
    """The finished model could not be uploaded."""


class Task(ABC, Generic[Config]):
    """What one kind of training adds to the shared procedure.

    Attributes:
        config: The settings of the run.
        adapter_task: What peft calls the kind of model.
        sides: The answers of a pair that a training step reads.
    """

    adapter_task: ClassVar[str]
    sides: ClassVar[Sequence[Side]] = SIDES

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def load(self, train: Sequence[Pair]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model to start from, and its tokenizer."""

    @abstractmethod
    def trainer(self, **common: Any) -> PairTrainer:
        """The trainer; ``common`` are the arguments that every ``RobustTrainer`` gets."""

    @abstractmethod
    def margin_of(self, output: Path) -> MarginOf:
        """How the finished model of the run folder ``output`` is judged."""

    def prepare(self, trainer: PairTrainer, arguments: TrainingArguments, output: Path) -> None:
        """What is left to do when the run folder stands and before the first step."""


@dataclass(frozen=True)
class Trained:
    """A finished training run: the model, and what the report and the model card say about it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: list[dict]
    adversary: dict
    data: dict
    steps: int
    seconds: float
    forced: list[str]
    verdict: dict[str, Any]


def train_run(task: Task[Any], arguments: TrainingArguments) -> Trained:
    """Train what ``task`` describes; the run folder holds checkpoints, ``model/``, ``run.json``.

    Raises:
        DataError: The training file cannot be used.
        ModelError: The model cannot be loaded.
        FileExistsError: The run folder exists and neither resume nor overwrite is set.
        FolderInUse: Another process works in it.
        NonFiniteLoss, CheckpointError: See ``RobustTrainer``.
        llm.training.interrupts.Interrupted: Ctrl-C or SIGTERM; a checkpoint of the last finished step stands there.
    """
    check_requests(task.config, arguments)
    with locked_for_all(str(arguments.output_dir)):
        return _train_run(task, arguments)


def _train_run(task: Task[Any], arguments: TrainingArguments) -> Trained:
    config, folder = task.config, str(arguments.output_dir)
    output = on_main_process(lambda: check_output(folder, resume=config.resume, overwrite=config.overwrite))
    train, held_out, files = load_training_pairs(config)
    trainer, encoded = build_trainer(task, arguments, train, held_out)
    average = _average(trainer, config)
    clock = TrainingClock()
    trainer.resumable.append(clock)
    sums, judged = Sums(trainer, clock), bool(arguments.load_best_model_at_end)
    checkpoint, forced = on_main_process(
        lambda: start_run(output, identity(config, arguments, files), config, best=judged)
    )
    task.prepare(trainer, arguments, output)
    with bounded_waiting(arguments.ddp_timeout), checkpoint_on_interrupt(trainer):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None, verified=True)
    sums.conclude()
    model: Any = trainer.model
    if average:
        average.copy_to(model)
    if config.final == "best" and trainer.state.best_model_checkpoint is None:
        raise CheckpointError(
            "no checkpoint was judged, so there is no best one: lower save_steps below the run's length"
        )
    check_weights(model, trainer.state.global_step)
    whole = whole_model(trainer, lambda: with_adapter(task.load(train)[0], config.adapter(), task=task.adapter_task))
    tokenizer: Any = trainer.processing_class
    result = Trained(
        model=model if whole is None else merged(whole, merge=config.merge_adapter),
        tokenizer=tokenizer,
        history=trainer.state.log_history,
        adversary=describe_adversary(trainer.ledger, train, logistic=trainer.logistic),
        data=files | {"trained_on": len(train), "truncation": asdict(encoded.truncation)},
        steps=trainer.state.global_step,
        seconds=clock.seconds(),
        forced=forced,
        verdict=verdict_of(config.ambiguity, trainer.ledger),
    )
    on_main_process(lambda: save_run(output, task, arguments, result))
    if whole is not None:
        cast(Any, result.model).to(arguments.device)  # for judging; a sharded run exports from main memory
    return result


def publish(folder: Path, repository: str) -> None:
    """Upload an exported model with its card to a hub repository, which is made private where it does not exist.

    Raises:
        PublishError: The hub cannot be reached or refuses; the model on disk is whole.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repository, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise PublishError(
            f"the run is finished and {folder} is whole, but it could not be uploaded to {repository}: {reason[0]}"
        ) from error


def build_trainer(
    task: Task[Any], arguments: TrainingArguments, train: Sequence[Pair], held_out: Sequence[Pair]
) -> tuple[PairTrainer, EncodedPairs]:
    """Load the model, encode the pairs, assemble the trainer; nothing is written."""
    config = task.config
    set_seed(arguments.seed)
    model, tokenizer = task.load(train)
    disable_progress_bar()  # a bar for every written shard; the one for the steps is ours
    check_length(model, config.max_length)
    tokenizer.model_max_length = config.max_length  # travels with the model, so that judging cuts alike
    encoded = encode_pairs(train, tokenizer, max_length=config.max_length, progress=not arguments.disable_tqdm)
    trainer = task.trainer(
        model=with_adapter(model, config.adapter(), task=task.adapter_task),
        args=arguments,
        train_dataset=encoded,
        eval_dataset=encode_pairs(held_out, tokenizer, max_length=config.max_length) if held_out else None,
        processing_class=tokenizer,
        data_collator=PairCollator(tokenizer, max_length=config.max_length),
        ambiguity=parse_reweighting(config.ambiguity),
        schedule=config.schedule(),
        passes=config.passes,
        last_window=config.last_window,
        example_ids=[pair.id for pair in encoded.pairs],
        columns={name: [getattr(pair, name) or "" for pair in encoded.pairs] for name in GROUPINGS},
    )
    check_reached(trainer.ambiguity, trainer.schedule, steps_of(trainer)[0])
    trainer.compute_metrics = trainer.held_out_metrics(held_out) if held_out else None
    if config.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(config.patience))
    if config.adapt_radius:
        trainer.adapt(AdaptiveStrength())
    if not arguments.disable_tqdm:
        trainer.pop_callback(ProgressCallback)
        trainer.add_callback(StepBar)
    return trainer, encoded


def steps_of(trainer: PairTrainer) -> tuple[int, int]:
    """Optimizer steps of a run, and of an epoch, as ``Trainer`` counts them."""
    arguments, examples = trainer.args, trainer.epoch_examples
    together = arguments.per_device_train_batch_size * arguments.world_size
    batches = examples // together if arguments.dataloader_drop_last else -(-examples // together)
    per_epoch = max(-(-batches // arguments.gradient_accumulation_steps), 1)
    return arguments.max_steps if arguments.max_steps > 0 else ceil(arguments.num_train_epochs * per_epoch), per_epoch


def _average(trainer: PairTrainer, config: TrainConfig) -> IterateAverage | None:
    if config.final != "average":
        return None
    if is_sharded(trainer):
        raise ConfigError(
            "final=average keeps a second whole model, which FSDP2 and ZeRO-3 spread over ranks: use last"
        )
    model: Any = trainer.model
    average = IterateAverage(model, after=config.average_after)
    trainer.add_callback(average)
    trainer.resumable.append(average)
    return average


def save_run(output: Path, task: Task[Any], arguments: TrainingArguments, result: Trained) -> None:
    """Write ``model/`` (safetensors, tokenizer, card) and ``run.json`` into the run folder; push it if asked."""
    record = {
        "kind": task.config.kind,
        "config": asdict(task.config),
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
        "forced": result.forced,
        "other_versions": other_versions(output / SETTINGS),
        "licence": licence_of(task.config.model),
        "adds_special_tokens": not holds_frame(result.tokenizer),
        **result.verdict,
    }
    if result.verdict["inaction"]:
        _log.warning("%s", result.verdict["inaction"])

    def fill(folder: Path) -> None:
        save_model(folder, result.model, result.tokenizer)
        write_text(folder / "README.md", model_card(record))

    write_folder(output / "model", fill)
    write_json(output / RECORD, json_ready(record))
    seal(output)


def add_results(output: Path, judged: dict[str, Any], suites: Mapping[str, Sequence[Pair]]) -> None:
    """Put an evaluation beside the model: metrics.json, metrics.csv, margins.jsonl, and the card's table."""
    record = read_record(output / RECORD, "config", "data", "kind")
    write_text(output / "model" / "README.md", model_card(record, judged["suites"]))
    write_metrics(judged, suites, output)
