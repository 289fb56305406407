"""A policy run: load policy, reference and rewards, train, export; resumable at every step."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from ..adversary.acting import verdict_of
from ..adversary.ledger import multipliers_by
from ..data.pairs import DataError
from ..data.prompts import Prompt, PromptSet, read_prompts, subset
from ..models.adapters import merged, with_adapter
from ..models.architectures import check_length
from ..models.card import policy_card
from ..models.loading import check_vocabulary, load_policy
from ..models.saving import save_model
from ..models.usage import licence_of
from ..run.environment import environment
from ..run.files import json_ready, write_json, write_text
from ..run.finished import RECORD, seal
from ..run.folder import SETTINGS, Started, check_output, write_folder
from ..run.resumption import other_versions
from ..text.answers import encode_prompts
from ..training.config import ConfigError
from ..training.guards import check_requests, check_weights, live_dropout
from ..training.identity import identity
from ..training.processes import bounded_waiting, locked_for_all, on_main_process
from ..training.resuming import note_session, start_run
from .actor_critic import ActorCritic, Reference
from .checkpoints import of_other_answers
from .config import CHECKER, PolicyConfig
from .judging import judge_policy, summarise_policy, write_judged
from .rollouts import Sampling
from .scorers import Scorer, load_scorer
from .trainer import PolicyTrainer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedPolicy:
    """A finished policy run.

    Attributes:
        model: The policy, an adapter merged in or alone as the settings say.
        tokenizer: Its tokenizer.
        history: One record per log.
        record: What ``run.json`` holds.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: list[dict[str, Any]]
    record: dict[str, Any]


def train_policy(config: PolicyConfig, arguments: TrainingArguments) -> TrainedPolicy:
    """Train a policy; the run folder holds checkpoints, ``model/``, ``run.json``.

    Raises:
        ConfigError, DataError, ModelError: The settings, the prompts or a model cannot be used.
        FileExistsError: The run folder exists and neither resume nor overwrite is set.
        FolderInUse: Another process works in it.
        BadScores, KLExplosion, NonFiniteLoss: Training stopped before an update that would have made no sense.
        CheckpointError: A checkpoint could not be written.
        llm.training.interrupts.Interrupted: Ctrl-C or SIGTERM; a checkpoint of the last finished step stands there.
    """
    check_requests(config, arguments)
    with locked_for_all(str(arguments.output_dir)):
        return _train_policy(config, arguments)


def _train_policy(config: PolicyConfig, arguments: TrainingArguments) -> TrainedPolicy:
    folder = str(arguments.output_dir)
    output = on_main_process(lambda: check_output(folder, resume=config.resume, overwrite=config.overwrite))
    trainer, data = build_policy_trainer(config, arguments)
    read = {"train": data["train"]}
    checkpoint, forced = on_main_process(lambda: _start(output, identity(config, arguments, read), config))
    with bounded_waiting(arguments.ddp_timeout):
        trainer.train(checkpoint, verified=True)
    check_weights(trainer.core.policy, trainer.step)
    policy: Any = trainer.core.policy
    record = json_ready(_record(config, trainer, data, forced))
    if record["inaction"] and arguments.process_index == 0:
        _log.warning("%s", record["inaction"])
    model, tokenizer = merged(policy, merge=config.merge_adapter), trainer.pen.tokenizer
    on_main_process(lambda: _export(output, model, tokenizer, record))
    return TrainedPolicy(model, tokenizer, trainer.history, record)


def _start(output: Path, notes: dict[str, Any], config: PolicyConfig) -> Started:
    started = start_run(output, notes, config)
    if started.checkpoint is not None and of_other_answers(started.checkpoint):
        other = f"answers up to {started.checkpoint.name} were drawn by other random numbers, by an older version"
        note_session(output / SETTINGS, other)
    return started


def judge_run(
    trained: TrainedPolicy,
    config: PolicyConfig,
    arguments: TrainingArguments,
    suites: Mapping[str, Sequence[Prompt]],
    folder: Path,
) -> dict[str, Any]:
    """Judge a finished policy on suites of prompts by its reward and its gold; metrics and answers go to ``folder``."""
    name = config.reference_model or config.model
    reference: Any = load_policy(name, **config.loading())[0]
    policy: Any = trained.model
    names = {"reward": config.reward_model, **({"gold": config.gold} if config.gold else {})}
    scorers = {judge: scorer_of(config, place, arguments) for judge, place in names.items()}
    judged, kept = {}, {}
    for suite, prompts in suites.items():
        kept[suite], _, _ = fitting(list(prompts), trained.tokenizer, most=config.prompt_tokens)
        judged[suite] = judge_policy(
            policy.to(arguments.device),
            Reference(reference.to(arguments.device)),
            trained.tokenizer,
            kept[suite],
            scorers,
            sampling=Sampling(config.max_new_tokens, config.temperature, config.top_p),
            samples=config.eval_samples,
            batch_size=arguments.per_device_eval_batch_size,
            seed=arguments.seed,
        )
    summaries = {suite: summarise_policy(kept[suite], found) for suite, found in judged.items()}
    write_judged(folder, kept, judged, summaries)
    write_text(folder / "model" / "README.md", policy_card(trained.record, summaries))
    return summaries


def build_policy_trainer(config: PolicyConfig, arguments: TrainingArguments) -> tuple[PolicyTrainer, dict[str, Any]]:
    """Load and check everything; nothing is written. Also what is to be said about the data."""
    if not config.reward_model:
        raise ConfigError(f"reward_model is missing: name the folder of a trained one, or {CHECKER}")
    source = prompts_of(config, config.train_file)
    set_seed(arguments.seed)
    base, tokenizer = load_policy(config.model, **config.loading())
    disable_progress_bar()
    check_length(base, config.max_length)
    prompts, encoded, long = fitting(
        subset(source.prompts, config.max_prompts, seed=config.subset_seed),
        tokenizer,
        most=config.prompt_tokens,
    )
    tokenizer.model_max_length = config.max_length
    if arguments.activation_checkpointing:
        base.gradient_checkpointing_enable()
    trainer = PolicyTrainer(
        reference=Reference(_reference(config, base, tokenizer)),
        module=_module(config, base),
        tokenizer=tokenizer,
        prompts=prompts,
        encoded=encoded,
        scorer=scorer_of(config, config.reward_model, arguments),
        gold=None if config.gold is None else scorer_of(config, config.gold, arguments),
        config=config,
        arguments=arguments,
    )
    return trainer, {"train": source.describe(), "trained_on": len(prompts), "too_long": long}


def prompts_of(config: PolicyConfig, source: str | Path) -> PromptSet:
    """The prompts of a file, repeated or not as the run says."""
    return read_prompts(source, distinct=config.distinct_prompts)


def fitting(prompts: list[Prompt], tokenizer: Any, *, most: int) -> tuple[list[Prompt], list[list[int]], int]:
    """The prompts of at most ``most`` tokens, their ids, and how many were longer: a cut prompt asks something else.

    Raises:
        DataError: None is left.
    """
    encoded = encode_prompts(prompts, tokenizer)
    kept = [row for row, ids in enumerate(encoded) if len(ids) <= most]
    long = len(prompts) - len(kept)
    if long:
        _log.warning("%d of %d prompts have more than %d tokens and are left out", long, len(prompts), most)
    if not kept:
        raise DataError(
            f"every prompt has more than the {most} tokens beside max_new_tokens in max_length: raise max_length"
        )
    return [prompts[row] for row in kept], [encoded[row] for row in kept], long


def _module(config: PolicyConfig, base: PreTrainedModel) -> ActorCritic:
    policy = with_adapter(base, config.adapter(), task="CAUSAL_LM")
    if (config.lora_rank and config.lora_dropout) or live_dropout(policy):
        raise ConfigError(
            "with dropout the answers would be written by another policy than the one trained: keep disable_dropout, "
            "and lora_dropout 0"
        )
    critic = config.value_model if config.estimator == "ppo" else None
    return ActorCritic(
        policy, critic=critic, temperature=config.temperature, entropy_gradient=config.entropy_coefficient > 0
    )


def _reference(config: PolicyConfig, base: PreTrainedModel, tokenizer: Any) -> PreTrainedModel | None:
    """A frozen copy of the start or the named model; None where the adapter is switched off instead."""
    if config.reference_kind() == "adapter":
        return None
    if config.reference_model is None:
        return copy.deepcopy(base).requires_grad_(requires_grad=False).eval()
    second, its_tokenizer = load_policy(config.reference_model, **config.loading())
    check_vocabulary(tokenizer, its_tokenizer)
    return second.requires_grad_(requires_grad=False).eval()


def scorer_of(config: PolicyConfig, name: str, arguments: TrainingArguments) -> Scorer:
    """The judge of that name, placed and batched as the run says."""
    loading = config.loading() | {"dtype": "float32"}  # rewards differ in digits that half precision rounds away
    return load_scorer(name, batch_size=arguments.per_device_eval_batch_size, device=arguments.device, **loading)


def _record(config: PolicyConfig, trainer: PolicyTrainer, data: dict[str, Any], forced: list[str]) -> dict[str, Any]:
    arguments = trainer.arguments
    return {
        "kind": config.kind,
        "config": asdict(config),
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate,
        "effective_batch": config.prompts_per_step * config.samples * trainer.world,
        "steps": trainer.step,
        "seconds": trainer.clock.seconds(),
        "data": data,
        "environment": environment(),
        "history": trainer.history,
        "adversary": {name: multipliers_by(trainer.ledger, column) for name, column in trainer.columns.items()},
        "forced": forced,
        "other_versions": other_versions(Path(str(arguments.output_dir)) / SETTINGS),
        "licence": licence_of(config.model),
        **verdict_of(config.ambiguity, trainer.ledger),
    }


def _export(output: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: dict[str, Any]) -> None:
    """Write ``model/`` (safetensors, tokenizer, card) and ``run.json``."""

    def fill(folder: Path) -> None:
        save_model(folder, model, tokenizer)
        write_text(folder / "README.md", policy_card(record))

    write_folder(output / "model", fill)
    write_json(output / RECORD, record)
    seal(output)
