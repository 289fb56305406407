"""One training of a sweep: carried out, judged, and left in the results folder with its identity as name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dro_core import CVaR, robust_loss

from ..adversary.ledger import AdversaryLedger
from ..adversary.spec import parse_reweighting
from ..data.grouping.columns import CROSSED
from ..judging.accuracy import TAIL
from ..results.store import curve_arrays
from ..results.training_records import damaged_files, read_training, write_arrays, write_training
from ..statistics.group_curves import GroupCurves
from ..statistics.ties import credit, ties
from .asked import Asked
from .context import Margins, SuiteRows, SweepContext, TrainedRun
from .full import train_full
from .head_pairs import HeadPairs, Of, features_apart, head_data
from .heads import HeadRun, train_head
from .plan import Cell, FullModel, HeadModel
from .regimes import Selection

_ENGINES = {HeadModel: 1, FullModel: 2}  # part of every identity: raise it when the same settings give other results


@dataclass(frozen=True)
class Outcome:
    """How a training ended: "" or what went wrong."""

    training: str
    error: str = ""


def identity(cell: Cell, context: SweepContext) -> str:
    """Twelve hexadecimal digits for everything that decides the result of a training."""
    config, model = context.config, context.config.models[cell.model]
    decisive: dict[str, Any] = {
        "engine": _ENGINES[type(model)],
        "cell": asdict(cell),
        "model": {type(model).__name__: asdict(model)},
        "regime": config.regimes[cell.regime].decisive,
        "validation_share": config.validation_share,
        "eval_pairs": config.eval_pairs,
        "files": context.hashes,
    }
    if isinstance(model, HeadModel):
        # A head run keeps every iterate; its features are named by the fingerprint of weights, tokens and texts.
        decisive["cell"].pop("final")
        files, of = context.features[cell.model], Of.cell(cell)
        features = {origin: file.name for origin, file in files.answers.items()}
        crossed = files.made[of].answers if of in files.made else None
        head = asdict(config.head)
        decisive |= {
            "head": head if of.measures else {name: head[name] for name in head if not name.startswith("auto_")},
            "features": features if crossed is None else features | {CROSSED: crossed.name},
        }
    elif start := context.starts[cell.model]:  # nothing where it is made from scratch
        decisive["start"] = start
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_done(folder: Path, training: str) -> bool:
    """Whether a training finished and what it left is whole; one that failed is tried again."""
    rows = read_training(folder, training)
    return bool(rows) and all(row["status"] == "done" for row in rows) and not damaged_files(folder, training)


def run_training(cell: Cell, context: SweepContext) -> Outcome:
    """Carry out and judge one training; whatever goes wrong is kept as its result."""
    training = identity(cell, context)
    try:
        judged = _judge(cell, context, training)
        rows = [
            {**_settings(cell, context, judged), **_ending(cell, judged), "run": f"{training}-{final}", **record}
            for final, margins in judged.margins.items()
            for record in records(margins, context.suites_of(cell.regime), final)
        ]
        files = _keep(context.folder, training, judged)
        kept = _records_of_full(context.folder, training)
        write_training(context.folder, training, rows, files=files, kept=kept)
    except Exception as error:  # the other runs of the sweep do not depend on it
        return record_failure(cell, context, error)
    return Outcome(training)


def record_failure(cell: Cell, context: SweepContext, error: Exception) -> Outcome:
    """Keep what went wrong as the result of a training."""
    training, text = identity(cell, context), f"{type(error).__name__}: {' '.join(str(error).split())}"
    rows = [_failure(cell, context, training, final, text) for final in cell.final]
    write_training(context.folder, training, rows)
    return Outcome(training, text)


def head_run(cell: Cell, context: SweepContext) -> tuple[HeadRun, HeadPairs]:
    """Train the head of a cell; also what it was trained on."""
    pairs, asked = head_data(cell, context), Asked.of(cell.ambiguity)
    run = train_head(
        pairs.data,
        parse_reweighting(asked.text),
        context.config.head,
        batch_size=cell.batch_size,
        learning_rate=cell.learning_rate,
        epochs=cell.epochs,
        seed=cell.seed,
        adaptive=asked.adaptive,
    )
    return run, pairs


def _judge(cell: Cell, context: SweepContext, training: str) -> TrainedRun:
    model = context.config.models[cell.model]
    if isinstance(model, FullModel):
        return train_full(cell, model, context, context.folder / "full" / training)
    run, pairs = head_run(cell, context)
    files = context.features[cell.model].answers
    margins = {
        final: {
            name: features_apart(files[suite.origin])[suite.rows] @ (weights / pairs.scale)
            for name, suite in context.suites_of(cell.regime).items()
        }
        for final, weights in run.iterates.items()
    }
    return TrainedRun(
        margins=margins,
        selection=pairs.selection,
        ledger=run.ledger,
        steps=run.steps,
        seconds=run.seconds,
        effective_sample_size=run.effective_sample_size,
        batch_size=cell.batch_size,
        learning_rate=cell.learning_rate,
        logistic=pairs.data.preferences is None,
        measured=run.measured,
        curves=run.curves,
    )


def records(margins: Margins, suites: Mapping[str, SuiteRows], final: str) -> list[dict[str, object]]:
    """The numbers of one run, by suite and category."""
    return [
        {"final": final, "suite": name, "category": category, **_record(margins[name][rows], suite, category)}
        for name, suite in suites.items()
        for category, rows in suite.groups.items()
    ]


def _record(margins: NDArray[np.float64], suite: SuiteRows, category: str) -> dict[str, object]:
    losses = np.logaddexp(0.0, -margins)
    return {
        "pairs": len(margins),
        "clusters": suite.clusters[category],
        "accuracy": float(np.mean(credit(margins))),
        "ties": ties(margins),
        "mean_loss": float(losses.mean()),
        "cvar_loss": float(robust_loss(losses, CVaR(alpha=TAIL))),
        "longer_wins": suite.longer[category],
    }


def _settings(cell: Cell, context: SweepContext, judged: TrainedRun) -> dict[str, object]:
    return {
        "model": cell.model,
        "ambiguity": cell.ambiguity,
        "regime": cell.regime,
        "seed": cell.seed,
        "batch_size": judged.batch_size,
        "learning_rate": judged.learning_rate,
        "train_pairs": len(judged.selection.rows),
        "label_noise": context.config.regimes[cell.regime].label_noise,
        "version": context.version,
        "revision": context.revision,
    }


def _ending(cell: Cell, judged: TrainedRun) -> dict[str, object]:
    return {
        "steps": judged.steps,
        "seconds": judged.seconds,
        "status": "done",
        "error": "",
        "effective_sample_size": judged.effective_sample_size,
        "acted": None if cell.ambiguity == "erm" else judged.ledger.acted,
    }


def _failure(cell: Cell, context: SweepContext, training: str, final: str, text: str) -> dict[str, object]:
    settings = asdict(cell) | {"label_noise": context.config.regimes[cell.regime].label_noise, "final": final}
    settings.pop("epochs")
    versions = {"version": context.version, "revision": context.revision}
    ending = {"status": "failed", "error": text, "suite": "", "category": ""}
    return {"run": f"{training}-{final}", **settings, **versions, **ending}


def _keep(folder: Path, training: str, judged: TrainedRun) -> list[str]:
    """Margins and weights, by their names; the rows come last, because they say that the training is done."""
    for final, margins in judged.margins.items():
        arrays = {name: values.astype(np.float32) for name, values in margins.items()}
        write_arrays(folder / "margins" / f"{training}-{final}.npz", **arrays)
    write_weights(
        folder,
        training,
        judged.ledger,
        judged.selection,
        margins=judged.logistic,
        measured=judged.measured,
        curves=judged.curves,
    )
    return [*(f"margins/{training}-{final}.npz" for final in judged.margins), f"weights/{training}.npz"]


def write_weights(
    folder: Path,
    training: str,
    ledger: AdversaryLedger,
    selection: Selection,
    *,
    margins: bool = True,
    measured: NDArray[np.float64] | None = None,
    curves: GroupCurves | None = None,
) -> None:
    """Keep what the adversary did to each pair; its last loss only where a margin can be told from that.

    Pairs that were made stand behind the others in the ledger, and by themselves in the file. ``measured`` and
    ``curves`` are as of ``HeadRun``; nothing where nothing was.
    """
    count, mean = len(selection.rows), ledger.mean_multiplier().astype(np.float32)
    visits = ledger.visits.astype(np.int32)
    last_loss = ledger.last_loss[:count] if margins else np.full(count, np.nan)
    made = {f"{CROSSED}_multiplier": mean[count:], f"{CROSSED}_visits": visits[count:]} if len(mean) > count else {}
    write_arrays(
        folder / "weights" / f"{training}.npz",
        rows=selection.rows.astype(np.int32),
        multiplier=mean[:count],
        visits=visits[:count],
        last_loss=last_loss.astype(np.float32),
        flipped=selection.flipped,
        **made,
        **({} if measured is None or not len(measured) else {"measured": measured}),
        **({} if curves is None or not len(curves.steps) else curve_arrays(curves)),
    )


def _records_of_full(folder: Path, training: str) -> list[str]:
    """Of a whole model: its record and, where it is kept, the model."""
    place = folder / "full" / training
    return [str(file.relative_to(folder)) for file in chain(place.glob("*.json"), place.glob("model/*"))]
