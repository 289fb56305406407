"""The four panels of the demo's picture, each on axes of its own, in the colours of the page or in print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ...run.files import JsonObject
from ..plots import Page, offsets
from .numbers import (
    FLIPPED,
    MINORITY,
    PAIRS,
    PLAIN,
    RADII,
    REPAIR,
    REPAIR_RADIUS,
    RIGHT,
    WRONG,
    over_pairs,
    record_of,
)  # fmt: skip

REPAIRED, SPREAD, WARNED = "#0072B2", "#E69F00", "#D55E00"
_SIZE = 10.5  # points: readable where a picture of 8.4 inches is 500 pixels wide
_NAMES = {PLAIN: "plain", REPAIR: "over sources", PAIRS: "over pairs"}


class Panel(NamedTuple):
    """One part of the picture.

    Attributes:
        name: File stem.
        title: What it shows, as a sentence.
        note: What to know when reading it.
        paint: Draws it.
    """

    name: str
    title: str
    note: str
    paint: Callable[[JsonObject, Axes, Page], None]


def _colours(page: Page) -> dict[str, str]:
    return {PLAIN: page.ink, REPAIR: REPAIRED, PAIRS: SPREAD}


def _frame(axes: Axes, page: Page, x: str, y: str) -> None:
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(page.line)
    axes.grid(axis="y", color=page.line, linewidth=0.8)
    axes.tick_params(which="both", length=0, labelsize=_SIZE, labelcolor=page.quiet)
    axes.set_xlabel(x, color=page.quiet, size=_SIZE)
    axes.set_ylabel(y, color=page.quiet, size=_SIZE)
    axes.patch.set_visible(False)


def _say(axes: Axes, place: tuple[float, float], text: str, colour: str, *, align: str = "left") -> None:
    axes.text(*place, text, color=colour, size=_SIZE, ha=align, va="center")


def _percents(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else 100 * value for value in values]


def _line(axes: Axes, curve: JsonObject, colour: str, dash: str) -> None:
    mean, low, high = (_percents(curve[name]) for name in ("accuracy", "low", "high"))
    axes.fill_between(curve["steps"], low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(curve["steps"], mean, color=colour, linestyle=dash, linewidth=2)


def _groups_over_steps(numbers: JsonObject, axes: Axes, page: Page) -> None:
    colours = _colours(page)
    for curve in numbers["curves"]:
        _line(axes, curve, colours[curve["ambiguity"]], "-" if curve["group"] == MINORITY else "--")
    _frame(axes, page, "steps", "right on held-out prompts, %")
    axes.set_ylim(0, 104)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    end = numbers["curves"][0]["steps"][-1]
    _say(axes, (end, 8), "solid: office (10 %), dashed: forum", page.quiet, align="right")
    _say(axes, (end, 33), "plain, office", colours[PLAIN], align="right")
    _say(axes, (end, 68), "over sources, office", colours[REPAIR], align="right")


def _who_got_the_weight(numbers: JsonObject, axes: Axes, page: Page) -> None:
    colours = _colours(page)
    rows = {
        (of, arm): place + 0.28 * number
        for place, of in enumerate((MINORITY, FLIPPED))
        for number, arm in enumerate(colours)
    }
    for mark in numbers["weights"]:
        row, share = rows[mark["of"], mark["ambiguity"]], 100 * mark["share"]
        axes.barh(row, share, height=0.24, color=colours[mark["ambiguity"]])
        _say(axes, (share + 1, row), _NAMES[mark["ambiguity"]], page.ink)
    _frame(axes, page, "share of the weight, %", "")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=page.line, linewidth=0.8)
    axes.set_yticks([0.28, 1.28], ["office:\n10 % of\nthe pairs", "wrong\nlabels: 20 %\nof the pairs"])
    axes.tick_params(axis="y", labelcolor=page.ink)
    axes.set_ylim(1.8, -0.24)
    axes.set_xlim(0, 75)


_PLACES = {
    "office": "office:\nshorter is right",
    "forum": "forum:\nlonger is right",
    "like training": "10 % office,\nas in training",
    "half office": "half office",
}


def _bought_and_paid(numbers: JsonObject, axes: Axes, page: Page) -> None:
    colours, places = _colours(page), list(_PLACES)
    shifts = dict(zip((REPAIR, PAIRS), offsets(2, reach=0.14), strict=True))
    for ambiguity, shift in shifts.items():
        marks = [record_of(numbers, RIGHT, ambiguity, place)["difference"] for place in places]
        x = [100 * mark["difference"] for mark in marks]
        reach = [
            [100 * (mark["difference"] - mark["low"]) for mark in marks],
            [100 * (mark["high"] - mark["difference"]) for mark in marks],
        ]
        y = [row + shift for row in range(len(places))]
        look = {"color": colours[ambiguity], "marker": "o" if ambiguity == REPAIR else "s", "markersize": 7}
        axes.errorbar(x, y, xerr=reach, linestyle="none", elinewidth=2, label=_NAMES[ambiguity], **look)
    _frame(axes, page, "points gained over plain training", "")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=page.line, linewidth=0.8)
    axes.axvline(0, color=page.quiet, linewidth=1)
    axes.set_yticks(range(len(places)), list(_PLACES.values()))
    axes.tick_params(axis="y", labelcolor=page.ink)
    axes.set_ylim(len(places) - 0.5, -0.5)
    # In a frame, lest it be taken for points; those of the rows beside it are below 0.
    title = f"worst case, radius {REPAIR_RADIUS}"
    look = {"fontsize": _SIZE, "labelcolor": page.ink, "facecolor": "none", "edgecolor": page.line}
    told = axes.legend(loc="center right", title=title, title_fontsize=_SIZE, **look)
    told.get_title().set_color(page.quiet)


def _too_large(numbers: JsonObject, axes: Axes, page: Page) -> None:
    for regime, colour, marker in ((RIGHT, SPREAD, "s"), (WRONG, WARNED, "^")):
        marks = [record_of(numbers, regime, over_pairs(radius), "like training")["accuracy"] for radius in RADII]
        low, mean, high = ([100 * mark[name] for mark in marks] for name in ("low", "accuracy", "high"))
        axes.fill_between(RADII, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(RADII, mean, color=colour, marker=marker, linewidth=2, markersize=7)
    _frame(axes, page, "radius of the set over pairs (0: plain)", "pairs as in training right, %")
    axes.axhline(50, color=page.quiet, linewidth=1, linestyle=":")
    axes.set_ylim(45, 100)
    _say(axes, (0.8, 47.5), "a coin", page.quiet, align="right")
    _say(axes, (0.8, 96), "labels right", page.ink, align="right")
    _say(axes, (0.02, 72), "20 % of the\nlabels wrong", WARNED)
    repaired = 100 * record_of(numbers, WRONG, REPAIR, "like training")["accuracy"]["accuracy"]
    axes.plot([REPAIR_RADIUS], [repaired], color=REPAIRED, marker="o", markersize=8)
    _say(axes, (REPAIR_RADIUS + 0.03, repaired - 5.5), "20 % wrong,\nover sources", REPAIRED)


PANELS = (
    Panel(
        "lesson-groups",
        "Plain training takes the shortcut",
        "On prompts held out of training, mean over seeds with its 95 % interval; the set over sources has radius 0.4. "
        "In forum the better answer is the longer one, in office the shorter.",
        _groups_over_steps,
    ),
    Panel(
        "lesson-weight",
        "Who gets the weight",
        "Share of all weight in training: of pairs from office where labels are right, of wrong labels where a fifth "
        "is wrong; both sets have radius 0.4.",
        _who_got_the_weight,
    ),
    Panel(
        "lesson-price",
        "What it buys, and what it costs",
        "Differences on test pairs with 95 % intervals, labels right: circles worst case over sources, squares over "
        "pairs, both of radius 0.4.",
        _bought_and_paid,
    ),
    Panel(
        "lesson-noise",
        "Too large for wrong labels",
        "Accuracy on test pairs like those of training, with 95 % intervals, against the radius over pairs. Circle: "
        "worst case over sources with a fifth of the labels wrong.",
        _too_large,
    ),
)  # fmt: skip
