"""The main tables for papers (LaTeX, Markdown) and for other programs (CSV)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..run import escaping
from ..run.files import JsonObject
from ..statistics.numbers import MISSING, bracket, percent
from .claims import survives


class Table(NamedTuple):
    """A table as text.

    Attributes:
        caption: One paragraph.
        header: Column names, the first for the rows' names.
        blocks: Heading (may be "") and rows of each family; a row has as many cells as the header.
    """

    caption: str
    header: list[str]
    blocks: list[tuple[str, list[list[str]]]]


def columns_of(report: JsonObject) -> list[tuple[str, str]]:
    """Key and heading of every column of the main tables: suites, average, worst group."""
    average = "average OOD" if report["inside"] else "average"
    return [*((name, name) for name in report["suites"]), ("average", average), ("worst", "worst group")]


def cell_of(arm: JsonObject, column: str) -> JsonObject | None:
    """The record of an arm in a column of the main tables."""
    return arm[column] if column in ("average", "worst") else arm["suites"][column]


def seed_spread(entry: JsonObject) -> float | None:
    """Standard deviation over seeds; None with fewer than two.

    >>> seed_spread({"by_seed": {"0": 0.7}}) is None, round(seed_spread({"by_seed": {"0": 0.7, "1": 0.8}}), 3)
    (True, 0.071)
    """
    seeds = [value for value in entry["by_seed"].values() if value is not None]
    return float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None


def accuracy_table(report: JsonObject) -> Table:
    """Accuracy with its interval and, in parentheses, the standard deviation over seeds."""
    caption = (
        "Accuracy in percent, mean over seeds, with 95 % intervals over test pairs (clustered by question) and, in "
        "parentheses, the standard deviation over seeds where there are several."
    )
    return _table(report, caption, _accuracy_text, lambda arm: True, longer=True)


def difference_table(report: JsonObject) -> Table:
    """Paired difference to plain training with its interval; a star where it stays after Holm's correction."""
    tests = report["tests"]
    caption = (
        "Paired difference to plain training in points of accuracy, with 95 % intervals over test pairs (clustered by "
        f"question). A star: p < 0.05 after Holm's correction for {tests['suites']} tests of suites, "
        f"{tests['average']} of averages, {tests['worst']} of worst groups. The worst groups of two arms may "
        "differ; their limits hold whichever they are."
    )
    return _table(report, caption, _difference_text, lambda arm: bool(arm["against"]), longer=False)


def markdown(table: Table) -> str:
    """A table in GitHub's Markdown, a heading row for each family."""
    lines = [
        escaping.markdown_row(*map(escaping.markdown, table.header)),
        escaping.markdown_row(*["---"] * len(table.header)),
    ]
    for heading, rows in table.blocks:
        if heading:
            lines.append(escaping.markdown_row(f"**{escaping.markdown(heading)}**", *[""] * (len(table.header) - 1)))
        lines += [
            escaping.markdown_row(escaping.markdown(name), *(number.replace("*", r"\*") for number in numbers))
            for name, *numbers in rows
        ]
    return f"{escaping.markdown(table.caption)}\n\n" + "\n".join(lines) + "\n"


def latex(table: Table, label: str) -> str:
    """A table in LaTeX; needs the packages booktabs and, for more than one page, longtable."""
    columns = "l" + "r" * (len(table.header) - 1)
    parts = [
        r"% needs \usepackage{booktabs,longtable}",
        rf"\begin{{longtable}}{{{columns}}}",
        rf"\caption{{{escaping.latex(table.caption)}}}\label{{tab:{label}}}\\",
        r"\toprule",
        " & ".join(escaping.latex(name) for name in table.header) + r" \\",
        r"\midrule",
        r"\endhead",
    ]
    for number, (heading, rows) in enumerate(table.blocks):
        if number:
            parts.append(r"\midrule")
        if heading:
            parts.append(rf"\multicolumn{{{len(table.header)}}}{{l}}{{\textit{{{escaping.latex(heading)}}}}} \\")
        parts += [" & ".join(escaping.latex(cell) for cell in row) + r" \\" for row in rows]
    return "\n".join([*parts, r"\bottomrule", r"\end{longtable}", ""])


def tidy(report: JsonObject) -> list[dict[str, object]]:
    """One row per arm and column, with everything the main tables show."""
    rows = []
    for arm in report["arms"]:
        for column, _ in columns_of(report):
            entry = cell_of(arm, column)
            if entry is None:
                continue
            difference = entry["difference"] or {}
            rows.append(
                {
                    **arm["settings"],
                    "ambiguity": arm["ambiguity"],
                    "column": column,
                    "group": entry.get("name", ""),
                    **{name: entry[name] for name in ("accuracy", "low", "high")},
                    "ties": entry.get("ties"),
                    "seeds": len(entry["by_seed"]),
                    "seed_deviation": seed_spread(entry),
                    **{name: difference.get(name) for name in ("difference", "p", "p_holm", "outcome")},
                    "difference_low": difference.get("low"),
                    "difference_high": difference.get("high"),
                    "versions": "; ".join(arm["versions"]),
                }
            )
    return rows


def _table(
    report: JsonObject,
    caption: str,
    text: Callable[[JsonObject | None], str],
    kept: Callable[[JsonObject], object],
    *,
    longer: bool,
) -> Table:
    columns = columns_of(report)
    blocks = []
    for family in report["families"]:
        arms = [report["arms"][number] for number in family["arms"]]
        rows = [[arm["ambiguity"], *(text(cell_of(arm, column)) for column, _ in columns)] for arm in arms if kept(arm)]
        if rows:
            blocks.append((family["label"], rows))
    if longer:
        facts = [percent(fact["longer_wins"]) for fact in report["suites"].values()]
        blocks.append(("", [["longer wins", *facts, percent(report["longer_average"]), MISSING]]))
    return Table(caption, ["arm", *(heading for _, heading in columns)], blocks)


def _accuracy_text(entry: JsonObject | None) -> str:
    if entry is None:
        return MISSING
    spread = seed_spread(entry)
    limits = "" if entry["low"] is None else f" {bracket(entry['low'], entry['high'])}"
    return f"{percent(entry['accuracy'])}{limits}" + ("" if spread is None else f" ({percent(spread)})")


def _difference_text(entry: JsonObject | None) -> str:
    difference = entry and entry["difference"]
    if not difference:
        return MISSING
    star = "*" if survives(difference) else ""
    limits = bracket(difference["low"], difference["high"], sign="+")
    return f"{percent(difference['difference'], sign='+')}{star} {limits}"
