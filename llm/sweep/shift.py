"""How far the prompts of each suite lie from the training prompts, at least: a floor for the radius, without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dro_core import shift_budget

from ..run.sealed import read_sealed, write_sealed
from .context import TRAIN, HeadFeatures, SweepContext

SHIFTS = "shift.json"


def write_shifts(context: SweepContext) -> None:
    """Write shift.json: by model and suite, ``dro_core.shift_budget`` of the prompts in feature space.

    An entry holds ``lower``, at most the total variation between the prompts with 95 % confidence; ``estimate``,
    without that guarantee; and how many different ``train_prompts`` and ``prompts`` were compared. Suites taken from
    the training file are left out. A file that was made of the same features stays as it is.

    Raises:
        ImportError: scikit-learn is missing.
    """
    file = context.folder / SHIFTS
    used = {
        name: {origin: path.name for origin, path in files.prompts.items()} for name, files in context.features.items()
    }
    if (read_sealed(file) or {}).get("features") == used:
        return
    found = {name: _budgets(context, files) for name, files in context.features.items()}
    write_sealed(file, {"features": used, "models": found})


def _budgets(context: SweepContext, files: HeadFeatures) -> dict[str, dict[str, float]]:
    source = _prompts(files.prompts[TRAIN], context.train)
    own = {name: suite for name, suite in context.suites.items() if suite.origin != TRAIN}
    return {name: _budget(source, _prompts(files.prompts[suite.origin], suite.rows)) for name, suite in own.items()}


def _budget(source: NDArray[np.float64], target: NDArray[np.float64]) -> dict[str, float]:
    found = shift_budget(source, target, rng=np.random.default_rng(0))
    rows = {"train_prompts": len(source), "prompts": len(target)}
    return {"lower": found.lower, "estimate": found.estimate, **rows}


def _prompts(file: Path, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """One row for each different prompt: copies would count as evidence."""
    return np.unique(np.load(file, mmap_mode="r")[rows], axis=0).astype(np.float64)
