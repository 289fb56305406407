"""Figures of the results report: lines, marks and rows with a legend of their own, fit for the page and for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ..run.files import JsonObject
from .plots import INK, LINE, PAPER, QUIET, WIDTH, Style, inline_svg, offsets, open_frame, row_axes

_LEGEND_ROW = 0.168  # inches


class Drawing(NamedTuple):
    """A figure and the numbers in it.

    Attributes:
        name: File stem, unique in a report.
        title: Heading.
        note: What to know when reading it; may be "".
        svg: As from ``llm.report.plots``.
        rows: The numbers, one record per mark.
    """

    name: str
    title: str
    note: str
    svg: str
    rows: Sequence[JsonObject]


class Series(NamedTuple):
    """A named line; ``low`` and ``high`` bound its points or are None, ``scatter`` are loose points (seeds)."""

    name: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    scatter: Sequence[tuple[float, float]] = ()
    marked: bool = True


def line_figure(
    series: Sequence[Series],
    *,
    key: str,
    label: str,
    axes_names: tuple[str, str],
    guides: Sequence[tuple[str, float]] = (),
    diagonal: bool = False,
    logarithmic: bool = False,
) -> str:
    """Lines with their error bars.

    Args:
        series: In the order of the legend; lines of one name share a style.
        key: Unique on the page.
        label: Read aloud.
        axes_names: What stands under and beside the axes.
        guides: Quiet horizontal lines, each with its name.
        diagonal: Whether y = x is drawn.
        logarithmic: Whether x is.
    """
    figure, axes = _panel(list({line.name: line.style for line in series}.items()), axes_names)
    spans = [x for line in series if line.low is not None for x in line.x]
    width = max(spans) - min(spans) if spans else 0.0  # bars at the same place are drawn beside each other
    for number, line in enumerate(series):
        _draw_line(axes, line, shift=0.012 * width * (number - (len(series) - 1) / 2))
    for name, height in guides:
        axes.axhline(height, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        axes.annotate(name, (1, height), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", va="bottom", fontsize=8, color=QUIET)  # fmt: skip
    if diagonal:
        low, high = max(axes.get_xlim()[0], axes.get_ylim()[0]), min(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    return inline_svg(figure, key, label)


def mark_figure(
    marks: Sequence[tuple[str, Style, float, float]],
    *,
    key: str,
    label: str,
    axes_names: tuple[str, str],
    origin: tuple[float, float] | None,
) -> str:
    """One mark per arm in a plane; marks that share a name share a style. ``origin`` gets a cross of lines."""
    figure, axes = _panel(list({name: style for name, style, *_ in marks}.items()), axes_names, height=2.9)
    if origin is not None:
        axes.axvline(origin[0], color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        axes.axhline(origin[1], color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    for _, style, x, y in marks:
        axes.plot([x], [y], color=style.colour, marker=style.marker, markersize=5.5, linestyle="none")
    axes.margins(0.08)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return inline_svg(figure, key, label)


class Mark(NamedTuple):
    """A value in a row, its limits or nan, loose points beside it, and whether it is drawn hollow."""

    value: float
    low: float = np.nan
    high: float = np.nan
    scatter: Sequence[float] = ()
    hollow: bool = False


def row_figure(
    rows: Sequence[tuple[str, dict[str, Mark]]],
    look: dict[str, Style],
    *,
    key: str,
    label: str,
    axis: str,
    guide: float | None = None,
    strokes: tuple[str, Mapping[str, float]] | None = None,
) -> str:
    """Named rows with one mark per arm.

    Args:
        rows: Name and marks by arm, the first row on top.
        look: Style by arm, in the order of the legend.
        key: Unique on the page.
        label: Read aloud.
        axis: What stands under the axis.
        guide: Where an upright line stands through all rows.
        strokes: A name for the legend, and where a quiet stroke stands in a row.
    """
    arms = [arm for arm in look if any(arm in marks for _, marks in rows)]
    entries = [(arm, look[arm]) for arm in arms] + ([(strokes[0], Style(QUIET, "|", "none"))] if strokes else [])
    figure, axes = row_axes([name for name, _ in rows], tall=max(0.3, 0.115 * len(arms)))
    _make_room(figure, axes, entries)
    if guide is not None:
        axes.axvline(guide, color=INK, linewidth=0.8, zorder=0)
    for row, (name, marks) in enumerate(rows):
        if strokes and name in strokes[1]:
            axes.vlines(strokes[1][name], row - 0.42, row + 0.42, color=QUIET, linewidth=2)
        for arm, offset in zip(arms, offsets(len(arms), reach=0.36), strict=True):
            if arm in marks:
                _draw_mark(axes, marks[arm], row + offset, look[arm])
    axes.set_xlabel(axis)
    return inline_svg(figure, key, label)


def standalone(svg: str) -> str:
    r"""A figure of the page as a file of its own: black on white, with name space, size and font.

    >>> standalone('<svg viewBox="0 0 72 36" role="img">')[:62]
    '<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.'
    """
    width, height = svg.split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()
    size = f'xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt" '
    style = (
        "<style>svg{color:#1d1f22;--quiet:#5d6268;--line:#dfe0dc;--paper:#fff;background:#fff;"
        "font-family:Helvetica,Arial,'Liberation Sans',sans-serif}"
        ".differences text{fill:currentColor;font-size:12px}.differences .quiet{fill:#5d6268}"
        ".tip{display:none}svg{--mark:#fbf1d6}</style>"
    )
    opening = svg.index(">") + 1
    body = f"<svg {size}{svg[len('<svg ') : opening]}{style}{svg[opening:]}"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _panel(
    entries: Sequence[tuple[str, Style]], axes_names: tuple[str, str], *, height: float = 2.5
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.145, 0.47 / height, 0.835, 1 - 0.55 / height))
    _make_room(figure, axes, entries)
    open_frame(axes)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.set_xlabel(axes_names[0])
    axes.set_ylabel(axes_names[1])
    axes.yaxis.label.set(color=QUIET, size=9.5)
    return figure, axes


def _make_room(figure: Figure, axes: Axes, entries: Sequence[tuple[str, Style]]) -> None:
    """Put a legend under the axes and make the figure taller by it."""
    columns = 3 if all(len(name) < 12 for name, _ in entries) else 2 if all(len(n) < 27 for n, _ in entries) else 1
    extra = _LEGEND_ROW * -(-len(entries) // columns) + 0.06
    width, height = figure.get_size_inches()
    place = axes.get_position()
    figure.set_size_inches(width, height + extra)
    share = height / (height + extra)
    axes.set_position((place.x0, 1 - (1 - place.y0) * share, place.width, place.height * share))
    handles = [
        Line2D([], [], color=style.colour, linestyle=style.dash, marker=style.marker, markersize=5, linewidth=1.3)
        for _, style in entries
    ]
    figure.legend(
        handles, [name for name, _ in entries], loc="lower left", ncols=columns, frameon=False, fontsize=8.5,
        labelcolor=INK, handlelength=2.8, borderaxespad=0.1, columnspacing=1.2, labelspacing=0.3,
    )  # fmt: skip


def _draw_line(axes: Axes, line: Series, *, shift: float) -> None:
    style, across = line.style, np.asarray(line.x, dtype=float) + shift
    marker = style.marker if line.marked else None
    axes.plot(across, line.y, color=style.colour, linestyle=style.dash, marker=marker, markersize=4.5, linewidth=1.4)
    if line.low is not None and line.high is not None:
        axes.vlines(across, line.low, line.high, color=style.colour, linewidth=1.1)
    if line.scatter:
        x, y = np.array(line.scatter, dtype=float).T
        axes.plot(x + shift, y, color=style.colour, marker=style.marker, markersize=2.4, linestyle="none", alpha=0.55)


def _draw_mark(axes: Axes, mark: Mark, y: float, style: Style) -> None:
    if np.isfinite(mark.low) and np.isfinite(mark.high):
        axes.hlines(y, mark.low, mark.high, color=style.colour, linewidth=1.3)
    if mark.scatter:
        axes.plot(mark.scatter, [y] * len(mark.scatter), color=style.colour, marker="|", markersize=6, linestyle="none")
    axes.plot([mark.value], [y], color=style.colour, marker=style.marker, markersize=5.5, linestyle="none",
              markerfacecolor=PAPER if mark.hollow else style.colour)  # fmt: skip
