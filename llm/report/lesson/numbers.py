"""The numbers of the demo's picture, from its results folder alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...results.store import read_curves, read_margins, read_results, read_suite, read_training_pairs, read_weights
from ...run.files import JsonObject, json_ready
from ...statistics.arms import Array, accuracy_record, difference_record, limits
from ...statistics.group_curves import GroupCurves
from ...statistics.intervals import Interval, mean_interval

PLAIN, REPAIR, PAIRS, TOO_LARGE = "erm", "tv:0.4,by=source", "tv:0.4", "tv:0.8"
RIGHT, WRONG, LONGER = "all", "noise-20", "longer"
MAJORITY, MINORITY, FLIPPED = "forum", "office", "wrong labels"
ALIKE, SHIFTED = "id_test", "ood_half_office"
REPAIR_RADIUS = 0.4
RADII = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Of total variation over pairs; 0 is plain training."""

_FIELDS = {"accuracy": "mean", "low": "low", "high": "high"}  # of a curve, of an interval
_PLACES = {  # name -> suite, category
    "office": (SHIFTED, MINORITY),
    "forum": (SHIFTED, MAJORITY),
    "like training": (ALIKE, ""),
    "half office": (SHIFTED, ""),
}


def over_pairs(radius: float) -> str:
    """The set of this radius over pairs.

    >>> over_pairs(0.0), over_pairs(0.4)
    ('erm', 'tv:0.4')
    """
    return f"tv:{radius:g}" if radius else PLAIN


def lesson_numbers(folder: str | Path) -> JsonObject | None:
    """What the picture of the demo shows; None where the results are not those of a demo, or lack some of it.

    Returns:
        ``records`` by ``regime``, ``ambiguity`` and ``place``: ``accuracy`` and ``difference`` to plain training with
        such labels, over test pairs, averaged over the ``seeds``. ``curves``, by ``ambiguity`` and
        ``group``: ``accuracy`` on held-out pairs over ``steps``, with ``low`` and ``high`` over the seeds. ``weights``,
        by ``ambiguity`` and ``of``: the ``share`` of all weight in training, with limits over the seeds.
    """
    results = read_results(folder)
    last = results.done.query("final == 'last'")
    runs: dict[tuple[str, str], dict[int, str]] = {}
    for row in last.drop_duplicates("run").to_dict("records"):
        runs.setdefault((row["regime"], row["ambiguity"]), {})[int(row["seed"])] = row["run"]
    needed = {(regime, over_pairs(radius)) for regime in (RIGHT, WRONG) for radius in RADII}
    needed |= {(RIGHT, REPAIR), (WRONG, REPAIR), (LONGER, PLAIN)}
    if not needed <= runs.keys():
        return None
    try:
        judged = _Judged.read(results.folder, runs)
        curves = [_curves(results.folder, runs[RIGHT, name], name) for name in (PLAIN, REPAIR)]
        weights = [
            _weight(results.folder, runs, name, of) for name in (PLAIN, REPAIR, PAIRS) for of in (MINORITY, FLIPPED)
        ]
    except _Lacking:
        return None
    records = [judged.record(*arm, place) for arm in sorted(needed) for place in _PLACES]
    seeds = sorted(set.intersection(*(set(runs[arm]) for arm in needed)))
    drawn = {"curves": [curve for own in curves for curve in own], "weights": weights}
    return json_ready({"seeds": seeds, "records": records, **drawn})


class _Lacking(ValueError):
    """A file of the results is missing or damaged."""


@dataclass(frozen=True)
class _Judged:
    """Margins by run and suite, and the pairs of the suites."""

    runs: Mapping[tuple[str, str], Mapping[int, str]]
    margins: Mapping[str, Mapping[str, Any]]
    suites: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, runs: Mapping[tuple[str, str], Mapping[int, str]]) -> _Judged:
        names = [run for own in runs.values() for run in own.values()]
        margins = {run: read_margins(folder, run) for run in names}
        suites = {name: read_suite(folder, name) for name in (ALIKE, SHIFTED)}
        whole = all(found is not None and found.keys() >= suites.keys() for found in margins.values())
        if not whole or any(suite is None for suite in suites.values()):
            raise _Lacking
        return cls(runs, {run: found for run, found in margins.items() if found is not None}, suites)

    def record(self, regime: str, ambiguity: str, place: str) -> JsonObject:
        """Accuracy of an arm at a place, and against plain training on labels of the same regime."""
        suite, category = _PLACES[place]
        pairs = self.suites[suite]
        rows = np.flatnonzero(pairs["category"] == category) if category else np.arange(len(pairs))
        questions = [question or None for question in pairs["question_id"].to_numpy()[rows]]
        baseline = (RIGHT if regime == LONGER else regime, PLAIN)
        own, plain = (self._of(*arm, suite, rows) for arm in ((regime, ambiguity), baseline))
        found: JsonObject = {"regime": regime, "ambiguity": ambiguity, "place": place, "pairs": len(rows)}
        found |= {"accuracy": accuracy_record(own, questions)}
        is_plain = (regime, ambiguity) == baseline
        return found | {"difference": None if is_plain else difference_record(own, plain, questions)}

    def _of(self, regime: str, ambiguity: str, suite: str, rows: Any) -> dict[int, Array]:
        return {seed: self.margins[run][suite][rows] for seed, run in self.runs[regime, ambiguity].items()}


def _curves(folder: Path, runs: Mapping[int, str], ambiguity: str) -> list[JsonObject]:
    """Both groups of an arm over the steps."""
    found = [curves for run in runs.values() if (curves := read_curves(folder, run)) is not None]
    if len(found) < len(runs) or {MAJORITY, MINORITY} - set(found[0].groups.tolist()):
        raise _Lacking
    return [_curve(found, ambiguity, group) for group in (MAJORITY, MINORITY)]


def _curve(found: list[GroupCurves], ambiguity: str, group: str) -> JsonObject:
    column = found[0].groups.tolist().index(group)
    looks = np.stack([curves.accuracy[:, column] for curves in found], axis=1)
    intervals = [_over_seeds(look) for look in looks]
    over = {name: [getattr(found, field) for found in intervals] for name, field in _FIELDS.items()}
    return {"ambiguity": ambiguity, "group": group, "steps": found[0].steps.tolist(), **over}


def _over_seeds(values: Array) -> Interval:
    """A mean over seeds within what a share can be; one seed has no limits."""
    mean, low, high = mean_interval(values)
    return Interval(mean, max(low, 0.0), min(high, 1.0))


def _weight(folder: Path, runs: Mapping[tuple[str, str], Mapping[int, str]], ambiguity: str, of: str) -> JsonObject:
    """The share of all weight that an arm gave to pairs of the minority, or to wrong labels where there are some."""
    pairs, shares = read_training_pairs(folder), []
    for run in runs[WRONG if of == FLIPPED else RIGHT, ambiguity].values():
        if pairs is None or (weights := read_weights(folder, run)) is None:
            raise _Lacking
        given = np.nan_to_num(weights.multiplier) * weights.visits
        members = weights.flipped if of == FLIPPED else pairs["source"].to_numpy()[weights.rows] == of
        shares.append(given[members].sum() / given.sum())
    return {"ambiguity": ambiguity, "of": of, **limits("share", _over_seeds(np.array(shares)))}


def record_of(numbers: JsonObject, regime: str, ambiguity: str, place: str) -> JsonObject:
    """The record of an arm at a place."""
    key = {"regime": regime, "ambiguity": ambiguity, "place": place}
    return next(record for record in numbers["records"] if key.items() <= record.items())
