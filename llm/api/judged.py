"""Judging from Python: a model on suites, and one model against another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..data.columns import ColumnMap, columns_of
from ..data.grouping.columns import columns_for, weighed
from ..data.objects import pairs_of
from ..data.pairs import DataError, Pair, PairSet
from ..data.suites import check_mapped, subset_of, suite_files
from ..run.files import JsonObject
from ..run.run_differences import record_of, remarks
from .frames import Shown, frame
from .runs import Run, Source

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

Model: TypeAlias = "Run | str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]"  # a path or a name


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """A model on suites of pairs: ``table`` has a row per suite and group.

    Attributes:
        name: Of the model.
        suites: Their pairs, by name.
        result: As from ``llm.judging.accuracy.evaluate_model``: ``suites`` (summaries) and ``margins``.
        record: What ``run.json`` says of the model, where there is one.
        by: Names of groups that it is judged by, beside categories and sources.
    """

    name: str
    suites: Mapping[str, Sequence[Pair]]
    result: JsonObject
    record: JsonObject | None = None
    by: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """Accuracy with its interval, ties, losses and the rule "longer wins", overall and by group."""
        from ..judging.tables import tidy_rows

        return frame(tidy_rows(self.result["suites"]))

    def caption(self) -> str:
        """Whose numbers these are."""
        return f"Accuracy of {self.name}, with 95 % intervals over prompts; a tie counts one half."

    def write(
        self, folder: str | Path, *, comparison: PairedComparison | None = None, against: Evaluation | None = None
    ) -> None:
        """Write metrics.json, metrics.csv, margins.jsonl and results/ into a folder, which is made where it is missing.

        The last is what ``robust-rlhf report`` makes a page of; ``against`` is the other model on it.
        """
        from ..judging.tables import write_metrics
        from ..report.sources.evaluations import write_evaluation
        from ..run.folder import write_folder

        found = comparison.suites if comparison else None
        write_metrics(self.result, self.suites, folder, comparisons=found)
        judged = [(one.name, one.record, one.result, one.suites) for one in (self, *([against] if against else []))]
        said = comparison.remarks if comparison else []
        write_folder(Path(folder) / "results", lambda place: write_evaluation(place, judged, notes=said, by=self.by))


@dataclass(frozen=True, repr=False)
class PairedComparison(Shown):
    """Accuracy of one model minus that of another on the same pairs: ``table`` has a row per suite and group.

    Attributes:
        names: Of both models.
        suites: Suite -> record of ``llm.judging.accuracy.compare``.
        remarks: What else the two differ in than the ambiguity set, and whose adversary did not act.
    """

    names: tuple[str, str]
    suites: Mapping[str, JsonObject]
    remarks: list[str] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """Differences with their intervals and p-values."""
        from ..judging.tables import tidy_rows

        return frame(tidy_rows(self.suites))

    def caption(self) -> str:
        """Which model minus which, and what must be known before believing it."""
        return " ".join([f"Accuracy of {self.names[0]} minus {self.names[1]}, paired by prompt.", *self.remarks])


def evaluate(
    model: Model,
    suites: object = None,
    *,
    reference: str | None = None,
    beta: float = 0.1,
    dtype: str = "float32",
    max_length: int | None = None,
    batch_size: int | None = None,
    eval_pairs: int | None = None,
    trust_remote_code: bool = False,
    progress: bool = False,
    record: JsonObject | None = None,
    columns: str | Mapping[str, str] | None = None,
    by: Sequence[str] | None = None,
) -> Evaluation:
    """Judge a reward model or a policy on preference pairs.

    Args:
        model: A ``Run``, a folder, hub name or alias, or a model with its tokenizer.
        suites: A path, several, pairs, or name -> path or pairs; None: those that the run was told of.
        reference: A policy's margins are beta times its log-ratios to this one; ``none``: plain log-probabilities,
            summed over tokens. A run of SFT or DPO knows its own.
        beta: Scale of margins against a reference.
        dtype: Precision that the weights are read in; of a model that is loaded, its own.
        max_length: Tokens per answer with its prompt; None: as in training.
        batch_size: Pairs per forward pass; None: 32, of a language model as many of these as make 2 GiB of logits.
        eval_pairs: At most this many pairs of each suite, a fixed random subset.
        trust_remote_code: Let a hub repository run its own code.
        progress: Show a bar.
        record: What ``run.json`` says of the model, where that was read already; empty: nothing.
        columns: Which column holds what, in the suites that have these columns; None: as the run was told, in suites
            that have all of these.
        by: Names of groups to judge by as well, as a set has them behind ``by=``: columns of the suites, bins,
            products; None: those that the run's own set weighs.

    Raises:
        DataError: A suite cannot be read, or none has the columns.
        ModelError: The model cannot be loaded, or it is a policy and there is no reference.
        ValueError: There is no suite, or a number makes no sense.
    """
    from ..judging.accuracy import evaluate_model
    from ..judging.margins import pairs_at_once
    from ..models.architectures import check_length, reading_length
    from .loading import judge_of

    if min(1 if number is None else number for number in (batch_size, eval_pairs)) < 1:
        raise ValueError("batch_size and eval_pairs must be at least 1")
    record = _record(model) if record is None else record  # before hours of judging
    by = _weighed(record) if by is None else tuple(by)
    told = str(record["config"].get("columns") or "") if record and columns is None else ""
    read = suites_of(model, suites, columns, by=by, told=told)
    found = {name: subset_of(source.pairs, eval_pairs) for name, source in read.items()}
    loaded, tokenizer, margin_of = judge_of(
        model, reference=reference, beta=beta, dtype=dtype, trust_remote_code=trust_remote_code
    )
    length = max_length or reading_length(loaded, tokenizer)
    check_length(loaded, length)
    result = evaluate_model(
        loaded,
        tokenizer,
        found,
        max_length=length,
        batch_size=batch_size or pairs_at_once(loaded, length),
        margin_of=margin_of,
        by=by,
        progress=progress,
    )
    return Evaluation(name_of(model), found, result, record or None, by)


def compare(one: Model | Evaluation, other: Model | Evaluation, suites: object = None, **how: Any) -> PairedComparison:
    """Compare two models pair by pair.

    Args:
        one: An ``Evaluation``, or whatever ``evaluate`` takes.
        other: The same.
        suites: As in ``evaluate``; an evaluation that comes first brings its own.
        **how: As in ``evaluate``.

    Raises:
        ValueError: Two evaluations are of different pairs.
    """
    from ..judging.accuracy import compare as compared

    sides = [side.by if isinstance(side, Evaluation) else _weighed(_record(side)) for side in (one, other)]
    how = {"by": tuple(dict.fromkeys(name for by in sides for name in by)), **how}
    first = one if isinstance(one, Evaluation) else evaluate(one, suites, **how)
    how["columns"] = None  # pairs by now
    second = other if isinstance(other, Evaluation) else evaluate(other, dict(first.suites), **how)
    if {name: [p.id for p in pairs] for name, pairs in first.suites.items()} != {
        name: [p.id for p in pairs] for name, pairs in second.suites.items()
    }:
        raise ValueError("the two evaluations are of different pairs: judge both models on the same suites")
    margins = first.result["margins"], second.result["margins"]
    found = {
        name: compared(pairs, margins[0][name], margins[1][name], by=how["by"]) for name, pairs in first.suites.items()
    }
    return PairedComparison((first.name, second.name), found, remarks_of([first, second]))


def remarks_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """Whose adversary did not act, and what else two runs differ in than the ambiguity set."""
    return remarks([one.name for one in evaluations], [one.record for one in evaluations])


def suites_of(
    model: Model,
    suites: object,
    columns: str | Mapping[str, str] | ColumnMap | None = None,
    *,
    by: Sequence[str] = (),
    told: str = "",
) -> dict[str, PairSet]:
    """Name -> pairs of whatever names suites; the names of files are their stems.

    Columns for groups ``by`` are kept. The mapping that a run was ``told`` serves suites that can be read by it.

    Raises:
        DataError: A suite cannot be read, or none has the columns.
        ValueError: There is none.
    """
    own = model.config if suites is None and isinstance(model, Run) else None
    if own is not None:
        suites = list(own.suites)
    if suites is None or (isinstance(suites, Mapping | Sequence) and not suites):
        raise ValueError("there is no suite to judge by: give preference files or pairs")
    mapping = columns_of(own.columns if own is not None and columns is None else columns)
    kept = columns_for(by)
    found = {}
    for name, source in _named(suites).items():
        found[name] = _as_told(source, name, told, kept) or pairs_of(
            source, name=name, columns=mapping, shared=True, keep=kept
        )
    if own is None or columns is not None:
        check_mapped(mapping, {name: source.columns for name, source in found.items()})
    return found


def _as_told(source: Source, name: str, told: str, keep: Sequence[str]) -> PairSet | None:
    """A suite by the mapping of a run; None where it does not fit, and the suite is read as it stands."""
    try:
        found = pairs_of(source, name=name, columns=told, shared=True, keep=keep) if told else None
    except DataError:
        return None
    if found is None or found.columns is None:
        return None
    _log.info("%s is read with the columns of the run: %s", name, told)
    return found


def _weighed(record: JsonObject | None) -> tuple[str, ...]:
    """The groups that the set of a run weighs."""
    return weighed(str(record["config"].get("ambiguity", ""))) if record else ()


def _named(suites: object) -> dict[str, object]:
    if isinstance(suites, Mapping):
        return {str(name): source for name, source in suites.items()}
    paths = [suites] if isinstance(suites, str | Path) else suites
    if isinstance(paths, Sequence) and all(isinstance(path, str | Path) for path in paths):
        return dict(suite_files([str(path) for path in paths]))
    return {"suite": suites}


def name_of(model: Model) -> str:
    """What tables call a model."""
    if isinstance(model, Run):
        return model.ambiguity
    return str(model) if isinstance(model, str | Path) else type(model[0]).__name__


def _record(model: Model) -> JsonObject | None:
    if isinstance(model, Run):
        return model.record
    return record_of(model) if isinstance(model, str | Path) else None
