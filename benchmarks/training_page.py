"""Writes the generated tables of docs/training-cost.md, between its markers, from the JSON of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gpu_results import measured, records
from training_contestants import MODES

Record = dict[str, Any]
_TITLES = {"reward": "Reward model", "dpo": "DPO, reference evaluated online"}
_CAUSE = (
    "the reference runs once for every example in either case, and a second pass that skips examples spares none of it"
)


def table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]


def _machine(found: Record) -> list[str]:
    shape = found["shape"]
    batch = shape["micro"] * shape["window"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return [
        f"{found['date']}, revision {found['revision']}, `make bench-training`, {found['minutes']} minutes.",
        f"{found['cpu']}, {found['cores']} cores, {found['threads']} thread, {found['system']}, "
        f"GPU: {found['gpu'] or 'none, so not measured yet'}.",
        f"{versions}.",
        "",
        f"A random Llama, {shape['num_hidden_layers']} layers of width {shape['hidden_size']}; "
        f"effective batch {batch} = {shape['window']} micro-batches of {shape['micro']} pairs; "
        f"{shape['tokens']} tokens an answer with its prompt; {shape['rounds']} rounds.",
    ]


def _one(found: Record, kind: str, mode: str, way: str, radius: float | None) -> Record | None:
    wanted = {"kind": kind, "mode": mode, "way": way, "radius": radius}
    return next((row for row in found["steps"] if wanted.items() <= row.items()), None)


def _targets(found: Record) -> list[str]:
    rows = []
    for kind, title in _TITLES.items():
        row = _one(found, kind, "full", "two passes", 0.4)
        cause = _CAUSE if kind == "dpo" else ""
        rows.append(_verdict(f"{title}: FLOPs at tv:0.4, all weights trained", 0.96, row and row["flops_ratio"], cause))
    singles = [row["flops_ratio"] for row in found["steps"] if row["way"] == "single pass"]
    rows.append(_verdict("FLOPs in a single pass, worst case", 1.02, max(singles, default=None)))
    share = max((row["share"] for row in found["solver"]), default=None)
    rows.append(_verdict("solver's share of a step, effective batch 1,024", 0.005, share))
    rows += _on_gpu(records("training", found.get("on_gpu")))
    return table(["target", "at most", "found", "verdict"], rows)


def _on_gpu(found: list[Record]) -> list[list[str]]:
    """Two passes against plain training at the same settings, by the size of the model; no limit was promised."""
    plain = {row["shape"]: row for row in found if row.get("name") == "transformers.Trainer"}
    rows = [
        [
            f"GPU, {row['shape']}: {what}, two passes at {row['ambiguity']} over plain",
            "-",
            f"{ratio:.2f}",
            "",
        ]
        for row in found
        if row.get("task") == "reward" and row["name"] == "two passes" and row["shape"] in plain
        for what, ratio in (
            ("time", row["seconds"] / plain[row["shape"]]["seconds"]),
            ("memory", row["peak_gib"] / plain[row["shape"]]["peak_gib"]),
        )
    ]
    return rows or [[f"GPU: {what}", "-", "-", "not measured yet"] for what in ("time ratios", "memory")]


def _verdict(what: str, limit: float, number: float | None, cause: str = "") -> list[str]:
    if number is None:
        return [what, f"{limit:g}", "-", "not measured"]
    verdict = "met" if number <= limit else f"**missed**: {cause}"
    return [what, f"{limit:g}", f"{number:.3f}" if number > 1e-3 else f"{number:.1e}", verdict]


def _steps(found: Record) -> list[str]:
    lines = []
    for kind, title in _TITLES.items():
        for mode, trained in MODES.items():
            rows = [row for row in found["steps"] if (row["kind"], row["mode"]) == (kind, mode)]
            if rows:
                head = ["", "FLOPs", "model", "time", "memory"]
                lines += [f"**{title}; {trained}**", "", *table(head, map(_step, rows)), ""]
    return lines[:-1]


def _step(row: Record) -> list[str]:
    low, high = row["time_spread"]
    name = row["way"] if row["radius"] is None else f"{row['way']}, tv:{row['radius']:g}"
    expected = "" if row["expected"] is None else f"{row['expected']:.2f}"
    time = f"{row['time_ratio']:.2f} ({low:.2f} to {high:.2f})"
    return [name, f"{row['flops_ratio']:.3f}", expected, time, f"{row['memory_ratio']:.2f}"]


def _spread(quartiles: list[float]) -> str:
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _errors(found: Record) -> list[str]:
    rows = [[row["kind"], f"`{row['set']}`", _spread(row["per micro-batch"])] for row in found["errors"]]
    return table(["", "set", "error of weights per micro-batch"], rows)


def _solver(found: Record) -> list[str]:
    rows = [
        [f"`{row['set']}`", f"{row['microseconds']:.0f}", f"{row['step_seconds']:.0f}", f"{row['share']:.1e}"]
        for row in found["solver"]
    ]
    return table(["set", "`worst_case`, n = 1,024, µs", "step, s", "share"], rows)


Part = Callable[[Record], list[str]]
PARTS: Mapping[str, Part] = {
    "machine": _machine,
    "targets": _targets,
    "steps": _steps,
    "errors": _errors,
    "solver": _solver,
}


def filled(text: str, found: Record, parts: Mapping[str, Part] = PARTS) -> str:
    """The page with these generated parts replaced.

    Raises:
        ValueError: A marker is missing.
    """
    for name, part in parts.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(f"{begin}.*?{end}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"the page has no part between {begin} and {end}: put both markers back")
        body = "\n".join([begin, "", *part(found), "", end])
        text = pattern.sub(lambda _, body=body: body, text)
    return text


def write(results: Path, page: Path) -> None:
    """Fill the page in place."""
    found = json.loads(results.read_text(encoding="utf-8")) | {"on_gpu": measured()}
    page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")
