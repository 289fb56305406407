"""What the numbers of a results report allow to say, and what should be known before believing them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from ..adversary.ledger import VERDICT
from ..run.files import JsonObject
from ..run.run_differences import differences
from ..statistics.numbers import bracket, p_text, percent
from .collect import BASELINE, Collection
from .story.names import brief, first_ones, listed, name_of

ALPHA = 0.05
_ALIKE = {"steps": "steps", "batch_size": "effective batch", "learning_rate": "learning rate", "train_pairs": "pairs"}
ROLES = {"inside": "in distribution", "outside": "out of distribution", "validation": "held out of training"}


def claims(report: JsonObject) -> list[JsonObject]:
    """Sentences, each with the arms it is about: ``{"text", "items"}``."""
    arms = [record for record in report["arms"] if record["against"]]
    if not arms:
        return [{"text": "No arm can be compared: there is no plain training (erm) beside another arm.", "items": []}]
    return [
        *_nowhere_above_chance(report),
        _worst(report, arms),
        *[_column(report, arms, name) for name in report["suites"]],
        _average(report, arms),
        *[_against_the_longer(report, detail) for detail in report["details"]],
    ]


def notes(report: JsonObject, collection: Collection) -> list[str]:
    """What was left out, what is missing, and what the numbers cannot carry."""
    found = [
        *_unread(collection),
        *_seeds(report),
        *_inaction(report, collection),
        *_beyond(report, collection),
        *_baselines(report),
        *_at_chance(report),
        *_unlike(report, collection),
        *_suites(report),
        *_versions(report),
        *_disagreements(collection),
    ]
    if report["small"]:
        found.append(
            f"Categories of fewer than {report['smallest']} questions cannot be the worst group: "
            f"{listed(report['small'])}."
        )
    return found


def survives(difference: JsonObject) -> bool:
    """Whether a difference is shown after Holm's correction."""
    return difference["p_holm"] is not None and difference["p_holm"] < ALPHA


def _worst(report: JsonObject, arms: Sequence[JsonObject]) -> dict[str, object]:
    judged = [arm for arm in arms if arm["worst"] and arm["worst"]["difference"]]
    better = [
        arm for arm in judged if arm["worst"]["difference"]["difference"] > 0 and survives(arm["worst"]["difference"])
    ]
    clean = [arm for arm in better if not _loses(report, arm)]
    if not judged:
        return {"text": "No worst group: no group has enough questions, or margins are missing.", "items": []}
    if not better:
        text = f"No arm of {len(judged)} is shown to raise the accuracy of the worst group over {_plain(report)}."
        return {"text": text, "items": []}
    inside = "without a loss in distribution shown" if report["inside"] else "(no suite is known to be in distribution)"
    text = (
        f"{len(better)} of {len(judged)} arms raise the accuracy of the worst group over {_plain(report)} after Holm's "
        f"correction, {len(clean)} of them {inside}."
    )
    found = [_finding(arm, arm["worst"]["difference"], _loses(report, arm)) for arm in better]
    return {"text": text, "items": first_ones(found)}


def _loses(report: JsonObject, arm: JsonObject) -> bool:
    """Before any correction: a loss must not hide behind the number of tests."""
    entries = [arm["suites"][name] for name in report["inside"]]
    return any(entry and entry["difference"] and entry["difference"]["outcome"] == "worse" for entry in entries)


def _finding(arm: JsonObject, difference: JsonObject, loses: bool) -> str:  # noqa: FBT001
    limits = bracket(difference["low"], difference["high"], sign="+")
    tail = "; loses in distribution" if loses else ""
    points = percent(difference["difference"], sign="+")
    return f"{name_of(arm)}: {points} points, {limits}, Holm p {p_text(difference['p_holm'])}{tail}"


def _column(report: JsonObject, arms: Sequence[JsonObject], name: str) -> dict[str, object]:
    place = f"{name} ({ROLES[report['suites'][name]['role']]})"
    return _outcomes(_plain(report), place, [(arm, arm["suites"][name]) for arm in arms])


def _average(report: JsonObject, arms: Sequence[JsonObject]) -> dict[str, object]:
    suites = len(report["outside"])
    place = f"Average of {suites} suites" if suites > 1 else "Average"
    return _outcomes(_plain(report), place, [(arm, arm["average"]) for arm in arms])


def _plain(report: JsonObject) -> str:
    """What arms are compared with; an evaluation of runs may name any set."""
    return "plain training" if report["baseline"] == BASELINE else brief(report["baseline"])


def _outcomes(beside: str, place: str, entries: Sequence[tuple[JsonObject, JsonObject | None]]) -> dict[str, object]:
    judged = [(arm, entry["difference"]) for arm, entry in entries if entry and entry["difference"]]
    kept = [(arm, difference) for arm, difference in judged if survives(difference)]
    better = [pair for pair in kept if pair[1]["difference"] > 0]
    before = sum(difference["outcome"] in ("better", "worse") for _, difference in judged)
    text = (
        f"{place}: of {len(judged)} arms, {len(better)} better and {len(kept) - len(better)} worse than {beside} "
        f"after Holm's correction ({before} differ before it)."
        if judged
        else f"{place}: nothing to compare."
    )
    return {"text": text, "items": first_ones([_finding(arm, difference, loses=False) for arm, difference in kept])}


def _against_the_longer(report: JsonObject, detail: JsonObject) -> dict[str, object]:
    """Which arms with details do better than a ruler, before any correction."""
    lines, beaten, cells = [], 0, 0
    for number, shown in enumerate(detail["arms"]):
        outcomes = {name: arms[number]["longer"]["outcome"] for name, arms in detail["suites"].items() if arms[number]}
        beaten, cells = beaten + list(outcomes.values()).count("better"), cells + len(outcomes)
        parts = [
            f"{outcome} on {', '.join(names)}"
            for outcome in dict.fromkeys(("better", "worse", *outcomes.values()))
            if (names := [name for name, found in outcomes.items() if found == outcome])
        ]
        lines.append(f"{name_of(report['arms'][shown['arm']])}: {'; '.join(parts) or 'not judged'}")
    rule = "\N{LEFT DOUBLE QUOTATION MARK}the longer answer wins\N{RIGHT DOUBLE QUOTATION MARK}"
    family = brief(report["arms"][detail["family"]]["family"])
    text = f"The rule {rule} is beaten in {beaten} of {cells} cells of arm and suite{f', {family}' if family else ''}."
    return {"text": text, "items": lines}


def _unread(collection: Collection) -> list[str]:
    if not collection.unread:
        return []
    shown = [f"{run} ({why})" for run, why in collection.unread.items()]
    return [
        f"Margins or weights of {len(shown)} runs could not be used and were left out of intervals and tests: "
        f"{listed(shown)}."
    ]


def _seeds(report: JsonObject) -> list[str]:
    single = [name_of(arm) for arm in report["arms"] if len(arm["seeds"]) == 1]
    found = []
    if single:
        found.append(
            f"A single seed was trained for {listed(single)}: there is no spread over seeds to show and none is "
            "invented; a difference may be the luck of one run."
        )
    if len(single) < len(report["arms"]):
        found.append(
            "Intervals and tests are over test pairs, given the seeds that were trained; the spread over seeds stands "
            "beside them. Where it is as wide as a difference, the difference is not settled."
        )
    return found


def _baselines(report: JsonObject) -> list[str]:
    alone = [name_of(arm) for arm in report["arms"] if not arm["plain"] and not arm["against"]]
    borrowed = [name_of(arm) for arm in report["arms"] if arm["against"] and not arm["own_baseline"]]
    found = []
    if alone:
        found.append(f"No plain training (erm) with the same settings, so no difference, for {listed(alone)}.")
    if borrowed:
        found.append(
            "Compared with plain training of another batch size or learning rate, the only one there is: "
            f"{listed(borrowed)}."
        )
    return found


def _nowhere_above_chance(report: JsonObject) -> list[dict[str, object]]:
    """The plain arms that no suite shows to have learned anything."""
    names = [name_of(arm) for arm in report["arms"] if arm["plain"] and not any(_above_chance(arm).values())]
    if not names:
        return []
    text = "Plain training has not been shown to beat chance (50 %) anywhere: differences to it mean little."
    return [{"text": text, "items": names}]


def _at_chance(report: JsonObject) -> list[str]:
    """Where plain arms that learned something elsewhere are not shown to be above 50 %."""
    found = [
        f"{name_of(arm)} on {name}"
        for arm in report["arms"]
        if arm["plain"] and any(_above_chance(arm).values())
        for name, above in _above_chance(arm).items()
        if not above
    ]
    if not found:
        return []
    return [f"Plain training is not shown to beat chance (50 %), so differences to it mean little: {listed(found)}."]


def _above_chance(arm: JsonObject) -> dict[str, bool]:
    """By suite with an interval, whether it lies above 50 %."""
    return {name: entry["low"] > 0.5 for name, entry in arm["suites"].items() if entry and entry["low"] is not None}


def _inaction(report: JsonObject, collection: Collection) -> list[str]:
    """Arms with runs that are plain training under another name."""
    found = []
    for record, arm in zip(report["arms"], collection.arms, strict=True):
        acted = [collection.runs.at[run, "acted"] for run in arm.runs.values()]
        if idle := acted.count(False):
            runs = f"{idle} of {len(acted)} runs"
            found.append(f"{name_of(record)}: {VERDICT} in {runs}, whose weights were equal at every step.")
    return found


def _beyond(report: JsonObject, collection: Collection) -> list[str]:
    """Arms with runs whose set is larger than their margins bear."""
    found = []
    for record, arm in zip(report["arms"], collection.arms, strict=True):
        said = [collection.record(run).get("beyond") for run in arm.runs.values()]
        if told := [text for text in said if text]:
            found.append(f"{name_of(record)}, {len(told)} of {len(said)} runs: {told[0]}.")
    return found


def _unlike(report: JsonObject, collection: Collection) -> list[str]:
    """What runs of compared arms differ in beside their set, seed by seed."""
    said: dict[str, dict[str, None]] = {}
    for arm, plain in collection.baselines.items():
        for seed in arm.runs.keys() & plain.runs.keys():
            if apart := ", ".join(_differences(collection, arm.runs[seed], plain.runs[seed])):
                said.setdefault(apart, {})[name_of(report["arms"][collection.arms.index(arm)])] = None
    return [
        f"Not trained like the plain runs that they are compared with ({apart}): {listed(list(arms))}."
        for apart, arms in said.items()
    ]


def _differences(collection: Collection, run: str, other: str) -> list[str]:
    """As the records of whole models tell, which know every setting; else as the table does."""
    records = [collection.record(one) for one in (run, other)]
    if all("config" in record for record in records):
        return differences(*records)
    here, there = (collection.runs.loc[one] for one in (run, other))
    pairs = [(noun, float(here[name]), float(there[name])) for name, noun in _ALIKE.items()]
    return [f"{noun} {a:g} against {b:g}" for noun, a, b in pairs if a != b and not (isnan(a) or isnan(b))]


def _suites(report: JsonObject) -> list[str]:
    facts, found = report["suites"], []
    if unreadable := [name for name, fact in facts.items() if not fact["readable"]]:
        found.append(
            f"The pairs of {listed(unreadable)} are missing or damaged: accuracies are those of the results table, "
            "without interval or test."
        )
    if plain := [name for name, fact in facts.items() if fact["readable"] and not fact["categories"]]:
        found.append(
            "Suites without groups (categories, sources, or those that a set weighs), each one of its own: "
            f"{listed(plain)}."
        )
    if other := [f"{name} by {fact['kind']}" for name, fact in facts.items() if fact["kind"] not in (None, "category")]:
        found.append(f"Groups are not categories here: {listed(other)}.")
    if held_out := [name for name, fact in facts.items() if fact["role"] == "validation"]:
        found.append(
            "Held out of training to choose runs by, so it counts in no average and no worst group: "
            f"{listed(held_out)}."
        )
    if facts and not report["inside"]:
        found.append(
            "No suite is known to be in distribution (none is called id...), so every suite counts as out of "
            "distribution: name it with --inside."
        )
    if missing := sum(entry is None for arm in report["arms"] for entry in arm["suites"].values()):
        found.append(f"{missing} of {len(report['arms']) * len(facts)} cells of arm and suite were never measured.")
    return found


def _versions(report: JsonObject) -> list[str]:
    mixed = [name_of(arm) for arm in report["arms"] if len(arm["versions"]) > 1]
    return [f"Seeds of one arm were made by different versions of the code: {listed(mixed)}."] if mixed else []


def _disagreements(collection: Collection) -> list[str]:
    """Runs whose margins do not give the accuracy that the table states."""
    odd = []
    for arm in collection.arms:
        for suite in collection.suites:
            stated = collection.accuracies(arm, suite)
            for seed, margins in collection.margins(arm, suite).items():
                run = arm.runs[seed]
                if seed in stated and abs(collection.earned(run, suite, margins) - stated[seed]) > 1e-6:
                    odd.append(run)
    odd = list(dict.fromkeys(odd))
    return [f"The margins of {len(odd)} runs give another accuracy than the table: {listed(odd)}."] if odd else []
