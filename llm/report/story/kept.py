"""Which arms the tables of a page have room for: with thousands of them a page would say nothing and open never."""

from __future__ import annotations

from collections.abc import Iterable

from ...run.files import JsonObject
from ..claims import survives
from ..export import cell_of, columns_of

ROOM = 120  # arms


def kept(report: JsonObject) -> set[int]:
    """Positions of the arms that the tables show.

    Those of the story and of the details, what these are compared with, then the arms that are shown to differ from
    plain training, the furthest ones first, then the others as they come.
    """
    detailed = [entry["arm"] for detail in report["details"] for entry in detail["arms"]]
    first = [*report["story"]["arms"], *detailed]
    families = [family["arms"] for family in report["families"] if not set(family["arms"]).isdisjoint(first)]
    plain = [number for family in families for number in family if report["arms"][number]["plain"]]
    differing = sorted(
        (n for n in range(len(report["arms"])) if _furthest(report, n)), key=lambda n: -_furthest(report, n)
    )
    return set(_unique([*first, *plain, *differing, *range(len(report["arms"]))])[:ROOM])


def _furthest(report: JsonObject, number: int) -> float:
    """The largest difference of an arm that is shown; 0 where none is."""
    entries = (cell_of(report["arms"][number], column) for column, _ in columns_of(report))
    found = (entry["difference"] for entry in entries if entry and entry["difference"])
    return max((abs(record["difference"]) for record in found if survives(record)), default=0.0)


def _unique(numbers: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


def main_detail(report: JsonObject) -> JsonObject | None:
    """The details of the family that the story is about, else the first; None where there are none."""
    told = set(report["story"]["arms"])
    members = [detail for detail in report["details"] if told & {entry["arm"] for entry in detail["arms"]}]
    return next(iter([*members, *report["details"]]), None)
