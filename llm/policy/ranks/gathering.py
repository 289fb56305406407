"""Parameters that are spread over ranks (FSDP2, ZeRO-3), whole on every rank for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import extract_model_from_parallel
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


@contextmanager
def gathered(module: nn.Module | None) -> Iterator[None]:
    """Inside, this rank holds all parameters of the module, and looks at what it likes without waiting for others.

    Ranks write answers of different lengths, so a forward pass that gathers would wait for one that never comes. Every
    rank must enter, and none may train inside. Afterwards each holds its part again. Whole modules are left alone.

    Args:
        module: As it was placed, with the wrapper of its ranks; None for none.
    """
    if module is not None and _of_zero3(module):
        with _of_deepspeed(module):
            yield
    elif isinstance(module, FSDPModule):
        with _of_fsdp(module):
            yield
    else:
        yield


@contextmanager
def _of_fsdp(root: FSDPModule) -> Iterator[None]:
    units: list[Any] = [part for part in root.modules() if isinstance(part, FSDPModule)]  # pyright: ignore
    try:
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        yield
    finally:
        plugin: Any = AcceleratorState().fsdp_plugin
        for unit in units:  # the root stays whole between forward and backward, as torch has it
            unit.set_reshard_after_forward(unit is not root and bool(plugin.reshard_after_forward), recurse=False)
            unit.reshard()


@contextmanager
def _of_deepspeed(module: nn.Module) -> Iterator[None]:
    """The engine's hooks free every layer after its forward pass, so they are off inside."""
    import deepspeed  # type: ignore[import-not-found]

    offload = getattr(getattr(module, "optimizer", None), "parameter_offload", None)
    core = extract_model_from_parallel(module)
    with deepspeed.zero.GatheredParameters(list(core.parameters())):
        if offload is None:
            yield
            return
        for hook in [*offload.forward_hooks, *offload.backward_hooks]:
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        for part in core.parameters():
            part.ds_active_sub_modules.clear()
        try:
            yield
        finally:
            offload._register_deepspeed_module(offload.module)


def parted(module: nn.Module) -> bool:
    """Whether each rank holds a part of the module's parameters."""
    return _of_zero3(module) or any(isinstance(part, DTensor) for part in module.parameters())


def _of_zero3(module: nn.Module) -> bool:
    return any(hasattr(part, "ds_id") for part in module.parameters())


def spread(accelerator: Any) -> bool:
    """Whether ranks share parameters or gradients, so that they must look equally often: FSDP2 and DeepSpeed."""
    return accelerator.is_fsdp2 or getattr(accelerator.state, "deepspeed_plugin", None) is not None
