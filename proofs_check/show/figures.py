"""Figures of the page of verdicts, as inline SVG: both sides of a claim against each other, or along a curve."""
# pyright: reportUnknownMemberType=false
# matplotlib's own annotations leave its keyword arguments open.

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from proofs_check.claim import Array, Claim, Relation, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from proofs_check.report import Report

# Okabe and Ito: told apart by colour-blind eyes, and each comes with a marker of its own.
_LEFT, _RIGHT, _WITNESS = "#0072B2", "#D55E00", "#000000"
_LINE = "#8a8a8a"
_WIDTH, _HEIGHT = 4.6, 3.0  # inches
_MARKERS = 12  # along a curve
_WIDE = 30.0  # times the smallest value: beyond that an axis is logarithmic


def figure(report: Report, claim: Claim[Any]) -> str:
    """Return the figure of a claim as inline SVG: its curve, else a scatter of both sides; "" if there is nothing.

    Raises:
        ModuleNotFoundError: if matplotlib is missing.
    """
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.locator_params(nbins=6)
    if report.curve and claim.curve:
        alt = _draw_curve(axes, report, claim, claim.curve.axis)
    elif len(points := _finite(report.points)):
        alt = _draw_points(axes, report, claim, points)
    else:
        return ""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    return _svg(drawing, key=re.sub(r"\W", "-", report.label), alt=f"{report.label}: {alt}")


def _draw_curve(axes: Axes, report: Report, claim: Claim[Any], name: str) -> str:
    """Left side against right side; a violation is marked."""
    x, left, right = np.array(report.curve, float).T
    every = max(1, len(x) // _MARKERS)
    (under,) = axes.plot(x, left, color=_LEFT, marker="o", markersize=4, markevery=every, label="left side")
    under.set(linewidth=3.2, alpha=0.7)  # where the sides are equal, both show
    axes.plot(x, right, color=_RIGHT, marker="s", markersize=4, markevery=every, linestyle="--", label="right side")
    beyond = np.abs(left - right) if claim.relation is Relation.EQUAL else left - right
    furthest = int(np.argmax(beyond))
    if report.verdict is Verdict.REFUTED and beyond[furthest] > 0:
        _ring(axes, x[furthest], left[furthest], "largest violation here")
    axes.set_xlabel(name)
    if _is_geometric(x):
        _logarithmic(axes.xaxis, "x", axes)
        if _spans_decades(np.concatenate([left, right])):
            _logarithmic(axes.yaxis, "y", axes)
    spread = f"{name} from {x[0]:g} to {x[-1]:g}"
    return f"left side {left[0]:.3g} to {left[-1]:.3g}, right side {right[0]:.3g} to {right[-1]:.3g}, {spread}"


def _draw_points(axes: Axes, report: Report, claim: Claim[Any], points: Array) -> str:
    """The instances seen, with the diagonal and the worst of them."""
    left, right = points.T
    ends = np.array([points.min(), points.max()])
    axes.plot(ends, ends, color=_LINE, linewidth=1, label="left = right")
    axes.scatter(left, right, s=12, color=_LEFT, alpha=0.6, linewidths=0, label="instances")
    if (worst := _worst_in_scales(report, claim)) is not None:
        _ring(axes, *worst, "worst")
    axes.set_xlabel("left side / scale")
    axes.set_ylabel("right side / scale")
    if _spans_decades(left) and _spans_decades(right):
        _logarithmic(axes.xaxis, "x", axes)
        _logarithmic(axes.yaxis, "y", axes)
    return f"{len(points)} instances, left side against right side"


def _ring(axes: Axes, x: Array | float, y: Array | float, name: str) -> None:
    axes.scatter(x, y, s=80, marker="D", facecolors="none", edgecolors=_WITNESS, zorder=3, label=name)


def _finite(points: Sequence[tuple[float, float]]) -> Array:
    pairs = np.array(points, float).reshape(-1, 2)
    return pairs[np.isfinite(pairs).all(axis=1)]


def _worst_in_scales(report: Report, claim: Claim[Any]) -> tuple[float, float] | None:
    if report.worst is None or not np.isfinite([report.worst.lhs, report.worst.rhs]).all():
        return None
    scale = claim.scale(report.worst.instance)
    return report.worst.lhs / scale, report.worst.rhs / scale


def _is_geometric(x: Array) -> bool:
    """Whether an axis is better logarithmic: counts over decades, and reals that lie closer together below."""
    counts = bool((x == np.round(x)).all())
    return _spans_decades(x) and (counts or bool(np.median(x) < (x.min() + x.max()) / 4))


def _logarithmic(axis: Axis, name: str, axes: Axes) -> None:
    """A logarithmic axis with labels in plain text, which SVG keeps as text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{name}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 1e3 * low else (1.0, 3.0), numticks=7))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: int | None) -> str:
    return f"{value:g}"


def _spans_decades(values: Array) -> bool:
    seen = values[np.isfinite(values)]
    return bool(seen.size and seen.min() > 0 and seen.max() > _WIDE * seen.min())


def _svg(drawing: Figure, *, key: str, alt: str) -> str:
    """The drawing with text as text, no date, no fixed size, and ids that are its own on the page."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "text.parse_math": False}):
        drawing.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    whole = text.getvalue()
    box = re.findall(r'viewBox="([^"]*)"', whole)[0]
    body = whole[whole.index(">", whole.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'(href="|url\()#', rf"\g<1>#{key}-", body).replace("xlink:href", "href")
    for printed, shown in (("#000000", "currentColor"), ("#ffffff", "transparent")):  # of the page, dark or not
        body = body.replace(printed, shown)
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(alt)}">{body.strip()}'
