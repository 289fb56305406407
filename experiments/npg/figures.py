"""The figures of npg.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from synthetic import mean_estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
LINES, MARKS = ("-", "--", "-.", ":"), ("o", "s", "^", "D")


def draw_invariance(sizes: Array, found: Mapping[str, Array], path: Path) -> None:
    """Median and range of the relative difference over how much the class misses."""
    figure, (axes,) = _panels(1, 1)
    for style, (name, apart) in zip(_styles(), found.items(), strict=False):
        axes.plot(sizes, np.median(apart, axis=1), label=name, **style)
        axes.fill_between(sizes, *np.quantile(apart, [0.05, 0.95], axis=1), color=style["color"], alpha=0.15, lw=0)
    axes.set(xscale="log", yscale="log", xlabel="size of what the class misses", ylabel="relative difference")
    axes.set_title("Natural gradient under TV(0.1) weights against uniform ones: median, 5 to 95 %")
    axes.legend(loc="upper left", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_gains(radii: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[tuple[Array, Array]]]], path: Path):
    """Gain in the worst case and loss in the mean over the radius, one panel per strength of the KL charge.

    Every radius of every set has the two paired differences, robust less plain, over problems.
    """
    figure, axes_of = _panels(1, len(panels))
    for axes, (title, sets) in zip(axes_of, panels.items(), strict=True):
        for style, (name, pairs) in zip(_styles(), sets.items(), strict=False):
            for part, filled in ((0, style["color"]), (1, "white")):
                estimates = [mean_estimate(pair[part], 0.05) for pair in pairs]
                half = [float(e.high - e.value) for e in estimates]
                label = f"{name}: {('worst case', 'mean over prompts')[part]}"
                axes.errorbar(
                    radii, [float(e.value) for e in estimates], yerr=half, capsize=2, label=label,
                    **{**style, "mfc": filled, "ls": ("-", ":")[part]},
                )  # fmt: skip
        axes.axhline(0.0, color="black", lw=0.8)
        axes.set(xlabel="radius of TV (others: same n sum q^2)", ylabel="robust - plain, last iterate", title=title)
    low, high = (f(axes.get_ylim()[k] for axes in axes_of) for k, f in ((0, min), (1, max)))
    for axes in axes_of:
        axes.set_ylim(low, high)
    axes_of[0].legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=120)


def draw_distribution(panels: Mapping[str, Mapping[str, Array]], path: Path) -> None:
    """Share of problems with a difference of at most x."""
    figure, axes_of = _panels(1, len(panels))
    for axes, (title, lines) in zip(axes_of, panels.items(), strict=True):
        for style, (name, draws) in zip(_styles(), lines.items(), strict=False):
            shares = np.arange(1, draws.size + 1) / draws.size
            axes.step(np.sort(draws), shares, where="post", label=name, color=style["color"], ls=style["ls"])
        axes.axvline(0.0, color="black", lw=0.8)
        axes.set_xscale("symlog", linthresh=1e-3)
        axes.set(xlabel="robust - plain (units of reward)", ylabel="share of problems at most this", title=title)
        axes.set_xticks([-0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1], ["-.1", "-.01", "-.001", "0", ".001", ".01", ".1"])
        axes.legend(loc="upper left", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_rates(panels: Sequence[tuple[str, Mapping[str, tuple[Array, Array]], Mapping[str, Any]]], path: Path) -> None:
    """Medians over problems with their quartiles, four panels."""
    figure, axes_of = _panels(2, 2)
    for axes, (title, lines, settings) in zip(axes_of, panels, strict=True):
        for style, (name, (x, values)) in zip(_styles(), lines.items(), strict=False):
            axes.plot(x, np.median(values, axis=1), label=name, **style)
            axes.fill_between(x, *np.quantile(values, [0.25, 0.75], axis=1), color=style["color"], alpha=0.15, lw=0)
        axes.set(xscale="log", yscale="log", title=title, **settings)
        axes.legend(loc="upper left" if "xlim" in settings else "upper right", fontsize=8)
    figure.savefig(path, dpi=120)


def draw_weights(traces: Mapping[str, tuple[Array, Array]], path: Path) -> None:
    """Weight of every prompt over the last steps of one run, one panel per set; dashed lines are values."""
    figure, axes_of = _panels(1, len(traces))
    for axes, (title, (weights, values)) in zip(axes_of, traces.items(), strict=True):
        order = np.argsort(values[-1])
        for style, prompt in zip(_styles(), order[: len(COLOURS)], strict=False):
            rank = int(np.flatnonzero(order == prompt)[0]) + 1
            shown = {"color": style["color"], "ls": style["ls"], "marker": style["marker"], "ms": 3}
            axes.plot(weights[:, prompt], label=f"value rank {rank}" + (" (lowest)" if rank == 1 else ""), **shown)
        axes.set(ylim=(0, 0.45), xlabel="step", ylabel="weight in the step", title=title)
        axes.legend(loc="upper right", fontsize=8, ncols=2)
    figure.savefig(path, dpi=120)


def _styles() -> list[dict[str, Any]]:
    return [
        {"color": colour, "ls": line, "marker": mark, "ms": 4}
        for colour, line, mark in zip(COLOURS, LINES, MARKS, strict=True)
    ]


def _panels(rows: int, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = 8.0 if columns == 1 else 5.6 * columns
    figure = Figure(figsize=(width, 4.8 if rows == 1 else 4.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(rows * columns)]
