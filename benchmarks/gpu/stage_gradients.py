"""How close the gradient of a robust step comes to full-batch autograd on the device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from clock import Record, Room, kept_going
from exact_cells import Adapter, Cell, Launcher, Precision, start
from ranks import compared
from surroundings import Setting

SINGLE, SEVERAL = 1, 4  # micro-batches: one pass, or two with accumulation


def measure(setting: Setting, say: Callable[[Record], Any]) -> None:
    """Every precision, with and without accumulation, adapters and checkpointing; each also against plain float32."""
    adapters = [Adapter.FULL, *([Adapter.LORA] if find_spec("peft") else [])]
    starts = {adapter: start(adapter) for adapter in adapters}
    base, room = Cell(Launcher.SINGLE, device=setting.device), Room(setting)
    for adapter in adapters:
        for micro_batches in (SEVERAL, SINGLE)[: 1 if setting.tiny and adapter is Adapter.LORA else 2]:
            for precision, tf32 in ((Precision.FP32, False), (Precision.FP32, True), (Precision.AUTOCAST, False)):
                for checkpointing in (False, True)[: 1 if setting.tiny or micro_batches == SINGLE else 2]:
                    cell = replace(
                        base,
                        precision=precision,
                        adapter=adapter,
                        micro_batches=micro_batches,
                        passes="auto" if micro_batches == SINGLE else "two",
                        checkpointing=checkpointing,
                    )
                    if not room.is_left():
                        return
                    if not setting.has(**described(cell, tf32=tf32)):
                        with room.taken():
                            _one(cell, starts[adapter], say, tf32=tf32)


def described(cell: Cell, *, tf32: bool) -> Record:
    """Where a record belongs."""
    return {
        "precision": "tf32" if tf32 else str(cell.precision),
        "trained": str(cell.adapter),
        "micro_batches": cell.micro_batches,
        "checkpointing": cell.checkpointing,
    }


def _one(cell: Cell, begin: Any, say: Callable[[Record], Any], *, tf32: bool) -> None:
    what = described(cell, tf32=tf32)
    # The older flags set the newer ones too, and the reverse is not so: a mix of both makes torch raise.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        with kept_going(say, **what), tempfile.TemporaryDirectory() as folder:
            found = compared(cell, begin, folder)
            say({**what, **{name: float(f"{error:.3g}") for name, error in found.items()}})
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
