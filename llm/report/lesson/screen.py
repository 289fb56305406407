"""The picture of the demo on a terminal: a row for every arm in it, with right labels and with wrong ones."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ...run.files import JsonObject
from ...statistics.numbers import bracket, percent
from .numbers import PAIRS, PLAIN, REPAIR, RIGHT, TOO_LARGE, WRONG, record_of

_PLACES = {"office": "office (1 in 10)", "forum": "forum (9 in 10)", "like training": "like training"}
_REGIMES = {RIGHT: "labels right", WRONG: "a fifth wrong"}


def lesson_table(numbers: JsonObject) -> Table:
    """Accuracies with their 95 % intervals, fit for 80 columns.

    Args:
        numbers: As from ``lesson_numbers``.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title="Test pairs ranked right, %")
    table.add_column("", min_width=20)
    for heading in _PLACES.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for regime, heading in _REGIMES.items():
        table.add_row(heading, style="bold")
        for ambiguity in (PLAIN, REPAIR, PAIRS, TOO_LARGE):
            table.add_row(f"  {ambiguity}", *(_cell(numbers, regime, ambiguity, place) for place in _PLACES))
        table.add_section()
    return table


def _cell(numbers: JsonObject, regime: str, ambiguity: str, place: str) -> str:
    found = record_of(numbers, regime, ambiguity, place)["accuracy"]
    return f"{percent(found['accuracy'])} {bracket(found['low'], found['high'])}"
