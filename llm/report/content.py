"""All numbers of a results report, JSON-ready: the tables of every arm, and the details of a few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..run.files import JsonObject, json_ready
from ..statistics.arms import LEVEL, accuracy_record, add_holm, difference_record
from ..statistics.intervals import cluster_count
from . import FAMILIES, SMALLEST_GROUP
from .claims import claims, notes
from .collect import BASELINE, Arm, Collection, collect
from .curves import calibration_error, pooled, reliability, shift_bounds, tail_losses
from .judge import Judge
from .lesson.numbers import lesson_numbers
from .sources.recorded_weights import recorded_weights
from .story.flips import flips
from .story.telling import story
from .suites import beyond_the_average
from .training import audit_notes, origin, trainings
from .weights import FACTORS, Training, examples, noise_ranking, shares

FORMAT = 2
SHOWN = 5  # arms with details in each, beside plain training
EXAMPLES = 6
WITH_EXAMPLES = 2  # arms of a family whose extreme pairs are shown


def build_content(
    folder: str | Path,
    *,
    inside: Sequence[str] = (),
    baseline: str | None = None,
    smallest: int = SMALLEST_GROUP,
    families: int = FAMILIES,
    texts: bool = True,
    where: Mapping[str, str] | None = None,
) -> JsonObject:
    """Read a results folder and work out everything that its report says.

    Args:
        folder: As ``robust-rlhf sweep`` leaves it.
        inside: The suites from the distribution of the training data; by default those called "id...".
        baseline: The set that the others are compared with; None: what the results say, else plain training.
        smallest: Questions a category needs to count as the worst.
        families: How many families get the detailed sections; the first ones with a plain arm and another one.
        texts: Show example pairs; without them the report holds nothing of the data but names of suites and groups.

        where: Keep the arms with these settings alone, by the names in FAMILY; tests are corrected within them.

    Raises:
        ResultsError: There is nothing to report.
        ValueError: ``smallest`` or ``families`` is negative.
    """
    if smallest < 2 or families < 0:
        raise ValueError(f"smallest must be at least 2 and families at least 0, got {smallest} and {families}.")
    collection = collect(folder, inside=inside, baseline=baseline).restricted(where or {})
    judge = Judge(collection, smallest=smallest)
    records, groups = judge.records(), _families(collection)
    lone = len(records) == 1  # which is described for its own sake
    detailed = [group for group in groups if lone or (len(group) > 1 and records[group[0]]["plain"])][:families]
    shown = ([collection.arms[n] for n in _shown(group, records)] for group in detailed)
    details = [_details(collection, arms, examples_of=WITH_EXAMPLES if texts else 0) for arms in shown]
    report = {
        "format": FORMAT,
        "folder": str(collection.folder.name),
        **origin(collection),
        "level": LEVEL,
        "suites": judge.suite_facts(),
        "baseline": collection.baseline,
        "inside": collection.inside,
        "outside": collection.outside,
        "longer_average": judge.longer_average(),
        "smallest": smallest,
        "small": judge.small,
        "tests": judge.tests,
        "families": [{"label": records[group[0]]["family"], "arms": group} for group in groups],
        "arms": records,
        "runs": sum(len(arm.runs) for arm in collection.arms),
        "details": details,
        "training": trainings(collection),
        "lesson": lesson_numbers(collection.folder),
    }
    report = json_ready(report)
    return {
        **report,
        "story": story(report),
        "claims": claims(report),
        "notes": [*collection.notes, *notes(report, collection), *audit_notes(collection)],
    }


def _families(collection: Collection) -> list[list[int]]:
    """Positions of the arms of each family."""
    members: dict[tuple[object, ...], list[int]] = {}
    for number, arm in enumerate(collection.arms):
        members.setdefault(arm.family, []).append(number)
    return list(members.values())


def _shown(group: Sequence[int], records: Sequence[JsonObject]) -> list[int]:
    """Plain training and the arms that do best in their worst group, in the order of the results."""

    def worst(number: int) -> float:
        record = records[number]
        entry = record["worst"] or record["average"]
        return entry["accuracy"] if entry else -1.0

    best = sorted((number for number in group if not records[number]["plain"]), key=worst, reverse=True)[:SHOWN]
    return [number for number in group if number in best or records[number]["plain"]]


def _details(collection: Collection, arms: Sequence[Arm], *, examples_of: int) -> JsonObject:
    plain, training = arms[0], Training(collection)
    ensemble = training.ensemble(plain) if plain in collection.baselines else None  # a set alone has nothing plain
    fifths = {} if training.pairs is None else training.fifths(ensemble)
    anchor = next((name for name in [*collection.inside, *collection.suites] if name in collection.suites), None)
    shown: list[dict[str, object]] = []
    for arm in arms:
        entry: dict[str, object] = {"arm": collection.arms.index(arm), "ambiguity": arm.ambiguity}
        entry |= _curves(collection, arm, anchor)
        if arm is not plain and (moved := flips(collection, arm, plain)):
            entry["flips"] = moved if examples_of else {"suites": moved["suites"], "repaired": [], "broken": []}
        if (
            arm.ambiguity != BASELINE
            and (account := training.account(arm, ensemble)) is not None
            and training.pairs is not None
        ):
            entry["weights"] = {factor: shares(account, factor, fifths) for factor in FACTORS}
            entry["noise_ranking"] = noise_ranking(account)
            if sum("examples" in other for other in shown) < examples_of:
                entry["examples"] = examples(account, training.pairs, count=EXAMPLES)
        elif arm.ambiguity != BASELINE and (told := recorded_weights(collection, arm)):
            entry |= (
                told
                if sum("examples" in other for other in shown) < examples_of
                else {"weights": told["weights"], "noise_ranking": None}
            )
        shown.append(entry)
    categories = _categories(collection, arms)
    return {
        "family": collection.arms.index(plain),
        "ensemble_seeds": len(ensemble.margins) if ensemble else 0,
        "anchor": anchor,
        "arms": shown,
        "categories": categories,
        "suites": beyond_the_average(collection, arms, categories["suites"]),
    }


def _curves(collection: Collection, arm: Arm, anchor: str | None) -> JsonObject:
    """Calibration and tails inside and outside the training distribution, and the error under shift."""
    places = {"inside": collection.inside, "outside": collection.outside}
    by_place = {}
    for place, names in places.items():
        seeds = pooled([collection.margins(arm, name) for name in names if name in collection.suites])
        if seeds:
            errors = [calibration_error(reliability(values)) for values in seeds.values()]
            by_place[place] = {
                "reliability": reliability(np.concatenate(list(seeds.values()))),
                "calibration_error": float(np.mean([error for error in errors if error is not None])),
                "tail": tail_losses(seeds),
            }
    margins = collection.margins(arm, anchor) if anchor else {}
    bounds = shift_bounds(margins, collection.suites[anchor].questions) if anchor and margins else None
    return {"places": by_place, "bounds": bounds}


def _categories(collection: Collection, arms: Sequence[Arm]) -> JsonObject:
    """Suite -> category -> accuracy and difference of every arm, Holm's correction over all of them."""
    tables = {
        name: {
            str(category) or "no category": _category(
                collection, arms, name, np.flatnonzero(suite.categories == category)
            )
            for category in np.unique(suite.categories)
        }
        for name, suite in collection.suites.items()
        if suite.has_categories
    }
    records = [record for table in tables.values() for category in table.values() for record in category["arms"]]
    tests = add_holm([record["difference"] for record in records if record and record["difference"]])
    return {"suites": tables, "tests": tests}


def _category(collection: Collection, arms: Sequence[Arm], suite: str, rows: NDArray[np.intp]) -> JsonObject:
    questions = collection.suites[suite].questions[rows]
    margins = [{seed: v[rows] for seed, v in collection.margins(arm, suite).items()} for arm in arms]
    plain = margins[0]
    return {
        "pairs": len(rows),
        "questions": cluster_count(questions, len(rows)),
        "longer_wins": float(collection.suites[suite].longer[rows].mean()),
        "arms": [
            {
                **accuracy_record(seeds, questions),
                "difference": difference_record(seeds, plain, questions) if number and plain else None,
            }
            if seeds
            else None
            for number, seeds in enumerate(margins)
        ],
    }
