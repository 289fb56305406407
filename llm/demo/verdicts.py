"""What the intervals of a report say, in plain sentences.

Nothing here is decided by hand: a sentence says "better" or "worse" where the interval of a difference
excludes 0, and "no difference shown" where it does not, which is not the same as "no difference".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..statistics.numbers import bracket, percent

ALPHA = 0.05
_UNDECIDED = "no difference shown"


class _Finding(NamedTuple):
    """One difference to the baseline that the data show; ``place`` is a suite or suite / category."""

    place: str
    record: Mapping[str, Any]

    def __str__(self) -> str:
        limits = bracket(self.record["low"], self.record["high"], sign="+")
        return f"{self.place} ({percent(self.record['difference'], sign='+')} points, {limits})"


def verdicts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One verdict per arm, the baseline first: ``{"arm", "headline", "points": [{"text", "items"}]}``."""
    names = [arm["ambiguity"] for arm in report["arms"]]
    ordered = [report["baseline"], *(name for name in names if name != report["baseline"])]
    return [_verdict(report, name) for name in ordered]


def cautions(report: Mapping[str, Any]) -> list[str]:
    """What the numbers of this report cannot carry."""
    seeds = {arm["ambiguity"]: len(arm["seeds"]) for arm in report["arms"]}
    found = []
    if single := [name for name, count in seeds.items() if count == 1]:
        found.append(
            f"Seed-to-seed variation is not measured for {_listed(single)}: with one seed, a difference may "
            "be the luck of one training run. Train several seeds before believing it."
        )
    if any(count > 1 for count in seeds.values()):
        found.append(
            "Intervals are over test pairs, given the seeds that were trained. Compare them with the spread "
            "of accuracies per seed: where it is as wide as a difference, the difference is not settled."
        )
    tests = report["tests"]["categories"]
    if tests > 1:
        found.append(
            f"{tests} category differences are tested. If nothing at all differed, about "
            f"{ALPHA * tests:.1f} of them would look like a difference by chance. The lists above mark those "
            "that do not survive Holm's correction for their number."
        )
    if report["baseline"] != "erm" and len(seeds) > 1:
        found.append(f"There is no plain training (erm) here: differences are to {report['baseline']}.")
    return found


def _verdict(report: Mapping[str, Any], arm: str) -> dict[str, Any]:
    points = [_chance(report, arm), _longer(report, arm)]
    if arm == report["baseline"]:
        return {"arm": arm, "headline": _learned(report, arm), "points": points}
    suites = _findings(report["suites"].items(), arm)
    categories = _findings(
        (
            (f"{name} / {category}", record)
            for name, suite in report["suites"].items()
            for category, record in suite["categories"].items()
        ),
        arm,
    )
    return {
        "arm": arm,
        "headline": _headline(suites, report["baseline"]),
        "points": [
            *_outcomes("Suites", suites),
            *_outcomes("Categories", categories),
            *_macro(report, arm),
            *points,
        ],
    }


def _learned(report: Mapping[str, Any], arm: str) -> str:
    return (
        "Baseline. It learned something: the other arms can be compared with it."
        if _above_chance(report, arm)
        else "Baseline. It has not been shown to beat chance anywhere: differences to it mean little."
    )


def _chance(report: Mapping[str, Any], arm: str) -> dict[str, Any]:
    judged, above = _suites_of(report, arm), _above_chance(report, arm)
    if not above:
        return _point(f"Above chance (50 %) on none of {_count(len(judged), 'suite')}.")
    rest = [name for name in judged if name not in above]
    tail = f"; not shown on {_listed(rest)}" if rest else ""
    return _point(f"Above chance (50 %) on {_listed(above)}{tail}.")


def _longer(report: Mapping[str, Any], arm: str) -> dict[str, Any]:
    groups: dict[str, list[str]] = {}
    for name, suite in _suites_of(report, arm).items():
        groups.setdefault(suite["against_longer"][arm]["outcome"], []).append(name)
    order = ("better", "worse", _UNDECIDED, "too few pairs")
    parts = [f"{outcome}: {_listed(groups[outcome])}" for outcome in order if outcome in groups]
    rule = "\N{LEFT DOUBLE QUOTATION MARK}the longer answer wins\N{RIGHT DOUBLE QUOTATION MARK}"
    return _point(f"Against {rule}, {'; '.join(parts) or 'nothing was measured'}.")


def _point(text: str) -> dict[str, Any]:
    return {"text": text, "items": []}


def _headline(suites: Mapping[str, Sequence[_Finding]], baseline: str) -> str:
    better, worse = (sum(map(_survives, suites[outcome])) for outcome in ("better", "worse"))
    before = len(suites["better"]) + len(suites["worse"])
    total = sum(len(findings) for findings in suites.values())
    if not total:
        return f"No suite was evaluated for both this arm and {baseline}."
    places = _count(total, "suite")
    if not before:
        return f"No difference to {baseline} shown on any of {places}."
    if not better and not worse:
        return f"No difference to {baseline} survives Holm's correction ({before} of {places} before it)."
    return f"Against {baseline}, after Holm's correction: better on {better}, worse on {worse}, of {places}."


def _outcomes(kind: str, findings: Mapping[str, Sequence[_Finding]]) -> list[dict[str, Any]]:
    """How many places are better, worse or undecided, and which; marks those lost to Holm's correction."""
    total = sum(len(group) for group in findings.values())
    if not total:
        return []
    counts = ", ".join(
        f"{len(group)} {outcome}" for outcome, group in findings.items() if group or outcome == _UNDECIDED
    )
    shown = [(outcome, finding) for outcome in ("better", "worse") for finding in findings[outcome]]
    kept = sum(_survives(finding) for _, finding in shown)
    text = f"{kind}: {counts}, of {total}."
    if shown:
        text += f" After Holm's correction {kept} of the {len(shown)} {'stays' if kept == 1 else 'stay'}."
    lines = [f"{outcome}: {finding}{_mark(finding)}" for outcome, finding in shown]
    return [{"text": text, "items": lines}]


def _survives(finding: _Finding) -> bool:
    return finding.record["p_holm"] < ALPHA


def _mark(finding: _Finding) -> str:
    return "" if _survives(finding) else ", not after Holm's correction"


def _macro(report: Mapping[str, Any], arm: str) -> list[dict[str, Any]]:
    if not report["macro"] or len(report["macro"]["suites"]) < 2 or arm not in report["macro"]["differences"]:
        return []
    record = report["macro"]["differences"][arm]
    limits = bracket(record["low"], record["high"], sign="+")
    points = percent(record["difference"], sign="+")
    return [_point(f"Average over suites: {points} points, {limits}.")]


def _findings(groups: Iterable[tuple[str, Mapping[str, Any]]], arm: str) -> dict[str, list[_Finding]]:
    found: dict[str, list[_Finding]] = {outcome: [] for outcome in ("better", "worse", _UNDECIDED, "too few pairs")}
    for place, record in groups:
        if difference := record["differences"].get(arm):
            found[difference["outcome"]].append(_Finding(place, difference))
    return found


def _suites_of(report: Mapping[str, Any], arm: str) -> dict[str, Mapping[str, Any]]:
    return {name: suite for name, suite in report["suites"].items() if arm in suite["arms"]}


def _above_chance(report: Mapping[str, Any], arm: str) -> list[str]:
    return [name for name, suite in _suites_of(report, arm).items() if (suite["arms"][arm]["low"] or 0.0) > 0.5]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
