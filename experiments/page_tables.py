"""The pages of the studies, and the tables between their marks, which the scripts fill in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MARK = re.compile(r"(<!-- = (.+?) -->)(.*?)(<!-- / -->)", re.DOTALL)
"""What stands around a quoted number: its name before it."""
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


def quoted(page: str, numbers: Mapping[str, str]) -> str:
    """Put each number between the marks that name it.

    Raises:
        KeyError: A mark that names no number.
    """
    return MARK.sub(lambda m: f"{m[1]}{numbers[m[2]]}{m[4]}", page)


def unquoted(page: str) -> str:
    """The prose of a page: without tables between marks, quoted numbers and code."""
    prose = re.sub(r"<!-- ([\w-]+) -->\n\|.*?<!-- end -->", "", page, flags=re.DOTALL)
    return re.sub(r"`[^`]*`", "", MARK.sub("", prose))


def rounded(value: Any) -> Any:
    """Nested numbers to six digits, as they are kept: what follows is rounding of the machine."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
