"""What only a GPU can tell: time against one sort, launch overhead, host synchronisations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from contestants import Race
from judge import Pace, run_cell
from race import Cell, Effort, draw_losses

SIZES = (1024, 2**20)


def synchronisations(call: Callable[[], Any]) -> int:
    """Count how often a call waits for the GPU, by torch's own detector."""
    import torch

    call()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message).lower() for warning in seen)


def _waits(chosen: Race, *, gradient: bool) -> dict[str, Any]:
    """Count the waits of one of our calls as it is by default, without the opt-in look at the values."""
    import torch

    from dro_core import robust_loss, worst_case

    n = SIZES[0]
    losses = torch.tensor(draw_losses(1, n, "float32")[0], device="cuda", requires_grad=gradient)
    ambiguity = chosen.ambiguity(n)
    if gradient:
        count = synchronisations(lambda: robust_loss(losses, ambiguity).backward())
    else:
        count = synchronisations(lambda: worst_case(losses, ambiguity))
    return {"set": chosen.name, "n": n, "mode": "backward" if gradient else "forward", "synchronisations": count}


def measure(races: list[Race], effort: Effort) -> list[dict[str, Any]]:
    """Race on the GPU where there is one, else return nothing."""
    import torch

    if not torch.cuda.is_available():
        return []
    records = []
    for chosen in races:
        if not chosen.batched:
            continue
        pace = Pace()
        for n in SIZES:
            for gradient in (False, True):
                records += run_cell(Cell(chosen, 1, n, gradient, device="cuda"), effort, pace)
        records += [_waits(chosen, gradient=gradient) for gradient in (False, True)]
    return records
