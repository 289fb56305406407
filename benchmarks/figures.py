"""The plots of the page: time against n for every set, and error against time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from targets import error_of

Record = dict[str, Any]

_COLOURS = {
    "ours": "#0b5fa5",
    "cvxpy CLARABEL": "#c23b22",
    "cvxpy HIGHS": "#e39b3b",
    "cvxpylayers": "#7a4fa3",
    "dro": "#3f8f4f",
    "entmax": "#b0487e",
    "torch": "#6b6b6b",
    "scipy": "#9a7b4f",
    "deshift": "#1f9e9e",
    "sqwash": "#5b8c2a",
}
_DASHES = {
    "floor: one pass": ":",
    "floor: np.partition": "-.",
    "floor: np.sort": "--",
    "floor: torch.sort": (0, (1, 1)),
}
_MARKERS = {"numpy": "o", "torch": "s"}


def _colour(who: str) -> str:
    return next(colour for name, colour in _COLOURS.items() if who.startswith(name))


def _label(record: Record) -> str:
    return f"ours, {record['library']}" if record["kind"] == "ours" else record["who"]


def _family(record: Record) -> str:
    """Return the legend entry: all models of ``dro`` share one, and so do all functions of entmax."""
    return record["who"].split()[0] if record["who"].startswith(("dro", "entmax")) else _label(record)


def _lines(cells: list[Record]) -> dict[str, list[Record]]:
    """Group the float64 forward records of single problems by contestant."""
    lines: dict[str, list[Record]] = {}
    for one in cells:
        plain = (one["batch"], one["mode"], one["dtype"], one["device"]) == (1, "forward", "float64", "cpu")
        if plain and "seconds" in one:
            lines.setdefault(_label(one), []).append(one)
    return lines


def _draw(axes: Any, records: list[Record]) -> None:
    n, seconds = [one["n"] for one in records], [one["seconds"] for one in records]
    first = records[0]
    if first["kind"] == "floor":
        axes.plot(n, seconds, color="#888888", linestyle=_DASHES[first["who"]], linewidth=1, label=first["who"])
        return
    colour, own = _colour(first["who"]), first["kind"] == "ours"
    line = "-" if first["library"] == "numpy" else "--"
    width, label = (2.2, _family(first)) if own else (1.1, _family(first))
    axes.plot(n, seconds, color=colour, linestyle=line, linewidth=width, label=label, zorder=3 if own else 2)
    # A hollow marker is an answer that errs by more than a thousandth.
    for one in records:
        face = colour if error_of(one) <= 1e-3 else "white"
        marker = _MARKERS[one["library"]]
        axes.plot(one["n"], one["seconds"], marker, color=colour, markerfacecolor=face, markersize=4.5, zorder=4)


def times(found: dict[str, Any], titles: dict[str, str], target: Path) -> None:
    """Plot the seconds of one forward call against n, one panel per set."""
    names = [name for name in titles if any(one["set"] == name for one in found["cells"])]
    rows = -(-len(names) // 3)
    figure, panels = plt.subplots(rows, 3, figsize=(12, 3.1 * rows + 0.8), sharex=True, sharey=True, squeeze=False)
    for name, axes in zip(names, panels.flat, strict=False):
        for records in _lines([one for one in found["cells"] if one["set"] == name]).values():
            _draw(axes, records)
        axes.set(xscale="log", yscale="log", title=titles[name])
        axes.set_xscale("log", base=2)
        axes.grid(visible=True, which="major", color="#e5e5e5", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(panels.flat)[len(names) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("seconds a call")
    for axes in panels[-1]:
        axes.set_xlabel("scenarios n")
    _legend(figure, panels)
    figure.savefig(target, dpi=90, pil_kwargs={"optimize": True})
    plt.close(figure)


def _legend(figure: Any, panels: Any) -> None:
    entries: dict[str, Any] = {}
    for axes in panels.flat:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in entries}
    order = sorted(entries, key=lambda label: (not label.startswith("ours"), label.startswith("floor"), label))
    figure.legend([entries[label] for label in order], order, loc="lower center", ncols=6, frameon=False, fontsize=9)
    height = figure.get_size_inches()[1]
    figure.tight_layout(rect=(0, 0.75 / height, 1, 1))


def accuracy(found: dict[str, Any], n: int, target: Path) -> None:
    """Plot error against time at one n, all sets together."""
    figure, axes = plt.subplots(figsize=(7.5, 5))
    seen: set[str] = set()
    records = [one for name in _lines(found["cells"]).values() for one in name if one["n"] == n]
    for one in sorted(records, key=lambda one: one["kind"] == "ours"):
        if one["kind"] == "floor":
            continue
        family = _family(one)
        label = family if family not in seen else None
        seen.add(family)
        error = min(max(error_of(one), 1e-17), 1.0)
        style = {"color": _colour(one["who"]), "marker": _MARKERS[one["library"]], "label": label}
        axes.scatter(one["seconds"], error, s=36, alpha=0.85, edgecolors="white", linewidths=0.5, **style)
    axes.set(xscale="log", yscale="log", xlabel="seconds a call", ylabel="relative error of value or weights")
    axes.set_title(f"Error against time, n = {n:,}, float64, forward, every set")
    axes.grid(visible=True, color="#e5e5e5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.tight_layout()
    figure.savefig(target, dpi=90, pil_kwargs={"optimize": True})
    plt.close(figure)
