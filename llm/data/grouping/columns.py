"""What pairs and prompts can be grouped by: columns of their file, and what is known of every pair.

Example:
    >>> columns = PairColumns([Pair("a", (), chosen="four", rejected="5")])
    >>> columns["length_gap"], columns["chosen_is_longer"], columns["drawn"]
    ([3], ['yes'], ['own'])
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dro_core.texts import Spec
from llm.data.columns import meant
from llm.data.formats.opened import DataError
from llm.data.layouts.base import Columns, Malformed, Pair, unless_nan

from .named import UNKNOWN, NamedGroups, parts_of, unknown

DRAWN = "drawn"
OWN, CROSSED = "own", "cross_prompt"
MOST = 100  # more groups than these are judged as one, like the names of questions
ALWAYS = ("category", "source")

Rows = dict[str, NDArray[np.intp]]


def length_gap(pair: Pair) -> int:
    """By how many characters the chosen answer is the longer; negative where it is the shorter."""
    return len(pair.chosen) - len(pair.rejected)


def longer(gap: int) -> str:
    """Whether the chosen answer is the longer, for a column; answers of equal length are no."""
    return "yes" if gap > 0 else "no"


_OF_PAIRS: dict[str, Callable[[Pair], object]] = {
    "source": lambda pair: pair.source or "",
    "category": lambda pair: pair.category or "",
    "question_id": lambda pair: pair.question_id or "",
    "margin": lambda pair: pair.margin,
    "length_gap": lambda pair: abs(length_gap(pair)),
    "chosen_is_longer": lambda pair: longer(length_gap(pair)),
    DRAWN: lambda pair: dict(pair.kept).get(DRAWN, OWN),
}
_OF_PROMPTS: dict[str, Callable[[Any], object]] = {
    "source": lambda prompt: prompt.source,
    "category": lambda prompt: prompt.category,
}


class _Columns(Mapping[str, list[Any]]):
    """The columns of items by name, made when asked for; of their file only those that were kept are there."""

    own: Mapping[str, Callable[[Any], object]]

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items
        self._kept = dict.fromkeys(name for item in items for name, _ in item.kept if name not in self.own)

    def __getitem__(self, name: str) -> list[Any]:
        if name in self.own:
            return list(map(self.own[name], self._items))
        if name not in self._kept:
            raise KeyError(name)
        return [dict(item.kept).get(name, UNKNOWN) for item in self._items]

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter([*self.own, *self._kept])

    def __len__(self) -> int:
        return len(self.own) + len(self._kept)


class PairColumns(_Columns):
    """What pairs can be grouped by.

    ``source``, ``category``, ``question_id``, ``margin``; ``length_gap``, the absolute difference of the lengths of the
    answers in characters; ``chosen_is_longer``, yes or no; ``drawn``, ``cross_prompt`` for a pair that was made with an
    answer to another prompt and ``own`` for all others; and columns of their file that were kept.
    """

    own = _OF_PAIRS


class PromptColumns(_Columns):
    """What prompts can be grouped by: ``source``, ``category``, and columns of their file that were kept."""

    own = _OF_PROMPTS


def asked_of_file(names: Iterable[str], kind: type[_Columns]) -> tuple[str, ...]:
    """Of names of groups, the columns that a file must be asked for, since nothing else knows them."""
    return tuple(dict.fromkeys(part for name in names for part in parts_of(name) if part not in kind.own))


def check_known(names: Iterable[str], columns: Mapping[str, object], in_file: Iterable[str]) -> None:
    """Refuse names of groups that neither the examples nor their file have.

    Args:
        names: Of groups.
        columns: What the examples that were read can be grouped by.
        in_file: All columns of their files.

    Raises:
        DataError: One sentence with the columns that there are.
    """
    for name in names:
        if lacking := unknown(name, columns):
            known = list(dict.fromkeys([*columns, *in_file]))
            hint = meant(lacking[0], known)
            raise DataError(
                f"by={name}: there is no column {lacking[0]!r}{f'{hint} T' if hint else '; t'}he columns are: "
                f"{', '.join(known)}."
            )


def kept_of(columns: Columns, names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Those of the named columns that a record has, as text, for ``Pair.kept``; what is null is unknown.

    Raises:
        Malformed: One holds a list or an object.
    """
    found = []
    for name in names:
        if name in columns:
            value = unless_nan(columns.get(name))
            if isinstance(value, Mapping | list | tuple):
                raise Malformed(
                    f"{name!r} should be a text or a number to make groups by, found {type(value).__name__}"
                )
            found.append((sys.intern(name), sys.intern(UNKNOWN if value in (None, "") else str(value))))
    return tuple(found)


def weighed(*ambiguities: str | None) -> tuple[str, ...]:
    """The groups that sets or rules weigh, by the names that their texts give them; None is no set.

    >>> weighed("erm", "regret:tv:0.2,by=topic", "tv:0.2,by=source*topic")
    ('topic', 'source*topic')
    """
    options = [option for text in ambiguities if text for option in Spec.of(text).options]
    return tuple(dict.fromkeys(value for key, value in options if key == "by" and value))


def columns_for(names: Iterable[str]) -> tuple[str, ...]:
    """The columns that files must be asked for, so that their pairs can be put into these groups."""
    return asked_of_file(names, PairColumns)


def rows_of_groups(pairs: Sequence[Pair], by: Iterable[str] = ()) -> dict[str, Rows]:
    """Kind of group -> name of the group -> rows: ``category``, ``source``, and those asked for.

    Bins are those of these pairs. What the pairs do not have is left out, and what makes more than ``MOST`` groups.

    Args:
        pairs: In the order of the rows.
        by: Names of groups, as ``NamedGroups`` knows them.

    >>> pairs = [Pair(str(n), (), chosen="yes", rejected="no", source=name) for n, name in enumerate(["web", "book"])]
    >>> {name: sorted(groups) for name, groups in rows_of_groups(pairs, weighed("tv:0.2,by=source")).items()}
    {'category': ['unknown'], 'source': ['book', 'web']}
    """
    groups = NamedGroups(PairColumns(pairs))
    found = {name: rows_of(groups[name]) for name in ALWAYS}
    for name in by:
        if name in found or name not in groups or not pairs:
            continue
        try:
            rows = rows_of(groups[name])
        except ValueError:  # bins of what are no numbers here
            continue
        if len(rows) <= MOST:
            found[name] = rows
    return found


def rows_of(labels: Sequence[object]) -> Rows:
    """Row numbers by label, sorted by name; an empty one becomes "unknown"."""
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(UNKNOWN if label in (None, "") else str(label), []).append(row)
    return {name: np.array(rows[name], dtype=np.intp) for name in sorted(rows)}
