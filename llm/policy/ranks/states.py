"""What a checkpoint holds of model and optimizer: whole tensors, whatever the ranks hold, or DeepSpeed's own parts.

Whole states do not know how many ranks wrote them, nor whether these shared the parameters: others may go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate.utils import extract_model_from_parallel
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from ...run.folder import CheckpointError
from .gathering import DeepSpeedEngine, gathered
from .placing import innermost

_WEIGHTS, _OPTIMIZER = "model.safetensors", "optimizer.pt"
_PARTS, _PART_OF_RANK = "global_step*", "global_step*/*optim_states.pt"  # names that DeepSpeed gives


def whole_weights(module: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """All weights and buffers in main memory, by their names in the policy with its values; tied ones are one tensor.

    Args:
        module: As it was placed; every rank must call it.
        keep: Whether this rank wants them; others get nothing.
    """
    core = extract_model_from_parallel(module)
    parts, found = core.state_dict(keep_vars=True), dict[int, Tensor]()
    with nullcontext() if isinstance(module, FSDPModule) else gathered(module):  # there gathered may mean rounded
        for part in {id(part): part for part in parts.values()}.values():
            whole = _whole(part.detach())
            if keep:
                found[id(part)] = whole.to("cpu", copy=True).contiguous()
    return {name: found[id(part)] for name, part in parts.items()} if keep else {}


def save_states(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, *, main: bool) -> None:
    """Write weights and optimizer into an existing folder; every rank must call it."""
    if isinstance(module, DeepSpeedEngine):
        frozen = not all(part.requires_grad for part in module.parameters())
        module.save_checkpoint(str(folder), exclude_frozen_parameters=frozen)
        return
    if isinstance(module, FSDPModule):
        weights = whole_weights(module, keep=main)
        state = _whole_state(optimizer.state_dict(), keep=main)
        if main:
            once = {id(part): name for name, part in reversed(weights.items())}
            save_file({name: weights[name] for name in once.values()}, folder / _WEIGHTS)
    else:
        state = optimizer.state_dict()
        if main:
            save_model(extract_model_from_parallel(module), str(folder / _WEIGHTS))
    if main:
        torch.save(state, folder / _OPTIMIZER)


def load_states(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, *, world: int) -> None:
    """Take weights and optimizer over from a folder that ``save_states`` filled; every rank must call it.

    Raises:
        CheckpointError: DeepSpeed wrote it, on another number of ranks, or for none.
    """
    _check_parts(folder, world=world, engine=isinstance(module, DeepSpeedEngine))
    if isinstance(module, DeepSpeedEngine):
        frozen = not all(part.requires_grad for part in module.parameters())
        module.load_checkpoint(str(folder), load_module_strict=not frozen, load_lr_scheduler_states=False)
        return
    state = torch.load(folder / _OPTIMIZER, map_location="cpu", weights_only=True)
    if isinstance(module, FSDPModule):
        _put_weights(module, load_file(folder / _WEIGHTS))
        _spread_state(innermost(optimizer), state)
    else:
        load_model(extract_model_from_parallel(module), folder / _WEIGHTS)
    optimizer.load_state_dict(state)


def _check_parts(folder: Path, *, world: int, engine: bool) -> None:
    written = len(list(folder.glob(_PART_OF_RANK)))
    if engine and not written:
        raise CheckpointError(f"{folder} was not written under DeepSpeed: resume with the launcher that wrote it")
    if not engine and list(folder.glob(_PARTS)):
        raise CheckpointError(f"{folder} holds the parts of DeepSpeed: resume with its configuration")
    if engine and written != world:
        raise CheckpointError(
            f"{folder} holds the optimizer in the parts of {written} processes, as DeepSpeed keeps it, and this run "
            f"has {world}: resume with {written} processes"
        )


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _whole_state(state: object, *, keep: bool) -> object:
    """A state with every tensor in one piece and main memory; of ranks that keep none, what is no tensor."""
    if isinstance(state, Mapping):
        return {name: _whole_state(part, keep=keep) for name, part in state.items()}
    if isinstance(state, Tensor):
        whole = _whole(state)
        return whole.cpu() if keep else None
    return state


def _like(part: Tensor, whole: Tensor) -> Tensor:
    """What this rank holds of a whole tensor where ``part`` is spread; all ranks have read the same one."""
    if not isinstance(part, DTensor):
        return whole
    return distribute_tensor(whole.to(part.device), part.device_mesh, part.placements, src_data_rank=None)


@torch.no_grad()
def _put_weights(module: nn.Module, stored: Mapping[str, Tensor]) -> None:
    parts = module.state_dict(keep_vars=True)
    if missing := {id(part) for part in parts.values()} - {id(parts[name]) for name in stored}:
        name = next(name for name, part in parts.items() if id(part) in missing)
        raise ValueError(f"{name} is missing")
    for name, whole in stored.items():
        parts[name].copy_(_like(parts[name], whole))


def _spread_state(optimizer: torch.optim.Optimizer, state: dict[str, dict[int, dict[str, object]]]) -> None:
    """Let the entries that have the shape of their parameter be spread as it is."""
    parameters = [part for group in optimizer.param_groups for part in group["params"]]
    for place, entries in state["state"].items():
        part = parameters[place]
        state["state"][place] = {
            name: _like(part, entry) if isinstance(entry, Tensor) and entry.shape == part.shape else entry
            for name, entry in entries.items()
        }
