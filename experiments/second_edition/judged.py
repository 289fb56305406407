"""The test set is read, and every head judged: the records that everything else follows from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm.features.features import FeatureCache, load_backbone
from llm.statistics.ties import credit

from .bench import Bench, Seen, Sizes, seen, test_pairs
from .data import in_minority
from .judge import Records
from .places import PLANTED, TEST, TWIN, Suite
from .rules import Cell
from .units import Unit, Work, held_out_radius, stored
from .variants import judged_on

_READ = "test-was-read.json"


def read_test(data: Path, folder: Path, model: str, sizes: Sizes, cache: FeatureCache, *, plan: str) -> Seen:
    """The test set, read once: a second time gives what was read, and nothing to another plan.

    Args:
        data: Of the training file.
        folder: Where it is kept, and that it was read.
        model: Of the backbone.
        sizes: As of the bench.
        cache: Of features.
        plan: What was trained: see ``plan_of``.

    Raises:
        ValueError: It was read for other heads than these.
    """
    mark = folder / _READ
    if mark.exists() and json.loads(mark.read_text(encoding="utf-8"))["plan"] != plan:
        raise ValueError(
            f"the test set was read for other heads: what is trained after that has no test set; {mark} says so, and "
            "another --folder begins anew"
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps({"plan": plan}), encoding="utf-8")
    if not (folder / f"{TEST}.npz").exists():
        pairs, train = test_pairs(data, sizes)
        backbone = load_backbone(model, max_length=sizes.max_length, train=train, dtype="bfloat16")
        seen(backbone, pairs, sizes, cache, name=TEST).keep(folder, TEST)
    return Seen.kept(folder, TEST)


def plan_of(work: Work, cells: Sequence[Cell]) -> str:
    """Digest of all that is trained."""
    names = sorted(work.path(cell).name for cell in cells)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def records(work: Work, cells: Sequence[Cell], test: Seen | None) -> Records:
    """Every head on every suite, from what is there.

    Args:
        work: Of the units.
        cells: That are trained; those that are not there are left out.
        test: The test set; None: it was not read, and only suites that were seen before are judged.
    """
    bench = Bench(work.bench)
    known = {name: bench.suite(name) for name in bench.suites()}
    if test is not None:
        known |= {TEST: test, PLANTED: test}
    units = {cell: stored(work, cell) for cell in cells if work.done(cell)}
    right = {cell: _right(bench, cell, unit, known) for cell, unit in units.items()}
    ratios = {cell: unit.about["ratio"] for cell, unit in units.items() if unit.about["ratio"] is not None}
    radius = held_out_radius(work, "real", "tv", None) if units else math.nan
    suites = {name: _suite(bench, name, pairs) for name, pairs in known.items()}
    return Records(suites, right, {cell: unit.norms for cell, unit in units.items()}, ratios, radius)


def _right(bench: Bench, cell: Cell, unit: Unit, known: dict[str, Seen]) -> dict[str, np.ndarray]:
    home = TWIN if cell.data.startswith("twin") else PLANTED if cell.data == "planted" else ""
    names = [home] if home else [name for name in known if name not in (TWIN, PLANTED)]
    found = {name: judged_on(bench, cell.data, known[name]) for name in names if name in known}
    return {name: credit(unit.own @ differences.T) for name, differences in found.items()}


def _suite(bench: Bench, name: str, pairs: Seen) -> Suite:
    suite = pairs.suite()
    if name == TWIN:
        suite.parts.update(bench.gold.mixtures(pairs.prompts))
    if name == PLANTED:
        suite.parts["minority"] = in_minority(pairs.pairs).astype(float)
    return suite


def keep(records: Records, folder: Path) -> None:
    """Write what others can count again: right or wrong of every seed and pair, and what is known of the pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(sorted(records.right)):
        found: dict[str, Any] = {
            name: np.round(2 * values).astype(np.int8) for name, values in records.right[cell].items()
        }
        np.savez_compressed(folder / f"{number:03d}.npz", **found)
    about = [
        {"file": f"{number:03d}.npz", **cell._asdict(), "norms": records.norms[cell].tolist()}
        for number, cell in enumerate(sorted(records.right))
    ]
    (folder / "cells.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    for name, suite in records.suites.items():
        told: dict[str, Any] = {
            "prompts": suite.prompts,
            "categories": suite.categories,
            "longer": suite.longer,
            **suite.parts,
        }
        np.savez_compressed(folder / f"suite-{name}.npz", **told)
