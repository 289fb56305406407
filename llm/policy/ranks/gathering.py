"""Parameters that are spread over ranks (FSDP2, ZeRO-3), whole on every rank for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


@runtime_checkable
class DeepSpeedEngine(Protocol):
    """What wraps a module under DeepSpeed, as far as it is used here."""

    def backward(self, loss: Tensor) -> object:
        """Add the gradient of a loss."""
        ...

    def step(self) -> object:
        """Clip, move the parameters and forget the gradients."""
        ...

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> object:  # noqa: FBT001
        """Say whether a step comes after the next backward pass."""
        ...

    def get_global_grad_norm(self) -> float | None:
        """Norm of the gradients of the last step before clipping."""
        ...

    def save_checkpoint(self, save_dir: str, *, exclude_frozen_parameters: bool) -> object:
        """Write the parts of all ranks."""
        ...

    def load_checkpoint(self, load_dir: str, *, load_module_strict: bool, load_lr_scheduler_states: bool) -> object:
        """Take them over."""
        ...


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
def _of_fsdp(root: nn.Module) -> Iterator[None]:
    units = [part for part in root.modules() if isinstance(part, FSDPModule)]
    try:
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        yield
    finally:
        again = bool(getattr(AcceleratorState(), "fsdp_plugin").reshard_after_forward)  # noqa: B009
        for unit in units:  # the root stays whole between forward and backward, as torch has it
            unit.set_reshard_after_forward(again and unit is not root, recurse=False)
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


def spread(accelerator: Accelerator) -> bool:
    """Whether ranks share parameters or gradients, so that they must look equally often: FSDP2 and DeepSpeed."""
    return accelerator.is_fsdp2 or getattr(accelerator.state, "deepspeed_plugin", None) is not None
