"""The report on a terminal: accuracy of every arm by suite, with its difference to plain training."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from ..run.files import JsonObject
from ..run.terminal import shown
from ..statistics.numbers import bracket, p_text, percent
from .export import cell_of, columns_of
from .story.names import brief, name_of

MOST_GROUPS = 10  # of a suite that are shown on a terminal


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


def render_story(report: JsonObject) -> Group:
    """What the page says first: the sentence, the differences of the arms in its figure, and what to do next."""
    story = report["story"]
    lines = [shown(f"next: {line}") for line in story["next"]]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("arm", overflow="fold", min_width=14)
    table.add_column("where", overflow="fold")
    for heading in ("points", "interval", "Holm p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number in story["arms"]:
        arm = report["arms"][number]
        for column, heading in columns_of(report):
            entry = None if column == "average" and len(report["outside"]) < 2 else cell_of(arm, column)
            if entry and (found := entry["difference"]):
                table.add_row(shown(name_of(arm)), shown(brief(heading)), *_difference(found))
        for place, found in _of_groups(report, number):
            table.add_row("", shown(f"  {brief(place)}"), *_difference(found))
    return Group(shown(story["sentence"], "bold"), *([table] if table.row_count else []), *lines)


def _difference(found: JsonObject) -> list[str]:
    limits = bracket(found["low"], found["high"], sign="+")
    return [percent(found["difference"], sign="+"), limits, p_text(found["p_holm"])]


def _of_groups(report: JsonObject, number: int) -> Iterator[tuple[str, JsonObject]]:
    """The differences of an arm in the groups of suites, where there are few enough to read them on a terminal."""
    for detail in report["details"]:
        places = [place for place, arm in enumerate(detail["arms"]) if arm["arm"] == number]
        for suite, groups in detail["categories"]["suites"].items():
            for name, record in groups.items() if len(groups) <= MOST_GROUPS else ():
                for place in places:
                    if (entry := record["arms"][place]) and entry["difference"]:
                        yield f"{suite} / {name}", entry["difference"]
