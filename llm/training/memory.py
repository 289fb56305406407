"""How much memory there is, and how much the graph of a forward pass keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Holding:
    """What keeping the graphs of an effective batch takes.

    Attributes:
        needed: Bytes for the batch at hand.
        available: Bytes that are free, or None if that cannot be read.
        limit: Entries of the tensors of an effective batch whose graphs take half of ``available``.
    """

    needed: float
    available: int | None
    limit: float

    @classmethod
    def measured(
        cls, forward: Callable[[], Any], window: list[dict[str, Tensor]], parameters: Iterable[Tensor], device: Any
    ) -> Holding:
        """Measure one forward pass of the first micro-batch and scale it by the entries of the others.

        Args:
            forward: Runs the first micro-batch of the window, with gradients.
            window: All micro-batches.
            parameters: Of the model; they are there anyway and do not count.
            device: Where the model is.
        """
        rate = saved_bytes(forward, parameters) / entries(window[:1])
        available = available_bytes(torch.device(device))
        limit = 0.0 if available is None else available / 2 / max(rate, 1e-9)
        return cls(rate * entries(window), available, limit)


def entries(window: Iterable[Mapping[str, Any]]) -> int:
    """Number of entries of all tensors: a measure of size that is proportional to tokens."""
    return sum(part.numel() for inputs in window for part in inputs.values() if isinstance(part, Tensor))


def saved_bytes(forward: Callable[[], Any], parameters: Iterable[Tensor]) -> int:
    """Bytes that the graph of a forward pass keeps for its backward pass; the graph is dropped.

    Counted by storage, so views count once; what activation checkpointing throws away does not count.
    """
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, int] = {}

    def pack(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda saved: saved):
        graph = forward()
    del graph
    return sum(kept.values())


def available_bytes(device: torch.device) -> int | None:
    """Free bytes on a CUDA device or in main memory (the tighter of machine and container); None if unknown."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu":
        return None
    found = [free for free in (_free_on_machine(), *map(_free_in_container, _CGROUPS)) if free is not None]
    return min(found, default=None)


def _free_on_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _free_in_container(files: tuple[str, str]) -> int | None:
    try:
        limit, used = (Path(file).read_text().strip() for file in files)
        return None if limit == "max" else max(int(limit) - int(used), 0)
    except (OSError, ValueError):
        return None
