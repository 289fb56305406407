"""Panels of curves as one PNG: colours of Okabe and Ito, a marker per curve, theory dashed, bands over seeds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from .curves import Curve

_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = "os^DvPX"
_SPAN = 2e4  # at most this factor between the ends of a logarithmic y axis


class Panel(NamedTuple):
    """One pair of axes.

    Attributes:
        title: Says what the panel compares.
        x_label: With its unit.
        y_label: With its unit.
        curves: What is drawn.
        x_scale: "log" or "linear".
        y_scale: The same.
        note: One line under the title.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    x_scale: str = "log"
    y_scale: str = "log"
    note: str = ""


def draw(panels: Sequence[Panel], path: Path, *, title: str, caption: str) -> None:
    """Write the panels to a PNG.

    Args:
        panels: At least one.
        path: Of the file.
        title: Above all panels.
        caption: Below them: what bands and dashes mean.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(len(panels), 3 if len(panels) > 4 else 2)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(6.4 * across, 5.2 * down + 0.9))
    figure.set_layout_engine("constrained", h_pad=0.14, w_pad=0.14)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    figure.supxlabel(caption, fontsize=9, color="#444444")
    for number, (panel, looks) in enumerate(zip(panels, _looks(panels), strict=True)):
        _draw_panel(figure.add_subplot(down, across, number + 1), _drawable(panel), looks)
    figure.savefig(path, dpi=140, facecolor="white")


def _drawable(panel: Panel) -> Panel:
    """A logarithmic axis needs something positive, and loses an x of 0: then it is linear."""
    if any(value <= 0 for line in panel.curves for value in line.x):
        panel = panel._replace(x_scale="linear")
    if not any(value > 0 for line in panel.curves for value in line.y):
        panel = panel._replace(y_scale="linear")
    return panel


def _looks(panels: Sequence[Panel]) -> Iterator[dict[str, tuple[str, str]]]:
    """Colour and marker of each label, panel by panel: what was drawn before looks as before, if that is free.

    A family over its radius, `tv:RADIUS`, looks like the first set of it.
    """
    known: dict[str, int] = {}
    every = range(len(_COLOURS))
    for panel in panels:
        labels, chosen = list(dict.fromkeys(line.label for line in panel.curves)), dict[str, int]()
        for label in labels:
            look = _known(label, known)
            if look is not None and look not in chosen.values():
                chosen[label] = look
        for label in (one for one in labels if one not in chosen):
            fresh = [k for k in every if k not in known.values()]
            free = (k for k in (*fresh, *every) if k not in chosen.values())
            chosen[label] = next(free, len(chosen) % len(_COLOURS))
            known.setdefault(label, chosen[label])
        yield {label: (_COLOURS[chosen[label]], _MARKERS[chosen[label]]) for label in labels}


def _known(label: str, known: Mapping[str, int]) -> int | None:
    family = re.compile(re.escape(label).replace("RADIUS", r"[0-9.e-]+"))
    return known.get(label, next((look for other, look in known.items() if family.fullmatch(other)), None))


def _draw_panel(axes: Any, panel: Panel, looks: dict[str, tuple[str, str]]) -> None:
    axes.set(xscale=panel.x_scale, yscale=panel.y_scale, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set_title(panel.title + (f"\n{panel.note}" if panel.note else ""), fontsize=10.5, loc="left")
    for line in panel.curves:
        _draw_curve(axes, line, *looks[line.label], logarithmic=panel.y_scale == "log")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _limit(axes, panel)
    _label_ticks(axes, panel)
    _legend(axes, panel, looks)


def _draw_curve(axes: Any, line: Curve, colour: str, marker: str, *, logarithmic: bool) -> None:
    if line.theory:
        # Broad and pale below what was measured: seen also where the bound is reached.
        axes.plot(line.x, line.y, color=colour, linestyle=(0, (2, 1)), linewidth=3.6, alpha=0.4, zorder=1.5)
        return
    # A long curve keeps a tenth of its markers: they tell curves apart, the line is the data.
    axes.plot(line.x, line.y, color=colour, marker=marker, markersize=4.5, markevery=max(1, len(line.x) // 10))
    if line.low is not None and line.high is not None:
        low = np.maximum(line.low, np.finfo(float).tiny) if logarithmic else line.low
        axes.fill_between(line.x, low, line.high, color=colour, alpha=0.18, linewidth=0)


def _limit(axes: Any, panel: Panel) -> None:
    """Means set the limits of a logarithmic axis: an interval that reaches 0 would stretch it without end."""
    if panel.y_scale != "log":
        return
    positive = [value for line in panel.curves for value in line.y if value > 0]
    if positive:
        top = max(positive)
        axes.set_ylim(max(min(positive), top / _SPAN) / 1.6, top * 1.6)


def _label_ticks(axes: Any, panel: Panel) -> None:
    """Axes over less than two decades get numbers at 2 and 5 too, and plain ones."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    sides = (panel.x_scale, axes.xaxis, axes.get_xlim()), (panel.y_scale, axes.yaxis, axes.get_ylim())
    for scale, axis, (low, high) in sides:
        if scale != "log" or high / low > 10**2.5 or high / low < 1.5:
            continue
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())


def _legend(axes: Any, panel: Panel, looks: dict[str, tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    slopes = {line.label: line.slope for line in panel.curves if line.slope is not None and not line.theory}
    handles = []
    for label, (colour, marker) in looks.items():
        fitted = slopes.get(label)
        text = label if fitted is None else f"{label}: slope {fitted}"
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=4.5, label=text))
    for theory in dict.fromkeys(line.theory for line in panel.curves if line.theory):
        look = {"color": "#444444", "linestyle": (0, (2, 1)), "linewidth": 3.6, "alpha": 0.4}
        handles.append(Line2D([], [], **look, label=f"dashed: {theory}"))
    fitted_on = {f"{slope.first:g} to {slope.last:g}" for slope in slopes.values()}
    columns = 1 if max(len(handle.get_label()) for handle in handles) > 34 else 2
    axes.legend(
        title=f"slopes fitted on {' or '.join(sorted(fitted_on))}" if fitted_on else None,
        title_fontsize=8.5,
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=columns,
        fontsize=8.5,
        frameon=False,
    )
