"""The pages of the studies, and the tables between their marks, which the scripts fill in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def markdown(rows: Iterable[tuple[str, ...]]) -> str:
    """A table; the first row is its head."""
    head, *body = rows
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *body))


def filled(page: str, tables: dict[str, str]) -> str:
    """Put each table between its two marks."""
    for name, table in tables.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, found = marks.subn(lambda m, table=table: f"{m[1]}{table}\n{m[2]}", page)
        if found != 1:
            raise ValueError(f"the page must have the marks of the table {name!r} once, found {found}.")
    return page
