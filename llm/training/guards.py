"""What training refuses: flags that no run can heed, setups with wrong gradients, and numbers that are none."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any

import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from torch import Tensor, nn
from transformers import PretrainedConfig, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from ..models.architectures import check_limit, configurations
from ..models.quantised import is_quantised
from ..models.tokenizers import limit_of
from ..run.launch import check_launch
from .config import ConfigError, RunConfig, TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

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


class NonFiniteLoss(FloatingPointError):
    """A training loss or a weight became nan or infinite; the message names where."""


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


def check_reads(config: RunConfig) -> None:
    """Refuse a model that reads less than ``max_length``, by its configuration: before data and weights are read.

    Raises:
        ModelError: It does, or is not there.
    """
    if config.model != "tiny":
        check_limit(limit_of(config.model, trust_remote_code=config.trust_remote_code), config.max_length)


def _check_tracker(name: str, *, policy: bool) -> None:
    heeded = sorted(LOGGER_TYPE_TO_CLASS) if policy else sorted(INTEGRATION_TO_CALLBACK)
    if name not in heeded:
        kind = "a policy run" if policy else "a run"
        raise ConfigError(f"report_to={name}: {kind} can report to {', '.join(heeded)}, or none")
    installed = {*get_available_reporting_integrations(), *map(str, get_available_trackers()), *_ALWAYS}
    if name not in installed:
        package = _PACKAGES.get(name, name)
        raise ConfigError(f"report_to={name}: the tracker is not installed: pip install {package}, or take none")


def check_setup(arguments: TrainingArguments, accelerator: Any, model: Any, *, two_passes: bool) -> None:
    """Refuse setups whose gradients would silently be others, and noise that two passes would disagree on.

    Raises:
        ValueError: One sentence with the remedy.
    """
    check_launch(arguments)
    if arguments.n_gpu > 1:
        raise ValueError(
            f"{arguments.n_gpu} GPUs are visible but no launcher is used, and worst-case weights are wrong under "
            "DataParallel; start with `accelerate launch` or show one GPU (CUDA_VISIBLE_DEVICES=0)"
        )
    if two_passes and (live := live_dropout(model)):
        raise ValueError(
            f"dropout is active ({live[0]}, {len(live)} places) and the weights would be solved for another "
            "dropout mask than the one trained on; set disable_dropout, or a larger per_device_train_batch_size with "
            "gradient_accumulation_steps 1"
        )
    if two_passes and arguments.neftune_noise_alpha:
        raise ValueError(
            f"neftune_noise_alpha {arguments.neftune_noise_alpha:g} adds noise to the embeddings at every look, and "
            "the weights would be solved for another noise than the one trained on; leave it out, or set a larger "
            "per_device_train_batch_size with gradient_accumulation_steps 1"
        )
    if accelerator.num_processes > 1 and not arguments.dataloader_drop_last:
        raise ValueError(
            "dataloader_drop_last must be true with several processes: the padding of the last batch would "
            "duplicate examples inside the ambiguity set"
        )
    check_ranks(arguments, accelerator, model)


def check_ranks(arguments: TrainingArguments, accelerator: Accelerator, model: nn.Module) -> None:
    """Refuse ranks that share examples, and a DeepSpeed that clips by a bound of its own.

    Raises:
        ValueError: One sentence with the remedy.
    """
    if (copies := _ranks_per_example(accelerator, model)) > 1:
        raise ValueError(
            f"tensor, context or sequence parallelism lets {copies} ranks work on the same examples, which would count "
            f"{copies} times in the ambiguity set; use data parallelism only (DDP, FSDP2, ZeRO)"
        )
    if is_quantised(model) and str(accelerator.distributed_type.value) in ("FSDP", "DEEPSPEED"):
        raise ValueError(
            "weights in 4 or 8 bits are not spread over ranks here: use DDP, where every rank has them all"
        )
    if _clips_silently(accelerator):
        raise ValueError(
            "the DeepSpeed configuration leaves gradient_clipping out, and DeepSpeed then clips at 1.0 without saying "
            f'so; set it to "auto", which is max_grad_norm (now {arguments.max_grad_norm})'
        )


def check_checkpoints(arguments: TrainingArguments) -> None:
    """Refuse checkpoints in the middle of a step, whose examples were weighed and counted already.

    Raises:
        ValueError: One sentence with the remedy.
    """
    if arguments.enable_jit_checkpoint:
        raise ValueError(
            "enable_jit_checkpoint saves in the middle of a step, whose examples a resumed run would weigh and count "
            "once more; leave it out, and let checkpoint_on_interrupt save at the end of the step"
        )


def _ranks_per_example(accelerator: Accelerator, model: nn.Module) -> int:
    """How many ranks share each example: through accelerate's mesh, or a model that was split when it was loaded."""
    mesh = getattr(accelerator, "parallelism_config", None)
    return max(1 if mesh is None else mesh.non_data_parallel_size, getattr(model, "_tp_size", None) or 1)


def _clips_silently(accelerator: Accelerator) -> bool:
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and plugin.deepspeed_config.get("gradient_clipping") is None


def check_dataset(dataset: object, arguments: TrainingArguments) -> None:
    """Refuse a training set without positions, or of which no batch is left.

    Raises:
        ValueError: One sentence with the remedy.
    """
    if dataset is not None and not isinstance(dataset, Sized):
        raise ValueError(
            f"{type(dataset).__name__} has no length, and the adversary's account names examples by their position; "
            "give the training set as a list or a map-style dataset"
        )
    batch = arguments.train_batch_size * arguments.world_size
    if dataset is not None and arguments.dataloader_drop_last and len(dataset) < batch:
        raise ValueError(
            f"dataloader_drop_last leaves nothing: {len(dataset)} examples are less than one batch of {batch} "
            "over all processes; lower per_device_train_batch_size"
        )


def live_dropout(model: nn.Module) -> list[str]:
    """Where the model still drops something: module names, and the rates that attention kernels read."""
    modules = [name for name, part in model.named_modules() if isinstance(part, nn.Dropout) and part.p > 0]
    config = getattr(model, "config", None)
    parts = list(configurations(config)) if isinstance(config, PretrainedConfig) else [config]
    live = [part for part in parts if getattr(part, "attention_dropout", 0.0)]
    return [*modules, *["config.attention_dropout"] * len(live)]


def check_finite(losses: Tensor, index: Tensor, names: Sequence[str] | None, step: int) -> None:
    """Raise before the optimizer step that would use a loss that is nan or infinite.

    Args:
        losses: Shape ``(n,)``.
        index: Positions of the examples in the training set, shape ``(n,)``.
        names: Name of every training example, or None.
        step: Optimizer steps done so far.

    Raises:
        NonFiniteLoss: Naming the examples.
    """
    bad = ~torch.isfinite(losses)
    if not bad.any():
        return
    found = [f"#{i}" if names is None else str(names[i]) for i in index[bad].tolist()]
    raise NonFiniteLoss(
        f"{len(found)} losses are not finite at step {step + 1}: examples {', '.join(found[:8])}"
        f"{' ...' if len(found) > 8 else ''}. The weights were not updated; lower the learning rate, check these "
        "examples, or resume from the last checkpoint"
    )


def check_weights(model: nn.Module, step: int) -> None:
    """Raise if a parameter (of a sharded model: this rank's part) is nan or infinite: a diverged model is never saved.

    Raises:
        NonFiniteLoss: Naming the first such parameter.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(_held_here(parameter)).all():
            raise NonFiniteLoss(
                f"{name} is not finite after step {step}, and nothing was saved from it: lower the learning rate, "
                "or resume from the last checkpoint"
            )


def _held_here(parameter: Any) -> Tensor:
    """What this rank holds of a parameter: FSDP2 has DTensors, ZeRO-3 empty parameters with their part beside them."""
    if hasattr(parameter, "to_local"):
        return parameter.to_local()
    return getattr(parameter, "ds_tensor", parameter)
