"""From raw records to pairs, one at a time: nothing but the ids seen so far is held."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

from llm.data.columns import ColumnMap
from llm.data.grouping.columns import kept_of
from llm.data.layouts import (
    Columns,
    Comparison,
    Dropped,
    Lacking,
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
from llm.data.reading import Reading
from llm.data.records import DataError, Record

_log = logging.getLogger(__name__)


class PairStream:
    """The pairs of one file or data set, in its order, with unique ids unless told otherwise; iterate over it once.

    Attributes:
        name: The file or address, for messages.
        layout: Its layout, known from the first pair on.
        kept: Pairs given so far.
        dropped: Why records were left out so far -> how many. A record of several pairs counts each of them.
        read_as: How the file was read, where that was found out and not told; complete at the end.
        columns: The mapping, where the records were read by it.
        noted: What was reinterpreted, or left out of pairs, so far -> how many pairs.
    """

    def __init__(
        self,
        name: str,
        stem: str,
        records: Iterator[Record],
        *,
        columns: ColumnMap | None = None,
        shared: bool = False,
        read_as: list[str] | None = None,
        keep: Sequence[str] = (),
        numbered: bool = True,
    ):
        """Start nothing yet.

        Args:
            name: The file or address.
            stem: Pairs without an id are called so, with the number of their record.
            records: The raw records.
            columns: Which column holds what; None: as the layout that is found says.
            shared: The mapping is meant for several files: it is left aside where none of its columns is there.
            read_as: What the reader of the file has to say.
            keep: Columns beside those of the layout that pairs are to have in ``kept``.
            numbered: Give the later ones of a repeated id a number, for which all ids are remembered.
        """
        self.name = name
        self.layout = ""
        self.columns: ColumnMap | None = None
        self.read_as = [] if read_as is None else read_as
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()
        self._stem = stem
        self._records = records
        self._asked, self._shared, self._keep, self._numbered = columns, shared, tuple(keep), numbered
        self._reading = Reading()
        self._unusable = 0

    @property
    def ignored(self) -> dict[str, int]:
        """Columns that hold text and were not read by any record so far -> records that have text there."""
        return self._reading.ignored()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of all records so far."""
        return tuple(self._reading.names)

    def __iter__(self) -> Iterator[Pair]:
        """Yield the pairs, and judge the whole once all are given.

        Raises:
            DataError: A record is malformed, the columns fit no layout, nothing is left, or more than half of
                the records were unusable.
        """
        ids = UniqueIds()
        for pair in self._pairs():
            self.kept += 1
            yield ids.unique(pair) if self._numbered else pair
        self._report(ids)

    def _pairs(self) -> Iterator[Pair]:
        layout, begun = self._mapped(self._asked) if self._asked else (None, [])
        layout, begun = (layout, begun) if layout else self._first(begun)
        if layout is None:
            return
        self.layout = layout.name
        start = self.dropped.total()
        records = self._of_one_layout(layout, itertools.chain(begun, self._records))
        for index, record in enumerate(layout.join(records), start):
            try:
                for copy, comparison in enumerate(layout.read(record.columns)):
                    if self._usable(comparison):
                        self.noted.update(comparison.noted)
                        pair = _pair(comparison, record.columns, f"{self._stem}-{index}", copy)
                        yield replace(pair, kept=kept_of(record.columns, self._keep)) if self._keep else pair
            except Dropped as reason:
                self._drop(reason)
            except Malformed as problem:
                place = record.names if isinstance(problem, Lacking) else record.place
                raise DataError(f"{self.name}, {place}: {problem}.") from problem

    def _mapped(self, asked: ColumnMap) -> tuple[Layout | None, list[Record]]:
        """The layout by the mapping, None where that is for other files; and the records that were looked at."""
        found, begun = asked.looked_for(self._records, file=self.name, shared=self._shared)
        self.columns = asked if found else None
        if not found:
            return None, begun
        from llm.data.layouts.mapped import mapped

        return mapped(asked, self.read_as, self._keep), begun

    def _first(self, begun: Sequence[Record]) -> tuple[Layout | None, list[Record]]:
        """Find the layout by the first record that decides it; those before it are dropped."""
        records = itertools.chain(begun, self._records)
        for record in records:
            try:
                layout = layout_of(record.columns)
            except Dropped as reason:
                self._drop(reason)
                continue
            if layout is None:
                from llm.data.suggestions import advice

                raise DataError(
                    f"{self.name}, {record.names}: found the columns {', '.join(record.columns) or 'none'}, "
                    "expected 'chosen' and 'rejected' with a 'prompt', or both as whole conversations, or the columns "
                    f"of a known data set; known layouts: {known_layouts(record.columns)}; {advice(record.columns)}."
                )
            self._records = records
            return layout, [record]
        return None, []

    def _of_one_layout(self, layout: Layout, records: Iterator[Record]) -> Iterator[Record]:
        """The records, watched for what is read of them.

        Raises:
            DataError: One is in another layout than the first, which would read a part of it and call that the whole.
        """
        for record in records:
            other = None if self.columns else _other(layout, record.columns)
            if other is not None:
                raise DataError(
                    f"{self.name}, {record.place}: this record is in the layout {other.name}, the file begins in "
                    f"{layout.name}; a file has one layout: write the records of each to a file of their own."
                )
            yield record._replace(columns=self._reading.watched(record.columns))

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

    def _report(self, ids: UniqueIds) -> None:
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


def _other(layout: Layout, columns: Columns) -> Layout | None:
    """The layout of a record that does not fit that of its file, where it is a known one that is read otherwise."""
    try:
        if layout.fits(columns):
            return None
        found = layout_of(columns)
    except Dropped:
        return None
    return found if found is not None and found.read is not layout.read else None


class _Identified(Protocol):
    """A dataclass with an id."""

    @property
    def id(self) -> str: ...

    __dataclass_fields__: ClassVar[dict[str, Any]]


_Item = TypeVar("_Item", bound=_Identified)


class UniqueIds:
    """Numbers the later ones of a repeated id ("q7", "q7#2"): reports and error messages name pairs by id.

    Args:
        taken: Ids that are given away already.

    Attributes:
        repeated: How many were given another id so far.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.repeated = 0
        self._seen: Counter[str] = Counter(taken)

    def unique(self, pair: _Item) -> _Item:
        """A pair or prompt as it is, or with a number behind its id."""
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
        preference=comparison.preference,
        weight=comparison.weight,
    )
