"""Runs as a results folder, as a sweep over whole models leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.grouping.columns import MOST, rows_of_groups
from ...data.pairs import Pair
from ...results.of_runs import settings_of_run
from ...results.store import RUN_RECORD, ResultsError, write_about, write_pairs_table, write_results
from ...results.training_records import write_arrays, write_training
from ...run.files import JsonObject, json_ready, write_json
from .run_folders import RunTold, judged_by_all

_MEASURED = ("pairs", "clusters", "accuracy", "ties", "mean_loss", "cvar_loss", "longer_wins")


def write_runs(folder: Path, runs: Sequence[RunTold], about: JsonObject) -> None:
    """Write runs as the results of a sweep, an arm for each set.

    Args:
        folder: Empty.
        runs: At least one; of suites that they judged on different pairs only the numbers are kept.
        about: As ``write_about`` takes it; what the runs note and are advised is added.

    Raises:
        ResultsError: There is no run.
    """
    if not runs:
        raise ResultsError("no stage of this pipeline is finished, so there is nothing to report yet")
    names = [name for run in runs for name in run.suites if "accuracy" in run.suites[name].get("overall", {})]
    shared = {name: found for name in dict.fromkeys(names) if (found := judged_by_all(name, runs))}
    by = list(dict.fromkeys(name for run in runs for name in run.by))
    grouped = {name: grouping for name, (pairs, _) in shared.items() if (grouping := _grouped(pairs, by))}
    (folder / "suites").mkdir(parents=True)
    for name, (pairs, _) in shared.items():
        _, labelled = grouped.get(name, ("", pairs))
        write_pairs_table(folder / "suites" / f"{_file(name)}.parquet", labelled)
    table: list[dict[str, object]] = []
    for number, run in enumerate(runs):
        margins = {_file(name): found[1][number].astype(np.float32) for name, found in shared.items()}
        table += _write_run(folder, f"run{number}", run, margins)
    write_results(folder, table)
    notes = [*about.get("notes", ()), *(note for run in runs for note in run.notes)]
    advice = [line for run in runs for line in run.advice]
    kinds = {_file(name): kind for name, (kind, _) in grouped.items()}
    write_about(folder, {**about, "notes": _once(notes), "advice": _once(advice), "groups": kinds})


def _write_run(
    folder: Path, training: str, run: RunTold, margins: Mapping[str, NDArray[np.floating]]
) -> list[dict[str, object]]:
    name = f"{training}-{run.record['config'].get('final', 'last')}"
    settings = {**settings_of_run(run.record), "run": name, "final": name.rpartition("-")[2]}
    judged = {suite: summary for suite, summary in run.suites.items() if "accuracy" in summary.get("overall", {})}
    rows = [
        {**settings, "suite": _file(suite), "category": category, **{key: record.get(key) for key in _MEASURED}}
        for suite, summary in judged.items()
        for category, record in {"": summary["overall"], **summary.get("by_category", {})}.items()
    ]
    files = [RUN_RECORD.format(training)]
    (folder / files[0]).parent.mkdir(parents=True)
    write_json(folder / files[0], json_ready(run.record))
    if margins:
        write_arrays(folder / "margins" / f"{name}.npz", **margins)
        files.append(f"margins/{name}.npz")
    rows = rows or [{**settings, "suite": "", "category": ""}]
    write_training(folder, training, rows, files=files)
    return rows


def _grouped(pairs: Sequence[Pair], by: Sequence[str]) -> tuple[str, list[Pair]] | None:
    """The kind of group that stands in the place of categories, and the pairs with it for a category; None: they stay.

    It is the first that a set weighs and these pairs have two of; without such groups or categories, the source.
    """
    groups = rows_of_groups(pairs, by)
    several = [kind for kind in (*by, "category", "source") if 1 < len(groups.get(kind, ())) <= MOST]
    kind = several[0] if several else "category"
    if kind == "category":
        return None
    labelled = list(pairs)
    for label, rows in groups[kind].items():
        for row in rows:
            labelled[row] = replace(pairs[row], category=label)
    return kind, labelled


def _file(suite: str) -> str:
    return suite.replace("/", "-")  # suites of one stem are called by their path


def _once(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(lines))
