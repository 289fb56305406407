"""What becomes of groups while something is trained: how often each is right on held-out pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class GroupCurves(NamedTuple):
    """Groups over the steps of a training, at k looks.

    Attributes:
        steps: Taken before each look, ``(k,)``.
        groups: Their names, ``(groups,)``.
        accuracy: Of each on its held-out pairs, as these are labelled, ``(k, groups)``.
    """

    steps: NDArray[np.int64]
    groups: NDArray[np.str_]
    accuracy: NDArray[np.float64]


class GroupWatch:
    """Keeps account of groups while something is trained.

    Args:
        held_out: The group of every held-out pair, ``(m,)``.

    >>> watch = GroupWatch(["b", "a", "b"])
    >>> watch.look(5, [1.0, 1.0, 0.0])
    >>> watch.found.steps.tolist(), watch.found.groups.tolist(), watch.found.accuracy.tolist()
    ([5], ['a', 'b'], [[1.0, 0.5]])
    """

    def __init__(self, held_out: ArrayLike) -> None:
        self._names, self._codes = np.unique(np.asarray(held_out, dtype=np.str_), return_inverse=True)
        self._count = np.bincount(self._codes, minlength=len(self._names))
        self._steps: list[int] = []
        self._accuracy: list[NDArray[np.float64]] = []

    def look(self, steps: int, correct: ArrayLike) -> None:
        """Take in how right every held-out pair is after ``steps``, in [0, 1], ``(m,)``."""
        self._steps.append(steps)
        self._accuracy.append(np.bincount(self._codes, np.asarray(correct), len(self._names)) / self._count)

    @property
    def found(self) -> GroupCurves:
        """All looks so far."""
        accuracy = np.array(self._accuracy).reshape(len(self._steps), len(self._names))
        return GroupCurves(np.array(self._steps, dtype=np.int64), self._names, accuracy)
