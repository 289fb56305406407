"""Run folders, finished or not, as their files tell it: the record, what judged the model, and on which pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...data.grouping.columns import weighed
from ...data.pairs import DataError, Pair
from ...data.suites import load_suites, suite_files
from ...doctor.doctor import diagnose
from ...doctor.record import read_run
from ...run.files import JsonObject
from ...run.finished import RECORD, RunError, read_record
from ...run.run_differences import record_of
from ...run.states import SETTINGS
from ...statistics.arms import Array

METRICS, MARGINS = "metrics.json", "margins.jsonl"


class RunTold(NamedTuple):
    """A run as its folder tells it.

    Attributes:
        record: As ``run.json``; of a run that is not finished what its last checkpoint knows of that.
        suites: Name -> summary, as ``metrics.json`` has it; empty where nothing judged the run.
        pairs: Suites whose pairs are at hand, with the margin of each, nan where it was not judged.
        notes: What is missing or damaged, in sentences.
        advice: What the doctor found, and what to try.
        by: The groups that its set weighs, by name.
    """

    record: JsonObject
    suites: JsonObject
    pairs: dict[str, tuple[list[Pair], Array]]
    notes: list[str]
    advice: list[str]
    by: tuple[str, ...] = ()


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a run: finished, or with settings and a checkpoint."""
    begun = (folder / SETTINGS).exists() and any(folder.glob("checkpoint-*"))
    return (folder / RECORD).exists() or begun


def told_by(folder: Path) -> RunTold:
    """Read a run folder.

    Raises:
        RunError: There is no run, or its record is damaged; the message names the file.
    """
    record, notes = _record(folder)
    found = _metrics(folder, notes)
    pairs = judged_pairs(folder, record["config"], found, notes)
    return RunTold(record, found, pairs, notes, _advice(folder), weighed(record["config"].get("ambiguity")))


def _record(folder: Path) -> tuple[JsonObject, list[str]]:
    if (folder / RECORD).exists():
        found = record_of(folder)
        if found is None:
            raise RunError(f"{folder / RECORD} is no record of a run: put a whole copy of it back")
        return {"seed": 0, "history": [], "environment": {}, "data": {}, "steps": 0, "seconds": 0.0,
                "effective_batch": None, "learning_rate": None, **found}, []  # fmt: skip
    run = read_run(folder)
    note = f"The run is not finished: this is what it had logged by step {run.steps}, where its last checkpoint stands."
    config = {"model": "", "ambiguity": "erm", **run.config}
    return {
        "kind": run.kind, "config": config, "seed": run.config.get("seed", 0), "steps": run.steps, "seconds": None,
        "history": [*run.training, *run.evaluations], "environment": {}, "data": {}, "effective_batch": run.batch,
        "learning_rate": run.learning_rate, "inaction": run.inaction,
    }, [note]  # fmt: skip


def _metrics(folder: Path, notes: list[str]) -> JsonObject:
    if not (folder / METRICS).exists():
        return {}
    try:
        return read_record(folder / METRICS, "suites")["suites"]
    except RunError as error:
        notes.append(f"What judged the model cannot be shown: {error}.")
        return {}


def judged_pairs(
    folder: Path, config: JsonObject, suites: JsonObject, notes: list[str]
) -> dict[str, tuple[list[Pair], Array]]:
    """The suites whose files still hold the pairs that ``margins.jsonl`` lists; of the others, notes say why not."""
    stored = _margins(folder)
    files = suite_paths(folder, config)
    size, columns, by = config.get("eval_pairs"), config.get("columns"), weighed(config.get("ambiguity"))
    found = {}
    for name, summary in suites.items():
        if "accuracy" not in summary.get("overall", {}):
            continue
        why, margins = "they have changed", stored.get(name, [])
        try:
            read, _ = load_suites({name: files[name]}, eval_pairs=size, columns=columns, used=True, by=by)
            pairs = read[name]
        except KeyError:
            why, pairs = "the run does not say which file they are of", []
        except (DataError, OSError, ValueError) as error:
            why, pairs = str(error).replace(str(files[name]), files[name].name).rstrip("."), []
        if not margins:
            why = f"{MARGINS} does not have them"
        if [pair.id for pair in pairs] == [own for own, _ in margins] and pairs:
            found[name] = (pairs, np.array([np.nan if value is None else value for _, value in margins], dtype=float))
        else:
            notes.append(f"The pairs of {name} cannot be shown: {why}. Accuracies are those of {METRICS}.")
    return found


def suite_paths(folder: Path, config: JsonObject) -> dict[str, Path]:
    """The files that a run was judged by, also where it was started in another folder above its own."""
    around = [Path(), *folder.resolve().parents]
    files = suite_files([str(file) for file in config.get("suites") or ()])
    return {name: next((own for own in (place / file for place in around) if own.exists()), file)
            for name, file in files.items()}  # fmt: skip


def _margins(folder: Path) -> dict[str, list[tuple[str, float | None]]]:
    """Suite -> id and margin of its pairs; empty where the file is missing or damaged."""
    found: dict[str, list[tuple[str, float | None]]] = {}
    try:
        for line in (folder / MARGINS).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.setdefault(row["suite"], []).append((row["id"], row["margin"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found


def _advice(folder: Path) -> list[str]:
    try:
        return [
            f"{found.title[:1].upper()}{found.title[1:]}: {found.remedy}."
            for found in diagnose(read_run(folder)).findings
        ]
    except (RunError, ValueError):  # of a kind that the doctor does not know, or damaged: said elsewhere
        return []


def judged_by_all(name: str, runs: Sequence[RunTold]) -> tuple[list[Pair], list[Array]] | None:
    """The pairs of a suite that every run judged, and the margins of each; None where they judged different ones."""
    found = [run.pairs[name] for run in runs if name in run.pairs]
    if len(found) < len(runs) or len({tuple(pair.id for pair in pairs) for pairs, _ in found}) != 1:
        return None
    rows = np.flatnonzero(~np.isnan(np.sum([margins for _, margins in found], axis=0)))
    if not len(rows):
        return None
    return [found[0][0][row] for row in rows], [margins[rows] for _, margins in found]
