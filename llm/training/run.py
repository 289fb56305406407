"""A run on pairs, whatever is made of them: read, check, train, and what is exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProgressCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar

from ..adversary.inaction import check_losses, check_reached
from ..adversary.ledger import describe_adversary
from ..adversary.radius.slices import Slice, check_covers, set_apart
from ..adversary.rules import names_in
from ..adversary.schedule import AdaptiveStrength
from ..adversary.spec import parse_reweighting
from ..audit.audit import Audit
from ..audit.run_audit import RunAudit, Suites
from ..audit.verdicts import Concern
from ..data.grouping.columns import DRAWN, PairColumns
from ..data.grouping.named import NamedGroups
from ..data.pairs import Pair
from ..data.trained_on.pairs import TrainingPairs, training_pairs
from ..judging.margins import MarginOf
from ..models.adapters import merged, with_adapter
from ..models.architectures import check_length, placed, position_limit
from ..models.card import model_card
from ..models.fetching import cache_folder
from ..models.quantised import is_quantised
from ..models.sharding import whole_model
from ..run.files import JsonObject, write_text
from ..run.finished import RECORD, read_record
from ..run.folder import CheckpointError, TrainingClock
from ..text.batches import SIDES, PairCollator, Side
from ..text.encoding import EncodedPairs, Seen, encode_pairs
from ..text.token_cache import TokenCache
from .config import TrainConfig
from .frame import CARD, RunOutcome, Trained, Work, carry_out
from .guards import check_weights
from .interrupts import checkpoint_on_interrupt
from .pair_trainer import PairTrainer, StepBar, steps_of
from .sessions import Sums
from .soft.labels import describe_soft_labels, fit_soft_labels, put_soft_labels
from .soft.settings import SoftLabels

Config = TypeVar("Config", bound=TrainConfig, covariant=True)


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


def train_run(task: Task[TrainConfig], arguments: TrainingArguments, suites: Suites | None = None) -> Trained:
    """Train what ``task`` describes; the run folder holds checkpoints, ``model/``, ``run.json``.

    Args:
        task: What is trained.
        arguments: Those of transformers.
        suites: What it will be judged by: training pairs are looked for in them.

    Raises:
        DataError: The training file cannot be used, or leaves little to learn from.
        NonFiniteLoss: See ``RobustTrainer``.
        Exception: What else can go wrong, see ``llm.training.frame.carry_out``.
    """
    work = _OnPairs(task, arguments, suites or {})
    trained = carry_out(work)
    if not trained.kept and work.whole is not None:
        placed(trained.model, arguments.device)  # for judging; a sharded run exports from main memory
    return trained


class _OnPairs(Work[TrainConfig]):
    """A task within the frame of a run."""

    def __init__(self, task: Task[TrainConfig], arguments: TrainingArguments, suites: Suites) -> None:
        super().__init__(task.config, arguments)
        self.task, self.judges, self.suites = task, bool(arguments.load_best_model_at_end), suites

    def build(self) -> Mapping[str, Mapping[str, object]]:
        pairs = load_training_pairs(self.config)
        self.pairs, self.files = pairs.train, pairs.files
        self.trainer, self.encoded, self.audit, self.concerns = build_trainer(
            self.task, self.arguments, pairs, suites=self.suites
        )
        self.average, self.clock = None, TrainingClock()
        if self.config.final == "average":
            from .averaging import kept_average

            self.average = kept_average(self.trainer, after=self.config.average_after)
        self.trainer.resumable.append(self.clock)
        self.sums = Sums(self.trainer, self.clock)
        return self.files

    def prepare(self, checkpoint: Path | None) -> None:
        if self.arguments.torch_compile:  # what earlier runs of this process compiled counts against torch's limit
            torch.compiler.reset()  # of versions, beyond which a model runs as it is
        self.task.prepare(self.trainer, self.arguments, self.output)
        fit_soft_labels(self.trainer, self.encoded, self.config, self.output)

    def train(self, checkpoint: Path | None) -> None:
        with checkpoint_on_interrupt(self.trainer):
            self.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None, verified=True)

    def outcome(self) -> RunOutcome:
        config, trainer = self.config, self.trainer
        self.sums.conclude()
        model = trainer.model
        if self.average:
            self.average.copy_to(model)
        if config.final == "best" and trainer.state.best_model_checkpoint is None:
            raise CheckpointError(
                "no checkpoint was judged, so there is no best one: lower save_steps below the run's length"
            )
        check_weights(model, trainer.state.global_step)
        self.whole, tokenizer = whole_model(trainer, self._fresh), trainer.processing_class
        return RunOutcome(
            model=model if self.whole is None else merged(self.whole, merge=config.merge_adapter),
            tokenizer=tokenizer,
            effective_batch=trainer.effective_batch,
            steps=trainer.state.global_step,
            seconds=self.clock.seconds(),
            data=self.files
            | {
                "trained_on": len(self.encoded),
                **({"measured_on": len(self.trainer.slice.data)} if self.trainer.slice else {}),
                "left_out": sorted(self.encoded.left_out),  # places among the pairs of the file that were taken
                "truncation": asdict(self.encoded.truncation),
                "audit": self.audit.as_json(),
                "concerns": [concern._asdict() for concern in self.concerns],
            }
            | describe_soft_labels(trainer, config),
            history=trainer.state.log_history,
            adversary={
                "sees": "regret" if trainer.adversary.shifted else "loss",
                "weighted": trainer.masses is not None,
            }
            | describe_adversary(
                trainer.ledger, self.encoded.pairs, logistic=trainer.logistic, groups=_groups(config, self.encoded)
            ),
            ledger=trainer.ledger,
        )

    def _fresh(self) -> nn.Module:
        return with_adapter(self.task.load(self.pairs)[0], self.config.adapter(), task=self.task.adapter_task)


def load_training_pairs(config: TrainConfig) -> TrainingPairs:
    """Read the pairs of a run, with the columns that its groups are made of. Raises as ``training_pairs``."""
    rule = parse_reweighting(config.ambiguity)

    def apart(pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
        measured = isinstance(config, SoftLabels)  # of labels, as opposed to texts
        return set_apart(pairs, rule, config, seed=config.subset_seed) if measured else (pairs, [])

    return training_pairs(config, by=names_in(rule), apart=apart)


class Built(NamedTuple):
    """The trainer of a run, its pairs as the model reads them, what an audit of them found, and what is of concern."""

    trainer: PairTrainer
    encoded: EncodedPairs
    audit: Audit
    concerns: list[Concern]


def build_trainer(
    task: Task[TrainConfig], arguments: TrainingArguments, pairs: TrainingPairs, *, suites: Suites
) -> Built:
    """Load the model, encode and audit the pairs, assemble the trainer; nothing is written."""
    config, train, held_out = task.config, pairs.train, pairs.held_out
    set_seed(arguments.seed)
    model, tokenizer = task.load(train)
    config.merge_adapter &= not is_quantised(model)
    disable_progress_bar()  # a bar for every written shard; the one for the steps is ours
    check_length(model, config.max_length)
    tokenizer.model_max_length = config.max_length  # travels with the model, so that judging cuts alike
    reading: Any = {"max_length": config.max_length, "too_long": config.too_long}
    main = arguments.process_index == 0
    longest = position_limit(model)
    seen = RunAudit(tokenizer, max_length=config.max_length, suites=suites if main else {}, says=main, reads=longest)
    kept = TokenCache(cache_folder() / "tokens") if config.cache_tokens else None

    def watch(pair: Pair, read: Seen) -> None:
        if pair.id in pairs.once:  # a weight repeats pairs, which are no duplicates
            seen.auditor.see(pair, read)

    encoded = encode_pairs(train, tokenizer, progress=not arguments.disable_tqdm, watch=watch, cache=kept, **reading)
    judged = encode_pairs(held_out, tokenizer, **reading) if held_out else None
    trainer = task.trainer(
        model=with_adapter(model, config.adapter(), task=task.adapter_task),
        args=arguments,
        train_dataset=encoded,
        eval_dataset=judged,
        processing_class=tokenizer,
        data_collator=PairCollator(tokenizer, max_length=config.max_length),
        ambiguity=parse_reweighting(config.ambiguity),
        weights=[pair.weight for pair in encoded.pairs],
        schedule=config.schedule(),
        passes=config.passes,
        last_window=config.last_window,
        example_ids=[pair.id for pair in encoded.pairs],
        columns=PairColumns(encoded.pairs),
    )
    if pairs.slice:
        _set_aside(trainer, encode_pairs(pairs.slice, tokenizer, **reading), encoded, config)
    put_soft_labels(trainer, encoded.pairs, config)
    if config.padding_free:
        trainer.read_flat()
    check_losses(trainer.ambiguity, logistic=trainer.logistic, labels=trainer.labels)
    check_reached(trainer.ambiguity, trainer.adversary.schedule, steps_of(trainer)[0])
    if judged:
        metrics = trainer.with_group(trainer.held_out_metrics(judged.pairs), _held_out_group(config, encoded, judged))
        trainer.compute_metrics = trainer.with_files(metrics, judged.pairs, pairs.by_file)
    if config.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(config.patience))
    if config.adapt_radius:
        trainer.adapt(AdaptiveStrength())
    if not arguments.disable_tqdm:
        trainer.pop_callback(ProgressCallback)
        trainer.add_callback(StepBar)
    audited = [pair for pair in train if pair.id in pairs.once]
    return Built(trainer, encoded, *seen.conclude(audited, pairs.files["train"], config, batch=trainer.effective_batch))


def _set_aside(trainer: PairTrainer, aside: EncodedPairs, encoded: EncodedPairs, config: TrainConfig) -> None:
    """Give the trainer the pairs that radii are chosen on."""
    own = NamedGroups(PairColumns(encoded.pairs))
    groups = NamedGroups(PairColumns(aside.pairs), like=own)
    soft = getattr(config, "soft_labels", "none") != "none"
    trainer.slice = Slice(aside, aside.pairs, groups, every=config.auto_every, soft=soft)
    check_covers(parse_reweighting(config.ambiguity), own, groups)


def _groups(config: TrainConfig, encoded: EncodedPairs) -> dict[str, list[object]]:
    """The groups that the run names, and which pairs were made, as labels of its training pairs."""
    names = names_in(parse_reweighting(config.ambiguity)) + [DRAWN] * bool(config.cross_prompt)
    groups = NamedGroups(PairColumns(encoded.pairs))
    return {name: groups[name] for name in names}


def _held_out_group(config: TrainConfig, encoded: EncodedPairs, judged: EncodedPairs) -> list[object] | None:
    """Labels of held-out pairs by the groups that the adversary weighs; their bins are those of the training pairs.

    None where it weighs no groups, or categories, of which the worst is told anyway; or the held-out pairs lack the
    column.
    """
    name = next(iter(names_in(parse_reweighting(config.ambiguity), "groups")), "category")
    held_out = NamedGroups(PairColumns(judged.pairs), like=NamedGroups(PairColumns(encoded.pairs)))
    return held_out[name] if name != "category" and name in held_out else None


def add_results(output: Path, judged: JsonObject, suites: Mapping[str, Sequence[Pair]]) -> None:
    """Put an evaluation beside the model: metrics.json, metrics.csv, margins.jsonl, and the card's table."""
    from ..judging.tables import write_metrics

    record = read_record(output / RECORD, "config", "data", "kind")
    write_text(output / "model" / CARD, model_card(record, judged["suites"]))
    write_metrics(judged, suites, output, of_run=True)
