"""The story of a report: which model to use, whether anything was shown at all, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from ...run.files import JsonObject
from ...statistics.numbers import bracket, percent
from ..claims import survives
from ..collect import BASELINE
from ..export import cell_of
from .names import brief, name_of

MOST_ARMS = 6  # in the figure, as many as can be told apart at a glance
MOST_NEXT = 4
_WANTED = 0.02  # a difference that people would act on
_BOTH = "robust-rlhf report RUN RUN"  # the plain run among them


class _Shown(NamedTuple):
    """A difference that is shown: of an arm, in a column of the main tables."""

    arm: int
    column: str
    record: JsonObject


def story(report: JsonObject) -> dict[str, object]:
    """``sentence``, ``shown`` (whether anything was), ``arms`` (positions, for the figure) and ``next``, sentences.

    ``weak`` is whether what the others are compared with has learned nothing, so that no difference counts.

    Args:
        report: As from ``build_content``, with at least its tables, ``details`` and ``policies``.
    """
    gains, losses = _differences(report)
    sentence, best = _verdict(report, gains, losses)
    policies = report.get("policies")
    if policies:
        judged = any(arm["against"] for arm in report["arms"])
        sentence = f"{policies['sentence']} Of the reward models: {sentence}" if judged else policies["sentence"]
    return {
        "sentence": sentence,
        "shown": bool(gains or losses or (policies and policies["shown"])),
        "weak": not policies and _too_weak(report, gains),
        "arms": _arms(report, best),
        "next": list(dict.fromkeys(_next(report, gains, losses, best)))[:MOST_NEXT],
    }


def plain_name(report: JsonObject) -> str:
    """What the others are compared with, in words."""
    return f"plain training ({BASELINE})" if report["baseline"] == BASELINE else brief(report["baseline"])


def _differences(report: JsonObject) -> tuple[list[_Shown], list[_Shown]]:
    """Gains after Holm's correction, the most telling first; losses, those in distribution before any correction."""
    gains, losses = [], []
    for number, arm in enumerate(report["arms"]):
        for column in _columns(report):
            entry = cell_of(arm, column)
            record = entry["difference"] if entry else None
            if record and survives(record) and record["difference"] > 0:
                gains.append(_Shown(number, column, record))
            elif record and record["difference"] < 0 and (survives(record) or _loses_inside(report, column, record)):
                losses.append(_Shown(number, column, record))
    order = {"worst": 0, "average": 1}
    gains.sort(key=lambda one: (order.get(one.column, 2), -one.record["difference"]))
    losses.sort(key=lambda one: one.record["difference"])
    return gains, losses


def _columns(report: JsonObject) -> list[str]:
    judged = [name for name, fact in report["suites"].items() if fact["role"] != "validation"]
    average = ["average"] if len(report["outside"]) > 1 else []  # else it is the suite
    return [*judged, *average, "worst"]


def _loses_inside(report: JsonObject, column: str, record: JsonObject) -> bool:
    return column in report["inside"] and record["outcome"] == "worse"


def _verdict(report: JsonObject, gains: Sequence[_Shown], losses: Sequence[_Shown]) -> tuple[str, int | None]:
    compared = [arm for arm in report["arms"] if arm["against"]]
    if not compared:
        return _uncompared(report), None
    plain = plain_name(report)
    losing = {_set(report, one) for one in losses}  # in any family: of other labels or data, as yours may be
    if clean := [one for one in gains if _set(report, one) not in losing]:
        best = _told(report, clean)
        return (
            f"Use {_name(report, best)}: {_points(best)} against {plain} {_where(report, best)}, and no loss is shown.",
            best.arm,
        )
    if gains:
        return _depends(report, gains, losses)
    if _too_weak(report, gains):
        return (
            f"Use none of these models yet: {plain} is not shown to be right more often than a coin on any suite, so "
            "that differences to it mean little.",
            None,
        )
    if losses:
        count = len({one.arm for one in losses})
        return (
            f"Use {plain}: no other arm is shown to be better, and {count} of {len(compared)} "
            f"{'is' if count == 1 else 'are'} shown to be worse, most of all {_name(report, losses[0])} "
            f"{_where(report, losses[0])} ({_points(losses[0])}).",
            losses[0].arm,
        )
    blind = _blind(report)
    could = f" Differences below about {percent(blind)} points would have gone unseen." if blind else ""
    use = f"use {plain}, the simplest," if report["baseline"] == BASELINE else f"keep {plain}"
    return f"Nothing is shown: {use} until more is known.{could}", None


def _depends(report: JsonObject, gains: Sequence[_Shown], losses: Sequence[_Shown]) -> tuple[str, int]:
    """A gain, and beside it a loss of the same arm, else of the same set in another family."""
    best = _told(report, gains)
    own = next((one for one in losses if one.arm == best.arm), None)
    worst = own or next(one for one in losses if _set(report, one) == _set(report, best))
    better = f"{_name(report, best)} is better than {plain_name(report)} {_where(report, best)} ({_points(best)})"
    loss = f"worse {_where(report, worst)} ({_points(worst)})"
    if own:
        return f"It depends: {better} and {loss}; use it where the first matters more.", best.arm
    return f"It depends: {better}, {_name(report, worst)} is {loss}; use it if yours is the first case.", best.arm


def _told(report: JsonObject, gains: Sequence[_Shown]) -> _Shown:
    """Of the set with the largest gain that of the first family where it has one: the others vary what that has."""
    same = [one for one in gains if _set(report, one) == _set(report, gains[0])]
    first = min(one.arm for one in same)
    return next(one for one in same if one.arm == first)


def _set(report: JsonObject, one: _Shown) -> str:
    return report["arms"][one.arm]["ambiguity"]


def _uncompared(report: JsonObject) -> str:
    """Of a model alone, or of arms that nothing plain stands beside."""
    arms = [arm for arm in report["arms"] if any(arm["suites"].values())]
    if not arms:
        return "Trained and not judged: nothing says how good this model is."
    if len(report["arms"]) > 1:
        return (
            f"Nothing can be compared: none of the {len(report['arms'])} arms has {plain_name(report)} beside it, with "
            "the same settings."
        )
    arm = arms[0]
    column = "average" if arm["average"] and len(report["outside"]) > 1 else next(iter(arm["suites"]))
    entry = cell_of(arm, column)
    if entry is None:
        return f"{name_of(arm)} was judged on parts of its suites alone."
    limits = "" if entry["low"] is None else f" {bracket(entry['low'], entry['high'])}"
    place = f"on average over {len(report['outside'])} suites" if column == "average" else f"on {brief(column)}"
    return (
        f"{name_of(arm)} is right on {percent(entry['accuracy'])} %{limits} of the pairs {place}; alone, it shows "
        "nothing of what its training bought."
    )


def _name(report: JsonObject, one: _Shown) -> str:
    return name_of(report["arms"][one.arm])


def _points(one: _Shown) -> str:
    limits = bracket(one.record["low"], one.record["high"], sign="+")
    return f"{percent(one.record['difference'], sign='+')} points, {limits}"


def _where(report: JsonObject, one: _Shown) -> str:
    if one.column == "worst":
        return f"in the worst group, {brief(report['arms'][one.arm]['worst']['name'])}"
    return "on average over the suites" if one.column == "average" else f"on {brief(one.column)}"


def _too_weak(report: JsonObject, gains: Sequence[_Shown]) -> bool:
    """Whether arms are compared, none is shown to be better, and the plain one is not shown to have learned."""
    return not gains and any(arm["against"] for arm in report["arms"]) and not _learned(report)


def _learned(report: JsonObject) -> bool:
    """Whether a plain arm is shown to be above 50 % somewhere, or has no interval that could show it."""
    entries = [entry for arm in report["arms"] if arm["plain"] for entry in arm["suites"].values() if entry]
    return any(entry["low"] is None or entry["low"] > 0.5 for entry in entries)


def _blind(report: JsonObject) -> float | None:
    """Half the width of the intervals of differences, in the middle of the arms."""
    found = [
        (record["high"] - record["low"]) / 2
        for arm in report["arms"]
        for column in (("average",) if arm["average"] and arm["average"]["difference"] else _columns(report)[:1])
        if (entry := cell_of(arm, column)) and (record := entry["difference"]) and record["low"] is not None
    ]
    return median(found) if found else None


def _arms(report: JsonObject, best: int | None) -> list[int]:
    """The arms of the figure: of the family of the best one those that do best in their worst group."""
    families = [family["arms"] for family in report["families"]]
    compared = [[n for n in arms if report["arms"][n]["against"]] for arms in families]
    found = next((arms for arms in compared if best in arms), next((arms for arms in compared if arms), []))

    def rank(number: int) -> float:
        worst = report["arms"][number]["worst"]
        return -(2.0 if number == best else worst["accuracy"] if worst else 0.0)

    return sorted(sorted(found, key=rank)[:MOST_ARMS])


def _next(report: JsonObject, gains: Sequence[_Shown], losses: Sequence[_Shown], best: int | None) -> Iterator[str]:
    """What to do, the most useful first."""
    arms, blind = report["arms"], _blind(report)
    alone = not any(arm["against"] for arm in arms) and not report.get("policies")
    if alone and len(arms) == 1 and report["baseline"] != BASELINE:
        yield "Compare it with another model: robust-rlhf evaluate MODEL --against OTHER --suite FILE --output FOLDER."
    elif alone and len(arms) == 1 and arms[0]["ambiguity"] == BASELINE:
        yield f"Train it against a set too (--ambiguity tv:0.2, all else equal, the same seeds), then: {_BOTH}."
    elif alone:
        yield f"Train the same model plainly (--ambiguity erm, all else equal, the same seeds), then: {_BOTH}."
    if not report["suites"] and not report.get("policies"):
        yield "Judge it: robust-rlhf evaluate MODEL --suite FILE --output FOLDER, then robust-rlhf report FOLDER."
    if any(len(arm["seeds"]) == 1 for arm in arms) and len(arms) > 1:
        yield "Train more seeds: of a single one nobody can tell what the set did from the luck of the run."
    if not gains and blind is not None and blind > _WANTED:
        pairs = sum(fact["pairs"] or 0 for fact in report["suites"].values())
        factor = (blind / _WANTED) ** 2
        times = f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"
        yield (
            f"Judge by more pairs: to see a difference of {percent(_WANTED)} points takes about {times} times the "
            f"{pairs:,} test pairs there are."
        )
    if gains and best is not None:
        name = name_of(arms[best])
        yield f"Try {name} on your own pairs before relying on it: robust-rlhf evaluate MODEL --suite FILE."
    yield from report["advice"][:2]
    if losses:
        yield "Where a set loses, try a smaller one, a cap (max_ratio=4), groups (by=source)."
    if _suspects(report):
        yield "Read the pairs with most weight: many of their labels look wrong, and robust training amplifies that."
    elif any("examples" in entry for detail in report["details"] for entry in detail["arms"]):
        yield "Read the pairs with most weight on the page: what the adversary favours is what the model cannot fit."
    if gains and not report["inside"]:
        yield "Name the suite that is like the training data (--inside), so that losses there are counted."


def _suspects(report: JsonObject) -> bool:
    """Whether of the pairs with the most weight more than half have labels that plain training holds to be wrong."""
    chances = [
        pair["label"]
        for detail in report["details"]
        for entry in detail["arms"]
        for pair in entry.get("examples", {}).get("top", ())
        if pair.get("label") is not None
    ]
    return bool(chances) and sum(chance < 0.2 for chance in chances) > len(chances) / 2
