"""Which groups pairs are judged by: their categories and sources, and those that a set weighs.

Example:
    >>> pairs = [Pair(str(n), (), chosen="yes", rejected="no", source=name) for n, name in enumerate(["web", "book"])]
    >>> {name: sorted(groups) for name, groups in rows_of_groups(pairs, weighed("tv:0.2,by=source")).items()}
    {'category': ['unknown'], 'source': ['book', 'web']}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dro_core.texts import Spec
from llm.data.layouts.base import Pair

from .columns import PairColumns, asked_of_file
from .named import UNKNOWN, NamedGroups

MOST = 100  # more groups than these are judged as one, like the names of questions
ALWAYS = ("category", "source")

Rows = dict[str, NDArray[np.intp]]


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
