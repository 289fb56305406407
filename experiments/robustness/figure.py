"""The figure of study-1.md: difference to plain training against the radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from llm.report.collect import Collection
from llm.report.judge import Judge
from llm.report.radii import sized

from .arms import among, chosen

KINDS = ("tv", "tv,max_ratio=4", "tv,by=source", "tv,by=category")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by the colour-blind
COLUMNS = ("in distribution", "average of the suites", "worst category")


def draw_radii(collections: Mapping[str, tuple[Collection, Mapping[str, Any]]], path: Path) -> None:
    """One row of panels per results and the settings to show of them; bands are 95 % intervals over test pairs."""
    figure, grid = plt.subplots(
        len(collections), len(COLUMNS), figsize=(10, 3 * len(collections)), sharex=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for panels, (title, (collection, settings)) in zip(grid, collections.items(), strict=True):
        records = Judge(chosen(collection, lambda arm, settings=settings: _is_curve(arm, settings))).records()
        for panel, column in zip(panels, COLUMNS, strict=True):
            panel.axhline(0, color="0.6", linewidth=0.8)
            panel.set_title(f"{title}: {column}", fontsize=10)
            for colour, kind in zip(COLOURS, KINDS, strict=False):
                _curve(panel, records, kind, column, colour)
        panels[0].set_ylabel("accuracy less plain, points")
        panels[0].legend(fontsize=8, frameon=False)
    for panel in grid[-1]:
        panel.set_xlabel("radius")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _is_curve(arm: Any, settings: Mapping[str, Any]) -> bool:
    parts = sized(arm.ambiguity)
    named = arm.ambiguity == "erm" or (parts is not None and parts.kind in KINDS)
    return named and among(arm.ambiguity, **settings)(arm)


def _curve(panel: Any, records: Sequence[Mapping[str, Any]], kind: str, column: str, colour: str) -> None:
    points = []
    for record in records:
        parts = sized(record["ambiguity"])
        entry = dict(zip(COLUMNS, (record["suites"]["id_test"], record["average"], record["worst"]), strict=True))[
            column
        ]
        if parts is not None and parts.kind == kind and entry["difference"]:
            points.append((parts.size, *(100 * entry["difference"][name] for name in ("difference", "low", "high"))))
    if len(points) < 2:
        return
    radii, means, lows, highs = zip(*sorted(points), strict=True)
    panel.plot(radii, means, marker="o", markersize=3, color=colour, label=kind)
    panel.fill_between(radii, lows, highs, color=colour, alpha=0.15, linewidth=0)
