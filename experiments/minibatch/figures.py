"""The figures of minibatch.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .densities import density

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00")  # of Okabe and Ito
LINES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D")


def draw_densities(panels: Mapping[str, Mapping[int, np.ndarray]], path: Path) -> None:
    """phi_n over the quantiles of the losses, a panel for every set, a line for every batch size."""
    figure, axes = _panels(len(panels))
    u = np.concatenate([np.linspace(0, 0.98, 600, endpoint=False), np.linspace(0.98, 1, 600)])
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for place, (n, weights) in enumerate(curves.items()):
            axis.plot(u, density(weights, u), color=COLOURS[place], ls=LINES[place], lw=1.8, label=f"n = {n}")
        axis.axhline(1.0, color="0.5", lw=1)
        axis.set(title=title, xlabel="quantile u of the losses", yscale="log", ylim=(0.08, 200), xlim=(0, 1.01))
        axis.legend(loc="upper left", fontsize=9, frameon=False)
    axes[0].set_ylabel("weight phi_n(u); plain training: 1")
    figure.savefig(path, dpi=120)


def draw_descent(found: Mapping[str, Any], path: Path) -> None:
    """Gaps over the steps, judged by the risk of batches of eight and by the worst case of the population."""
    figure, axes = _panels(2)
    judges = {"eight": "Judged by the risk of batches of 8", "all": "Judged by tv:0.2 of the population"}
    for axis, (judge, title) in zip(axes, judges.items(), strict=True):
        for place, arm in enumerate(found["arms"]):
            middle, low, high = np.array(arm[judge]).T
            ends = [middle - low, high - middle]
            axis.errorbar(
                found["steps"], middle, yerr=ends, color=COLOURS[place], ls=LINES[place], marker=MARKERS[place], ms=5,
                label=arm["name"],
            )  # fmt: skip
            if arm[f"{judge} end"] > 1e-5:
                axis.axhline(arm[f"{judge} end"], color=COLOURS[place], lw=0.8, ls=":")
        axis.plot(found["steps"], found["bound"], color="black", lw=1, ls="--", label="bound G R / sqrt T")
        axis.set(title=title, xlabel="steps T", xscale="log", yscale="log", ylim=(3e-5, 1.2))
    axes[0].set_ylabel("gap to the exact minimum (nats)")
    axes[1].legend(loc="lower left", fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * count, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, count, k + 1) for k in range(count)]
