"""The results folder of a sweep: what stands where, written whole or not at all, read with an eye for damage.

    results.parquet      one row per run, suite and category ("" is the whole suite); COLUMNS below
    runs/TRAINING.json   the same rows by training, from which the table is put together again after a crash, and the
                         checksums of the training's other files
    margins/RUN.npz      margins float32 ``(pairs,)`` by suite, in the order of suites/NAME.parquet
    weights/TRAINING.npz what the adversary did to each training pair, see ``RunWeights``; of a head also what became of
                         categories over the steps, see ``read_curves``
    suites/NAME.parquet  the test pairs, PAIR_COLUMNS below; train.parquet: the training pairs of all regimes
    sweep.yaml           the settings as run
    full/TRAINING/run.json  what a training of a whole model left behind: log, data, versions
    audits.json          what each model sees of the training pairs and suites, see ``llm.results.audits``
    about.json           of runs that no sweep made: title, command, settings, data; of a sweep on several
                         training files what these were; see ``write_about``

One training gives up to three runs, one for each iterate it kept: RUN is ``TRAINING-last``, ``TRAINING-average`` or
``TRAINING-best``. What is wrong with a folder is reported as data (``Caveat``), not raised, as long as there is
something to read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dro_core.files import whole

from ..data.pairs import Pair
from ..data.questions import questions
from ..run.files import JsonObject, json_ready
from ..run.sealed import read_sealed, write_sealed
from ..statistics.group_curves import GroupCurves
from .findings import KEY, Caveat, earlier_rule, failures, gaps, mixed_versions, without_duplicates
from .training_records import damage, read_arrays, read_training

TABLE = "results.parquet"
RUN_RECORD = "full/{}/run.json"
ABOUT = "about.json"
LONGEST_TEXT = 600  # characters of a prompt or answer that are kept

SETTINGS: dict[str, object] = {
    "model": pa.string(),
    "ambiguity": pa.string(),  # as parse_reweighting reads it; "erm" is plain training
    "regime": pa.string(),  # name of the data regime
    "seed": pa.int64(),
    "batch_size": pa.int64(),
    "learning_rate": pa.float64(),
    "train_pairs": pa.int64(),
    "label_noise": pa.float64(),  # share of flipped training labels
    "final": pa.string(),  # last, average or best
}
METRICS: dict[str, object] = {
    "pairs": pa.int64(),
    "clusters": pa.int64(),
    "accuracy": pa.float64(),  # a tie is half right; where ``ties`` is null, of an earlier version, it is wrong
    "ties": pa.int64(),
    "mean_loss": pa.float64(),  # Bradley-Terry, in nats
    "cvar_loss": pa.float64(),  # its mean over the worst tenth of the pairs
    "longer_wins": pa.float64(),  # accuracy of the rule "the longer answer wins"
}
COLUMNS: dict[str, object] = {
    "run": pa.string(),
    **SETTINGS,
    "steps": pa.int64(),
    "seconds": pa.float64(),
    "version": pa.string(),
    "revision": pa.string(),
    "status": pa.string(),  # done or failed; a failed run has one row, with suite ""
    "error": pa.string(),
    "suite": pa.string(),
    "category": pa.string(),
    **METRICS,
    "effective_sample_size": pa.float64(),  # mean over the last quarter of the steps
    "acted": pa.bool_(),  # whether a weight ever differed from plain training; null without an adversary
}
_LATER = ("acted", "ties")  # columns that tables of earlier versions lack without being damaged; see earlier_rule
PAIR_COLUMNS: dict[str, object] = {
    "id": pa.string(),
    "question_id": pa.string(),  # the same for pairs with one question or prompt; "" for a pair alone with its
    "source": pa.string(),
    "category": pa.string(),
    "chosen_chars": pa.int64(),
    "rejected_chars": pa.int64(),
    "prompt": pa.string(),
    "chosen": pa.string(),
    "rejected": pa.string(),
    "weight": pa.float64(),  # how much the pair counts in plain training; null: as 1. Earlier versions lack it
}


class ResultsError(ValueError):
    """There are no results to read; the message says where they were expected."""


@dataclass(frozen=True)
class Results:
    """A results table and what is wrong with it.

    Attributes:
        folder: Where it came from.
        table: COLUMNS, one row per run, suite and category; failed runs included; without duplicates.
        findings: Empty if all is well.
    """

    folder: Path
    table: pd.DataFrame
    findings: tuple[Caveat, ...]

    @property
    def done(self) -> pd.DataFrame:
        """The rows of runs that finished."""
        return self.table.query("status == 'done'")


class RunWeights(NamedTuple):
    """What the adversary did in one training, over the ``n`` pairs it drew from.

    ``rows`` are positions in train.parquet; ``multiplier`` is the mean of (batch size) x weight over the ``visits``,
    1 for plain training, nan where never visited; ``last_loss`` in nats, nan where labels are soft; ``flipped`` where
    the sweep swapped the answers. All of shape ``(n,)``; pairs that were made are not among them.
    """

    rows: NDArray[np.int32]
    multiplier: NDArray[np.float32]
    visits: NDArray[np.int32]
    last_loss: NDArray[np.float32]
    flipped: NDArray[np.bool_]


def training_of(run: str) -> str:
    """The training a run belongs to.

    >>> training_of("3f2a-average"), training_of("3f2a")
    ('3f2a', '3f2a')
    """
    head, _, final = run.rpartition("-")
    return head if final in ("last", "average", "best") else run


# Writing


def write_table(path: Path, rows: Iterable[Mapping[str, object]], columns: Mapping[str, object]) -> None:
    """Write a Parquet file of these columns, whole or not at all; a value a row lacks is null."""
    schema = pa.schema(list(columns.items()))
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    with whole(path) as stream:
        pq.write_table(table, stream, compression="zstd", write_page_checksum=True)


def write_results(folder: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write the table; rows hold COLUMNS."""
    write_table(folder / TABLE, rows, COLUMNS)


def write_pairs_table(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as PAIR_COLUMNS, texts cut at LONGEST_TEXT characters."""
    shared = zip(pairs, questions(pairs), strict=True)
    rows = ({**_pair_row(pair), "question_id": question or ""} for pair, question in shared)
    write_table(path, rows, PAIR_COLUMNS)


def write_about(folder: Path, about: JsonObject) -> None:
    """Write what a page says of results beside numbers: ``title``, ``command``, ``settings``, ``data``, or some."""
    write_sealed(folder / ABOUT, json_ready(about))


def _pair_row(pair: Pair) -> dict[str, object]:
    prompt = "\n".join(message["content"] for message in pair.prompt)
    texts = {"prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    return {
        "id": pair.id,
        "source": pair.source,
        "category": pair.category,
        "chosen_chars": len(pair.chosen),
        "rejected_chars": len(pair.rejected),
        "weight": pair.weight,
        # A lone half of a surrogate pair, which JSON allows, has no bytes in UTF-8.
        **{name: text[:LONGEST_TEXT].encode(errors="replace").decode() for name, text in texts.items()},
    }


# Reading


def read_results(folder: str | Path) -> Results:
    """Read a results folder, or the results.parquet in one.

    Raises:
        ResultsError: Neither a readable table nor the rows of a finished training are there, or the table is
            something else.
    """
    folder = Path(folder)
    folder = folder.parent if folder.name == TABLE else folder
    findings: list[Caveat] = []
    table = _completed(_read_table(folder, findings), folder, findings)
    table = without_duplicates(table, findings)
    findings += [
        *damage(folder, {training_of(run) for run in table.query("status == 'done'")["run"]}),
        *gaps(table),
        *mixed_versions(table),
        *failures(table),
        *earlier_rule(table),
    ]
    return Results(folder, table.reset_index(drop=True), tuple(findings))


def read_margins(folder: str | Path, run: str) -> dict[str, NDArray[np.float32]] | None:
    """Margins by suite, ``(pairs,)``; None where the file is missing or damaged."""
    return read_arrays(Path(folder) / "margins" / f"{run}.npz")


def read_weights(folder: str | Path, run: str) -> RunWeights | None:
    """What the adversary did in the training of ``run``; None where the file is missing or damaged."""
    arrays = read_arrays(Path(folder) / "weights" / f"{training_of(run)}.npz")
    if arrays is None or not arrays.keys() >= set(RunWeights._fields):
        return None
    return RunWeights(*(arrays[name] for name in RunWeights._fields))


def curve_arrays(curves: GroupCurves) -> dict[str, NDArray[np.generic]]:
    """Curves by the names they have in the file of weights."""
    return {f"curve_{name}": values for name, values in curves._asdict().items()}


def read_curves(folder: str | Path, run: str) -> GroupCurves | None:
    """What became of categories in the training of ``run``; None where nothing was kept, or it is damaged."""
    arrays = read_arrays(Path(folder) / "weights" / f"{training_of(run)}.npz") or {}
    names = [f"curve_{name}" for name in GroupCurves._fields]
    return GroupCurves(*(arrays[name] for name in names)) if arrays.keys() >= set(names) else None


def read_run_record(folder: str | Path, run: str) -> dict[str, object]:
    """The ``run.json`` of the whole model of ``run``; {} where there is none, or it is damaged."""
    try:
        found = json.loads((Path(folder) / RUN_RECORD.format(training_of(run))).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_about(folder: str | Path) -> dict[str, Any]:
    """What ``write_about`` wrote; {} where it is missing or damaged."""
    return read_sealed(Path(folder) / ABOUT) or {}


def read_suite(folder: str | Path, name: str) -> pd.DataFrame | None:
    """The pairs of a suite, PAIR_COLUMNS; None where the file is missing or damaged."""
    return _read_pairs(Path(folder) / "suites" / f"{name}.parquet")


def read_training_pairs(folder: str | Path) -> pd.DataFrame | None:
    """The training pairs of all regimes, PAIR_COLUMNS; None where the file is missing or damaged."""
    return _read_pairs(Path(folder) / "train.parquet")


def _read_pairs(path: Path) -> pd.DataFrame | None:
    try:
        return pq.read_table(path, page_checksum_verification=True).to_pandas()
    except (OSError, ValueError, pa.ArrowException):
        return None


def _read_table(folder: Path, findings: list[Caveat]) -> pd.DataFrame:
    path = folder / TABLE
    if path.with_name(TABLE + ".partial").exists():
        findings.append(Caveat("unfinished write", f"{TABLE}.partial is left over from a write that never ended."))
    try:
        return pq.read_table(path, page_checksum_verification=True).to_pandas()
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else "cannot be read (half-written?)"
    rows = [row for part in sorted(folder.glob("runs/*.json")) for row in read_training(folder, part.stem) or []]
    if not rows:
        raise ResultsError(f"{path} {reason}, and there are no finished runs in {folder / 'runs'} to restore it from")
    findings.append(Caveat("unreadable table", f"{TABLE} {reason}; its rows were read from runs/ instead."))
    return pd.DataFrame(rows)


def _completed(table: pd.DataFrame, folder: Path, findings: list[Caveat]) -> pd.DataFrame:
    """The table with all COLUMNS, in order and of their types."""
    missing = [name for name in COLUMNS if name not in table and name not in _LATER]
    if set(missing) & {*KEY, "ambiguity", "seed", "accuracy", "status"}:
        raise ResultsError(f"{folder / TABLE} is no results table: it lacks the columns {', '.join(missing)}")
    if missing:
        findings.append(Caveat("missing columns", f"The table lacks {', '.join(missing)}; they are left empty."))
    schema = pa.schema(list(COLUMNS.items()))
    whole = table.reindex(columns=list(COLUMNS))
    return pa.Table.from_pandas(whole, schema=schema, preserve_index=False, safe=False).to_pandas()
