"""The report on a terminal: accuracy of every arm by suite, with its difference to plain training."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..run.files import JsonObject
from ..run.terminal import shown
from ..statistics.numbers import bracket, percent
from .export import cell_of, columns_of
from .story.names import name_of


def render_summary(report: JsonObject) -> Table:
    """A row for every suite, average and worst group, and below it one for every arm: as columns arms do not fit."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="Accuracy, %",
        caption=f"brackets: 95 % interval over prompts; points: against {report['baseline']}; ties count one half",
    )
    table.add_column("suite / arm", overflow="fold", min_width=20)
    for heading in ("pairs", "accuracy", "interval", "points", "ties"):
        table.add_column(heading, justify="right", no_wrap=True)
    for column, heading in columns_of(report):
        entries = [cell_of(arm, column) for arm in report["arms"]]
        if not any(entries) or (column == "average" and len(report["outside"]) < 2):
            continue
        fact = report["suites"].get(column, {"longer_wins": report["longer_average"] if column == "average" else None})
        table.add_row(shown(heading), str(fact.get("pairs") or ""), style="bold")
        for arm, entry in zip(report["arms"], entries, strict=True):
            table.add_row(shown(f"  {name_of(arm)}"), "", *_cells(entry))
        if fact["longer_wins"] is not None:
            table.add_row("  longer wins", "", percent(fact["longer_wins"]), style="italic")
        table.add_section()
    return table


def _cells(entry: JsonObject | None) -> list[str]:
    if entry is None:
        return [percent(None)]
    points = percent(entry["difference"]["difference"], sign="+") if entry["difference"] else ""
    return [percent(entry["accuracy"]), bracket(entry["low"], entry["high"]), points, str(entry.get("ties", ""))]
