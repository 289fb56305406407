"""Finished run folders as a results folder, which the report reads like that of a sweep over whole models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..adversary.ledger import AdversaryLedger
from ..data.pairs import Pair
from ..judging.margins import checked_margins
from ..results.of_runs import settings_of_run
from ..results.store import RUN_RECORD, write_about, write_pairs_table, write_results
from ..results.training_records import write_arrays, write_training
from ..run.files import JsonObject, json_ready, write_json
from ..run.folder import by_step, is_complete
from ..run.kinds import is_logistic
from ..run.stored_arrays import UnreadableArrays
from .context import Margins, SuiteRows, suite_rows
from .regimes import Selection
from .runs import records, write_weights


class Finished(NamedTuple):
    """A finished run.

    Attributes:
        folder: Of the run.
        record: What its ``run.json`` holds, and its ``settings`` where they are at hand.
        margins: By suite, ``(pairs,)``.
    """

    folder: Path
    record: JsonObject
    margins: JsonObject


def record_runs(
    folder: Path,
    runs: Sequence[Finished],
    suites: Mapping[str, Sequence[Pair]],
    *,
    train: Sequence[Pair] = (),
    about: Mapping[str, object],
) -> None:
    """Write what came out of runs of one kind as the results of a sweep; on pairs that all of them judged.

    Args:
        folder: Of the results, empty.
        runs: No two of them alike.
        suites: What they were judged by, in the order of the margins.
        train: What all of them trained on, in the order of their ledgers; without it nothing is said of weights.
        about: As ``llm.results.store.write_about`` takes it.

    Raises:
        ValueError: There is no run, margins do not fit their suite, or no pair of a suite was judged by all.
    """
    if not runs:
        raise ValueError("there is no run to report")
    judged = {name: _judged(name, pairs, [run.margins[name] for run in runs]) for name, pairs in suites.items()}
    suites = {name: [pairs[row] for row in judged[name]] for name, pairs in suites.items()}
    (folder / "suites").mkdir(parents=True)
    names = {name: name.replace("/", "-") for name in suites}  # suites of one stem are called by their path
    for name, pairs in suites.items():
        write_pairs_table(folder / "suites" / f"{names[name]}.parquet", pairs)
    if train:
        write_pairs_table(folder / "train.parquet", train)
    write_about(folder, about)
    suite_of = {names[name]: suite_rows(name, np.arange(len(pairs)), pairs) for name, pairs in suites.items()}
    table: list[dict[str, object]] = []
    for number, run in enumerate(runs):
        margins = {names[name]: np.asarray(run.margins[name])[rows] for name, rows in judged.items()}
        table += _record(folder, f"run{number}", run, margins, suite_of, train)
    write_results(folder, table)


def _judged(name: str, pairs: Sequence[Pair], margins: Sequence[ArrayLike]) -> list[int]:
    """The pairs that every run judged: a model cannot tell every pair apart."""
    found = np.flatnonzero(~np.isnan(sum(checked_margins(pairs, own) for own in margins)))
    if not len(found) and len(pairs):
        raise ValueError(f"no pair of the suite {name} was judged by every run: name other suites, or raise max_length")
    return found.tolist()


def _record(
    folder: Path,
    training: str,
    run: Finished,
    margins: Margins,
    suites: Mapping[str, SuiteRows],
    train: Sequence[Pair],
) -> list[dict[str, object]]:
    """Write the files of a run; its rows of the table."""
    final = run.record["config"].get("final", "last")
    name = f"{training}-{final}"
    rows = [{**settings_of_run(run.record), "run": name, **record} for record in records(margins, suites, final)]
    write_arrays(
        folder / "margins" / f"{name}.npz", **{suite: values.astype(np.float32) for suite, values in margins.items()}
    )
    record = folder / RUN_RECORD.format(training)
    record.parent.mkdir(parents=True)
    write_json(record, json_ready(run.record))
    files = [f"margins/{name}.npz", *_weights(folder, training, run, len(train)), RUN_RECORD.format(training)]
    write_training(folder, training, rows, files=files)
    return rows


def _weights(folder: Path, training: str, run: Finished, pairs: int) -> list[str]:
    """The account of the last checkpoint, where it is one of these pairs."""
    checkpoint = next((place for place in by_step(run.folder).values() if is_complete(place)), None)
    if not pairs or checkpoint is None:
        return []
    ledger = AdversaryLedger(pairs)
    try:
        ledger.load(checkpoint)
    except UnreadableArrays:
        return []
    if len(ledger.visits) != pairs:
        return []
    everything = Selection(np.arange(pairs), np.zeros(pairs, dtype=bool))
    logistic = is_logistic(run.record["kind"], run.record["config"])
    write_weights(folder, training, ledger, everything, margins=logistic)
    return [f"weights/{training}.npz"]
