"""From a model whose parameters are spread over ranks (FSDP2, ZeRO-3) to a whole one that can be saved and judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config


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
