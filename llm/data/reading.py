"""Which columns of a file are read, and which are left aside although they hold text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Reading:
    """An account of the columns of one file: those that were looked at, and where there was text.

    Attributes:
        names: All of them, in the order in which they were met.
    """

    def __init__(self) -> None:
        self._read: set[str] = set()
        self.names: dict[str, None] = {}
        self._with_text: Counter[str] = Counter()

    def watched(self, columns: Mapping[str, object]) -> dict[str, object]:
        """The columns, which note from now on when one is read."""
        for name, value in columns.items():
            self.names[name] = None
            if name not in self._read and _is_text(value):
                self._with_text[name] += 1
        return _Watched(columns, self._read)

    def ignored(self) -> dict[str, int]:
        """Columns with text that were never read -> records in which there is text, the most first."""
        return {name: count for name, count in self._with_text.most_common() if name not in self._read}


class _Watched(dict[str, object]):
    """Columns that tell which of them were read: by ``[]`` and ``get``, not by being copied or asked for."""

    def __init__(self, columns: Mapping[str, object], read: set[str]) -> None:
        super().__init__(columns)
        self._read = read

    def __getitem__(self, name: str) -> object:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: object = None) -> object:
        self._read.add(name)
        return super().get(name, default)


def _is_text(value: object) -> bool:
    """Whether there are letters in it, also inside of lists and objects."""
    if isinstance(value, str):
        return any(sign.isalpha() for sign in value)
    if isinstance(value, Mapping):
        return any(map(_is_text, value.values()))
    return isinstance(value, list | tuple) and any(map(_is_text, value))
