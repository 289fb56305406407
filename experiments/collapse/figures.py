"""The figures of collapse.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"tv": "#0072B2", "cvar": "#D55E00", "chi2": "#009E73", "kl": "#CC79A7", "burg": "#E69F00"}
Curve = Sequence[tuple[float, float]]


def draw_norms(panels: Mapping[str, Mapping[str, Curve]], path: Path) -> None:
    """Norm of the optimum against the radius in shares of the collapse radius, a curve for every set."""
    figure, axes = _panels(len(panels))
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, curve in curves.items():
            axis.plot(*zip(*curve, strict=True), "o-", ms=4, color=COLOURS[name], label=name)
        axis.axvline(1.0, color="black", ls="--", label="collapse radius")
        axis.set(title=title, xlabel="radius / collapse radius (of CVaR, of 1 - alpha)", ylim=(-0.03, 1.05))
    axes[0].set_ylabel("norm of the robust optimum / of the plain one")
    axes[0].legend(loc="upper right", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_accuracies(exact: Mapping[str, Curve], found: Mapping[str, Curve], path: Path) -> None:
    """Radius against the accuracy of sign margins: closed forms as lines, what was computed as points."""
    figure, (axis,) = _panels(1)
    for name, curve in exact.items():
        axis.plot(*zip(*curve, strict=True), color=COLOURS[name], label=_size(name))
        axis.plot(*zip(*found[name], strict=True), "o", ms=5, color=COLOURS[name])
    axis.set(xlabel="accuracy of the best direction", ylabel="collapse radius", ylim=(0, 1.0))
    axis.set_title("Margins of one size: lines are closed forms, points the solver's")
    axis.legend(loc="upper left", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_samples(panels: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """In sample, for random labels and held out, against pairs or features; lines are medians, bars ranges.

    Args:
        panels: Title -> ``x``, ``label`` of x, ``curves`` (name -> ``(points, seeds)``), ``law`` (d / 2n), and
            ``truth`` or None.
        path: Where.
    """
    figure, axes = _panels(len(panels))
    colours = dict(zip(("in sample", "random labels", "held out"), ("#0072B2", "#999999", "#D55E00"), strict=True))
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        for name, values in panel["curves"].items():
            seeds = np.array(values)
            middle = np.median(seeds, axis=1)
            ends = np.abs([middle - seeds.min(axis=1), seeds.max(axis=1) - middle])
            axis.errorbar(panel["x"], middle, yerr=ends, fmt="o-", ms=4, color=colours[name], label=name)
        axis.plot(panel["x"], panel["law"], color="#999999", ls=":", label="features / (2 pairs)")
        if panel["truth"] is not None:
            axis.plot(panel["x"], panel["truth"], color="black", ls="--", label="population")
        axis.set(title=title, xlabel=panel["label"], xscale="log", yscale="log")
        axis.set_xticks(panel["x"], [f"{x:,}" for x in panel["x"]], minor=False)
        axis.set_xticks([], minor=True)
    axes[0].set_ylabel("collapse radius, KL")
    axes[0].legend(loc="lower left", fontsize=9)
    figure.savefig(path, dpi=120)


def _size(name: str) -> str:
    return "cvar: 1 - alpha" if name == "cvar" else name


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0 if count == 1 else 5.0 * count, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, count, k + 1) for k in range(count)]
