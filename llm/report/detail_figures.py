"""The figures of the arms with details: who gets the weight, calibration, tails, and the error under shift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..run.files import JsonObject
from .drawing import Drawing, Mark, Series, line_figure, row_figure
from .figures import arm_looks
from .plots import Style
from .weights import FACTORS

_PLACES = {"inside": "in distribution", "outside": "out of distribution"}


def weight_figures(report: JsonObject) -> list[Drawing]:
    """Mean weight of the training pairs by what is known about them."""
    look, drawings = arm_looks(report), []
    for number, detail in enumerate(report["details"]):
        for factor, title in FACTORS.items():
            found = {a["ambiguity"]: a["weights"][factor] for a in detail["arms"] if a.get("weights", {}).get(factor)}
            groups = list(dict.fromkeys(row["group"] for rows in found.values() for row in rows))
            if len(groups) < 2:
                continue
            marks = [
                (
                    group,
                    {
                        arm: Mark(row["multiplier"])
                        for arm, rows in found.items()
                        for row in rows
                        if row["group"] == group
                    },
                )
                for group in groups
            ]
            name = f"weight-{number}-{factor}"
            svg = row_figure(
                marks, {arm: look[arm] for arm in found}, key=name, axis="mean weight (plain training = 1)", guide=1.0,
                label=f"{title}{_family(report, detail)}: mean weight by group; the table has the numbers",
            )  # fmt: skip
            rows = [{"arm": arm, **row} for arm, table in found.items() for row in table]
            drawings.append(Drawing(name, title + _family(report, detail), "", svg, rows))
    return drawings


def calibration_figures(report: JsonObject) -> list[Drawing]:
    """How often a model is right when it is that confident."""
    note = "On the dotted line a model is as often right as it is confident; below it, it is too sure."
    return _by_place(report, "calibration", note, _reliability)


def tail_figures(report: JsonObject) -> list[Drawing]:
    """Mean loss of the worst share of the pairs."""
    note = "Share 1 is the mean loss; towards the left only the worst pairs count."
    return _by_place(report, "tail", note, _tail)


def shift_figures(report: JsonObject) -> list[Drawing]:
    """Certified upper bounds of the error under every shift of a size."""
    look, drawings = arm_looks(report), []
    for number, detail in enumerate(report["details"]):
        for place, shift in enumerate(("total variation", "chi-square")):
            rows = [
                {"arm": arm["ambiguity"], **row}
                for arm in detail["arms"]
                if arm["bounds"]
                for row in arm["bounds"]["rows"]
                if row["shift"] == shift
            ]
            if not rows:
                continue
            lines = _lines(rows, look, "radius", "bound", scale=100.0)
            name, title = f"shift-{number}-{place}", f"Error under any {shift} shift{_family(report, detail)}"
            svg = line_figure(
                [line._replace(marked=False) for line in lines], key=name,
                label=f"{title}: " + "; ".join(f"{line.name} at most {line.y[0]:.1f} %" for line in lines) + " at 0",
                axes_names=(f"size of the shift ({shift})", "error at most, %"),
            )  # fmt: skip
            note = f"95 % confidence for all sizes at once, from the pairs of {detail['anchor']}."
            drawings.append(Drawing(name, title, note, svg, rows))
    return drawings


def _by_place(
    report: JsonObject,
    stem: str,
    note: str,
    draw: Callable[[JsonObject, Mapping[str, Style], str, str], tuple[str, Sequence[JsonObject]]],
) -> list[Drawing]:
    look, drawings = arm_looks(report), []
    for number, detail in enumerate(report["details"]):
        for place, words in _PLACES.items():
            found = {a["ambiguity"]: a["places"][place] for a in detail["arms"] if place in a["places"]}
            if not found:
                continue
            name = f"{stem}-{number}-{place}"
            title = f"{stem.capitalize()} {words}{_family(report, detail)}"
            svg, rows = draw(found, look, name, title)
            drawings.append(Drawing(name, title, note, svg, rows))
    return drawings


def _reliability(
    found: JsonObject, look: Mapping[str, Style], key: str, title: str
) -> tuple[str, Sequence[JsonObject]]:
    rows = [{"arm": arm, **row} for arm, entry in found.items() for row in entry["reliability"]]
    errors = "; ".join(
        f"{arm}: calibration error {100 * entry['calibration_error']:.1f}" for arm, entry in found.items()
    )
    svg = line_figure(
        _lines(rows, look, "confidence", "accuracy", scale=100.0, both=True), key=key, label=f"{title}; {errors}",
        axes_names=("confidence, %", "accuracy, %"), diagonal=True,
    )  # fmt: skip
    return svg, rows


def _tail(found: JsonObject, look: Mapping[str, Style], key: str, title: str) -> tuple[str, Sequence[JsonObject]]:
    rows = [{"arm": arm, **row} for arm, entry in found.items() for row in entry["tail"]]
    lines = _lines(rows, look, "share", "loss")
    ends = "; ".join(f"{line.name} mean {line.y[0]:.2f}, worst {line.y[-1]:.2f}" for line in lines)
    svg = line_figure(
        lines, key=key, label=f"{title}; {ends}", axes_names=("share of the pairs, worst first", "mean loss, nats"),
        logarithmic=True,
    )  # fmt: skip
    return svg, rows


def _lines(
    rows: Sequence[JsonObject], look: Mapping[str, Style], x: str, y: str, *, scale: float = 1.0, both: bool = False
) -> list[Series]:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    across = scale if both else 1.0
    return [
        Series(
            arm,
            look[arm],
            [across * r[x] for r in rows if r["arm"] == arm],
            [scale * r[y] for r in rows if r["arm"] == arm],
        )
        for arm in arms
    ]


def _family(report: JsonObject, detail: JsonObject) -> str:
    label = report["arms"][detail["family"]]["family"]
    return f", {label}" if label else ""
