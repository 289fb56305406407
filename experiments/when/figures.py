"""The figures of when.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
LINES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
Curve = Sequence[tuple[float, float]]


def draw_theorems(panels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Closed forms as lines, what solvers find as points, a panel for each statement.

    Args:
        panels: ``title``, ``x`` and ``y`` (labels), ``lines`` and ``points`` (name -> curve), and settings of the axes.
        path: Where.
    """
    figure, axes = _panels(2, 3, size=(4.1, 3.5))
    for axis, panel in zip(axes, panels, strict=True):
        names = list(dict.fromkeys([*panel["lines"], *panel["points"]]))
        for name in names:
            colour, line = COLOURS[names.index(name) % 5], LINES[names.index(name) % 5]
            if name in panel["lines"]:
                axis.plot(*zip(*panel["lines"][name], strict=True), color=colour, ls=line, lw=1.6, label=name)
            if name in panel["points"]:
                told = None if name in panel["lines"] else name
                axis.plot(*zip(*panel["points"][name], strict=True), "o", ms=4, color=colour, label=told)
        axis.set_title(panel["title"], fontsize=10)
        axis.set(xlabel=panel["x"], ylabel=panel["y"], **panel.get("axes", {}))
        axis.legend(fontsize=7.5, frameon=False)
    figure.savefig(path, dpi=120)


def draw_phases(
    panels: Mapping[str, np.ndarray], flips: np.ndarray, turns: np.ndarray, frontier: Sequence[float], path: Path
) -> None:
    """Gains of the worse group over flips and angle, one panel for every set; the frontier is on the first.

    Args:
        panels: Title -> ``(turns, flips)``, in points.
        flips: Shares of flipped labels.
        turns: Angles in degrees.
        frontier: The share of flips beyond which the first set learns nothing, for each angle.
        path: Where.
    """
    figure, axes = _panels(1, len(panels), size=(4.1, 3.9))
    top = max(float(np.abs(gains).max()) for gains in panels.values())
    for place, (axis, (title, gains)) in enumerate(zip(axes, panels.items(), strict=True)):
        shown = axis.pcolormesh(flips, turns, gains, cmap="PuOr", vmin=-top, vmax=top, shading="nearest")
        for y in turns[::2]:
            for x in flips[::2]:
                value = gains[list(turns).index(y), list(flips).index(x)]
                axis.text(x, y, f"{value:z.0f}", ha="center", va="center", fontsize=7.5,
                          color="white" if abs(value) > 0.7 * top else "black")  # fmt: skip
        if place == 0:
            axis.plot(
                frontier,
                turns,
                color="black",
                lw=2,
                ls="--",
                label="beyond it nothing is learned: (1 - 2 flips) r = radius",
            )
            axis.legend(loc="upper left", bbox_to_anchor=(0, -0.18), fontsize=8, frameon=False)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="share of flipped labels", ylabel="angle between the groups (degrees)" if place == 0 else "")
        half = (flips[1] - flips[0]) / 2
        axis.set(xlim=(flips[0] - half, flips[-1] + half), ylim=(turns[0] - 7, turns[-1] + 7), yticks=turns[::2])
    figure.colorbar(shown, ax=axes, label="gain of the worse group over plain, points", shrink=0.9)
    figure.savefig(path, dpi=120)


def _panels(rows: int, columns: int, *, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(rows * columns)]
