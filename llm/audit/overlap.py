"""Which pairs of a test suite a model has been trained on, word for word or nearly.

Exactly: equal texts but for white space around them and for which answer was chosen. Nearly: of the five-letter pieces
of two texts, in small letters and without white space, four in five are shared. The pieces are sampled: of every text
the 64 with the smallest hashes are kept (a bottom-k sketch, exact for short texts), and a text is compared with those
that share some of its 16 smallest. So half a kilobyte is held of every training pair, whatever its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.overview import Cases, compared
from ..data.pairs import Pair

NEAR = 0.8
"""Share of the pieces that near-duplicates have in common."""

_PIECE, _KEPT, _KEYS = 5, 64, 16
_NONE = np.uint64(2**32)  # no hash
_SHARED, _TRIED = 3, 100  # keys in common before a text is looked at, and how many texts are
Sketch = NDArray[np.uint32]
_FACTORS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD], np.uint64
)


class TrainingTexts:
    """What is remembered of training pairs; ``add`` them, then ask for suites."""

    def __init__(self) -> None:
        self._pairs: set[bytes] = set()
        self._prompts: dict[bytes, int] = {}
        self._of_prompts, self._of_answers = _Sketches(), _Sketches()
        self._prompt_of: list[int] = []  # number of the prompt of every pair

    def add(self, pair: Pair) -> None:
        """Remember a pair."""
        prompt, comparison = compared(pair)
        number = self._prompts.setdefault(prompt, len(self._prompts))
        if number == len(self._of_prompts):
            self._of_prompts.add(sketch(_asked(pair)))
        if comparison not in self._pairs:
            self._pairs.add(comparison)
            self._prompt_of.append(number)
            self._of_answers.add(sketch(_answers(pair)))

    def overlap(self, suite: Iterable[Pair]) -> dict[str, dict[str, Cases]]:
        """``pairs`` and ``prompts`` of a suite that were trained on, each ``exact`` and ``near``: not both.

        Prompts are counted by the pairs that ask them.
        """
        found = {what: {"exact": Cases(), "near": Cases()} for what in ("pairs", "prompts")}
        prompt_of, known = np.array(self._prompt_of), dict[bytes, list[int]]()
        for pair in suite:
            prompt, comparison = compared(pair)
            if prompt not in known:
                known[prompt] = self._of_prompts.near(sketch(_asked(pair)))
            near = known[prompt]
            if prompt in self._prompts:
                found["prompts"]["exact"].add(pair)
                near = [*near, self._prompts[prompt]]
            elif near:
                found["prompts"]["near"].add(pair)
            if comparison in self._pairs:
                found["pairs"]["exact"].add(pair)
            elif near and self._of_answers.near(sketch(_answers(pair)), np.isin(prompt_of, near)):
                found["pairs"]["near"].add(pair)
        return found


def sketch(text: str) -> Sketch:
    """The smallest hashes of the pieces of a text, sorted; all where there are few."""
    plain = "".join(text.casefold().split())
    letters = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(letters) < _PIECE:
        letters = np.pad(letters, (0, _PIECE - len(letters)))
    pieces = sum(
        (letters[start : len(letters) - _PIECE + 1 + start] * factor for start, factor in enumerate(_FACTORS)),
        start=np.zeros(len(letters) - _PIECE + 1, dtype=np.uint64),
    )
    hashes = _mixed(pieces)
    few = 4 * _KEPT  # repeated pieces have equal hashes
    smallest = np.unique(np.partition(hashes, few)[:few] if len(hashes) > few else hashes)
    return (smallest if len(smallest) >= _KEPT else np.unique(hashes))[:_KEPT]


def likeness(one: Sketch, others: Sequence[Sketch]) -> NDArray[np.float64]:
    """Share of the pieces of a text that each of others has, of all that either has; exact for short texts."""
    rows = np.full((len(others), 2 * _KEPT), _NONE)
    rows[:, : len(one)] = one
    for row, other in zip(rows, others, strict=True):
        row[_KEPT : _KEPT + len(other)] = other
    rows.sort(axis=1)
    again = np.pad(rows[:, 1:] == rows[:, :-1], ((0, 0), (1, 0))) & (rows < _NONE)
    new = ~again & (rows < _NONE)
    sampled = np.array([len(one) == _KEPT or len(other) == _KEPT for other in others])
    counted = (np.cumsum(new, axis=1) <= _KEPT) | ~sampled[:, None]
    return (again & counted).sum(axis=1) / (new & counted).sum(axis=1)


def _mixed(numbers: NDArray[np.uint64]) -> Sketch:
    numbers = numbers ^ (numbers >> np.uint64(29))
    return ((numbers * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(32)).astype(np.uint32)


class _Sketches:
    """Sketches by number, and which have a hash among their smallest."""

    def __init__(self) -> None:
        self._rows: list[Sketch] = []
        self._index: tuple[Sketch, NDArray[np.intp]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, found: Sketch) -> None:
        self._rows.append(found)
        self._index = None

    def near(self, found: Sketch, among: NDArray[np.bool_] | None = None) -> list[int]:
        """Numbers of the sketches of near-duplicates, of those that ``among`` marks."""
        if not self._rows:
            return []
        keys, rows = self._index = self._index or self._indexed()
        asked = found[:_KEYS]
        first, last = np.searchsorted(keys, asked), np.searchsorted(keys, asked, side="right")
        shared = np.concatenate([rows[a:b] for a, b in zip(first, last, strict=True)])
        counts = np.bincount(shared, minlength=len(self._rows))
        if among is not None:
            counts[~among] = 0
        likely = np.flatnonzero(counts >= min(_SHARED, len(asked)))
        likely = likely[np.argsort(-counts[likely], kind="stable")][:_TRIED]
        return likely[likeness(found, [self._rows[row] for row in likely]) >= NEAR].tolist() if len(likely) else []

    def _indexed(self) -> tuple[Sketch, NDArray[np.intp]]:
        keys = np.concatenate([row[:_KEYS] for row in self._rows])
        rows = np.repeat(np.arange(len(self._rows)), [min(len(row), _KEYS) for row in self._rows])
        order = np.argsort(keys, kind="stable")
        return keys[order], rows[order]


def _asked(pair: Pair) -> str:
    return "\n".join(message["content"] for message in pair.prompt)


def _answers(pair: Pair) -> str:
    """Both answers, whichever was chosen."""
    return "\n".join(sorted((pair.chosen, pair.rejected)))
