"""A results folder as arms and suites: what can be compared with what, and what is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..results.findings import CELL
from ..results.store import (
    Results,
    ResultsError,
    read_about,
    read_margins,
    read_results,
    read_run_record,
    read_training_pairs,
)
from ..run.files import JsonObject
from ..statistics.arms import Array
from ..statistics.ties import credit
from .sources.suite_pairs import Suite as Suite
from .sources.suite_pairs import suite_of

Frame: TypeAlias = Any  # a table of pandas, which ships no types

BASELINE = "erm"
FAMILY = tuple(name for name in CELL if name != "ambiguity")
_TRAINED_ALIKE = ("model", "regime", "label_noise", "final")  # what a baseline shares at least
_NOUNS = {"batch_size": "batch", "learning_rate": "rate", "label_noise": "noise"}


@dataclass(frozen=True, eq=False)
class Arm:
    """The runs that differ in nothing but the seed.

    Attributes:
        family: All settings but ambiguity and seed, in the order of FAMILY; arms of a family are compared.
        ambiguity: As in the results.
        runs: Seed -> run.
    """

    family: tuple[object, ...]
    ambiguity: str
    runs: dict[int, str]

    @property
    def settings(self) -> JsonObject:
        """The family's settings by name."""
        return dict(zip(FAMILY, self.family, strict=True))


@dataclass(eq=False)
class Collection:
    """Everything a report is made from; margins are read when they are first asked for.

    Attributes:
        results: As read.
        arms: By family, the baseline first.
        suites: The suites whose pairs could be read; in-distribution ones first.
        suite_names: All suites of the table, in that order.
        inside: The in-distribution suites.
        validation: Suites of pairs held out of training to choose by; shown, but no part of averages and worst groups.
        notes: What is missing or was left out, in plain sentences.
        baseline: The set that the others are compared with.
    """

    results: Results
    arms: list[Arm]
    suites: dict[str, Suite]
    suite_names: list[str]
    inside: list[str]
    validation: list[str]
    notes: list[str]
    baseline: str = BASELINE
    unread: dict[str, str] = field(default_factory=dict)
    _margins: dict[str, dict[str, Array]] = field(default_factory=dict)
    _records: dict[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The results folder."""
        return self.results.folder

    @property
    def outside(self) -> list[str]:
        """The other suites, those out of distribution; all, where no suite is left."""
        return [name for name in self.suite_names if name not in (*self.inside, *self.validation)] or self.suite_names

    def restricted(self, where: Mapping[str, str]) -> Collection:
        """The same with those arms alone whose settings, as text, are these, and the suites that they were judged on.

        Raises:
            ResultsError: An unknown setting, or no arm is left.
        """
        if unknown := sorted(where.keys() - set(FAMILY)):
            raise ResultsError(f"Arms have no setting {unknown[0]!r}: there are {', '.join(FAMILY)}.")
        arms = [arm for arm in self.arms if all(_text(arm.settings[name]) == value for name, value in where.items())]
        if not arms:
            known = {name: sorted({_text(arm.settings[name]) for arm in self.arms}) for name in where}
            raise ResultsError(f"No arm has {dict(where)}: the results have {known}.")
        judged = {name for name in self.suite_names for arm in arms if self._was_judged(arm, name)}
        names = {field: [name for name in getattr(self, field) if name in judged]
                 for field in ("suite_names", "inside", "validation")}  # fmt: skip
        suites = {name: suite for name, suite in self.suites.items() if name in judged}
        return replace(self, arms=arms, suites=suites, notes=list(self.notes), unread={}, **names)

    def judged_on(self, arm: Arm, names: Sequence[str]) -> tuple[str, ...]:
        """Those suites that an arm's baseline was judged on: what is left out of training may differ by regime."""
        return tuple(name for name in names if self._was_judged(self.baselines.get(arm, arm), name))

    def _was_judged(self, arm: Arm, name: str) -> bool:
        return any((run, name) in self._measured for run in arm.runs.values())

    @cached_property
    def whole(self) -> Frame:
        """Rows of finished runs on whole suites, by (run, suite)."""
        done = self.results.done
        return done[(done["category"] == "") & (done["suite"] != "")].set_index(["run", "suite"]).sort_index()

    @cached_property
    def runs(self) -> Frame:
        """One row per finished run."""
        return self.results.done.drop_duplicates("run", keep="last").set_index("run")

    @cached_property
    def baselines(self) -> dict[Arm, Arm]:
        """The plain arm of every arm: of its family, else the only one that was trained on the same."""
        plain = [arm for arm in self.arms if arm.ambiguity == self.baseline]
        found = {}
        for arm in self.arms:
            own = [one for one in plain if one.family == arm.family] or [one for one in plain if _alike(one, arm)]
            if len(own) == 1:
                found[arm] = own[0]
        return found

    @cached_property
    def _measured(self) -> set[object]:
        return set(self.whole.index)

    def margins(self, arm: Arm, suite: str) -> dict[int, Array]:
        """Seed -> margins, shape (n,), of the runs whose margins fit the pairs of the suite."""
        runs = {seed: run for seed, run in arm.runs.items() if (run, suite) in self._measured}
        found = {seed: self._of_run(run).get(suite) for seed, run in runs.items()}
        return {seed: values for seed, values in found.items() if values is not None}

    def accuracies(self, arm: Arm, suite: str) -> dict[int, float]:
        """Seed -> accuracy, as the results table has it."""
        keys = {seed: (run, suite) for seed, run in arm.runs.items() if (run, suite) in self._measured}
        found = {seed: float(self.whole.at[key, "accuracy"]) for seed, key in keys.items()}  # pyright: ignore
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def earned(self, run: str, suite: str, margins: Array) -> float:
        """The accuracy of these margins by the rule that made the table's: of an earlier version, ties earn 0."""
        earlier = bool(pd.isna(self.whole.at[(run, suite), "ties"]))
        return float(np.mean(margins > 0 if earlier else credit(margins)))

    def record(self, run: str) -> JsonObject:
        """The ``run.json`` of a whole model; {} of a head."""
        if run not in self._records:
            self._records[run] = read_run_record(self.folder, run)
        return self._records[run]

    def _of_run(self, run: str) -> dict[str, Array]:
        if run not in self._margins:
            stored = read_margins(self.folder, run)
            if stored is None:
                self.unread[run] = "missing or damaged"
            fitting = {name: values for name, values in (stored or {}).items() if self._fits(run, name, values)}
            self._margins[run] = {name: np.asarray(values, dtype=np.float64) for name, values in fitting.items()}
        return self._margins[run]

    def _fits(self, run: str, suite: str, values: NDArray[np.floating]) -> bool:
        if suite not in self.suites:
            return False
        expected = self.suites[suite].longer.shape
        if values.shape == expected and np.all(np.isfinite(values)):
            return True
        self.unread[run] = f"no finite numbers, one per pair, on {suite}"
        return False


def baseline_of(sets: Sequence[str]) -> str:
    """What to compare these sets with: plain training, else the first of them."""
    return BASELINE if BASELINE in sets else sets[0]


def collect(folder: str | Path, *, inside: Sequence[str] = (), baseline: str | None = None) -> Collection:
    """Read a results folder.

    Args:
        folder: As ``robust-rlhf sweep`` leaves it.
        inside: The suites from the distribution of the training data; by default those called "id...".
        baseline: The set that the others are compared with; None: what the results say, else plain training.

    Raises:
        ResultsError: Nothing to read, no finished run, or an unknown suite in ``inside``.
    """
    results = read_results(folder)
    done, about = results.done, read_about(results.folder)
    if done.empty:
        raise ResultsError(f"{results.folder} holds no finished run: see the column error of its results table.")
    names = list(dict.fromkeys(done["suite"][done["suite"] != ""]))
    if unknown := [name for name in inside if name not in names]:
        raise ResultsError(f"There is no suite {unknown[0]!r} in {results.folder}; its suites are {', '.join(names)}.")
    chosen = list(inside) or [name for name in names if re.match(r"id(?![a-z])|in_dist", name.lower())]
    held_out = [name for name in names if name.lower().startswith("valid") and name not in chosen]
    kinds = about.get("groups", {})
    ordered = [*chosen, *(name for name in names if name not in (*chosen, *held_out)), *held_out]
    suites = {name: suite for name in ordered if (suite := suite_of(results.folder, name, kinds)) is not None}
    notes = [*about.get("notes", ()), *(finding.text for finding in results.findings)]
    told = any((results.folder / "full").glob("*/run.json"))  # whole models say themselves who got the weight
    if not told and read_training_pairs(results.folder) is None:
        notes.append("train.parquet, the training pairs, is missing or damaged: nothing is said of who got the weight.")
    compared = baseline or str(about.get("baseline") or _first_set(about))
    arms = _arms(done, compared)
    if compared != BASELINE:
        if compared not in {arm.ambiguity for arm in arms}:
            raise ResultsError(f"No arm was trained with {compared!r}, to compare with: name another --baseline.")
        notes.append(f"Compared with {compared}, which stands for plain training (erm) wherever that is named.")
    return Collection(results, arms, suites, ordered, chosen, held_out, notes, compared)


def _first_set(about: JsonObject) -> str:
    """Of a demo, which names its sets, what it compares them with."""
    sets = about.get("settings", {}).get("ambiguity")
    return baseline_of(sets) if isinstance(sets, list) and sets else BASELINE


def label_of(arm: Arm, varying: Sequence[str]) -> str:
    """The family of an arm in words: the settings that vary between families, or nothing."""
    settings = arm.settings
    words = (f"{_NOUNS[name]} {settings[name]:g}" if name in _NOUNS else str(settings[name]) for name in varying)
    return " \N{MIDDLE DOT} ".join(words)


def varying_settings(arms: Sequence[Arm]) -> list[str]:
    """The settings in which the families of these arms differ."""
    columns = zip(FAMILY, zip(*(arm.family for arm in arms), strict=True), strict=True)
    return [name for name, values in columns if len(set(values)) > 1]


def _arms(done: Frame, baseline: str) -> list[Arm]:
    runs = done.drop_duplicates("run", keep="last").copy()
    for name in CELL:  # nan is not equal to itself, and would make an arm of every run
        runs[name] = runs[name].astype(object).where(runs[name].notna(), "" if runs[name].dtype == object else 0)
    arms = [
        Arm(tuple(key[CELL.index(name)] for name in FAMILY), str(key[CELL.index("ambiguity")]),
            dict(sorted(zip(map(int, group["seed"]), group["run"], strict=True))))
        for key, group in runs.groupby(CELL, sort=False)
    ]  # fmt: skip
    order = {family: number for number, family in enumerate(dict.fromkeys(arm.family for arm in arms))}
    return sorted(arms, key=lambda arm: (order[arm.family], arm.ambiguity != baseline))


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _alike(one: Arm, other: Arm) -> bool:
    return all(one.settings[name] == other.settings[name] for name in _TRAINED_ALIKE)
