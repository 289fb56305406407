"""The figures over all arms: trade-off, radius curves, effective sample size, and the arms of a family side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..run.files import JsonObject
from .claims import survives
from .collect import BASELINE
from .drawing import Drawing, Mark, Series, line_figure, mark_figure, row_figure
from .plots import Style, styles
from .radii import Sized, kind_of, sized

MOST_PANELS = 4  # families, and kinds of a family, that get a panel of their own
COLUMNS = ("inside", "average", "worst")


def column_names(report: JsonObject) -> dict[str, str]:
    """What the three summary columns are called."""
    return {
        "inside": "in distribution",
        "average": "average out of distribution" if report["inside"] else "average of suites",
        "worst": "worst group",
    }


def entry_of(report: JsonObject, arm: JsonObject, column: str) -> JsonObject | None:
    """The record of an arm in a summary column; in distribution is the first such suite."""
    if column != "inside":
        return arm[column]
    return arm["suites"][report["inside"][0]] if report["inside"] else None


def looks(report: JsonObject) -> dict[str, Style]:
    """One style per kind of set, the same on the whole page."""
    kinds = list(dict.fromkeys(kind_of(arm["ambiguity"]) for arm in report["arms"]))
    return styles(kinds, "erm")


def arm_looks(report: JsonObject) -> dict[str, Style]:
    """One style per ambiguity set among the arms with details."""
    shown = (arm["ambiguity"] for detail in report["details"] for arm in detail["arms"])
    return styles(list(dict.fromkeys(shown)), report["baseline"])


def families_of(report: JsonObject) -> list[tuple[str, list[JsonObject]]]:
    """Label and arms of every family."""
    return [(family["label"], [report["arms"][n] for n in family["arms"]]) for family in report["families"]]


def trade_off(report: JsonObject) -> list[Drawing]:
    """In distribution against the worst group, a panel per family; with several also the gains over plain training."""
    look, names = looks(report), column_names(report)
    titles = [names["inside"] if report["inside"] else names["average"], names["worst"]]
    drawings = []
    for number, (label, arms) in enumerate(families_of(report)[:MOST_PANELS]):
        rows = [row for arm in arms if (row := _plane(report, arm, gain=False))]
        if len(rows) > 1:
            bases = (row for arm in arms if arm["plain"] and (row := _plane(report, arm, gain=False)))
            plain = next(((row["x"], row["y"]) for row in bases), None)
            drawings.append(_plane_drawing(f"trade-off-{number}", label, rows, look, titles, "accuracy, %", plain))
    gains = [row for arm in report["arms"] if (row := _plane(report, arm, gain=True))]
    if len(report["families"]) > 1 and gains:
        unit = "points gained over plain training"
        drawings.append(_plane_drawing("trade-off-gains", "all families", gains, look, titles, unit, (0.0, 0.0)))
    return drawings


def _plane(report: JsonObject, arm: JsonObject, *, gain: bool) -> JsonObject | None:
    entries = [entry_of(report, arm, "inside" if report["inside"] else "average"), arm["worst"]]
    values = [entry["difference"] if entry and gain else entry for entry in entries]
    if not all(values):
        return None
    field = "difference" if gain else "accuracy"
    x, y = (100 * value[field] for value in values if value)
    return {"family": arm["family"], "arm": arm["ambiguity"], "kind": kind_of(arm["ambiguity"]), "x": x, "y": y}


def _plane_drawing(
    name: str, family: str, rows: Sequence[JsonObject], look: Mapping[str, Style], titles: Sequence[str], unit: str,
    origin: tuple[float, float] | None,
) -> Drawing:  # fmt: skip
    marks = [(row["kind"], look[row["kind"]], row["x"], row["y"]) for row in rows]
    heading = f"{titles[0].capitalize()} against {titles[1]}" + (f", {family}" if family else "")
    svg = mark_figure(
        marks, key=name, label=f"{heading}, {unit}; the main table has the numbers",
        axes_names=(f"{titles[0]}: {unit}", titles[1]), origin=origin,
    )  # fmt: skip
    return Drawing(name, heading, "Right and above the dotted cross, plain training, is better in both.", svg, rows)


def radius_curves(report: JsonObject) -> list[Drawing]:
    """Accuracy against the size of the set, one panel per family and kind with two sizes or more."""
    drawings = []
    for number, (label, arms) in enumerate(families_of(report)[:MOST_PANELS]):
        kinds: dict[str, list[tuple[Sized, JsonObject]]] = {}
        for arm in arms:
            if parts := sized(arm["ambiguity"]):
                kinds.setdefault(parts.kind, []).append((parts, arm))
        plain = next((arm for arm in arms if arm["plain"] and arm["ambiguity"] == BASELINE), None)
        curves = [members for members in kinds.values() if len({parts.size for parts, _ in members}) > 1]
        for place, members in enumerate(curves[: MOST_PANELS + 2]):
            anchor = members[0][0].plain
            points = [(parts.size, arm) for parts, arm in members]
            if plain is not None and anchor is not None:
                points.append((anchor, plain))
            drawings.append(_radius(report, f"radius-{number}-{place}", label, members[0][0], points))
    return drawings


def _radius(
    report: JsonObject, name: str, family: str, parts: Sized, points: Sequence[tuple[float, JsonObject]]
) -> Drawing:
    names, rows, series = column_names(report), [], []
    look = styles([names[column] for column in COLUMNS], names["inside"])
    for column in COLUMNS:
        found = [
            _point(column, size, entry)
            for size, arm in sorted(points, key=lambda point: point[0])
            if (entry := entry_of(report, arm, column))
        ]
        rows += found
        if found:
            series.append(_series(names[column], look[names[column]], found))
    heading = f"{parts.kind}: accuracy by {parts.quantity}" + (f", {family}" if family else "")
    svg = line_figure(
        series, key=name, label=f"{heading}; " + _ends(series), axes_names=(parts.quantity, "accuracy, %"),
        guides=_longer_guides(report),
    )  # fmt: skip
    anchor = "" if parts.plain is None else f" {parts.quantity.capitalize()} {parts.plain:g} is plain training."
    return Drawing(
        name, heading, f"Bars: 95 % intervals over test pairs; small marks: single seeds.{anchor}", svg, rows
    )


def sample_size(report: JsonObject) -> list[Drawing]:
    """Accuracy in the worst group against the effective sample size: sets of different kinds, matched."""
    look, drawings = looks(report), []
    for number, (label, arms) in enumerate(families_of(report)[:MOST_PANELS]):
        rows = [
            {"kind": kind_of(arm["ambiguity"]), "arm": arm["ambiguity"],
             **_point("worst", arm["effective_sample_size"], arm["worst"])}
            for arm in arms
            if arm["worst"] and arm["effective_sample_size"] is not None
        ]  # fmt: skip
        kinds = list(dict.fromkeys(row["kind"] for row in rows))
        if len(kinds) < 2:
            continue
        members = {kind: sorted((r for r in rows if r["kind"] == kind), key=lambda row: row["x"]) for kind in kinds}
        series = [_series(kind, look[kind], found)._replace(scatter=()) for kind, found in members.items()]
        heading = "Worst group against the effective sample size" + (f", {label}" if label else "")
        svg = line_figure(
            series, key=f"sample-size-{number}", label=f"{heading}; {_ends(series)}",
            axes_names=("effective sample size, last quarter of the steps", "accuracy, %"),
        )  # fmt: skip
        note = "Sets of one kind are joined. Compare kinds at equal effective sample size."
        drawings.append(Drawing(f"sample-size-{number}", heading, note, svg, rows))
    return drawings


def side_by_side(report: JsonObject) -> list[Drawing]:
    """Differences to plain training and the spread over seeds, for the arms with details."""
    look, drawings = arm_looks(report), []
    for number, detail in enumerate(report["details"]):
        arms = [report["arms"][entry["arm"]] for entry in detail["arms"]]
        label = f", {arms[0]['family']}" if arms[0]["family"] else ""
        rows = [
            ("worst group" if column == "worst" else column,
             {arm["ambiguity"]: arm[column] if column in ("average", "worst") else arm["suites"][column]
              for arm in arms})
            for column in [*report["suites"], "average", "worst"]
        ]  # fmt: skip
        drawings += _side("", str(number), label, rows, look, _longer(report))
    return drawings


def by_category(report: JsonObject) -> list[Drawing]:
    """The same for the categories of every suite, of the first family with details."""
    drawings = []
    for detail in report["details"][:1]:
        names, look = [arm["ambiguity"] for arm in detail["arms"]], arm_looks(report)
        for number, (suite, categories) in enumerate(detail["categories"]["suites"].items()):
            rows = [(name, dict(zip(names, record["arms"], strict=True))) for name, record in categories.items()]
            longer = {name: 100 * record["longer_wins"] for name, record in categories.items()}
            drawings += _side("category-", str(number), f", {suite}", rows, look, longer)
    return drawings


def _side(
    stem: str, number: str, label: str, rows: Sequence[tuple[str, JsonObject]], look: Mapping[str, Style],
    longer: Mapping[str, float],
) -> list[Drawing]:  # fmt: skip
    """Difference and accuracy of the arms, one row for each place."""
    drawings = []
    for field, title, axis, guide in (
        ("difference", "Difference to plain training", "points of accuracy", 0.0),
        ("accuracy", "Accuracy", "accuracy, %", 50.0),
    ):
        marks, records = _side_rows(rows, field)
        if marks:
            name = f"{stem}{field}-{number}"
            svg = row_figure(
                marks, dict(look), key=name, axis=axis, guide=guide,
                label=f"{title}{label}; the tables have the numbers",
                strokes=("the longer answer wins", longer) if field == "accuracy" else None,
            )  # fmt: skip
            note = "Bars: 95 % intervals over test pairs; strokes: single seeds." + (
                " Hollow: not shown after Holm's correction." if guide == 0 else ""
            )
            drawings.append(Drawing(name, title + label, note, svg, records))
    return drawings


def _side_rows(
    places: Sequence[tuple[str, JsonObject]], field: str
) -> tuple[list[tuple[str, dict[str, Mark]]], list[JsonObject]]:
    rows, records = [], []
    for place, entries in places:
        marks = {}
        for arm, found in entries.items():
            entry = found["difference"] if found and field == "difference" else found
            if not entry or entry[field] is None:
                continue
            seeds = _seeds(entry)
            low, high = (np.nan if entry[end] is None else 100 * entry[end] for end in ("low", "high"))
            hollow = field == "difference" and not survives(entry)
            marks[arm] = Mark(100 * entry[field], low, high, [100 * s for s in seeds] if len(seeds) > 1 else (), hollow)
            records.append({"column": place, "arm": arm, field: entry[field], "low": entry["low"],
                            "high": entry["high"], "seeds": seeds})  # fmt: skip
        if marks:
            rows.append((place, marks))
    return rows, records


def _point(column: str, x: float, entry: JsonObject) -> dict[str, object]:
    return {"column": column, "x": x, **{name: entry[name] for name in ("accuracy", "low", "high")},
            "seeds": _seeds(entry)}  # fmt: skip


def _seeds(entry: JsonObject) -> tuple[float, ...]:
    return tuple(value for value in entry["by_seed"].values() if value is not None)


def _series(name: str, style: Style, rows: Sequence[JsonObject]) -> Series:
    low, high = ([np.nan if row[end] is None else 100 * row[end] for row in rows] for end in ("low", "high"))
    seeds = [(row["x"], 100 * value) for row in rows if len(row["seeds"]) > 1 for value in row["seeds"]]
    return Series(name, style, [row["x"] for row in rows], [100 * row["accuracy"] for row in rows], low, high, seeds)


def _longer(report: JsonObject) -> dict[str, float]:
    values = {name: fact["longer_wins"] for name, fact in report["suites"].items()}
    values["average"] = report["longer_average"]
    return {name: 100 * value for name, value in values.items() if value is not None}


def _longer_guides(report: JsonObject) -> list[tuple[str, float]]:
    value = report["longer_average"]
    return [] if value is None else [("longer wins, average", 100 * value)]


def _ends(series: Sequence[Series]) -> str:
    return "; ".join(f"{line.name} from {line.y[0]:.1f} to {line.y[-1]:.1f}" for line in series)
