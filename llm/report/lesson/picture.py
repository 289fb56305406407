"""The picture of the demo: four panels beside each other on the page, and as one PNG with the numbers beside it."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from dro_core.files import whole

from ...run.files import JsonObject, write_json
from ...statistics.numbers import bracket, percent
from ..drawing import Drawing
from ..plots import INLINE, PRINTED, WIDTH, inline_svg
from .numbers import LONGER, PLAIN, RADII, REPAIR, REPAIR_RADIUS, RIGHT, TOO_LARGE, WRONG, over_pairs, record_of
from .panels import PANELS

_HEIGHT = 3.0  # inches, of a panel on the page
_PRINT = {"figsize": (8.4, 7.0), "dpi": 150}


def lesson_figures(report: JsonObject) -> list[Drawing]:
    """The panels for the page; none where the report is of something else."""
    if not (numbers := report.get("lesson")):
        return []
    return [_drawing(numbers, number) for number in range(len(PANELS))]


def _drawing(numbers: JsonObject, number: int) -> Drawing:
    panel = PANELS[number]
    figure = Figure(figsize=(WIDTH, _HEIGHT), layout="constrained")
    panel.paint(numbers, figure.add_subplot(), INLINE)
    rows = numbers[("curves", "weights", "records", "records")[number]]
    return Drawing(panel.name, panel.title, panel.note, inline_svg(figure, panel.name, panel.title), _flat(rows))


def _flat(rows: list[JsonObject]) -> list[dict[str, object]]:
    """Records without nested ones: a row per step of a curve, else one each."""
    if "steps" in rows[0]:
        names = ("ambiguity", "group", "steps", "accuracy", "low", "high")
        return [
            {name: row[name] if isinstance(row[name], str) else row[name][place] for name in names}
            for row in rows
            for place in range(len(row["steps"]))
        ]
    return [_plain(row) for row in rows]


def _plain(row: JsonObject) -> dict[str, object]:
    found = {name: value for name, value in row.items() if not isinstance(value, dict) and value is not None}
    for name in ("accuracy", "difference"):
        own = row.get(name) or {}
        found |= {part if part == name else f"{name}_{part}": own[part] for part in (name, "low", "high") if own}
    return found


def write_picture(numbers: JsonObject, picture: Path) -> None:
    """Write the picture as PNG, and the numbers in it as JSON beside it."""
    figure = Figure(**_PRINT, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    for panel, axes in zip(PANELS, figure.subplots(2, 2).ravel(), strict=True):
        panel.paint(numbers, axes, PRINTED)
        axes.set_title(panel.title, loc="left", size=12, color=PRINTED.ink, weight="bold")
    with whole(picture) as stream:
        figure.savefig(stream, format="png", metadata={"Software": None})
    write_json(picture.with_suffix(".json"), numbers)


def caption(numbers: JsonObject) -> str:
    """What the picture shows, in a few sentences.

    Args:
        numbers: As from ``lesson_numbers``.
    """
    plain, repaired = (
        {place: _right(numbers, RIGHT, arm, place) for place in ("office", "forum")} for arm in (PLAIN, REPAIR)
    )
    wrong, usual = (_right(numbers, WRONG, arm, "like training") for arm in (TOO_LARGE, PLAIN))
    return (
        f"Where nine pairs in ten teach that the longer answer is better, plain training ranks {plain['office']} of "
        f"the other kind right, and a worst case over the two sources (`{REPAIR}`) {repaired['office']}, for "
        f"{repaired['forum']} instead of {plain['forum']} on the nine. With a fifth of the labels wrong, a worst case "
        f"over single pairs (`{TOO_LARGE}`) follows these: {wrong} of pairs like those of training, where plain "
        f"training has {usual}. These are test pairs, as in the lower panels; the curves are of prompts held out of "
        f"training. Sets drawn without a number have radius {REPAIR_RADIUS}."
    )


def remarks(numbers: JsonObject) -> str:
    """What to know before believing the picture: how much longer training does, and what the corpus is."""
    small, large = (over_pairs(radius) for radius in (RADII[2], RADII[-1]))
    lost = record_of(numbers, RIGHT, large, "like training")["difference"]
    return (
        f"With four times the steps plain training has {_right(numbers, LONGER, PLAIN, 'office')} of the other kind: a "
        "part of the gap is speed, the rest is there after these too. A set that is too large costs little where "
        f"labels are right: {large} changes pairs like those of training by {percent(lost['difference'], sign='+')} "
        f"points {bracket(lost['low'], lost['high'], sign='+')}. Where a fifth is wrong, a small one hurts the other "
        f"kind: {small} ranks {_right(numbers, WRONG, small, 'office')} of it right, plain training "
        f"{_right(numbers, WRONG, PLAIN, 'office')}. Brackets are 95 % intervals over test pairs, "
        f"for the mean of {len(numbers['seeds'])} seeds. The gain in the worst group, which the page names, is another "
        "number: each arm is judged where it is worst, in any suite. Heads and corpus are small and made for this: no "
        "text tells the sources apart, and the features cannot read all of the advice. Settings were chosen on a "
        "corpus and on seeds of their own."
    )


def _right(numbers: JsonObject, regime: str, ambiguity: str, place: str) -> str:
    found = record_of(numbers, regime, ambiguity, place)["accuracy"]
    return f"{percent(found['accuracy'])} % {bracket(found['low'], found['high'])}"
