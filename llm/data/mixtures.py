"""Several files as one training set: how often the pairs of each are seen, and what their source is called.

Example:
    >>> [str(part) for part in parts_of(["a.jsonl:2", "hf://datasets/own/votes:train[0:10]", {"file": "b.csv"}])]
    ['a.jsonl:2', 'hf://datasets/own/votes:train[0:10]', 'b.csv']
    >>> parts_of({"file": "a.jsonl", "weight": 0.5, "source": "web"})[0]
    Part(file='a.jsonl', weight=0.5, source='web', columns=None)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from llm.data.columns import ColumnMap
from llm.data.formats.opened import DataError

SPELLING = "FILE, FILE:WEIGHT, or a mapping of file, weight, source and columns"
MOST = 1000.0
_WEIGHED = re.compile(r"(?P<file>.+):(?P<weight>[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf(?:inity)?))", re.I)


@dataclass(frozen=True)
class Part:
    """A file of a training set.

    Attributes:
        file: What ``llm.data.pairs.read_pairs`` takes.
        weight: How often each of its pairs is seen in an epoch: 2 is twice; 0.5 is one half of the pairs, once; 0
            leaves the file out.
        source: What the source of its pairs is called instead of what the file says; None: as the file says.
        columns: Which column of this file holds what, as text; None: as for all files.
    """

    file: str
    weight: float = 1.0
    source: str | None = None
    columns: str | None = None

    @classmethod
    def of(cls, given: object, setting: str = "train_file") -> Self:
        """Read a file with or without its weight, a mapping of the attributes, or that mapping as JSON.

        A number behind the last colon is a weight, unless there is a file of that very name. Errors name the setting.

        Raises:
            DataError: It is none of these, or the weight makes no sense.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping):
            return cls._of_mapping(given, setting)
        text = str(given)
        if Path(text).exists():
            return cls(text)
        if text.startswith("{"):
            return cls._of_mapping(_json(text, setting), setting)
        found = _WEIGHED.fullmatch(text)
        return cls(found["file"], _weight(found["weight"], text, setting)) if found else cls(text)

    @classmethod
    def _of_mapping(cls, given: Mapping[str, Any], setting: str) -> Self:
        if wrong := [name for name in given if name not in {field.name for field in fields(cls)}]:
            raise DataError(f"{setting}: there is no entry {wrong[0]!r} of a file; write {SPELLING}.")
        file, source, columns = (given.get(name) for name in ("file", "source", "columns"))
        if not isinstance(file, str | Path) or not str(file):
            raise DataError(f"{setting}: {dict(given)} names no file; write {SPELLING}.")
        if not isinstance(source, str | None) or source == "":
            raise DataError(f"{setting}: the source of {file} is a name, got {source!r}.")
        weight = _weight(given.get("weight", 1.0), str(file), setting)
        return cls(str(file), weight, source, str(ColumnMap.of(columns)) if columns else None)

    @property
    def plain(self) -> bool:
        """Whether there is nothing to say of the file but its name."""
        return (self.weight, self.source, self.columns) == (1.0, None, None)

    def __str__(self) -> str:
        """The text that is read as this part again, also where there is no file of a name that ends in a number."""
        named = {name: value for name, value in (("source", self.source), ("columns", self.columns)) if value}
        if named or self.file.startswith("{") or _WEIGHED.fullmatch(self.file):
            weight = {} if self.weight == 1 else {"weight": self.weight}
            return json.dumps({"file": self.file, **weight, **named}, ensure_ascii=False)
        return self.file if self.weight == 1 else f"{self.file}:{self.weight:.17g}"


def parts_of(given: object, setting: str = "train_file") -> list[Part]:
    """The files that a setting names: one, or several in a list; nothing names none.

    Raises:
        DataError: As ``Part.of``; or every file is left out by its weight.
    """
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [given] if given else []
    parts = [Part.of(entry, setting) for entry in several]
    if parts and not any(part.weight for part in parts):
        raise DataError(f"{setting}: {', '.join(part.file for part in parts)}: every weight is 0; raise one.")
    return parts


def settled(given: object, setting: str = "train_file") -> str | list[str]:
    """What names the same files in one way, ready for JSON: the text of a single one, or those of several.

    >>> settled([{"file": "a.jsonl", "weight": 2}]), settled(["a.jsonl:1", "b.jsonl:0.5"])
    ('a.jsonl:2', ['a.jsonl', 'b.jsonl:0.5'])
    """
    texts = [str(part) for part in parts_of(given, setting)]
    return texts if len(texts) > 1 else "".join(texts)


def held_out_parts(given: object) -> list[Part]:
    """The files of held-out pairs that a setting names, each judged once.

    Raises:
        DataError: As ``parts_of``; or one has a weight.
    """
    parts = parts_of(given, "eval_file")
    if weighed := [part for part in parts if part.weight != 1]:
        raise DataError(f"eval_file: {weighed[0].file} has a weight, and held-out pairs are judged once: leave it out.")
    return parts


def _weight(given: Any, where: str, setting: str) -> float:
    try:
        weight = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight <= MOST:
        raise DataError(
            f"{setting}: the weight of {where} says how often its pairs are seen in an epoch and must be a number "
            f"from 0, which leaves the file out, to {MOST:g}, got {given!r}."
        )
    return weight


def _json(text: str, setting: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{setting}: {text} is no JSON ({error}); write {SPELLING}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{setting}: {text} is no mapping; write {SPELLING}.")
    return found
