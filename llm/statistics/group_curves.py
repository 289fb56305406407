"""What becomes of groups while something is trained: how often each is right on held-out pairs, and what it weighs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class GroupCurves(NamedTuple):
    """Groups over the steps of a training, at k looks.

    Attributes:
        steps: Taken before each look, ``(k,)``.
        groups: Their names, ``(groups,)``.
        accuracy: Of each on the held-out pairs, as labelled, ``(k, groups)``; nan where it has none there.
        share: Of the weight in all steps since the look before, ``(k, groups)``.
    """

    steps: NDArray[np.int64]
    groups: NDArray[np.str_]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]


class GroupWatch:
    """Keeps account of groups while something is trained.

    Args:
        trained: The group of every training pair, ``(n,)``.
        held_out: The group of every held-out pair, ``(m,)``.

    >>> watch = GroupWatch(["a", "b"], ["b", "b"])
    >>> watch.weigh([0, 1], [0.25, 0.75])
    >>> watch.look(1, [1.0, 0.0])
    >>> watch.found.accuracy.tolist(), watch.found.share.tolist()
    ([[nan, 0.5]], [[0.25, 0.75]])
    """

    def __init__(self, trained: ArrayLike, held_out: ArrayLike) -> None:
        trained, held_out = np.asarray(trained, dtype=np.str_), np.asarray(held_out, dtype=np.str_)
        self._names, codes = np.unique(np.concatenate([trained, held_out]), return_inverse=True)
        self._trained, self._held_out = codes[: len(trained)], codes[len(trained) :]
        self._weight = np.zeros(len(self._names))
        self._looks: list[tuple[int, Any, Any]] = []

    def weigh(self, rows: ArrayLike, weights: ArrayLike) -> None:
        """Take in the weights of a step, of the training pairs ``rows``."""
        self._weight += np.bincount(self._trained[rows], weights, len(self._names))

    def look(self, steps: int, correct: ArrayLike) -> None:
        """Take in how right every held-out pair is after ``steps``, in [0, 1], ``(m,)``."""
        count = np.bincount(self._held_out, minlength=len(self._names))
        right = np.bincount(self._held_out, np.asarray(correct), len(self._names))
        accuracy = np.divide(right, count, out=np.full(len(count), np.nan), where=count > 0)
        total = self._weight.sum()
        share = self._weight / total if total > 0 else np.full(len(count), np.nan)
        self._looks.append((steps, accuracy, share))
        self._weight = np.zeros(len(self._names))

    @property
    def found(self) -> GroupCurves:
        """All looks so far."""
        shape = (len(self._looks), len(self._names))
        accuracy, share = (np.array([look[part] for look in self._looks]).reshape(shape) for part in (1, 2))
        return GroupCurves(np.array([look[0] for look in self._looks], dtype=np.int64), self._names, accuracy, share)
