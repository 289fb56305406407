"""Recipes: a YAML file, then the command line over it; ours and every ``TrainingArguments`` flag."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import yaml
from transformers import HfArgumentParser, TrainingArguments

from dro_core import parse_ambiguity

from .schedule import RadiusSchedule


class ConfigError(ValueError):
    """A recipe or flag that makes no sense; the message says which and what would."""


Iterate = Literal["last", "best", "average"]


@dataclass
class RewardConfig:
    """What to train on, from which model, against which adversary."""

    model: str = field(default="minilm", metadata={"help": "alias (minilm), tiny (from scratch), folder or hub name"})
    train_file: str = field(default="", metadata={"help": "preference pairs: JSONL, JSONL.gz, Parquet or CSV"})
    suites: list[str] = field(default_factory=list, metadata={"help": "files to evaluate on after training"})
    eval_file: str | None = field(default=None, metadata={"help": "held-out pairs for evaluation while training"})
    validation_share: float = field(
        default=0.0, metadata={"help": "share of the training prompts to hold out instead of eval_file"}
    )
    max_pairs: int | None = field(default=None, metadata={"help": "train on a random subset of this size"})
    subset_seed: int = field(
        default=0, metadata={"help": "which subset max_pairs draws, and which prompts are held out"}
    )
    max_length: int = field(default=512, metadata={"help": "tokens per answer with its prompt"})
    ambiguity: str = field(
        default="erm",
        metadata={"help": "erm, tv:0.2, tv:0.2,max_ratio=4, tv:0.2,by=source, cvar:0.3, chi2:0.5, kl:0.3, ..."},
    )
    plain_share: float = field(default=0.0, metadata={"help": "share of the steps trained plainly first"})
    ramp_share: float = field(default=0.0, metadata={"help": "share of the steps over which the radius then grows"})
    final: Iterate = field(
        default="last",
        metadata={"help": "what is exported; best needs eval_file or validation_share"},
    )
    average_after: float = field(default=0.5, metadata={"help": "final=average leaves out this share of the steps"})
    disable_dropout: bool = field(default=True, metadata={"help": "set every dropout rate of the model to zero"})
    resume: bool = field(default=False, metadata={"help": "continue the run in output_dir"})
    overwrite: bool = field(default=False, metadata={"help": "delete the run in output_dir first"})
    trust_remote_code: bool = field(default=False, metadata={"help": "let a hub repository run its own code"})

    def __post_init__(self) -> None:
        try:
            parse_ambiguity(self.ambiguity)
            self.schedule()
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if not 0.0 <= self.validation_share < 1.0:
            raise ConfigError(f"validation_share must lie in [0, 1), got {self.validation_share}")
        if not 0.0 <= self.average_after < 1.0:
            raise ConfigError(f"average_after must lie in [0, 1), got {self.average_after}")
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ConfigError(f"max_pairs must be at least 1, got {self.max_pairs}")
        if self.max_length < 8:
            raise ConfigError(f"max_length must be at least 8 tokens, got {self.max_length}")
        if self.final not in get_args(Iterate):
            raise ConfigError(f"final must be one of {', '.join(get_args(Iterate))}, got {self.final!r}")
        if self.final == "best" and not (self.eval_file or self.validation_share):
            raise ConfigError("final=best needs held-out pairs: set eval_file or validation_share")

    def schedule(self) -> RadiusSchedule:
        """The radius schedule these fields describe."""
        return RadiusSchedule(plain_share=self.plain_share, ramp_share=self.ramp_share)


# Where a preference trainer must or should differ from the defaults of TrainingArguments.
TRAINING_DEFAULTS: dict[str, Any] = {
    "output_dir": "",
    "remove_unused_columns": False,
    "label_names": [],
    "report_to": "none",
    "disable_tqdm": False,  # its default follows the log level of transformers, which the commands turn down
    "save_total_limit": 2,
    "logging_steps": 5,
    "eval_strategy": "no",
    "save_strategy": "steps",
    "save_steps": 100,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.03,
    "per_device_eval_batch_size": 32,
    "dataloader_pin_memory": False,
}


def recipe_folder() -> Path:
    """The recipes that travel with the package."""
    return Path(__file__).parent / "recipes"


def parse_reward(argv: Sequence[str]) -> tuple[RewardConfig, TrainingArguments]:
    """``--config RECIPE.yaml [--any-flag value ...]`` to the two groups of settings.

    Raises:
        ConfigError: No such recipe, an unknown key in it, or a value outside its interval.
    """
    first_look = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first_look.add_argument("--config")
    recipe = first_look.parse_known_args(argv)[0].config
    return parse_settings(read_recipe(recipe) if recipe else {}, argv, where=recipe or "")


def parse_settings(
    settings: Mapping[str, Any], argv: Sequence[str] = (), *, where: str
) -> tuple[RewardConfig, TrainingArguments]:
    """Settings by name, overridden by flags, to the two groups; ``where`` the settings stand is for the errors."""
    check_known(settings, where=where)
    check_known(_flag_names(argv), where="command line")
    groups: Any = (RewardConfig, TrainingArguments)
    parser = HfArgumentParser(groups, prog="robust-rlhf train reward", allow_abbrev=False)
    parser.add_argument("--config", help="a YAML file, reward-tiny or reward-minilm")
    parser.set_defaults(**TRAINING_DEFAULTS)
    parser.error = _raise
    config, arguments, *_ = parser.parse_args_into_dataclasses([*_flags(settings), *argv])
    if not config.train_file:
        raise ConfigError("train_file is missing: name the preference pairs to train on")
    if not arguments.output_dir:
        raise ConfigError("output_dir is missing: name the folder the run is written to")
    return config, _checked_arguments(config, arguments)


def _flag_names(argv: Sequence[str]) -> dict[str, None]:
    """The settings that flags name: ``--learning-rate=1`` and ``--no_disable_dropout`` included."""
    names = [text[2:].split("=")[0].replace("-", "_").removeprefix("no_") for text in argv if text.startswith("--")]
    return dict.fromkeys(name for name in names if name not in ("config", "help"))


def _flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags, so that a recipe is converted and checked exactly as the command line is."""
    flags: list[str] = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
            flags += [f"--{name}", *map(str, values)]
    return flags


def _checked_arguments(config: RewardConfig, arguments: TrainingArguments) -> TrainingArguments:
    """Refuse flags of ``TrainingArguments`` that we cannot honour; add what ``final=best`` needs."""
    for name, instead in (
        ("resume_from_checkpoint", "use --resume, which takes the newest complete checkpoint of output_dir"),
        ("save_only_model", "a run could not be resumed from such checkpoints"),
        ("auto_find_batch_size", "retried steps would be counted twice; lower per_device_train_batch_size instead"),
    ):
        if getattr(arguments, name):
            raise ConfigError(f"{name} is not supported: {instead}")
    if config.final != "best":
        if arguments.load_best_model_at_end:
            raise ConfigError("load_best_model_at_end would export another model than final says: use final=best")
        return arguments
    return replace(  # every checkpoint is judged, so that the best one is there to be exported
        arguments,
        eval_strategy=arguments.save_strategy,
        eval_steps=arguments.save_steps,
        load_best_model_at_end=True,
        metric_for_best_model=arguments.metric_for_best_model or "accuracy",
    )


def _raise(message: str) -> NoReturn:
    raise ConfigError(message)


def check_known(settings: Mapping[str, Any], *, where: str) -> None:
    """Refuse a setting that neither we nor ``TrainingArguments`` have, with the name that was probably meant."""
    known = {field.name for group in (RewardConfig, TrainingArguments) for field in fields(group)}
    for name in settings.keys() - known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {close[0]!r}?" if close else "; `robust-rlhf train reward --help` lists the known ones"
        raise ConfigError(f"{where}: unknown setting {name!r}{hint}")


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a YAML file, or of a shipped recipe by its name."""
    path = Path(name)
    if not path.exists() and (recipe_folder() / f"{name}.yaml").exists():
        path = recipe_folder() / f"{name}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(recipe.stem for recipe in recipe_folder().glob("*.yaml")))
        raise ConfigError(f"no recipe {name!r}: give a YAML file or one of {shipped}")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must be a mapping of settings, found {type(settings).__name__}")
    return settings
