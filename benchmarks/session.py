"""One run of the whole benchmark in one process, and what it says about itself."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import failures
import judge
import known_failures
import memory
import race
from contestants import RACES, Race
from machine import cpu, revision, versions

log = logging.getLogger(__name__)

BATCHES = ((4096, 64), (64, 4096))
_PACKAGES = ("numpy", "scipy", "torch", "cvxpy", "clarabel", "highspy", "cvxpylayers", "diffcp", "dro", "entmax")


def about(effort: race.Effort) -> dict[str, Any]:
    """Describe the machine, the threads and the versions."""
    import torch

    return {
        "schema": 1,
        "quick": effort is race.QUICK,
        "revision": revision(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": versions(_PACKAGES),
        "limit": effort.limit,
    }


def cells(chosen: Race, *, quick: bool) -> Iterator[race.Cell]:
    """Yield the cells of a race, small ones first, so that the slow contestants show in time."""
    batches = ((8, 64),) if quick else BATCHES
    for gradient in (False, True):
        for n in chosen.sizes[: 2 if quick else None]:
            yield race.Cell(chosen, 1, n, gradient)
        for batch, n in batches if chosen.batched else ():
            yield race.Cell(chosen, batch, n, gradient)


def _memory_cells(chosen: Race, *, quick: bool) -> Iterator[race.Cell]:
    yield race.Cell(chosen, 1, [n for n in chosen.sizes if n <= 2**16][-1])
    if chosen.batched and not quick:
        yield race.Cell(chosen, *BATCHES[0])


def _chosen(sets: list[str] | None) -> list[Race]:
    known = {one.name: one for one in RACES}
    unknown = sorted(set(sets or ()) - set(known))
    if unknown:
        sys.exit(f"unknown sets: {', '.join(unknown)}; the known ones are: {', '.join(known)}")
    return [known[name] for name in sets or known]


def run(target: Path, *, quick: bool, sets: list[str] | None = None) -> None:
    """Race, measure memory, reproduce the known failures; write the JSON to ``target``."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    effort = race.QUICK if quick else race.FULL
    start, found = time.perf_counter(), about(effort)
    found["cells"], found["memory"] = [], []
    for chosen in _chosen(sets):
        pace = judge.Pace()
        for cell in cells(chosen, quick=quick):
            found["cells"] += judge.run_cell(cell, effort, pace)
            shape = f"{cell.batch} x {cell.n}" if cell.batch > 1 else f"n = {cell.n}"
            mode = "backward" if cell.gradient else "forward"
            log.info("%6.0f s  %s, %s, %s", time.perf_counter() - start, chosen.title, shape, mode)
        for cell in _memory_cells(chosen, quick=quick):
            found["memory"] += memory.measure(cell)
        save(found, target)
    found["failures"] = failures.reproduce(known_failures.rows())
    found["minutes"] = round((time.perf_counter() - start) / 60, 1)
    save(found, target)
    log.info("wrote %s", target)


def _compact(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def save(found: dict[str, Any], target: Path) -> None:
    """Write the results with one record a line, so that two runs can be compared line by line."""
    parts = []
    for key, value in found.items():
        if isinstance(value, list):
            rows = ",\n".join(map(_compact, value))
            parts.append(f"{json.dumps(key)}: [\n{rows}\n]" if value else f"{json.dumps(key)}: []")
        else:
            parts.append(f"{json.dumps(key)}: {_compact(value)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("{\n" + ",\n".join(parts) + "\n}\n")
