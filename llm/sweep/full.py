"""Whole reward models in a sweep: ``llm.training.run`` on the pairs of a regime, judged like the heads."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from ..adversary.ledger import AdversaryLedger
from ..adversary.radius.slices import set_apart
from ..adversary.spec import parse_reweighting
from ..data.pairs import Pair, write_pairs
from ..judging.margins import score_pairs
from ..kinds.reward import RewardTask
from ..results.of_runs import effective_sample_size
from ..run.finished import unseal
from ..run.folder import SETTINGS, CheckpointError, latest_checkpoint
from ..run.kinds import is_logistic
from ..training.config import ConfigError, RewardConfig
from ..training.frame import Trained
from ..training.resuming import checkpoint_to_resume
from ..training.run import train_run
from ..training.settings import parse_settings
from .asked import Asked
from .context import Margins, SweepContext, TrainedRun
from .plan import Cell, FullModel
from .regimes import Selection, flips, labelled
from .sources import TRAIN

_log = logging.getLogger(__name__)


def train_full(cell: Cell, model: FullModel, context: SweepContext, folder: Path) -> TrainedRun:
    """Train, or continue, the reward model of a cell in ``folder``, and judge it. Raises as ``train_run``."""
    if folder.exists() and not _goes_on(folder, best=cell.final[0] == "best"):
        shutil.rmtree(folder, ignore_errors=True)
    pairs = context.sources.training().pairs
    selection = context.config.regimes[cell.regime].select(context.groups.take(context.train), seed=cell.seed)
    files = _write_data(cell, context, pairs, selection, folder.with_name(folder.name + "-data"))
    config, arguments = parse_settings(RewardConfig, _settings(cell, model, context, files, folder), where=cell.model)
    # The trainer prints what it logs.
    with folder.with_name(folder.name + ".log").open("a", encoding="utf-8") as log, redirect_stdout(log):
        trained = train_run(RewardTask(config), arguments)
    margins = _margins(cell, context, pairs, trained, config.max_length, arguments.per_device_eval_batch_size)
    own = [pairs[row] for row in context.train[selection.rows]]
    selection = _trained_on(selection, own, config, trained.record["data"].get("left_out", []))
    ledger = AdversaryLedger(len(selection.rows))
    if checkpoint := latest_checkpoint(folder):
        ledger.load(checkpoint)
    if not model.keep_models:
        _tidy(folder)
    shutil.rmtree(folder.with_name(folder.name + "-data"))
    return TrainedRun(
        margins={cell.final[0]: margins},
        selection=selection,
        ledger=ledger,
        steps=trained.record["steps"],
        seconds=trained.record["seconds"],
        effective_sample_size=effective_sample_size(trained.record),
        batch_size=arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps,
        learning_rate=arguments.learning_rate,
        logistic=is_logistic(trained.record["kind"], trained.record["config"]),
    )


def _trained_on(selection: Selection, own: Sequence[Pair], config: RewardConfig, left_out: Sequence[int]) -> Selection:
    """The pairs of the account: not those of a slice, nor those that a model from scratch cannot tell apart.

    Args:
        selection: The pairs that the run was given.
        own: The same pairs.
        config: Of the run.
        left_out: Places among those of them that are not in the slice.
    """
    kept, _ = set_apart(own, parse_reweighting(config.ambiguity), config, seed=config.subset_seed)
    ids = {pair.id for pair in kept}
    selection = selection.part(np.array([pair.id in ids for pair in own]))
    return selection.part(~np.isin(np.arange(len(kept)), left_out))


def _goes_on(folder: Path, *, best: bool) -> bool:
    """Whether a training can be continued: not one that finished and was tidied up, nor one of which all is damaged."""
    try:
        json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        return checkpoint_to_resume(folder, skip_damaged=True, best=best) is not None
    except (OSError, ValueError, CheckpointError) as error:
        _log.warning("%s begins anew, because it cannot be continued: %s", folder, error)
        return False


def _write_data(
    cell: Cell, context: SweepContext, pairs: list[Pair], selection: Selection, folder: Path
) -> dict[str, str]:
    """The training and validation pairs of the cell as files, wrong labels in."""
    regime = context.config.regimes[cell.regime]
    held_out = context.validation[regime.keeps(context.groups.take(context.validation))]
    wrong = flips(len(held_out), regime.label_noise, seed=cell.seed)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train_file": (context.train[selection.rows], selection.flipped), "eval_file": (held_out, wrong)}
    files = {}
    for name, (rows, flipped) in parts.items():
        if len(rows):
            files[name] = str(folder / f"{name}.jsonl")
            write_pairs(
                (labelled(pairs[row], wrong=bool(f)) for row, f in zip(rows, flipped, strict=True)), files[name]
            )
    return files


def _settings(
    cell: Cell, model: FullModel, context: SweepContext, files: dict[str, str], folder: Path
) -> dict[str, object]:
    """The recipe, then what makes this run this run."""
    asked = Asked.of(cell.ambiguity)
    axes = {"learning_rate": cell.learning_rate, "num_train_epochs": cell.epochs}
    if cell.batch_size:
        micro = min(int(model.settings.get("per_device_train_batch_size", 8)), cell.batch_size)
        if cell.batch_size % micro:
            raise ConfigError(
                f"batch_size {cell.batch_size} is no multiple of per_device_train_batch_size {micro}: change either"
            )
        axes |= {
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": cell.batch_size // micro,
        }
    run = {
        "ambiguity": asked.text,
        "adapt_radius": asked.adaptive,
        "seed": cell.seed,
        "final": cell.final[0],
        "output_dir": str(folder),
        "columns": None,  # the pairs are written as they were read
        "resume": True,
        "skip_damaged": True,  # nobody is there to be asked
        "disable_tqdm": True,
    }
    told = context.config.regimes[cell.regime].of_runs
    return {**model.settings, **{name: value for name, value in axes.items() if value}, **told, **run, **files}


def _margins(
    cell: Cell, context: SweepContext, pairs: list[Pair], trained: Trained, max_length: int, batch_size: int
) -> Margins:
    origins = {TRAIN: pairs, **context.sources.suites(context.config.eval_pairs)[0]}
    margins = {
        name: score_pairs(
            trained.model,
            trained.tokenizer,
            [origins[suite.origin][row] for row in suite.rows],
            max_length=max_length,
            batch_size=batch_size,
        )
        for name, suite in context.suites_of(cell.regime).items()
    }
    # A model from scratch may not tell apart what the others do: right half of the time.
    return {name: np.nan_to_num(found, nan=0.0) for name, found in margins.items()}


def _tidy(folder: Path) -> None:
    """Keep run.json, drop what is large, and the seal, which lists it."""
    unseal(folder)
    for part in [folder / "model", *folder.glob("checkpoint-*")]:
        shutil.rmtree(part, ignore_errors=True)
