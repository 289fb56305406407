"""Low-rank adapters through peft: put on before training, merged on export, found again on loading."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .config import ConfigError, RunConfig
from .fetching import ModelError, model_of

_SETTINGS = "adapter_config.json"


def with_adapter(model: PreTrainedModel, config: RunConfig, *, task: str) -> nn.Module:
    """The model as ``config`` wants it trained: itself, or frozen under a new adapter of ``lora_rank``.

    Args:
        model: The model to start from.
        config: Rank, scale, dropout and targets of the adapter.
        task: What peft calls the kind of model; with ``SEQ_CLS`` the head is trained whole beside the adapter.

    Raises:
        ConfigError: peft is missing, or no module has the name of a target.
    """
    if not config.lora_rank:
        return model
    peft = _peft()
    targets = config.lora_targets
    settings = peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha if config.lora_alpha is not None else 2 * config.lora_rank,
        lora_dropout=config.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        task_type=task,
    )
    try:
        with _quiet():
            return _lifted(peft.get_peft_model(model, settings))
    except ValueError as error:
        raise ConfigError(f"lora_targets {' '.join(targets)} does not fit this model: {error}") from error


def _lifted(model: Any) -> Any:
    """The trained weights in at least float32, as peft keeps its matrices: small steps vanish in bfloat16 ones."""
    for module in model.modules():
        own = [part for part in module.parameters(recurse=False) if part.requires_grad]
        if any(part.dtype in (torch.bfloat16, torch.float16) for part in own):
            module.float()
            module.register_forward_pre_hook(_as_weights)
    return model


def _as_weights(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without autocast a float32 head would refuse the half-precision states below it."""
    dtype = next(module.parameters()).dtype
    return tuple(part.to(dtype) if torch.is_tensor(part) and part.is_floating_point() else part for part in inputs)


def merged(model: Any, *, merge: bool) -> PreTrainedModel:
    """What is exported: the model with its adapter folded into the weights, or (``merge`` off) the adapter alone."""
    return model.merge_and_unload() if merge and hasattr(model, "merge_and_unload") else model


def split_adapter(name: str) -> tuple[str, str | None]:
    """The base model and the adapter of a folder that holds an adapter; any other name is a model by itself.

    Raises:
        ModelError: The adapter does not say what it belongs to.
    """
    name = model_of(name)
    settings = Path(name) / _SETTINGS
    if not settings.exists():
        return name, None
    base = json.loads(settings.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{name} holds an adapter without the name of its base model: add it to {_SETTINGS}")
    return base, name


def adapter_task(name: str) -> str | None:
    """What peft calls the kind of model an adapter is for; None where the folder holds no adapter."""
    settings = Path(model_of(name)) / _SETTINGS
    return str(json.loads(settings.read_text(encoding="utf-8")).get("task_type")) if settings.exists() else None


def merge_adapter(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """The base model with the adapter of ``folder`` folded into its weights."""
    with _quiet():
        return _peft().PeftModel.from_pretrained(model, folder).merge_and_unload()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide that peft asks for an attribute which transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise ConfigError("adapters need peft: pip install peft") from None
    return peft
