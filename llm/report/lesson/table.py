"""The picture of the demo in words, for the page and a terminal: every arm with right labels and with wrong ones."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ...run.files import JsonObject
from ...statistics.numbers import bracket, percent
from .numbers import PAIRS, PLAIN, REPAIR, RIGHT, TOO_LARGE, WRONG, record_of

TITLE = "Test pairs ranked right, %"
PLACES = {"office": "office (1 in 10)", "forum": "forum (9 in 10)", "like training": "like training"}
_REGIMES = {RIGHT: "labels right", WRONG: "a fifth wrong"}


def lesson_rows(numbers: JsonObject) -> dict[str, dict[str, list[str]]]:
    """What the labels are -> ambiguity set -> accuracy with its 95 % interval at each of ``PLACES``.

    Args:
        numbers: As from ``lesson_numbers``.
    """
    return {
        heading: {
            ambiguity: [_cell(numbers, regime, ambiguity, place) for place in PLACES]
            for ambiguity in (PLAIN, REPAIR, PAIRS, TOO_LARGE)
        }
        for regime, heading in _REGIMES.items()
    }


def lesson_table(numbers: JsonObject) -> Table:
    """The same, fit for 80 columns."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=TITLE)
    table.add_column("", min_width=20)
    for heading in PLACES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for heading, rows in lesson_rows(numbers).items():
        table.add_row(heading, style="bold")
        for ambiguity, cells in rows.items():
            table.add_row(f"  {ambiguity}", *cells)
        table.add_section()
    return table


def _cell(numbers: JsonObject, regime: str, ambiguity: str, place: str) -> str:
    found = record_of(numbers, regime, ambiguity, place)["accuracy"]
    return f"{percent(found['accuracy'])} {bracket(found['low'], found['high'])}"
