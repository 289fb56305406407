"""The layout that a person declares: columns by what they hold, read as the plain layouts read their own."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial

from llm.data.columns import ColumnMap
from llm.data.formats.opened import note
from llm.data.layouts import layout_of
from llm.data.layouts.base import (
    Chat,
    Columns,
    Comparison,
    Dropped,
    Layout,
    Malformed,
    Undecided,
    number,
    question,
    reply,
    unless_nan,
    unpacked,
)
from llm.data.layouts.finishing import BESIDE
from llm.data.layouts.labels import labelled_by
from llm.data.layouts.turns import messages
from llm.data.records import Record
from llm.data.winners import Winner, counts, said

NAME = "mapped"
_log = logging.getLogger(__name__)
# Columns that are read under their own name where the mapping does not name them for something else.
_OWN = (
    "prompt",
    "chosen",
    "rejected",
    *BESIDE,
    "id",
    "source",
    "category",
    "question_id",
    "margin",
    "preference",
    "weight",
)
_SIDES = ("chosen", "rejected"), ("first", "second")
_HELD = 10_000  # records that wait for a number which says whether 1 is the first answer or the second
_COUNTED = "winner counts from"


def mapped(columns: ColumnMap, read_as: list[str], keep: Sequence[str] = ()) -> Layout:
    """The layout of files with these columns, and of others those to ``keep``, under their own names.

    What had to be found out about the winner is added to ``read_as``.
    """
    return Layout(NAME, "", columns.fits, partial(_compared, columns), partial(_renamed, columns, read_as, keep))


def renamed(columns: ColumnMap, row: Columns) -> dict[str, object]:
    """The row by our names: what is mapped, and what has its own name anyway."""
    taken = columns.tops()
    own = {name: row[name] for name in _OWN if name in row and name not in taken and name not in columns}
    if "first" in columns:
        own = {name: value for name, value in own.items() if name not in _SIDES[0]}
    return own | {key: columns.value(row, key) for key, _ in columns.named}


def with_history(prompt: Chat, row: Columns) -> Chat:
    """The prompt behind the ``history`` of a row by our names, but for its system turn, which stays the first.

    Raises:
        Malformed: The history is neither messages nor pairs of what was asked and answered.
    """
    earlier = _history(row)
    begin = 1 if earlier and prompt and prompt[0]["role"] in ("system", "developer") else 0
    return (*prompt[:begin], *earlier, *prompt[begin:])


def _history(row: Columns) -> Chat:
    turns = unpacked(unless_nan(row.get("history")))
    if turns is None or turns in ("", []):
        return ()
    if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
        return messages({"history": turns}, "history")
    if not isinstance(turns, list) or not all(
        isinstance(turn, list | tuple) and [*map(type, turn)] == [str, str] for turn in turns
    ):
        raise Malformed("'history' should be messages, or a list of [asked, answered]")
    return tuple(turn for asked, answered in turns for turn in (*question(asked), reply(answered)))


def _renamed(
    columns: ColumnMap, read_as: list[str], keep: Sequence[str], records: Iterator[Record]
) -> Iterator[Record]:
    """Name the columns; a winner of 1 waits for the 0 or 2 that says from where is counted."""
    waiting: deque[Record] = deque()
    start, asked = None, "winner" in columns and not columns.outcomes
    for record in records:
        row = {name: record.columns[name] for name in keep if name in record.columns} | renamed(columns, record.columns)
        if start is None and asked and counts(row["winner"]) and said(row["winner"]) != "1":
            start = 0 if said(row["winner"]) == "0" else 1
            _tell(columns, start, read_as)
        waiting.append(record._replace(columns=row))
        open_yet = start is None and asked and counts(waiting[0].columns["winner"])
        if not open_yet or len(waiting) == _HELD:
            yield from _counted(waiting, start)
    yield from _counted(waiting, start)


def _counted(waiting: deque[Record], start: int | None) -> Iterator[Record]:
    while waiting:
        record = waiting.popleft()
        record.columns[_COUNTED] = start
        yield record


def _tell(columns: ColumnMap, start: int, read_as: list[str]) -> None:
    told = f"winner {start} is read as the first answer, {start + 1} as the second"
    note(read_as, told)
    _log.warning(
        "%s; if it is the other way round, write winner=%s:%d/%d", told, _column(columns, "winner"), start + 1, start
    )


def _column(columns: ColumnMap, key: str) -> str:
    return dict(columns.named)[key]


def _compared(columns: ColumnMap, row: Columns) -> Iterator[Comparison]:
    sides = _SIDES["first" in columns]
    for name in sides:
        if name not in row:
            raise Malformed(f"nothing is mapped to {name!r}, and no column is called so")
    ahead = _lead(columns, row, sides)
    better, worse = sides if ahead == "first" else sides[::-1]
    plain = {name: row[name] for name in ("prompt", *BESIDE) if name in row}
    plain |= {"chosen": row[better], "rejected": row[worse]}
    layout = layout_of(plain)
    if layout is None:
        raise Malformed("the answers are no conversations, so the prompt must have a column: add prompt=COLUMN")
    margin = _margin(row, better=better == sides[0])
    for comparison in layout.read(plain):
        yield labelled_by(row, comparison)._replace(
            prompt=with_history(comparison.prompt, row), margin=comparison.margin if margin is None else margin
        )


def _lead(columns: ColumnMap, row: Columns, sides: tuple[str, str]) -> str:
    """Which side is better: as the winner says, else by the scores of two sides, else the chosen one.

    Raises:
        Undecided: They are equal, of chosen and rejected answers by their scores.
        Dropped: There is no winner here, or no score.
    """
    if "winner" in columns:
        names = tuple(_column(columns, side) if side in columns else side for side in sides)
        try:
            outcome = Winner((names[0], names[1]), columns.outcomes).of(row["winner"], counted_from=row[_COUNTED])
        except ValueError as problem:
            raise Malformed(str(problem)) from problem
        if outcome is None:
            raise Dropped("no winner")
        if outcome == "tie":
            raise Undecided("tie")
        return outcome
    if "score_chosen" in columns:
        lead = _margin(row, better=True)
        if lead is None and sides[0] == "first":
            raise Dropped("no rating")
        if lead == 0:
            raise Undecided("tie")
        return "second" if sides[0] == "first" and lead is not None and lead < 0 else "first"
    return "first"


def _margin(row: Columns, *, better: bool) -> float | None:
    """The score of one side minus that of the other, from the first's view where ``better``; None without both."""
    if "score_chosen" not in row:
        return None
    first, second = number(row, "score_chosen"), number(row, "score_rejected")
    if first is None or second is None:
        return None
    return first - second if better else second - first
