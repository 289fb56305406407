"""The figures of verifiable.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import rules
from .judge import Numbers
from .stored import Told

COLOURS = {
    "plain": "#555555", "kl_penalty:0.3": "#D55E00", "tv:0.3": "#0072B2", "burg:0.3": "#E69F00", "maxrl": "#009E73",
    "grpo_std": "#CC79A7", "rs_grpo:2": "#56B4E9", "difficulty_filter": "#000000",
}  # fmt: skip
SOURCES = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00")  # easiest to hardest
LEAST = 1e-4


def draw_prompts(
    before: np.ndarray, after: Mapping[str, np.ndarray], sources: np.ndarray, path: Path, *, title: str
) -> None:
    """The pass rate of every prompt before and after training, a panel for every arm.

    Args:
        before: ``(prompts,)``.
        after: By arm, the same shape.
        sources: From 0, the easiest, the same shape.
        path: Where.
        title: Over all.
    """
    figure, axes = _panels(2, (len(after) + 1) // 2, size=(3.6, 3.5))
    fifth = np.sort(before)[len(before) // 5]
    jitter = 0.012 * np.random.default_rng(0).uniform(-1, 1, len(before))  # so that many at 0 or 1 can be seen
    order = np.argsort(before)
    for axis, (name, rates) in zip(axes, after.items(), strict=False):
        axis.axvspan(LEAST, fifth, color="0.93", zorder=0)
        for source, colour in enumerate(SOURCES):
            here = sources == source
            axis.plot(
                np.clip(before[here], LEAST, 1), (rates + jitter)[here], ".", ms=3, alpha=0.55, color=colour, mew=0
            )
        for line, how in ((after["plain"], {"color": "0.5", "ls": "--"}), (rates, {"color": "black"})):
            axis.plot(_smooth(before[order]), _smooth(line[order]), lw=1.6, **how)
        worst = rates[before <= fifth]
        axis.set(xscale="log", xlim=(LEAST, 1.1), ylim=(-0.03, 1.03))
        axis.set_title(f"{name}\nmean {100 * rates.mean():.0f} %, worst fifth {100 * worst.mean():.0f} %", fontsize=10)
    for place, colour in enumerate(SOURCES):
        axes[0].plot([], [], "o", ms=5, color=colour, label=f"source {place + 1}")
    axes[1].plot([], [], color="black", label="mean")
    axes[1].plot([], [], color="0.5", ls="--", label="mean of plain")
    for axis in axes[:2]:
        axis.legend(loc="center left", fontsize=7, frameon=False)
    figure.supxlabel("pass rate before training")
    figure.supylabel("pass rate after")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)


def _smooth(values: np.ndarray, width: int = 80) -> np.ndarray:
    """Means of neighbours."""
    return np.convolve(values, np.ones(width) / width, mode="valid")


def draw_speed(
    rows: Mapping[str, Mapping[str, tuple[Numbers, float]]],
    measures: Sequence[str],
    path: Path,
    *,
    shown: Sequence[str],
) -> None:
    """Measures along the way, means over problems with 95 % bands.

    Args:
        rows: Title -> arm -> its numbers and size.
        measures: A column each.
        path: Where.
        shown: Arms, in their order.
    """
    figure, axes = _panels(len(rows), len(measures), size=(4.0, 3.2))
    for row, (title, arms) in enumerate(rows.items()):
        for column, measure in enumerate(measures):
            axis = axes[row * len(measures) + column]
            for name in shown:
                numbers, size = arms[name]
                values = 100 * numbers.curve(name, size, measure)
                steps = rules.EVERY * np.arange(len(values))
                middle, half = values.mean(axis=1), 1.98 * values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
                axis.plot(steps, middle, color=COLOURS[name], label=f"{name} ({size:g})", lw=1.3)
                axis.fill_between(steps, middle - half, middle + half, color=COLOURS[name], alpha=0.2, lw=0)
            axis.axvline(rules.STEPS, color="0.6", ls=":", lw=1)
            axis.set_title(f"{measure}, {title}", fontsize=10)
            axis.set_xlabel("steps", fontsize=9)
        axes[row * len(measures)].set_ylabel("per cent")
        axes[row * len(measures)].legend(fontsize=7, loc="lower right", frameon=False)
    figure.savefig(path, dpi=120)


def draw_arms(told: Told, path: Path, *, measures: tuple[str, str], names: Mapping[str, str]) -> None:
    """Gains of all arms over plain training, one measure against another, with 95 % intervals, common and tuned."""
    figure, axes = _panels(1, 2, size=(6.2, 5.2))
    for axis, column in zip(axes, ("common", "tuned"), strict=True):
        for name, kind in names.items():
            x, y = (told.gain(name, one, column=column) for one in measures)
            colour = dict(zip(sorted(set(names.values())), _colours(names), strict=False))[kind]
            axis.errorbar(
                100 * x.mean, 100 * y.mean, xerr=[[100 * (x.mean - x.low)], [100 * (x.high - x.mean)]],
                yerr=[[100 * (y.mean - y.low)], [100 * (y.high - y.mean)]], fmt="o", ms=4, lw=0.8, color=colour,
            )  # fmt: skip
            if abs(x.mean) > 0.003 or abs(y.mean) > 0.02:
                place = (100 * x.mean, 100 * y.mean)
                axis.annotate(name, place, xytext=(4, 3), textcoords="offset points", fontsize=6.5)
        for kind, colour in zip(sorted(set(names.values())), _colours(names), strict=False):
            axis.plot([], [], "o", ms=4, color=colour, label=kind)
        axis.legend(fontsize=7, loc="lower right")
        axis.axhline(0, color="0.7", lw=0.8)
        axis.axvline(0, color="0.7", lw=0.8)
        seen = f"step size {rules.COMMON:g} for all" if column == "common" else "step size tuned for each"
        axis.set(title=seen, xlabel=f"{measures[0]}, points over plain", ylabel=f"{measures[1]}, points over plain")
    figure.savefig(path, dpi=120)


def _colours(names: Mapping[str, str]) -> Sequence[str]:
    return ("#0072B2", "#D55E00", "#009E73", "#999999")[: len(set(names.values()))]


def _panels(rows: int, columns: int, *, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(rows * columns)]
