"""Evaluations as results: models called by the names that they were judged under, the second one to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.pairs import Pair
from ...run.files import JsonObject
from ...run.finished import read_record
from .recorded import write_runs
from .run_folders import METRICS, RunTold

EARLIER = "the judged model"  # of an evaluation that does not say which

Judged = tuple[str, JsonObject | None, JsonObject, Mapping[str, Sequence[Pair]]]


def write_evaluation(folder: Path, judged: Sequence[Judged], *, notes: Sequence[str], by: Sequence[str] = ()) -> None:
    """Write one or two judged models as results.

    Args:
        folder: Empty.
        judged: Name, ``run.json`` or None, result (as of ``evaluate_model``) and pairs of each.
        notes: What must be known before believing it.
        by: Names of groups that they are judged by, beside categories and sources.
    """
    names = [name for name, *_ in judged]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    told = [_told(name, *one[1:])._replace(by=tuple(by)) for name, one in zip(names, judged, strict=True)]
    about = {"title": " against ".join(names), "baseline": names[-1], "notes": list(notes)}
    write_runs(folder, told, about)


def earlier_evaluation(folder: Path) -> RunTold:
    """What an earlier version, or a copy, left of an evaluation: numbers without pairs."""
    found = read_record(folder / METRICS, "suites")["suites"]
    note = "The evaluation holds no pairs, so there are no intervals and no tests: evaluate again to have them."
    return RunTold(_record(EARLIER, None), found, {}, [note], [])


def _told(name: str, record: JsonObject | None, result: JsonObject, suites: Mapping[str, Sequence[Pair]]) -> RunTold:
    margins: Mapping[str, NDArray[np.float64]] = result["margins"]
    pairs = {suite: (list(own), np.asarray(margins[suite], dtype=float)) for suite, own in suites.items()}
    return RunTold(_record(name, record), result["suites"], pairs, [], [])


def _record(name: str, record: JsonObject | None) -> dict[str, object]:
    """Of an arm of that name; how its training was set decides nothing here, so all are of one family."""
    bare = {"history": [], "environment": {}, "steps": 0, "seconds": None, **(record or {}), "data": {}}
    config = {**bare.get("config", {}), "ambiguity": name, "model": "judged", "final": "last"}
    return {**bare, "config": config, "seed": 0, "effective_batch": None, "learning_rate": None}
