"""Metrics on the screen and on disk: tables, CSV, JSON, and how their numbers are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import isnan
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..data.pairs import Pair
from ..run.escaping import csv_text
from ..run.files import JsonObject, json_ready, write_json, write_text
from ..run.finished import sealing
from ..run.judged import JUDGED_ON, METRICS, judged_on
from ..run.terminal import shown, shown_title
from ..statistics.numbers import bracket, decimals, p_text, percent
from ..statistics.ties import RULE

MOST_ROWS = 30  # groups of a kind in a table

Row = list[Text | str]


def write_metrics(
    result: JsonObject,
    suites: Mapping[str, Sequence[Pair]],
    folder: str | Path,
    *,
    comparisons: Mapping[str, object] | None = None,
    of_run: bool = False,
) -> None:
    """Write metrics.json, metrics.csv (one row per suite and group) and margins.jsonl (one line per pair).

    Args:
        result: As from :func:`evaluate_model`.
        suites: The pairs it was made from.
        folder: Created where missing.
        comparisons: Suite name -> :func:`compare`; stored in metrics.json beside the suites.
        of_run: Whether a run judges its own model, and will know by what stands there on which pairs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"rule": RULE, "suites": result["suites"], **({"comparisons": comparisons} if comparisons else {})}
    content |= {JUDGED_ON: judged_on(suites)} if of_run else {}
    lines = (
        json.dumps({"suite": name, "id": pair.id, "margin": _or_none(margin)}, ensure_ascii=False)
        for name, pairs in suites.items()
        for pair, margin in zip(pairs, result["margins"][name], strict=True)
    )
    with sealing(folder, METRICS, "metrics.csv", "margins.jsonl"):
        write_json(folder / METRICS, json_ready(content))
        write_text(folder / "metrics.csv", csv_text(tidy_rows(result["suites"])))
        write_text(folder / "margins.jsonl", "".join(f"{line}\n" for line in lines))


def render_table(suites: Mapping[str, JsonObject], *, title: str = "Accuracy, %") -> Table:
    """The screen table of ``evaluate_model(...)["suites"]``, with the groups of :func:`groups_shown`.

    The rule "longer wins" stands beside every accuracy.
    """
    caption = (
        'brackets: 95 % interval over prompts; a tie counts one half\nlonger: the rule "longer wins"; tail: worst tenth'
    )
    left_out = {name: suite["overall"].get("left_out", 0) for name, suite in suites.items()}
    if any(left_out.values()):
        named = ", ".join(f"{count} of {shown(name)}" for name, count in left_out.items() if count)
        caption += f"\nnot judged, since the model reads both answers alike or not at all: {named}"
    table = Table(title=shown_title(title), caption=Text(caption), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("suite / group", overflow="fold", min_width=17)
    for heading in ("pairs", "accuracy", "interval", "ties", "longer", "loss", "tail"):
        table.add_column(heading, justify="right", no_wrap=heading == "interval")
    for name, suite in suites.items():
        table.add_row(*_table_row(name, suite["overall"]), style="bold")
        for kind, records in groups_shown(suite).items():
            _add_groups(table, kind, records, _table_row)
            judged = [record["accuracy"] for record in records.values() if record["accuracy"] is not None]
            table.add_row("  their average", "", percent(sum(judged) / len(judged) if judged else None), style="italic")
        table.add_section()
    return table


def render_comparison(comparisons: Mapping[str, JsonObject], *, names: tuple[str, str]) -> Table:
    """The screen table of suite name -> :func:`compare`, with a minus b in percentage points, by group as well."""
    title = shown_title(f"{names[0]} minus {names[1]}, percentage points")
    caption = "p counts: by prompts, and exact where few changed; McNemar takes the pairs of one prompt for independent"
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("suite / group", overflow="fold", min_width=13)
    for heading in ("points", "interval", "only first", "only second", "p", "McNemar"):
        table.add_column(heading, justify="right", no_wrap=heading == "interval")
    for name, comparison in comparisons.items():
        groups = groups_shown(comparison)
        table.add_row(*_difference_row(name, comparison["overall"]), style="bold" if groups else None)
        for kind, records in groups.items():
            _add_groups(table, kind, records, _difference_row)
    return table


def groups_shown(suite: JsonObject) -> dict[str, JsonObject]:
    """Of a summary or a comparison, the groups of a table by kind, where there are two or more of a kind.

    They are the categories and the groups that were asked for; where there are none of these, the sources.
    """
    asked = {"category": suite.get("by_category", {}), **suite.get("by_group", {})}
    named = {kind: records for kind, records in asked.items() if len(records) > 1}
    sources = suite.get("by_source", {})
    return named or ({"source": sources} if len(sources) > 1 else {})


def tidy_rows(suites: Mapping[str, JsonObject]) -> list[dict[str, object]]:
    """One row per suite and group of summaries or comparisons: overall, by category, by source, by what was asked."""
    return [
        {"suite": name, "kind": kind, "group": group, **record}
        for name, suite in suites.items()
        for kind, records in (
            {"overall": {"all": suite["overall"]}, "category": suite["by_category"], "source": suite["by_source"]}
            | suite.get("by_group", {})
        ).items()
        for group, record in records.items()
    ]


def _add_groups(table: Table, kind: str, records: JsonObject, row_of: Callable[[str, JsonObject], Row]) -> None:
    """The groups of a kind, the largest where there are many, below a heading; categories need none."""
    if kind != "category":
        table.add_row(shown(f"  by {kind}"), style="italic")
    largest = sorted(records, key=lambda name: -records[name]["pairs"])[:MOST_ROWS]
    for name in records:
        if name in largest:
            table.add_row(*row_of(f"  {name}", records[name]))
    if left := len(records) - len(largest):
        table.add_row(f"  and {left} smaller", style="italic")


def _or_none(margin: float) -> float | None:
    """A pair that was not judged has no margin."""
    return None if isnan(margin) else float(margin)


def _difference_row(name: str, record: JsonObject) -> Row:
    return [
        shown(name),
        percent(record["difference"], sign="+"),
        bracket(record["low"], record["high"], sign="+"),
        str(record["only_a"]),
        str(record["only_b"]),
        p_text(record["p"]),
        p_text(record["mcnemar_p"]),
    ]


def _table_row(name: str, record: JsonObject) -> Row:
    return [
        shown(name),
        str(record["pairs"]),
        percent(record["accuracy"]),
        bracket(record["low"], record["high"]),
        str(record["ties"]),
        percent(record["longer_wins"]),
        decimals(record["mean_loss"]),
        decimals(record["cvar_loss"]),
    ]
