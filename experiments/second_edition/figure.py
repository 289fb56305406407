"""The figure of study.md: every comparison with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .rules import BEYOND, GAIN, INSIDE, MARGIN, RATIOS
from .stored import Row, Told

COLOURS = {"confirmed": "#0072B2", "refuted": "#D55E00", "undecided": "#777777"}
KINDS = {"tv": ("#0072B2", "o"), "cvar": ("#D55E00", "s")}


def draw(told: Told, path: Path) -> None:
    """Left H1, the loss against the ratio of the radius to the collapse radius; right all other comparisons."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 9), width_ratios=(1.1, 1), layout="constrained")
    _collapse(left, told)
    _forest(right, told)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _collapse(axis: Any, told: Told) -> None:
    axis.axhspan(-100 * MARGIN, 100 * MARGIN, color="0.92", zorder=0)
    axis.axvspan(INSIDE, BEYOND, color="0.97", zorder=0)
    shifts = np.linspace(0.94, 1.06, 8)
    for place, (kind, data, batch) in enumerate(_columns(told)):
        colour, marker = KINDS[kind]
        rows = [(ratio, row) for ratio in RATIOS for row in told.ratios(ratio) if _is(row, kind, data, batch)]
        x = np.array([ratio for ratio, _ in rows]) * shifts[place % 8]
        mean, low, high = (100 * np.array([row[name] for _, row in rows]) for name in ("mean", "low", "high"))
        label = f"{kind}, {'labels as they are' if data == 'real' else 'a fifth wrong'}, batch {batch}"
        face = colour if data == "real" else "white"
        axis.errorbar(
            x, mean, yerr=(mean - low, high - mean), fmt=marker, ms=4 + (batch > 64) * 2, color=colour, mfc=face, lw=1,
            label=label,
        )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS])
    axis.set_xlabel("radius / collapse radius (held out, at the batch size)")
    axis.set_ylabel("accuracy on the test set less plain training, points")
    axis.axhline(0, color="black", lw=0.8)
    axis.legend(fontsize=7.5, frameon=False, loc="lower left")
    axis.set_title(f"H1 {_outcome(told, 'H1')}", fontsize=11)


def _columns(told: Told) -> list[tuple[str, str, int]]:
    found = {
        (row["cell"][1].split(":")[0], row["cell"][0], row["cell"][2])
        for row in told.tests("H1")
        if row["kind"] != "ranks"
    }
    return sorted(found, key=lambda one: (one[1] != "real", one[0] != "tv", one[2]))


def _is(row: Row, kind: str, data: str, batch: int) -> bool:
    cell = row["cell"]
    return row["mean"] is not None and cell[1].startswith(f"{kind}:") and cell[0] == data and cell[2] == batch


def _forest(axis: Any, told: Told) -> None:
    names = ("H2", "H3", "H4", "H5", "H6", "H7", "H8", "negative controls")
    rows = [(name, row) for name in names for row in told.tests(name)]
    rows = [(name, row) for name, row in rows if row["kind"] != "norm" and row["mean"] is not None]
    axis.axvspan(-100 * GAIN, 100 * GAIN, color="0.92", zorder=0)
    axis.axvline(0, color="black", lw=0.8)
    before, heights, labels = "", [], []
    for place, (name, row) in enumerate(rows):
        height = -place - 1.1 * len({one for one, _ in rows[: place + 1]})
        if name != before:
            outcome = _outcome(told, name)
            axis.text(
                0.01,
                height + 0.75,
                f"{name} {outcome}",
                transform=axis.get_yaxis_transform(),
                fontsize=8,
                weight="bold",
            )
        before = name
        mean, low, high = (100 * row[one] for one in ("mean", "low", "high"))
        colour = COLOURS.get(row["outcome"], "black")
        axis.errorbar(mean, height, xerr=[[mean - low], [high - mean]], fmt="o", ms=4, color=colour, lw=1.3)
        heights.append(height)
        labels.append(_label(row))
    axis.set_yticks(heights, labels, fontsize=6.5)
    axis.set_ylim(min(heights) - 1, max(heights) + 1.6)
    axis.set_xlabel("difference in points, 95 %; grey: two points")
    for name, colour in COLOURS.items():
        axis.plot([], [], "o", color=colour, ms=4, label=f"comparison {name}")
    axis.legend(fontsize=7.5, frameon=False, loc="lower right")


def _outcome(told: Told, name: str) -> str:
    """By the rules, and by the comparisons alone where that is another one."""
    for one in told.board["hypotheses"]:
        if one["name"] == name:
            computed = "" if one["computed"] == one["outcome"] else f" (comparisons alone: {one['computed']})"
            return one["outcome"] + computed
    return ""


def _label(row: Row) -> str:
    against = "plain" if row["against"][1] == "erm" else row["against"][1]
    data = "" if row["cell"][0] == "real" else f" ({row['cell'][0]})"
    return f"{row['cell'][1]}{data} - {against}, {row['where']}".replace("permuted_groups:", "permuted ")
