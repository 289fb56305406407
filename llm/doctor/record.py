"""What a run folder says about its training, finished or not; nothing here needs torch or the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..adversary.ledger import AdversaryLedger, multipliers_by
from ..run.files import JsonObject
from ..run.finished import RECORD, RunError, read_record
from ..run.folder import MARKER, SETTINGS, is_complete
from ..run.kinds import is_logistic, kind_of
from ..run.manifest import MANIFEST, manifest_damage
from ..statistics.ties import EARLIER_RULE, RULE

Values = NDArray[np.float64]
_FULL = 0.999  # a mean over steps of a strength that is 1 throughout may be rounded


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
        folder: Where.
        kind: Its name in ``llm.run.kinds``; of an unfinished run what its checkpoint shows; "": unknown.
        finished: Whether the run came to its end.
        config: Settings by name.
        batch: Examples that are weighed together, over all processes; None where unknown.
        learning_rate: At its highest.
        steps: Optimizer steps taken, as far as the folder knows.
        training: Log rows of the training, in order.
        evaluations: Log rows of the evaluations on held-out pairs, in order.
        adversary: As from ``llm.adversary.ledger.describe_adversary``; of an unfinished run the weights by
            source alone, and empty where its checkpoint is of a version that kept no sources.
        truncation: What did not fit into ``max_length``; empty for an unfinished run.
        concerns: What of the pairs the model saw otherwise than they stand in their file, as ``llm.audit.verdicts``
            says it; None where that is not known.
        suites: Suite records of ``metrics.json``; empty where the run was not judged.
        rule: How a tie counts in their accuracies.
        ledger: Weights and last losses of every training example, at the last checkpoint.
        inaction: The verdict of a finished run whose adversary did not act; None where it did, or nothing is known.
        distribution: How it was spread over processes, as ``llm.models.sharding.distribution`` says it; empty where
            that is not known.
    """

    folder: Path
    kind: str
    finished: bool
    config: JsonObject
    batch: int | None
    learning_rate: float | None
    steps: int
    training: list[JsonObject]
    evaluations: list[JsonObject]
    adversary: JsonObject = field(default_factory=dict)
    truncation: JsonObject = field(default_factory=dict)
    concerns: list[dict[str, str]] | None = None
    suites: JsonObject = field(default_factory=dict)
    rule: str = RULE
    ledger: AdversaryLedger | None = None
    inaction: str | None = None
    distribution: JsonObject = field(default_factory=dict)

    def column(self, name: str, *, full_strength: bool = False) -> Values:
        """One entry of every training row, nan where it is missing; with ``full_strength`` of the full set only."""
        return np.array([_number(row.get(name)) for row in self.training if not full_strength or _full(row)])

    def evaluated(self, name: str) -> Values:
        """One entry of every evaluation, nan where it is missing."""
        return np.array([_number(row.get(f"eval_{name}")) for row in self.evaluations])

    @cached_property
    def robust(self) -> bool:
        """Whether there is an adversary."""
        return self.config.get("ambiguity", "erm") != "erm"

    @cached_property
    def logistic(self) -> bool:
        """Whether losses are -log sigmoid(margin), so that log 2 is the loss of a coin."""
        return is_logistic(self.kind, self.config)

    @property
    def plain_share(self) -> float:
        """Share of the logged steps without an adversary."""
        return float(np.mean(self.column("radius_fraction") == 0)) if self.training else 1.0


def _full(row: Mapping[str, object]) -> bool:
    """Whether the full set was asked; it was not in steps of a policy that were all skipped."""
    return _number(row.get("radius_fraction")) >= _FULL and "effective_sample_size" in row


def read_run(folder: str | Path) -> RunRecord:
    """Read a run folder of a reward model or a policy; checkpoints stand in where the run did not finish.

    Raises:
        RunError: There is no run, nothing of it was logged, or it is none of pairs with an adversary.
    """
    folder = _run_of(Path(folder))
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder: name the output_dir of a training run")
    finished = folder / RECORD
    if not finished.exists() and not (folder / SETTINGS).exists():
        raise RunError(f"{folder} holds no run ({finished.name} or {SETTINGS}): name the output_dir of a training run")
    record = _finished(folder, read_record(finished, "config", "history")) if finished.exists() else _unfinished(folder)
    if not record.training:
        raise RunError(
            f"the log of {folder} nowhere has an effective_sample_size, as all runs with and without adversary do: "
            "it was stopped before its first log, or is of a kind that this command cannot read"
        )
    return record


def _run_of(folder: Path) -> Path:
    """The run folder of a ``model`` folder that a run exported; any other folder as it is."""
    is_model = folder.resolve().name == "model" and not (folder / RECORD).exists()
    return folder.resolve().parent if is_model and (folder.resolve().parent / RECORD).exists() else folder


def _kind(run: Mapping[str, object]) -> str:
    kind = kind_of(run.get("kind"))
    return kind.name if kind else ""


def _finished(folder: Path, run: JsonObject) -> RunRecord:
    metrics = read_record(folder / "metrics.json", "suites") if (folder / "metrics.json").exists() else {}
    training, evaluations = _rows(run.get("history", []))
    config, batch = run.get("config", {}), run.get("effective_batch")
    kind = _kind(run)
    if batch and kind == "policy":
        batch //= config.get("samples") or 1  # the answers to one prompt share its weight
    return RunRecord(
        folder=folder,
        kind=kind,
        finished=True,
        config=config,
        batch=batch,
        learning_rate=run.get("learning_rate"),
        steps=run.get("steps", 0),
        training=training,
        evaluations=evaluations,
        adversary=run.get("adversary", {}),
        truncation=run.get("data", {}).get("truncation", {}),
        concerns=run.get("data", {}).get("concerns"),
        suites=metrics.get("suites", {}),
        rule=metrics.get("rule", EARLIER_RULE),
        ledger=_ledger(_newest(folder)),
        inaction=run.get("inaction"),
        distribution=run.get("distribution", {}),
    )


def _unfinished(folder: Path) -> RunRecord:
    checkpoint, settings = _newest(folder), read_record(folder / SETTINGS)
    if checkpoint is None:
        raise RunError(
            f"the run in {folder} stopped before its first checkpoint, so nothing of it is known: read its last "
            "message, and lower save_steps to see more"
        )
    _check(checkpoint, MARKER)
    state = read_record(checkpoint / MARKER, "log_history")
    training, evaluations = _rows(state.get("log_history", []))
    per_process = ("per_device_train_batch_size", "gradient_accumulation_steps")
    if "prompts_per_step" in settings:
        per_process = ("prompts_per_step",)
    sizes = [settings.get(name) for name in (*per_process, "world_size")]
    ledger = _ledger(checkpoint)
    return RunRecord(
        folder=folder,
        kind=_kind_of(checkpoint, settings),
        finished=False,
        config=settings,
        batch=None if None in sizes else int(np.prod([size for size in sizes if size is not None])),
        learning_rate=settings.get("learning_rate"),
        steps=state.get("global_step", 0),
        training=training,
        evaluations=evaluations,
        adversary=_by_source(ledger),
        ledger=ledger,
    )


def _by_source(ledger: AdversaryLedger | None) -> JsonObject:
    if ledger is None or ledger.sources is None:
        return {}
    masses = None if ledger.masses is None else ledger.masses.tolist()
    return {"by_source": multipliers_by(ledger, ledger.sources, masses=masses), "weighted": masses is not None}


def _rows(history: list[dict[str, object]]) -> tuple[list[JsonObject], list[JsonObject]]:
    """Training and evaluation rows; a resumed run may have logged a step twice, and the later row counts."""
    training = {row.get("step"): row for row in history if "effective_sample_size" in row or "skipped" in row}
    evaluations = {row.get("step"): row for row in history if "eval_loss" in row}
    return list(training.values()), list(evaluations.values())


def _kind_of(checkpoint: Path, settings: Mapping[str, object]) -> str:
    """The kind of an unfinished run, by the model in its checkpoint."""
    if "prompts_per_step" in settings:
        return "policy"
    adapter, config = checkpoint / "adapter_config.json", checkpoint / "config.json"
    if adapter.exists():
        reward = read_record(adapter).get("task_type") == "SEQ_CLS"
    elif config.exists():
        reward = any("SequenceClassification" in name for name in read_record(config).get("architectures") or [])
    else:
        return ""
    return "reward" if reward else "dpo" if "beta" in settings else "sft"


def _newest(folder: Path) -> Path | None:
    found = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit() and is_complete(path)]
    return max(found, key=lambda path: int(path.name[11:]), default=None)


def _check(checkpoint: Path, name: str) -> None:
    """Refuse a file of a checkpoint that is not what was written; those of earlier versions have no manifest."""
    listed = (checkpoint / MANIFEST).exists()
    if listed and (damage := manifest_damage(checkpoint, wanted=lambda file: file == name)):
        raise RunError(f"{damage}: put a whole copy of it back, or continue the run with --resume --skip_damaged true")


def _ledger(checkpoint: Path | None) -> AdversaryLedger | None:
    if checkpoint is None or not (checkpoint / "ledger.npz").exists():
        return None
    _check(checkpoint, "ledger.npz")
    ledger = AdversaryLedger(0)
    ledger.load(checkpoint)
    return ledger


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
