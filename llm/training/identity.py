"""What makes a run the run it is: settings, every flag that may change the result, and the content of what it reads.

Flags of ``TrainingArguments`` are noted unless a test shows that they cannot change the result. A flag that a later
version of transformers brings is noted, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from enum import Enum
from pathlib import Path

from transformers import TrainingArguments

from ..audit.limits import LIMITS
from ..data.mixing import files_of
from ..models.contents import contents
from ..run.environment import environment
from ..run.resumption import ENVIRONMENT, OF_FILES, OPTIONAL
from .config import RunConfig

# What a resumed run may have differently; the files count by their content.
_MAY_CHANGE = {
    "cache_tokens", "dry_run", "eval_pairs", "force", "overwrite", "publish", "resume", "reward_seconds",
    "skip_damaged", "suites", "train_file", "vllm_seconds", "eval_file", *LIMITS,
}  # fmt: skip

# Of which only counts whether there is one: another server with the same weights draws the same answers.
_WHICHEVER = {"vllm_server_base_url"}

# Flags that cannot change the weights, by what they are about; test_free_flags.py trains with each and without.
HARMLESS: dict[str, tuple[str, ...]] = {
    "where the run is written, and how much of it is kept": ("output_dir", "save_total_limit"),
    "what is logged, when and where": (
        "logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_on_each_node",
        "log_level", "log_level_replica", "disable_tqdm", "report_to", "run_name", "project", "trackio_space_id",
        "trackio_bucket_id", "trackio_static_space_id", "skip_memory_metrics",
    ),
    "how batches reach the trainer": (
        "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context",
    ),
    "what nothing here reads": (
        "do_train", "do_eval", "do_predict", "remove_unused_columns", "length_column_name", "local_rank", "hub_token",
        "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision",
    ),
    "how long processes wait for each other": ("ddp_timeout",),
}  # fmt: skip

# Flags about evaluation while training and about checkpoints. Where held-out pairs are judged they decide which weights
# are exported, and evaluations move torch's generator, which dropout and noise draw from; else they change nothing.
EVALUATING = (
    "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps", "prediction_loss_only",
    "per_device_eval_batch_size", "save_strategy", "save_steps", "metric_for_best_model", "greater_is_better",
)  # fmt: skip

# Policies: held-out pairs are never judged, but answers are written and scored in batches of this size.
DECIDES_ROUNDING = "per_device_eval_batch_size"


def identity(
    config: RunConfig, arguments: TrainingArguments, files: Mapping[str, Mapping[str, object]]
) -> dict[str, object]:
    """The settings that decide the result, the content of all that is read, and the versions it is read with.

    Reads every model that the run names: ask one process, once, and not for a plan.

    Args:
        config: Ours.
        arguments: Those of transformers.
        files: Records of the data by role, each with its ``sha256``.
    """
    read = contents(config.reads() | _files_of(_flags(config, arguments)[0]))
    return {
        **settings_of(config, arguments),
        **{OF_FILES.format(name): record["sha256"] for name, record in files.items()},
        **{
            name: content
            for role, record in files.items()
            for name, content in files_of(record, "held-out" if role == "eval" else "training")
        },
        **{f"content of {role}": content for role, content in read.items()},
        ENVIRONMENT: environment(),
    }


def settings_of(config: RunConfig, arguments: TrainingArguments) -> dict[str, object]:
    """The part of ``identity`` that takes no reading: the settings, and which of them may be missing elsewhere."""
    settings = asdict(config)
    ours = {name: settings[name] for name in settings if name not in _MAY_CHANGE}
    ours |= {name: bool(ours[name]) for name in _WHICHEVER & ours.keys()}
    theirs, usual = _flags(config, arguments)
    at_default = [f.name for f in fields(config) if f.name in ours and _same(ours[f.name], _default(f))]
    return {**ours, **theirs, OPTIONAL: sorted({*at_default, *usual, *EVALUATING} & {*ours, *theirs})}


def noted(config: RunConfig, arguments: TrainingArguments) -> set[str]:
    """The flags of ``TrainingArguments`` that a resumed run must have as they were."""
    harmless = {name for group in HARMLESS.values() for name in group}
    if config.own_answers:
        harmless |= set(EVALUATING) - {DECIDES_ROUNDING}
    elif not _judges(config) and not _draws(config, arguments):
        harmless |= set(EVALUATING)
    return {f.name for f in fields(TrainingArguments)} - harmless


def _judges(config: RunConfig) -> bool:
    """Whether held-out pairs decide about the training."""
    return getattr(config, "final", None) == "best" or bool(getattr(config, "adapt_radius", False))


def _draws(config: RunConfig, arguments: TrainingArguments) -> bool:
    """Whether training draws from torch's generator, which every evaluation moves on."""
    return not config.disable_dropout or config.lora_dropout > 0 or bool(arguments.neftune_noise_alpha)


def _flags(config: RunConfig, arguments: TrainingArguments) -> tuple[dict[str, object], list[str]]:
    """Values of the noted flags, ready for JSON, and the names of those at their defaults."""
    kept = noted(config, arguments)
    known = {f.name: _default(f) for f in fields(TrainingArguments) if f.name in kept}
    values = {name: _plain(getattr(arguments, name)) for name in known}
    # What a launcher or accelerate's own configuration decides is no flag, and counts as one.
    values |= {"world_size": arguments.world_size, "mixed_precision": arguments.mixed_precision}
    known |= {"mixed_precision": "no"}
    return values, [name for name, default in known.items() if _same(values[name], default)]


def _files_of(flags: Mapping[str, object]) -> dict[str, str]:
    """The flags that name a file, as that of an engine's configuration."""
    named = {name: value for name, value in flags.items() if isinstance(value, str) and Path(value).suffix}
    return {name: value for name, value in named.items() if Path(value).is_file()}


def _default(field: dataclasses.Field[object]) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _same(value: object, default: object) -> bool:
    """Equal, or both unset: ``TrainingArguments`` turns None into False or into nothing."""
    return _plain(value) == _plain(default) or (not _plain(value) and not _plain(default))


def _plain(value: object) -> object:
    """The value as JSON has it; of settings with defaults of their own, what is not at them."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {f.name: (getattr(value, f.name), _default(f)) for f in fields(value)}
        return {name: _plain(entry) for name, (entry, default) in own.items() if entry != default}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
