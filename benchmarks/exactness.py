"""Measure how exact worst-case weights are over ranks: launcher x precision x adapter x checkpointing.

    python benchmarks/exactness.py

launches the ranks of every cell on this machine's CPU (gloo on the loopback device), compares each with one process
that sees the whole effective batch, and writes docs/exactness.md and benchmarks/results/exactness.json. Cells of
DeepSpeed need the package deepspeed; without it they are left as not measured.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from exact_cells import Adapter, Cell, Launcher, Precision, Rows, start
from exact_policies import PolicyCell
from full_batch import losses_of
from gpu_results import hardware, measured, records
from machine import cpu, revision

from dro_core import parse_ambiguity, worst_case

ROOT = Path(__file__).parents[1]
PAGE, RECORD = ROOT / "docs" / "exactness.md", ROOT / "benchmarks" / "results" / "exactness.json"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
LIMITS = {Precision.FP32: 1e-6, Precision.AUTOCAST: 5e-3}
ZERO = (Launcher.ZERO2, Launcher.ZERO3)
_PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed")


def ranks_of(launcher: Launcher) -> int:
    """Processes that a launcher is measured with."""
    return 1 if launcher is Launcher.SINGLE else 2


def cells_of(launcher: Launcher) -> Iterator[Cell]:
    """The matrix of one launcher, then what goes beyond one step of equal ranks."""
    reduced = Precision.WEIGHTS if launcher is Launcher.FSDP2 else Precision.AUTOCAST
    for precision in (Precision.FP32, reduced):
        for adapter in Adapter:
            for checkpointing in (False, True):
                yield Cell(launcher, precision, adapter, checkpointing)
    if reduced is Precision.WEIGHTS:
        yield from (Cell(launcher, reduced, adapter, ambiguity="erm") for adapter in Adapter)
    if launcher is not Launcher.SINGLE:
        yield Cell(launcher, rows=Rows.UNEQUAL)
    yield Cell(launcher, rows=Rows.RAGGED)
    yield from (Cell(launcher, adapter=adapter, steps=3) for adapter in Adapter)


def policies_of(launcher: Launcher) -> Iterator[PolicyCell]:
    """The cells of policies of one launcher."""
    for adapter in Adapter:
        yield from (PolicyCell(launcher, adapter, estimator) for estimator in ("rloo", "ppo", "grpo"))
    yield PolicyCell(launcher, steps=3)


def launch(
    cells: Iterable[Cell | PolicyCell], ranks: int, folder: Path, *, timeout: float = 600.0
) -> list[dict[str, Any]]:
    """Measure cells that share a number of ranks in one start.

    Raises:
        RuntimeError: The ranks failed; the end of what they said.
    """
    asked, found = folder / "cells.json", folder / "found.json"
    asked.write_text(json.dumps([asdict(cell) for cell in cells]))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launcher, str(Path(__file__).with_name("ranks.py")), str(asked), str(found)]
    settings = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, **settings, "PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"the ranks ended with status {done.returncode}: {done.stderr[-4000:]}")
    return json.loads(found.read_text())


def _median_time(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        action()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def solver_share() -> float:
    """Time of ``worst_case`` on 1024 losses over forward and backward of 1024 pairs (32 times that of 32)."""
    begin, rows, cell = start(Adapter.FULL), np.arange(24).repeat(2)[:32], Cell(Launcher.SINGLE)
    losses, ambiguity = torch.rand(1024), parse_ambiguity(cell.ambiguity)
    assert ambiguity is not None
    passes = _median_time(lambda: losses_of(begin.model, begin, rows, cell.precision).mean().backward(), 5)
    return _median_time(lambda: worst_case(losses, ambiguity), 50) / (32 * passes)


def measure(launchers: Iterable[Launcher]) -> dict[str, Any]:
    """Everything that the page says, as one record."""
    launchers = list(launchers)
    found = {"cells": over(launchers, cells_of), "policies": measure_policies(launchers)}
    return stamped() | {"solver_share": solver_share()} | found


def measure_policies(launchers: Iterable[Launcher]) -> dict[str, Any]:
    """The part of the record that is about policies."""
    return stamped() | {"cells": over(launchers, policies_of)}


def over(
    launchers: Iterable[Launcher], cells_of: Callable[[Launcher], Iterable[Cell | PolicyCell]]
) -> list[dict[str, Any]]:
    """What was found of the cells of every launcher whose packages are there."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for launcher in launchers:
            if launcher not in ZERO or importlib.util.find_spec("deepspeed"):
                found += launch(cells_of(launcher), ranks_of(launcher), Path(folder))
    return found


def stamped() -> dict[str, Any]:
    """When, where and with what something is measured."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES if importlib.util.find_spec(name)}
    return {
        "command": "python benchmarks/exactness.py",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{cpu()}, {os.cpu_count()} cores, no GPU; ranks are processes, gloo on the loopback device",
        "revision": revision(),
        "versions": versions,
    }


# the page


def _errors(record: dict[str, Any]) -> dict[Cell, dict[str, Any]]:
    return {Cell.from_record(found["cell"]): found for found in record["cells"]}


def _text(found: dict[str, Any] | None, limit: float | None = None) -> str:
    if found is None:
        return "-"
    text = f"{found['error']:.1e}"
    return f"**{text}**" if limit is not None and found["error"] > limit else text


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in [list(heading), *map(list, rows)]]
    return [lines[0], "|" + " --- |" * lines[0].count(" | ") + " --- |", *lines[1:], ""]


def _matrix(errors: dict[Cell, dict[str, Any]]) -> Iterator[list[str]]:
    for precision, limit in LIMITS.items():
        for adapter in Adapter:
            for checkpointing in (False, True):
                cells = [Cell(launcher, precision, adapter, checkpointing) for launcher in Launcher]
                named = [precision, adapter, "yes" if checkpointing else "no"]
                yield [*named, *(_text(errors.get(cell), limit) for cell in cells)]


def _beyond(errors: dict[Cell, dict[str, Any]]) -> Iterator[list[str]]:
    kinds = {
        "gradient, unequal rows per rank": {"rows": Rows.UNEQUAL},
        "gradient, ragged last window": {"rows": Rows.RAGGED},
        "parameters after 3 AdamW steps, full": {"steps": 3},
        "parameters after 3 AdamW steps, LoRA": {"steps": 3, "adapter": Adapter.LORA},
    }
    for name, change in kinds.items():
        limit = None if "steps" in change else LIMITS[Precision.FP32]
        yield [name, *(_text(errors.get(Cell(launcher, **change)), limit) for launcher in Launcher)]


def _policies(record: dict[str, Any]) -> Iterator[list[str]]:
    errors = {PolicyCell.from_record(found["policy"]): found for found in record["policies"]["cells"]}
    kinds: dict[str, dict[str, Any]] = {
        f"gradient, {estimator}, {adapter}": {"adapter": adapter, "estimator": estimator}
        for adapter in Adapter
        for estimator in ("rloo", "ppo", "grpo")
    } | {"parameters after 3 rollouts with AdamW, rloo, full": {"steps": 3}}
    for name, change in kinds.items():
        limit = None if "steps" in change else LIMITS[Precision.FP32]
        yield [name, *(_text(errors.get(PolicyCell(launcher, **change)), limit) for launcher in Launcher)]


def _reduced(errors: dict[Cell, dict[str, Any]]) -> Iterator[list[str]]:
    for adapter in Adapter:
        robust = errors.get(Cell(Launcher.FSDP2, Precision.WEIGHTS, adapter))
        plain = errors.get(Cell(Launcher.FSDP2, Precision.WEIGHTS, adapter, ambiguity="erm"))
        given = "-" if robust is None else f"{robust['given_weights']:.1e}"
        yield [adapter, _text(robust), given, _text(plain)]


def render(record: dict[str, Any]) -> str:
    """The generated part of the page."""
    errors = _errors(record)
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    policies = record["policies"]
    launchers = [str(launcher) for launcher in Launcher]
    lines = [
        f"`{record['command']}` on {record['date']}, revision {record['revision']}: {record['hardware']}; {versions}.",
        "",
        "Relative error of the gradient of one step; limits: fp32 1e-6, bf16 autocast 5e-3, a miss in bold.",
        "",
        *_table(["precision", "trained", "checkpointing", *launchers], _matrix(errors)),
        "Beyond one step of equal ranks, fp32, with `last_window keep`:",
        "",
        *_table(["what", *launchers], _beyond(errors)),
        "FSDP2 with `bf16=True` computes with weights and activations in bfloat16; relative error of the gradient:",
        "",
        *_table(["trained", "tv:0.4", "tv:0.4, given the weights it chose", "plain mean"], _reduced(errors)),
        f"Policies on {policies['date']}, revision {policies['revision']}, fp32; limit 1e-6:",
        "",
        *_table(["what", *launchers], _policies(record)),
        f"`worst_case` on 1024 losses took {record['solver_share']:.1e} of the time of forward and backward of 1024 "
        "pairs through the tiny model (one thread; 32 times the time of 32 pairs).",
        *_on_gpu(measured()),
    ]
    return "\n".join(lines)


def _on_gpu(found: dict[str, Any] | None) -> list[str]:
    """One GPU, by precision and way; the table says nothing where none was at hand."""
    rows = [
        [
            row["precision"],
            row["trained"],
            f"{row['micro_batches']} micro-batch{'es' if row['micro_batches'] > 1 else ''}",
            "yes" if row["checkpointing"] else "no",
            f"{row['error']:.1e}",
            f"{row['error_to_fp32']:.1e}",
        ]
        for row in records("gradients", found)
    ]
    if found is None or not rows:
        return ["", "On a GPU: not measured yet (`make gpu`)."]
    heading = ["precision", "trained", "window", "checkpointing", "error", "against fp32"]
    return ["", f"On one GPU ({hardware(found)}):", "", *_table(heading, rows)[:-1]]


def write_page(record: dict[str, Any], page: Path = PAGE) -> None:
    """Put the measured part between its markers; the prose around it is written by hand."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{render(record)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure, then write the record and the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page-only", action="store_true", help="write the page from the stored record")
    parser.add_argument("--policies-only", action="store_true", help="measure policies, and keep what else is stored")
    told = parser.parse_args()
    if not told.page_only:
        stored = json.loads(RECORD.read_text(encoding="utf-8")) if told.policies_only else None
        record = measure(Launcher) if stored is None else stored | {"policies": measure_policies(Launcher)}
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_page(json.loads(RECORD.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
