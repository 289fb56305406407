"""Which column of a file holds what, where its layout is none that is known: ``prompt=question,chosen=good``.

Example:
    >>> columns = ColumnMap.of("prompt=task.text,first=answer_a,second=answer_b,winner=label:1/0")
    >>> columns.value({"task": {"text": "2 + 2?"}}, "prompt"), columns.outcomes
    ('2 + 2?', ('1', '0'))
    >>> str(ColumnMap.of({"rejected": "bad", "prompt": "q, a", "chosen": "good"}))
    '{"prompt": "q, a", "chosen": "good", "rejected": "bad"}'
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from llm.data.formats.opened import DataError, Record

KEYS = (
    "prompt", "chosen", "rejected", "first", "second", "winner", "system", "history", "id", "source", "category",
    "question_id", "margin", "preference", "weight", "score_chosen", "score_rejected", "answer",
)  # fmt: skip
SPELLING = "KEY=COLUMN,KEY=COLUMN, such as prompt=question,chosen=good,rejected=bad"
_OUTCOMES = re.compile(r"(?P<column>.+?):(?P<values>[^:/]+/[^:/]+(/[^:/]+)?)")
_LOOKED_AT = 100
_ABSENT = object()


@dataclass(frozen=True)
class ColumnMap:
    """A mapping from what a pair consists of to the columns of a file.

    Attributes:
        named: Key and column, in the order of ``KEYS``. A column with dots in its name that is not there is a path:
            ``answers.0.text`` is the text of the first of the answers.
        outcomes: The values of ``winner`` that say first, second and, if there are three, tie; empty: those that are
            known (see ``llm.data.winners``).
    """

    named: tuple[tuple[str, str], ...]
    outcomes: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: str | Mapping[str, str] | Self) -> Self:
        """Read a mapping, its text, or that text as JSON.

        Raises:
            DataError: A key that does not exist or stands twice, a column without a name, or keys that do not go
                together.
        """
        if isinstance(given, cls):
            return given
        pairs = list(given.items()) if isinstance(given, Mapping) else _parsed(str(given))
        for key, column in pairs:
            if key not in KEYS:
                raise DataError(f"columns: there is no key {key!r}{meant(str(key), KEYS)}; keys are {', '.join(KEYS)}.")
            if not isinstance(column, str) or not column:
                raise DataError(f"columns: {key} names no column; write {SPELLING}.")
        named = dict(pairs)
        if len(named) < len(pairs) or not named:
            raise DataError(f"columns: {'a key stands twice' if named else 'nothing is named'}; write {SPELLING}.")
        found = _OUTCOMES.fullmatch(named.get("winner", ""))
        if found:
            named["winner"] = found["column"]
        _check(named)
        return cls(tuple((key, named[key]) for key in KEYS if key in named), _values(found))

    def __contains__(self, key: object) -> bool:
        return any(key == known for known, _ in self.named)

    def __str__(self) -> str:
        values = dict(self.named)
        if self.outcomes:
            values["winner"] += ":" + "/".join(self.outcomes)
        if any(set(column) & set(',="{}') or column != column.strip() for column in values.values()):
            return json.dumps(values, ensure_ascii=False)
        return ",".join(f"{key}={column}" for key, column in values.items())

    def value(self, columns: Mapping[str, object], key: str) -> object:
        """What stands in the column of ``key``; None where there is no such column here."""
        found = _found(columns, dict(self.named)[key])
        return None if found is _ABSENT else found

    def tops(self) -> set[str]:
        """The columns that are named, paths by their beginning too."""
        return {name for _, column in self.named for name in (column, column.split(".")[0])}

    def missing(self, columns: Mapping[str, object]) -> list[tuple[str, str]]:
        """The keys whose column is not there, with the column."""
        return [(key, column) for key, column in self.named if _found(columns, column) is _ABSENT]

    def fits(self, columns: Mapping[str, object]) -> bool:
        """Whether any of the columns is there, by another name than a key's own."""
        own = {key for key, column in self.named if key == column}
        absent = {key for key, _ in self.missing(columns)}
        return any(key not in absent for key, _ in self.named if key not in own)

    def looked_for(self, records: Iterator[Record], *, file: str, shared: bool) -> tuple[bool, list[Record]]:
        """Whether the records of a file are read by this mapping, and those that were looked at to tell.

        A column may be missing in some records: JSON leaves out what is null.

        Args:
            records: They are moved on.
            file: For the message.
            shared: The mapping is meant for several files: it is left aside where none of its columns is there.

        Raises:
            DataError: A column is in none of the first records.
        """
        begun, seen = list[Record](), dict[str, object]()
        for record in islice(records, _LOOKED_AT):
            begun.append(record)
            seen |= {name: value for name, value in record.columns.items() if value is not None or name not in seen}
            if not self.missing(seen):
                return True, begun
        if not begun or (shared and not self.fits(seen)):
            return False, begun
        raise DataError(f"{file}: {self.complaint(seen)}.")

    def complaint(self, columns: Mapping[str, object]) -> str:
        """The sentence about the columns that are not there."""
        wrong = [f"{key}={column}{meant(column, columns)}" for key, column in self.missing(columns)]
        return f"columns: there is no column for {', '.join(wrong)}; the columns are {', '.join(columns) or 'none'}"


def columns_of(given: str | Mapping[str, str] | ColumnMap | None) -> ColumnMap | None:
    """The mapping, if there is one. Raises as ``ColumnMap.of``."""
    return None if given is None or given == "" else ColumnMap.of(given)


def _parsed(text: str) -> list[tuple[str, Any]]:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise DataError(f"columns: {text} is not JSON ({error}).") from error
    pairs = [part.partition("=") for part in text.split(",")]
    if wrong := [key for key, sign, _ in pairs if not sign]:
        raise DataError(
            f"columns: {wrong[0].strip()!r} is no KEY=COLUMN; write {SPELLING}, or JSON where a name holds a comma."
        )
    return [(key.strip(), column.strip()) for key, _, column in pairs]


def _check(named: Mapping[str, str]) -> None:
    """Refuse keys that do not go together."""
    sides = {"first", "second"} & named.keys()
    if len(sides) == 1:
        raise DataError(f"columns: {next(iter(sides))} stands alone; name first and second.")
    if sides and {"chosen", "rejected"} & named.keys():
        raise DataError("columns: name first and second, or chosen and rejected, not both.")
    if len({"score_chosen", "score_rejected"} & named.keys()) == 1:
        raise DataError("columns: a score says something beside the other one; name score_chosen and score_rejected.")
    if sides and not {"winner", "score_chosen"} & named.keys():
        raise DataError("columns: nothing says which of first and second is better; name winner, or both scores.")


def _values(found: re.Match[str] | None) -> tuple[str, ...]:
    values = tuple(value.strip().casefold() for value in found["values"].split("/")) if found else ()
    if len(set(values)) < len(values):
        raise DataError(f"columns: winner={found[0] if found else ''} gives two outcomes the same value.")
    return values


def _found(columns: Mapping[str, object], column: str) -> object:
    if column in columns:
        return columns[column]
    value: object = columns
    for name in column.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return _ABSENT
    return value


def meant(name: str, known: Iterable[str]) -> str:
    """What stands in a refusal behind a name that does not exist: the known one that is like it, or nothing."""
    lowered = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), lowered, n=1)
    return f", did you mean {lowered[close[0]]!r}?" if close else ""
