"""FLOPs, time and memory of optimizer steps, contestants taking turns in one process."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import memory
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training_contestants import KINDS, MODES, WAYS, Way, trainer_of
from transformers import TrainerCallback

Record = dict[str, Any]
CASES = [(kind, mode) for kind in KINDS for mode in MODES]


class StepEnds(TrainerCallback):
    """A reading when training begins and after every optimizer step."""

    def __init__(self, read: Callable[[], float]) -> None:
        self.read, self.found = read, []

    def on_train_begin(self, args, state, control, **kwargs):
        """Read."""
        self.found.append(self.read())

    def on_step_end(self, args, state, control, **kwargs):
        """Read."""
        self.found.append(self.read())


def step(trainer: Any, read: Callable[[], float]) -> float:
    """What one step adds to the reading."""
    ends = StepEnds(read)
    trainer.add_callback(ends)
    try:
        trainer.train()
    finally:
        trainer.remove_callback(ends)
    before, after = ends.found
    return after - before


def flops(trainer: Any) -> float:
    """Floating-point operations of one step; attention as plain matrix products, which the counter knows."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        return step(trainer, counter.get_total_flops)


def peak_bytes(trainer: Any) -> int:
    """Most that torch holds at once during a step beyond what it held before: activations, gradients, moments."""
    return memory.torch_peak(trainer.train)


def contestants() -> Iterator[tuple[Way, float | None]]:
    """Every way at every radius it is measured at."""
    for way in WAYS:
        yield from ((way, radius) for radius in way.radii or (None,))


def race(kind: str, mode: str, *, rounds: int, log: Callable[[str], None]) -> list[Record]:
    """One table: all ways of one kind of training, timed in turns."""
    with tempfile.TemporaryDirectory() as folder:
        entries = [(way, radius, trainer_of(kind, mode, way, radius, Path(folder))) for way, radius in contestants()]
        records = []
        for way, radius, trainer in entries:
            records.append({"kind": kind, "mode": mode, "way": way.name, "radius": radius, "flops": flops(trainer)})
            decision = getattr(trainer, "decision", None)
            records[-1]["expected"] = decision.factor if decision and way.trainer == "ours" else None
        log(f"{kind}, {mode}: FLOPs counted")
        seconds: list[list[float]] = [[] for _ in entries]
        for _ in range(rounds):
            for found, (_, _, trainer) in zip(seconds, entries, strict=True):
                found.append(step(trainer, time.perf_counter))
        log(f"{kind}, {mode}: timed")
        for record, (_, _, trainer) in zip(records, entries, strict=True):
            record["bytes"] = peak_bytes(trainer)
        return _against_plain(records, seconds)


def _against_plain(records: list[Record], seconds: list[list[float]]) -> list[Record]:
    """Ratios to the first record, plain training; of times round by round, so that a busy machine cancels."""
    plain, base = records[0], seconds[0]
    for record, found in zip(records, seconds, strict=True):
        ratios = sorted(mine / other for mine, other in zip(found, base, strict=True))
        record["flops_ratio"] = record["flops"] / plain["flops"]
        record["time_ratio"] = statistics.median(ratios)
        record["time_spread"] = [ratios[0], ratios[-1]]
        record["memory_ratio"] = record["bytes"] / plain["bytes"]
        record["seconds"] = statistics.median(found)
    return records
