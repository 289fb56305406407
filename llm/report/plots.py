"""Figures of the report as inline SVG: no pyplot, no network, fit for print, dark pages and screen readers.

Colours are those of Okabe and Ito, and each arm also has its own marker and dash pattern. Text and lines in
"ink" take the colour of the page around them. A figure is narrow, so that a phone shows it unscaled.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from ..run.escaping import one_line, visible
from ..run.files import JsonObject
from .story.names import brief

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType

WIDTH = 4.4  # inches; 72 points each
_LONGEST = 72  # characters of a text in a figure
MAX_POINTS = 30  # longer curves are averaged in as many equal stretches of training

# Colours that are replaced in the SVG by the page's own.
INK, QUIET, LINE, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
_PAGE_COLOURS = {
    INK: "currentColor",
    QUIET: "var(--quiet)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
}


class Page(NamedTuple):
    """The colours around the data."""

    ink: str
    quiet: str
    line: str
    paper: str


INLINE = Page(INK, QUIET, LINE, PAPER)
PRINTED = Page("#111111", "#555555", "#d9d9d9", "white")


class Style(NamedTuple):
    """How one arm is drawn everywhere."""

    colour: str
    marker: str
    dash: LineStyleType


_STYLES = (
    Style(INK, "o", "-"),
    Style("#0072B2", "s", (0, (5, 1.5))),
    Style("#D55E00", "^", (0, (1.5, 1.2))),
    Style("#009E73", "D", (0, (5, 1.2, 1.2, 1.2))),
    Style("#CC79A7", "v", (0, (8, 2))),
    Style("#56B4E9", "P", (0, (2.5, 2.5))),
    Style("#E69F00", "X", (0, (4, 1, 1, 1, 1, 1))),
    Style("#009E73", "<", (0, (1.2, 2.4))),
    Style("#D55E00", "p", (0, (9, 1.5, 2, 1.5))),
    Style("#0072B2", ">", (0, (3, 1))),
    Style("#E69F00", "h", (0, (1, 1, 6, 1))),
    Style("#CC79A7", "d", (0, (2, 1, 2, 3))),
    Style("#56B4E9", "*", (0, (7, 1, 1, 1, 1, 1))),
)


def styles(arms: Sequence[str], baseline: str) -> dict[str, Style]:
    """A style per arm; the baseline is always ink. More arms than styles share them in turn."""
    others = [arm for arm in arms if arm != baseline]
    chosen = {arm: _STYLES[1 + number % (len(_STYLES) - 1)] for number, arm in enumerate(others)}
    return {baseline: _STYLES[0], **chosen}


def curve(history: Sequence[JsonObject], field: str) -> list[tuple[float, float]]:
    """(step, value) of a logged field, without gaps and nan, averaged down to at most 30 points.

    >>> curve([{"step": 1, "loss": 0.7}, {"step": 2}, {"step": 3, "loss": float("nan")}], "loss")
    [(1.0, 0.7)]
    """
    points = [
        (float(entry["step"]), float(entry[field]))
        for entry in history
        if isinstance(entry.get(field), int | float) and math.isfinite(entry[field]) and "step" in entry
    ]
    if len(points) <= MAX_POINTS:
        return points
    return [tuple(part.mean(axis=0).tolist()) for part in np.array_split(np.array(points), MAX_POINTS)]


def row_axes(names: Sequence[str], *, tall: float = 0.34) -> tuple[Figure, Axes]:
    """An empty figure with a named row per entry, the first one on top, ``tall`` inches each."""
    height = tall * len(names) + 0.62
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.315, 0.5 / height, 0.655, 1 - 0.62 / height))
    axes.set_yticks(range(len(names)), [brief(one_line(name), 18) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.grid(axis="y", which="minor", color=LINE, linewidth=0.5)
    open_frame(axes)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="y", labelcolor=INK)
    return figure, axes


def offsets(count: int, *, reach: float = 0.26) -> list[float]:
    """Where the marks of ``count`` arms stand inside a row."""
    return [0.0] if count == 1 else np.linspace(-reach, reach, count).tolist()


def open_frame(axes: Axes, page: Page = INLINE) -> None:
    """No box and no ticks; grid below, labels quiet."""
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(page.line)
    axes.tick_params(which="both", length=0, labelsize=9.5, labelcolor=page.quiet)
    axes.xaxis.label.set(color=page.quiet, size=9.5)
    axes.patch.set_visible(False)


def inline_svg(figure: Figure, key: str, label: str | None) -> str:
    """The figure as one ``<svg>`` element; ``label`` is read aloud, None hides it from screen readers."""
    figure.patch.set_visible(False)
    for words in figure.findobj(Text):  # those of the ticks are made when it is drawn: see row_axes
        words.set_text(visible(brief(words.get_text(), _LONGEST)))
    text = io.StringIO()
    # Text stays text: small, searchable, and in the reader's own font.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "text.parse_math": False}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = text.getvalue()
    return _embedded(drawing[drawing.index("<svg") :], key, label)


def _embedded(drawing: str, key: str, label: str | None) -> str:
    """Free of ids that clash, of name-space addresses, and of fixed sizes, fonts and page colours."""
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)[0]
    body = drawing[drawing.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\n?", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'(href="|url\()#', rf"\g<1>#{key}-", body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", body)
    for placeholder, colour in _PAGE_COLOURS.items():
        body = body.replace(placeholder, colour)
    access = (
        f'role="img" aria-label="{html.escape(visible(brief(label, 10 * _LONGEST)))}"'
        if label
        else 'aria-hidden="true"'
    )
    return f'<svg viewBox="0 0 {width} {height}" {access} style="--w:{width};--h:{height}">{body.strip()}'
