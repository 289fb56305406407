"""What the rows of a TRL data set can be grouped by: its columns, and of pairs how their answers differ in length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..data.grouping.columns import longer

if TYPE_CHECKING:
    import datasets

OF_GAPS: dict[str, Callable[[int], object]] = {"length_gap": abs, "chosen_is_longer": longer}
_ANSWERS = {"chosen", "rejected"}


class Columns(Mapping[str, list[object]]):
    """The columns of a data set by name, read when asked for.

    Where it has ``chosen`` and ``rejected``, texts or messages, there are ``length_gap``, the absolute difference of
    their lengths in characters, and ``chosen_is_longer``, unless it has columns of that name itself.
    """

    def __init__(self, data: datasets.Dataset) -> None:
        self._data, own = data, set(data.column_names)
        self._names = [*data.column_names, *(OF_GAPS.keys() - own if own >= _ANSWERS else ())]

    def __getitem__(self, name: str) -> list[object]:
        if name not in self._names:
            raise KeyError(name)
        if name in self._data.column_names:
            return list(self._data[name])
        pairs = zip(self._data["chosen"], self._data["rejected"], strict=True)
        return [OF_GAPS[name](_length(chosen) - _length(rejected)) for chosen, rejected in pairs]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _length(said: Any) -> int:
    """Characters of a text, or of all messages of a conversation; a prompt that both answers repeat cancels out."""
    if said is None or isinstance(said, str):
        return len(said or "")
    parts = (part.get("content") or part.get("text") if isinstance(part, Mapping) else part for part in said)
    return sum(_length(part) for part in parts)
