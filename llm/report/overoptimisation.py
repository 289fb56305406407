"""Over-optimisation curves as a figure: proxy reward above, gold reward below, against KL on a square-root axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETUPBASE  # pyright: ignore[reportAttributeAccessIssue]
from matplotlib.ticker import MaxNLocator

from ..run.escaping import one_line
from ..run.files import JsonObject
from ..statistics.overoptimisation import Curve, Fit, Law, fit
from .drawing import Drawing
from .plots import INLINE, PRINTED, WIDTH, Page, Style, inline_svg, open_frame, styles

_PANEL, _TITLE, _FOOT, _ROW = 1.8, 0.34, 0.5, 0.175  # heights in inches
_TICKS = 5
_MOST_MARKS = 12  # a long run is a line with so many marks on it


def write_overoptimisation(curves: Sequence[Curve], path: Path) -> None:
    """Write the figure for print, as ``.png`` or ``.svg``."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem, "text.parse_math": False}):
        # The same bytes every time; only an SVG has a date to leave out.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        _figure(curves).savefig(path, dpi=140, facecolor=PRINTED.paper, metadata=metadata)


def curve_figures(report: JsonObject) -> list[Drawing]:
    """The same on the page, of policies over their training; none where there are no curves."""
    stored = report["policies"]["curves"] if report.get("policies") else []
    curves = [Curve(c["name"], Law.TRAINING, *(np.array(c[name], dtype=float) for name in ("kl", "proxy", "gold")))
              for c in stored]  # fmt: skip
    curves = [curve for curve in curves if all(np.isfinite(part).all() for part in (curve.kl, curve.proxy, curve.gold))]
    if not curves:
        return []
    rows = [
        {"arm": curve.name, "kl": kl, "proxy": proxy.mean, "gold": gold.mean}
        for curve in curves
        for (kl, proxy), (_, gold) in zip(curve.means(curve.proxy), curve.means(curve.gold), strict=True)
    ]
    ends = "; ".join(f"{curve.name} ends at {curve.gold[:, -1].mean():.3g} gold" for curve in curves)
    title, note = (
        "Reward while training",
        "Means over seeds, counted from the starting policy; thin lines: fitted laws.",
    )
    svg = inline_svg(_figure(curves, INLINE), "policies", f"{title}, proxy above and gold below, against KL: {ends}")
    return [Drawing("policies", title, note, svg, rows)]


def _figure(curves: Sequence[Curve], page: Page = PRINTED) -> Figure:
    """Marks: means over prompts or runs with 95 % intervals; thin lines: fitted laws; carets: the KL of their peaks."""
    if not curves:
        raise ValueError("there is no curve to draw")
    names = [curve.name for curve in curves]
    if len(set(names)) < len(names):
        raise ValueError(f"curves need different names, got {', '.join(names)}")
    look, height = styles(names, names[0]), _FOOT + 2 * (_PANEL + _TITLE) + _ROW * len(names) + 0.1
    figure = Figure(figsize=(WIDTH, height))
    bottoms = (_FOOT + _PANEL + _TITLE, _FOOT)
    panels = [figure.add_axes((0.13, bottom / height, 0.84, _PANEL / height)) for bottom in bottoms]
    for curve in curves:
        _draw(panels[0], curve, curve.proxy, look[curve.name], None)
        _draw(panels[1], curve, curve.gold, look[curve.name], fit(curve))
    largest = max(float(curve.kl.mean(axis=0).max()) for curve in curves)
    largest = largest if largest > 0 else 1.0  # nothing has left the start yet
    for axes, title in zip(panels, ("proxy reward: what is optimised", "gold reward: what judges"), strict=True):
        _furnish(axes, title, largest, page)
    panels[0].tick_params(axis="x", labelbottom=False)
    panels[1].set_xlabel("KL to the starting policy, nats (square-root axis)")
    handles = panels[0].get_legend_handles_labels()[0]
    figure.legend(
        handles, [*map(one_line, names)], loc="upper left", bbox_to_anchor=(0.11, 1.0), frameon=False, fontsize=9.5,
        labelcolor=page.ink, handlelength=3.4, labelspacing=0.3,
    )  # fmt: skip
    return figure


def _draw(axes: Axes, curve: Curve, gains: np.ndarray, style: Style, law: Fit | None) -> None:
    points = [(np.sqrt(max(kl, 0.0)), interval) for kl, interval in curve.means(gains)]
    d = np.array([place for place, _ in points])
    means, low, high = np.array([interval for _, interval in points]).T
    marked = np.unique(np.linspace(0, len(d) - 1, min(len(d), _MOST_MARKS)).round().astype(int))
    axes.plot(
        d, means, color=style.colour, linestyle=style.dash, marker=style.marker, markevery=marked, markersize=4.5,
        linewidth=1.3, label=curve.name,
    )  # fmt: skip
    known = marked[np.isfinite(low[marked])]
    axes.vlines(d[known], low[known], high[known], color=style.colour, linewidth=1.0)
    if law is None or law.alpha is None:
        return
    fine = np.linspace(d.max() / 200, d.max(), 200)
    axes.plot(fine, law.gain(fine**2), color=style.colour, linewidth=0.7, alpha=0.7)
    if law.peak is not None and law.peak.measured:
        place = axes.get_xaxis_transform()  # at the foot of the panel
        axes.plot([np.sqrt(law.peak.kl)], [0.0], color=style.colour, marker=CARETUPBASE, transform=place, clip_on=False)


def _furnish(axes: Axes, title: str, largest: float, page: Page) -> None:
    open_frame(axes, page)
    axes.set_xticks(*_kl_ticks(largest))
    axes.set_xlim(-0.03 * np.sqrt(largest), 1.06 * np.sqrt(largest))
    axes.grid(axis="x", color=page.line, linewidth=0.5)
    axes.axhline(0, color=page.quiet, linewidth=0.8, zorder=0)
    axes.grid(axis="y", color=page.line, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.set_title(title, loc="left", fontsize=9.5, color=page.ink)


def _kl_ticks(largest: float) -> tuple[list[float], list[str]]:
    """Places sqrt(KL) and labels KL: about evenly spaced, each rounded to one digit.

    >>> _kl_ticks(10.7)[1]
    ['0', '0.4', '2', '4', '7', '10']
    """
    wanted = [largest * (place / _TICKS) ** 2 for place in range(_TICKS + 1)]
    ticks = sorted({float(f"{kl:.0e}") for kl in wanted})
    return [float(np.sqrt(tick)) for tick in ticks], [f"{tick:g}" for tick in ticks]
