"""The frame of a run, whatever is trained: check, lock, begin or go on, train, export, seal; resumable throughout."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..adversary.inaction import verdict_of
from ..adversary.ledger import AdversaryLedger
from ..models.architectures import placed
from ..models.card import model_card
from ..models.card_parts import licence_of
from ..models.loading import load_policy, load_reward_model
from ..models.saving import save_model
from ..models.sharding import distribution
from ..run.environment import environment
from ..run.files import JsonObject, json_ready, write_json, write_text
from ..run.finished import RECORD, read_record, seal
from ..run.folder import SETTINGS, check_output, check_resumed, write_folder
from ..run.launch import said_of_processes
from ..run.resumption import OF_FILES, other_versions
from .config import RunConfig
from .guards import check_reads, check_requests
from .identity import identity, settings_of
from .processes import bounded_waiting, check_alike, locked_for_all, on_main_process
from .resuming import said_again, start_run, taken_in

Config = TypeVar("Config", bound=RunConfig, covariant=True)
CARD = "README.md"
_OF_THE_MODEL = {"merge_adapter"}  # settings that a model settles when it is read
_OF_THE_MACHINE = {"use_cpu", "tf32"}  # which a plan without a GPU sets by itself
_log = logging.getLogger(__name__)


class PublishError(RuntimeError):
    """The finished model could not be uploaded."""


@dataclass(frozen=True)
class RunOutcome:
    """What a run has come to when its steps are taken: the model as it is exported, and what ``run.json`` says.

    Attributes:
        model: Whole, adapters merged in or alone as the settings say.
        tokenizer: Its tokenizer.
        effective_batch: How many examples the adversary compares.
        steps: That were taken.
        seconds: Of training, over all sessions.
        data: What was read, and how much of it was used.
        history: One record per log.
        adversary: Who weighed how much.
        ledger: The account that this is from.
        more: What only this way of training notes.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    effective_batch: int
    steps: int
    seconds: float
    data: Mapping[str, object]
    history: Sequence[Mapping[str, float]]
    adversary: Mapping[str, object]
    ledger: AdversaryLedger
    more: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        record: What ``run.json`` holds.
        exported: Makes its model as it was exported, and the tokenizer.
        kept: Whether it was finished before, so that nothing was written now.
    """

    record: JsonObject
    exported: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    kept: bool = False

    @property
    def model(self) -> PreTrainedModel:
        """As it was exported."""
        return self._loaded[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the model."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return self.exported()

    @property
    def steps(self) -> int:
        """That were taken, over all sessions."""
        return self.record["steps"]


class Work(ABC, Generic[Config]):
    """What one way of training does within the frame; every process calls it in this order.

    Args:
        config: The settings of the run.
        arguments: Those of transformers.

    Attributes:
        judges: Whether checkpoints are judged, and the best may be exported.
        output: The run folder.
    """

    judges = False

    def __init__(self, config: Config, arguments: TrainingArguments) -> None:
        self.config, self.arguments = config, arguments
        self.output = Path(str(arguments.output_dir))

    def check(self) -> None:
        """Refuse what can be told before data and models are read; the first process alone is asked."""
        check_reads(self.config)

    @abstractmethod
    def build(self) -> Mapping[str, Mapping[str, object]]:
        """Load and check everything; nothing is written. The files that were read, by their part in the run."""

    def prepare(self, checkpoint: Path | None) -> None:
        """What is left to do when the run folder stands and before the first step."""

    @abstractmethod
    def train(self, checkpoint: Path | None) -> None:
        """Take the steps that are left after ``checkpoint``, which has been verified."""

    @abstractmethod
    def outcome(self) -> RunOutcome:
        """What the run has come to."""


def carry_out(work: Work[RunConfig]) -> Trained:
    """A run from its first check to its seal; its folder holds checkpoints, ``model/`` and ``run.json``.

    One that was finished before and is resumed with the same settings is left as it is, to the byte.

    Raises:
        ConfigError, DataError, ModelError: The settings, the data or a model cannot be used.
        FileExistsError: The run folder exists and neither resume nor overwrite is set.
        FolderInUse: Another process works in it.
        CheckpointError: A checkpoint could not be written, or none can be resumed from.
        llm.training.interrupts.Interrupted: Ctrl-C or SIGTERM; a checkpoint of the last finished step stands there.
    """
    config, arguments, folder = work.config, work.arguments, str(work.arguments.output_dir)
    check_requests(config, arguments)
    with locked_for_all(folder):
        check_alike(settings_of(config, arguments))
        output = on_main_process(lambda: _checked(work))
        read, taken = work.build(), taken_in(output)
        check_alike({OF_FILES.format(name): record["sha256"] for name, record in read.items()})
        _tell_sharding(arguments)
        checkpoint, forced, finished = on_main_process(
            lambda: start_run(output, identity(config, arguments, read), config, best=work.judges)
        )
        if finished:
            return _kept(work)
        if taken is not None and arguments.process_index == 0:
            again = said_again(checkpoint, taken, force=config.force)
            _log.warning("%s is finished: %s, and its model is exported once more", output, again)
        work.prepare(checkpoint)
        with bounded_waiting(arguments.ddp_timeout):
            work.train(checkpoint)
        outcome = work.outcome()
        record = on_main_process(lambda: save_run(work, outcome, forced))
    return Trained(record, lambda: (outcome.model, outcome.tokenizer))


def _kept(work: Work[RunConfig]) -> Trained:
    """The run that is finished and whole; its model is read only where somebody asks for it."""
    config, output, device = work.config, work.output, work.arguments.device
    if work.arguments.process_index == 0:
        _log.warning("%s is finished and whole: nothing is left to do, and every file stays as it is", output)

    def exported() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        unset_hf_deepspeed_config()  # one process asks, and needs the whole model
        load = load_reward_model if config.kind == "reward" else load_policy
        model, tokenizer = load(str(output / "model"), **config.loading())
        return placed(model, device), tokenizer

    return Trained(read_record(output / RECORD), exported, kept=True)


def _tell_sharding(arguments: TrainingArguments) -> None:
    """Warn once of a sharding that was asked for and does not run: accelerate leaves it out on CPUs without a word."""
    found = distribution()
    if found["asked"] and arguments.process_index == 0:
        _log.warning(
            "%s; every process holds the whole model, its gradients and its optimizer", said_of_processes(found)
        )


def _checked(work: Work[RunConfig]) -> Path:
    """The run folder, when all has been refused that can be told before data and models are read."""
    config = work.config
    output = check_output(work.output, resume=config.resume, overwrite=config.overwrite)
    if config.resume and not config.force:
        check_settings(config, work.arguments)
    work.check()
    return output


def check_settings(config: RunConfig, arguments: TrainingArguments) -> None:
    """Refuse to resume with other settings, before what they name is read; say what ``--force`` would let through.

    Of a plan, which another machine may make, counts what the run is told, and not what that machine has.

    Raises:
        ValueError: The folder was started with other settings, which are named, and ``force`` is not on.
        CheckpointError: What it was started with cannot be read.
    """
    left = _OF_THE_MODEL | (_OF_THE_MACHINE if config.dry_run else set())
    noted = {name: value for name, value in settings_of(config, arguments).items() if name not in left}
    check_resumed(Path(str(arguments.output_dir)), noted, force=config.force)


def save_run(work: Work[RunConfig], outcome: RunOutcome, forced: list[str]) -> JsonObject:
    """Write ``model/`` (safetensors, tokenizer, card) and ``run.json`` into the run folder, and seal it; the record."""
    record = _record(work, outcome, forced)
    for said in filter(None, (record["inaction"], record["beyond"])):
        _log.warning("%s", said)

    def fill(folder: Path) -> None:
        save_model(folder, outcome.model, outcome.tokenizer)
        write_text(folder / CARD, model_card(record))

    write_folder(work.output / "model", fill)
    write_json(work.output / RECORD, record)
    seal(work.output)
    return record


def _record(work: Work[RunConfig], outcome: RunOutcome, forced: list[str]) -> JsonObject:
    config, arguments = work.config, work.arguments
    record = {
        "kind": config.kind,
        "config": asdict(config),
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "effective_batch": outcome.effective_batch,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "data": outcome.data,
        "environment": environment(),
        "distribution": distribution(),
        "history": outcome.history,
        "adversary": outcome.adversary,
        "forced": forced,
        "other_versions": other_versions(work.output / SETTINGS),
        "licence": licence_of(config.model),
        **outcome.more,
        **verdict_of(config.ambiguity, outcome.ledger),
    }
    record["beyond"] = None
    if config.ambiguity != "erm":
        from ..adversary.radius.beyond import sentence_of

        batch = outcome.effective_batch
        record["beyond"] = sentence_of(outcome.history, ambiguity=config.ambiguity, batch=batch)
    return json_ready(record)


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
