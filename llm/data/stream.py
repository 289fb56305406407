"""From raw records to pairs, one at a time: nothing but the ids seen so far is held."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from llm.data.layouts import (
    Columns,
    Comparison,
    Dropped,
    Layout,
    Malformed,
    Pair,
    Undecided,
    check,
    known_layouts,
    layout_of,
    number,
    unless_nan,
)
from llm.data.records import DataError, Record

_log = logging.getLogger(__name__)


class PairStream:
    """The pairs of one file or data set, in its order and with unique ids; iterate over it once.

    Attributes:
        name: The file or address, for messages.
        layout: Its layout, known from the first pair on.
        kept: Pairs given so far.
        dropped: Why records were left out so far -> how many. A record of several pairs counts each of them.
        noted: What was reinterpreted, or left out of pairs, so far -> how many pairs.
    """

    def __init__(self, name: str, stem: str, records: Iterator[Record]):
        """Start nothing yet; pairs without an id are called ``stem`` and the number of their record."""
        self.name = name
        self.layout = ""
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self._stem = stem
        self._records = records
        self._unusable = 0

    def __iter__(self) -> Iterator[Pair]:
        """Yield the pairs, and judge the whole once all are given.

        Raises:
            DataError: A record is malformed, the columns fit no layout, nothing is left, or more than half of
                the records were unusable.
        """
        ids = _Ids()
        for pair in self._pairs():
            self.kept += 1
            yield ids.unique(pair)
        self._report(ids)

    def _pairs(self) -> Iterator[Pair]:
        layout, first = self._first()
        if layout is None or first is None:
            return
        self.layout = layout.name
        start = self.dropped.total()
        for index, record in enumerate(layout.join(itertools.chain([first], self._records)), start):
            try:
                for copy, comparison in enumerate(layout.read(record.columns)):
                    if self._usable(comparison):
                        self.noted.update(comparison.noted)
                        yield _pair(comparison, record.columns, f"{self._stem}-{index}", copy)
            except Dropped as reason:
                self._drop(reason)
            except Malformed as problem:
                raise DataError(f"{self.name}, {record.place}: {problem}.") from problem

    def _first(self) -> tuple[Layout | None, Record | None]:
        """Find the layout by the first record that decides it; those before it are dropped."""
        for record in self._records:
            try:
                layout = layout_of(record.columns)
            except Dropped as reason:
                self._drop(reason)
                continue
            if layout is None:
                raise DataError(
                    f"{self.name}, {record.place}: found the columns {', '.join(record.columns) or 'none'}, "
                    "expected 'chosen' and 'rejected' with a 'prompt', or both as whole conversations, or the "
                    f"columns of a known data set; known layouts: {known_layouts(record.columns)}."
                )
            return layout, record
        return None, None

    def _usable(self, comparison: Comparison) -> bool:
        try:
            check(comparison)
        except Dropped as reason:
            self._drop(reason)
            return False
        return True

    def _drop(self, reason: Dropped) -> None:
        self.dropped[str(reason)] += 1
        self._unusable += not isinstance(reason, Undecided)

    def _report(self, ids: _Ids) -> None:
        total = self.kept + self.dropped.total()
        reasons = ", ".join(f"{reason}: {count}" for reason, count in self.dropped.most_common())
        if total == 0:
            raise DataError(f"{self.name} is empty: it holds no record.")
        if 2 * self._unusable > total:
            raise DataError(f"{self.name}: {self._unusable} of {total} records are unusable ({reasons}).")
        if not self.kept:
            raise DataError(f"{self.name} holds no comparison: all {total} records were left out ({reasons}).")
        if self.dropped:
            _log.warning("%s: dropped %d of %d records (%s)", self.name, self.dropped.total(), total, reasons)
        for what, count in self.noted.most_common():
            _log.warning("%s: %d of %d pairs: %s", self.name, count, self.kept, what)
        if ids.repeated:
            _log.warning("%s: %d ids are not unique; later ones get a number", self.name, ids.repeated)


class _Ids:
    """Numbers the later pairs of a repeated id ("q7", "q7#2"): reports and error messages name pairs by id."""

    def __init__(self) -> None:
        self.repeated = 0
        self._seen: Counter[str] = Counter()

    def unique(self, pair: Pair) -> Pair:
        name = pair.id
        if name in self._seen:
            self.repeated += 1
            while name in self._seen:
                self._seen[pair.id] += 1
                name = f"{pair.id}#{self._seen[pair.id]}"
        self._seen[name] = 1
        return pair if name == pair.id else replace(pair, id=name)


def _pair(comparison: Comparison, columns: Columns, default_id: str, copy: int) -> Pair:
    """Fill what the layout left open from the columns of that name; copies of one record get a suffix."""

    def text(name: str, default: str) -> str:
        value = getattr(comparison, name)
        value = unless_nan(columns.get(name)) if value is None else value
        return default if value is None or value == "" else str(value)

    margin = comparison.margin
    if margin is None and "margin" in columns:
        margin = number(columns, "margin")
    return Pair(
        text("id", default_id) + (f".{copy}" if copy else ""),
        *comparison[:3],
        source=text("source", "unknown"),
        category=text("category", "unknown"),
        question_id=text("question_id", "") or None,
        margin=margin,
    )
