"""Recipes: a YAML file, then the command line over it; ours and every ``TrainingArguments`` flag."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from dro_core.command_line.parser import Parser, meant

from ..run.launch import check_devices
from .config import ConfigError, RunConfig, TrainConfig
from .flags.ours import SettingsParser, divided, settings_parser
from .flags.theirs import all_flags, declared

if TYPE_CHECKING:
    from transformers import TrainingArguments

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

_OF_A_GPU = ("bf16", "bf16_full_eval", "tf32")
_log = logging.getLogger(__name__)
Config = TypeVar("Config", bound=RunConfig)


def recipe_folder() -> Path:
    """The recipes that travel with the package."""
    return Path(__file__).parents[1] / "recipes"


def parse_train(kind: type[Config], argv: Sequence[str]) -> tuple[Config, TrainingArguments]:
    """``--config RECIPE.yaml [--any-flag value ...]`` to the two groups of settings.

    Raises:
        ConfigError: No such recipe, an unknown key in it, or a value outside its interval.
    """
    first_look = Parser(add_help=False)
    first_look.add_argument("--config")
    recipe = first_look.parse_known_args(divided(first_look, argv)[0])[0].config
    return parse_settings(kind, read_recipe(recipe) if recipe else {}, argv, where=recipe or "")


def parse_settings(
    kind: type[Config], settings: Mapping[str, object], argv: Sequence[str] = (), *, where: str
) -> tuple[Config, TrainingArguments]:
    """Settings by name, overridden by flags, to the two groups; ``where`` the settings stand is for the errors.

    What can be refused without torch is refused before it is loaded.
    """
    check_known(kind, settings, where=where)
    parser = settings_parser(kind)
    ours, theirs = divided(parser, [*_flags(settings), *argv])
    parser.refuse_unknown(theirs, others=all_flags())
    told = vars(parser.parse_args(ours))
    told.pop("config", None)
    output = told.pop("output_dir", "")
    if not told.get("train_file"):
        raise ConfigError("train_file is missing: name the data to train on (--train-file)")
    if not output:
        raise ConfigError("output_dir is missing: name the folder the run is written to (--output)")
    arguments = _theirs(kind, theirs, TRAINING_DEFAULTS | {"output_dir": output})
    check_devices(use_cpu=arguments["use_cpu"])
    config = kind(**told)
    if config.dry_run:
        _plan_without_gpu(arguments)
    from transformers import TrainingArguments

    return config, _checked_arguments(config, TrainingArguments(**arguments))


def _plan_without_gpu(arguments: dict[str, object]) -> None:
    """Let a plan be made where there is no GPU for what the run asks of one; a run is refused there."""
    import torch

    asked = [name for name in _OF_A_GPU if arguments[name]]
    if arguments["use_cpu"] or not asked or torch.accelerator.is_available():
        return
    _log.warning(
        "%s takes a GPU, and there is none here: this is a plan for a machine that has one", " and ".join(asked)
    )
    arguments |= {"use_cpu": True, "tf32": None}


def _theirs(kind: type[RunConfig], words: Sequence[str], defaults: Mapping[str, object]) -> dict[str, Any]:
    """The fields of ``TrainingArguments``, which is not built: that connects the processes."""
    from transformers import HfArgumentParser, TrainingArguments

    class TheirParser(SettingsParser, HfArgumentParser):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Their flags, refused as ours are."""

    parser = TheirParser(f"robust-rlhf train {kind.kind}", dataclass_types=[TrainingArguments])
    parser.set_defaults(**defaults)
    return vars(parser.parse_args(words))


def _flags(settings: Mapping[str, object]) -> list[str]:
    """Settings as flags, so that a recipe is converted and checked exactly as the command line is."""
    flags: list[str] = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            flags += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in values)]
    return flags


def _checked_arguments(config: RunConfig, arguments: TrainingArguments) -> TrainingArguments:
    """Refuse flags of ``TrainingArguments`` that we cannot honour; add what ``final=best`` needs."""
    from .guards import check_requests

    check_requests(config, arguments)
    if not isinstance(config, TrainConfig):
        return arguments
    if config.final != "best":
        if not config.adapt_radius or arguments.eval_strategy != "no":
            return arguments
        if arguments.save_strategy == "no":
            raise ConfigError("adapt_radius follows evaluations, and there are none: set eval_strategy")
        return replace(arguments, eval_strategy=arguments.save_strategy, eval_steps=arguments.save_steps)
    return replace(  # every checkpoint is judged, so that the best one is there to be exported
        arguments,
        eval_strategy=arguments.save_strategy,
        eval_steps=arguments.save_steps,
        load_best_model_at_end=True,
        metric_for_best_model=arguments.metric_for_best_model or config.best_metric,
    )


def check_known(kind: type[RunConfig], settings: Mapping[str, object], *, where: str) -> None:
    """Refuse a setting that neither we nor ``TrainingArguments`` have, with the name that was probably meant."""
    ours = {name for field in fields(kind) for name in (field.name, field.metadata.get("alias")) if name}
    known = ours | {*declared()}
    for name in settings.keys() - known:
        manual = f"; `robust-rlhf train {kind.kind} --help all` explains the known ones"
        raise ConfigError(f"{where}: unknown setting {name!r}{meant(name, known) or manual}")


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a YAML file, or of a shipped recipe by its name."""
    path = Path(name)
    if not path.exists() and (recipe_folder() / f"{name}.yaml").exists():
        path = recipe_folder() / f"{name}.yaml"
    if not path.is_file():
        shipped = sorted(recipe.stem for recipe in recipe_folder().glob("*.yaml"))
        raise ConfigError(f"no recipe {name!r}: give a YAML file or one of {', '.join(shipped)}{meant(name, shipped)}")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML, mend it there: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must be a mapping of settings, found {type(settings).__name__}")
    return settings
