"""What a run is spread over, and from parameters that are spread over ranks (FSDP2, ZeRO-3) to a whole model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..run.files import JsonObject


def distribution() -> JsonObject:
    """How the trainer that was made last runs, by accelerate's state, as ``run.json`` keeps it.

    ``processes``, their ``device``, the ``kind`` of their distribution (single, ddp, fsdp2, zero2, zero3, ...) and
    ``asked``, the sharding that was asked for where it does not run, else None.
    """
    state = AcceleratorState()
    kind = _kind(state)
    return {
        "kind": kind,
        "processes": state.num_processes,
        "device": state.device.type,
        "asked": _asked() if kind == "ddp" and state.num_processes > 1 else None,
    }


def _kind(state: AcceleratorState) -> str:
    fsdp, deepspeed = (getattr(state, name, None) for name in ("fsdp_plugin", "deepspeed_plugin"))
    kind: DistributedType = state.distributed_type
    if fsdp is not None:
        return f"fsdp{fsdp.fsdp_version}"
    if deepspeed is not None:
        return f"zero{deepspeed.zero_stage}"
    if kind == DistributedType.NO:
        return "single"
    return "ddp" if kind.value.startswith("MULTI_") else kind.value.lower()


def _asked() -> str | None:
    """The sharding that accelerate's launcher, or a flag of the run, asked for; both leave it in the environment."""
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return f"fsdp{os.environ.get('FSDP_VERSION', '')}"
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        return f"zero{os.environ.get('ACCELERATE_DEEPSPEED_ZERO_STAGE', '')}"
    return None


def is_sharded(trainer: Trainer) -> bool:
    """Whether training spreads the parameters over ranks; ZeRO-2 does so with gradients and optimizer only."""
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)


def whole_model(trainer: Trainer, fresh: Callable[[], nn.Module]) -> nn.Module | None:
    """The trained model in one piece; every rank must call it, and where it is sharded only the main one gets it.

    Args:
        trainer: After training.
        fresh: Makes a model with the same parameters, in main memory; called on the main process of a sharded run.
    """
    trained: Any = trainer.model
    # Looked at, not asked: a run that had only its export left was never wrapped, and is whole on every rank.
    if not any(isinstance(part, DTensor) or hasattr(part, "ds_id") for part in trained.parameters()):
        return trained
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    unset_hf_deepspeed_config()  # else transformers would shard the fresh model as well, and wait for the other ranks
    model = fresh()
    model.load_state_dict(weights)
    return model
