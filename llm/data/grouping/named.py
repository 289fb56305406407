"""NamedGroups by name: a column, quantile bins of a column of numbers, and every combination of several.

Example:
    >>> groups = NamedGroups({"source": ["web", "web", "exam", "exam"], "length_gap": [0, 9, 1, 30]})
    >>> groups["length_gap/2"], groups["source*length_gap/2"][:2]
    (['at most 5', 'above 5', 'at most 5', 'above 5'], ['web, at most 5', 'web, above 5'])
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_BINS = 1000
BINS = 4  # of a column that is always cut, where no number is named
UNKNOWN = "unknown"
_CUT = {"length_gap": BINS}  # columns that are cut into bins without being asked to: hardly two entries are equal
_BINS = re.compile(r"(?P<column>.+)/(?P<count>\d+)")


class NamedGroups(Mapping[str, Any]):
    """The columns of a data set, and the groups that can be made of them, by name.

    ``COLUMN/K`` is K quantile bins of a column of numbers, ``A*B`` every combination of two columns or more. A column
    whose own name reads like that is itself. ``length_gap`` is cut into ``BINS`` where no number is named.

    Args:
        columns: One entry per example each; looked up when they are asked for.
        seed: Of ``permuted``.
        like: Where the edges of bins are taken from, by name; None: from the columns themselves.
    """

    def __init__(self, columns: Mapping[str, Any], *, seed: int = 0, like: NamedGroups | None = None) -> None:
        self._columns, self._seed, self._like = columns, seed, like
        self._edges: dict[str, NDArray[np.float64]] = {}
        self._dealt = False

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> NamedGroups:
        """The columns with what can be made of them; groups are themselves."""
        return columns if isinstance(columns, cls) else cls(columns)

    def permuted(self) -> NamedGroups:
        """The same with all entries dealt anew, in one order for all columns: the groups keep their sizes alone."""
        found = NamedGroups(self._columns, seed=self._seed, like=self._like)
        found._dealt = True
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._columns or not unknown(name, self._columns))

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, name: str) -> Any:
        """One label per example.

        Raises:
            KeyError: There is no such column.
            ValueError: Bins of what holds no numbers, or fewer than two.
        """
        found = self._made(name)
        if not self._dealt:
            return found
        order = np.random.default_rng([self._seed, 7]).permutation(len(found))
        return found[order] if isinstance(found, np.ndarray) else [found[place] for place in order]

    def edges(self, name: str) -> NDArray[np.float64]:
        """Where the bins of ``COLUMN/K`` end, each but the last; fewer than K - 1 where entries are equal."""
        if self._like is not None:
            return self._like.edges(name)
        if name not in self._edges:
            column, count = _cut(name, self._columns)
            values = _numbers(column, self._columns[column])
            known = values[~np.isnan(values)]
            quantiles = np.quantile(known, np.arange(1, count) / count) if len(known) else known
            self._edges[name] = np.unique(quantiles[quantiles < known.max(initial=-np.inf)])
        return self._edges[name]

    def _made(self, name: str) -> Any:
        if name in self._columns and name not in _CUT:
            return self._columns[name]
        parts = [part.strip() for part in name.split("*")]
        if len(parts) > 1:
            return [", ".join(map(str, labels)) for labels in zip(*map(self._made, parts), strict=True)]
        column, count = _cut(name, self._columns)
        if count == 0:
            raise KeyError(name)
        edges = self.edges(name)
        values = _numbers(column, self._columns[column])
        names = np.array([*_bin_names(edges), UNKNOWN])
        return names[np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values))].tolist()


def parts_of(name: str) -> list[str]:
    """The columns that a name of groups may be made of; itself among them, since a column may be called anything."""
    parts = [part.strip() for part in name.split("*")]
    bare = [found["column"] if (found := _BINS.fullmatch(part)) else part for part in parts]
    return list(dict.fromkeys([name, *bare]))


def unknown(name: str, known: Container[str]) -> list[str]:
    """The parts of a name of groups for which there is no column among those known."""
    if name in known:
        return []
    return [column for part in name.split("*") if (column := _cut(part.strip(), known)[0]) not in known]


def _cut(name: str, known: Container[str]) -> tuple[str, int]:
    """The column of a name without ``*`` and into how many bins it is cut, 0 for not at all.

    Raises:
        ValueError: Fewer than two bins.
    """
    found = None if name in known else _BINS.fullmatch(name)
    if found is None:
        return name, _CUT.get(name, 0)
    if not 2 <= int(found["count"]) <= _MOST_BINS:
        raise ValueError(
            f"{name} asks for {found['count']} bins of {found['column']}, and groups are from 2 to {_MOST_BINS:,}."
        )
    return found["column"], int(found["count"])


def _numbers(name: str, entries: Sequence[Any]) -> NDArray[np.float64]:
    """The entries of a column as numbers; nan for those that are missing.

    Raises:
        ValueError: One is no number.
    """
    entries = entries.tolist() if isinstance(entries, np.ndarray) else entries
    try:
        return np.array([np.nan if entry in (None, "", UNKNOWN) else float(entry) for entry in entries])
    except (TypeError, ValueError):
        odd = next(str(entry) for entry in entries if not _is_number(entry))
        raise ValueError(
            f"the column {name} cannot be cut into bins, for it holds no numbers, {odd!r:.40} for example: leave out "
            "the number behind the slash."
        ) from None


def _is_number(entry: Any) -> bool:
    try:
        return entry in (None, "", UNKNOWN) or float(entry) is not None
    except (TypeError, ValueError):
        return False


def _bin_names(edges: NDArray[np.float64]) -> list[str]:
    if not len(edges):
        return ["any"]
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"at most {edges[0]:g}", *inner, f"above {edges[-1]:g}"]
