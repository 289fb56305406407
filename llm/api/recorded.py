"""Finished runs as a results folder, which the report reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..data.pairs import Pair
from ..judging.accuracy import rows_by
from ..results.store import write_pairs_table, write_results
from ..results.training_records import write_arrays, write_training
from .judged import Evaluation, evaluate
from .runs import Run


def record_runs(runs: Sequence[Run], folder: Path, suites: Any = None) -> None:
    """Judge the runs on the same suites and write what came out as the results of a sweep.

    Raises:
        ValueError: There is no run, or no suite.
    """
    if not runs:
        raise ValueError("there is no run to report")
    judged = [evaluate(run, suites if suites is not None else list(runs[0].config.suites)) for run in runs]
    (folder / "suites").mkdir(parents=True)
    for name, pairs in judged[0].suites.items():
        write_pairs_table(folder / "suites" / f"{name}.parquet", pairs)
    table: list[dict[str, Any]] = []
    for number, (run, evaluation) in enumerate(zip(runs, judged, strict=True)):
        rows = [_settings(run, number) | row for row in _rows(evaluation)]
        margins = {name: np.asarray(values, dtype=np.float32) for name, values in evaluation.result["margins"].items()}
        write_arrays(folder / "margins" / f"{rows[0]['run']}.npz", **margins)
        write_training(folder, f"run{number}", rows, files=[f"margins/{rows[0]['run']}.npz"])
        table += rows
    write_results(folder, table)


def _settings(run: Run, number: int) -> dict[str, Any]:
    record, config = run.record, run.record["config"]
    final = config.get("final", "last")
    sizes = [row["effective_sample_size"] for row in record["history"] if "effective_sample_size" in row]
    late = sizes[3 * len(sizes) // 4 :]
    return {
        "run": f"run{number}-{final}",
        "model": config["model"],
        "ambiguity": run.ambiguity,
        "regime": "all",
        "seed": record["seed"],
        "batch_size": record["effective_batch"],
        "learning_rate": record["learning_rate"],
        "train_pairs": record["data"]["trained_on"],
        "label_noise": 0.0,
        "final": final,
        "steps": record["steps"],
        "seconds": record["seconds"],
        "version": record["environment"].get("robust-rlhf", version("robust-rlhf")),
        "revision": "",
        "status": "done",
        "error": "",
        "effective_sample_size": float(np.mean(late)) if late else None,
        "acted": None if run.ambiguity == "erm" else not record.get("inaction"),
    }


def _rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The numbers of a run by suite and category; the category "" is the whole suite."""
    return [
        {"suite": name, "category": category, **_numbers(record)}
        for name, summary in evaluation.result["suites"].items()
        for category, record in {"": summary["overall"], **_categories(evaluation.suites[name], summary)}.items()
    ]


def _categories(pairs: Sequence[Pair], summary: Mapping[str, Any]) -> dict[str, Any]:
    return summary["by_category"] if len(rows_by(pairs, "category")) > 1 else {}


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    names = ("pairs", "clusters", "accuracy", "ties", "mean_loss", "cvar_loss", "longer_wins")
    return {name: record[name] for name in names}
