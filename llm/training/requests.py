"""What ``TrainingArguments`` can ask for and a run cannot do: said before anything is read."""

from __future__ import annotations

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from ..run.launch import check_launch
from .config import ConfigError, RunConfig, TrainConfig

# Flags that no run heeds, and what to do instead.
REFUSED = {
    "resume_from_checkpoint": "use --resume, which takes the newest complete checkpoint of output_dir",
    "push_to_hub": "use --publish OWNER/NAME, which uploads the exported model once, with its card",
    "save_only_model": "a run could not be resumed from such checkpoints",
    "auto_find_batch_size": "retried steps would be counted twice; lower per_device_train_batch_size instead",
    "ignore_data_skip": "a resumed run would see the beginning of its epoch twice and the rest never",
    "enable_jit_checkpoint": "leave it out, every run saves a checkpoint on SIGTERM, which this would take from it",
}
_ALWAYS = {"kubeflow"}  # a service, not a package
_PACKAGES = {"azure_ml": "azureml-core", "comet_ml": "comet-ml", "flyte": "flytekit"}


def check_requests(config: RunConfig, arguments: TrainingArguments) -> None:
    """Refuse copies of a run, flags that cannot be honoured, and trackers that are not there or not heeded.

    Raises:
        ConfigError, LaunchError: One sentence with the remedy.
    """
    check_launch(arguments)
    for name, instead in REFUSED.items():
        if getattr(arguments, name):
            raise ConfigError(f"{name} is not supported: {instead}")
    if isinstance(config, TrainConfig) and config.final != "best" and arguments.load_best_model_at_end:
        raise ConfigError("load_best_model_at_end would export another model than final says: use final=best")
    for name in arguments.report_to or []:
        _check_tracker(str(name), policy=config.own_answers)
    if str(arguments.train_sampling_strategy) == "group_by_length":
        raise ConfigError(
            "train_sampling_strategy=group_by_length is not supported: an adversary would compare answers of one "
            "length only: leave it at random"
        )


def _check_tracker(name: str, *, policy: bool) -> None:
    heeded = sorted(LOGGER_TYPE_TO_CLASS) if policy else sorted(INTEGRATION_TO_CALLBACK)
    if name not in heeded:
        kind = "a policy run" if policy else "a run"
        raise ConfigError(f"report_to={name}: {kind} can report to {', '.join(heeded)}, or none")
    installed = {*get_available_reporting_integrations(), *map(str, get_available_trackers()), *_ALWAYS}
    if name not in installed:
        package = _PACKAGES.get(name, name)
        raise ConfigError(f"report_to={name}: the tracker is not installed: pip install {package}, or take none")
