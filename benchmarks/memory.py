"""The most memory a forward call holds at once, in multiples of its input."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contestants import OURS
from race import Cell, draw_losses


def _numpy_peak(call: Callable[[], Any]) -> int:
    """Peak of what numpy and Python allocate, by tracemalloc."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def torch_peak(call: Callable[[], Any]) -> int:
    """Peak of what torch's CPU allocator hands out, by the allocation events of its profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    events = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    held = peak = 0
    for event in events:
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def _peak(call: Callable[[], Any], library: str) -> int:
    """Peak in bytes; for torch, whose CPU problems may be solved in numpy, the sum of both allocators' peaks."""
    return _numpy_peak(call) + (torch_peak(call) if library == "torch" else 0)


def measure(cell: Cell) -> list[dict[str, Any]]:
    """Return one record per library: the peak of our forward call over the bytes of what it is given."""
    losses = draw_losses(cell.batch, cell.n, "float64")
    given = losses if cell.batch > 1 else losses[0]
    ambiguity = cell.race.ambiguity(cell.n)
    # A transport cost is input, too.
    given_bytes = losses.nbytes + sum(getattr(part, "nbytes", 0) for part in vars(ambiguity).values())
    records = []
    for contestant in OURS:
        if contestant.missing():
            continue
        solve = contestant.make(ambiguity, cell.n, gradient=False)
        if contestant.library == "torch":
            import torch

            native = torch.from_numpy(given)
        else:
            native = given
        solve(native)  # what is cached on a first call is no cost of a call
        times = _peak(lambda solve=solve, native=native: solve(native), contestant.library) / given_bytes
        place = {"set": cell.race.name, "batch": cell.batch, "n": cell.n, "library": contestant.library}
        records.append({**place, "times_input": float(f"{times:.3g}")})
    return records
