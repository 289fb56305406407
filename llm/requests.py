"""What ``TrainingArguments`` can ask for and a run cannot do: said before anything is read."""

from __future__ import annotations

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from .config import ConfigError, RunConfig
from .launch import check_launch
from .policy_config import PolicyConfig

_ALWAYS = {"kubeflow"}  # a service, not a package
_PACKAGES = {"azure_ml": "azureml-core", "comet_ml": "comet-ml", "flyte": "flytekit"}


def check_requests(config: RunConfig, arguments: TrainingArguments) -> None:
    """Refuse copies of a run, trackers that are unknown, not installed or not heeded, and batches of equal lengths.

    Raises:
        ConfigError, LaunchError: One sentence with the remedy.
    """
    check_launch(arguments)
    for name in arguments.report_to or []:
        _check_tracker(str(name), policy=isinstance(config, PolicyConfig))
    if str(arguments.train_sampling_strategy) == "group_by_length":
        raise ConfigError(
            "train_sampling_strategy=group_by_length would let the adversary compare answers of one length only: leave "
            "it at random"
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
