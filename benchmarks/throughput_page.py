"""Writes the part of docs/training-cost.md that throughput.py measures, from the JSON of a run."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from throughput import COMMANDS, TASKS, TRAINER
from training_page import filled, table

Record = dict[str, Any]


def _spread(values: list[float], form: str = ".2f") -> str:
    """The median, in brackets the smallest and the largest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _ratios(mine: list[Record], base: list[Record], what: str) -> list[float]:
    """Round by round, so that other work on the machine cancels."""
    known = {row["round"]: row[what] for row in base}
    return [row[what] / known[row["round"]] for row in mine if row["round"] in known]


def _machine(found: Record) -> list[str]:
    shape, versions = found["shape"], ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    rounds = 1 + max(row["round"] for row in [*found["steps"], *found["commands"]])
    return [
        f"{found['date']}, revision {found['revision']}, `make bench-throughput`. "
        f"{found['cpu']}, {found['cores']} cores, 1 thread, {found['system']}, no GPU. {versions}.",
        "",
        f"Steps of {shape['window']} micro-batches of {shape['micro']} pairs, every sequence {shape['tokens']} tokens, "
        f"float32; rounds: {rounds}; medians, in brackets the smallest and the largest.",
        "",
    ]


def _steps(found: Record, task: str) -> list[str]:
    """Every contestant of a task beside the first."""
    ways = TASKS[task].ways
    rows = {way: [row for row in found["steps"] if (row["task"], row["way"]) == (task, way)] for way in ways}
    title, steps = TASKS[task].title, TASKS[task].steps
    if not all(rows.values()):
        return [f"**{title}**: not measured yet", ""]
    flops = {row["way"]: row["flops"] for way in ways for row in rows[way] if "flops" in row}
    lines = [
        [
            way,
            f"{flops[way] / flops[ways[0]]:.3f}" if flops else "-",
            _spread(_ratios(rows[way], rows[ways[0]], "cpu")),
            _spread([row["cpu"] for row in rows[way]]),
            _spread([row["wall"] for row in rows[way]], ".1f"),
            _spread([row["gib"] for row in rows[way]]),
        ]
        for way in ways
    ]
    head = ["", "FLOPs", "processor time", "processor s", "wall s", "peak GiB"]
    return [f"**{title}**; mean of {steps} steps", "", *table(head, lines), ""]


def _commands(found: Record) -> list[str]:
    """How soon commands answer."""
    rows: dict[str, list[Record]] = {}
    for row in found["commands"]:
        rows.setdefault(row["command"], []).append(row)
    if set(rows) != set(COMMANDS):
        return ["**The start of a command**: not measured yet"]
    lines = [
        [
            f"`{name}`" if not name.endswith("step") else name,
            _spread([row["cpu"] for row in mine]),
            _spread(_ratios(mine, rows[TRAINER], "cpu")),
            f"{statistics.median(row['gib'] for row in mine):.2f}",
        ]
        for name, mine in rows.items()
    ]
    head = ["", "processor s", "in imports of `Trainer`", "peak GiB"]
    return ["**The start of a command**", "", *table(head, lines)]


def throughput(found: Record) -> list[str]:
    """All tables."""
    return [*_machine(found), *(line for task in TASKS for line in _steps(found, task)), *_commands(found)]


def write(results: Path, page: Path) -> None:
    """Fill the part in place."""
    found = json.loads(results.read_text(encoding="utf-8"))
    page.write_text(filled(page.read_text(encoding="utf-8"), found, {"throughput": throughput}), encoding="utf-8")
