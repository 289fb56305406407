"""The last window of an epoch: where examples are left over, they make a full-size step of another objective.

The worst case over a smaller batch is another function, the step it takes is as large as any other, and a window of one
example is plain training. So under a set an epoch ends with its last full window; where the order is drawn anew in
every epoch, the next one leaves out others, and the log says where it is not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import RandomSampler, Sampler, SequentialSampler

from .radius.settings import LastWindow as LastWindow

_log = logging.getLogger(__name__)


def whole_windows(examples: int, window: int) -> int:
    """How many of the examples an epoch sees: full windows of them, or all where there is none.

    >>> whole_windows(24, 16), whole_windows(12, 16), whole_windows(32, 16)
    (16, 12, 32)
    """
    return examples - examples % window if examples >= window else examples


class FirstOf(Sampler[int]):
    """The first ``count`` positions of another sampler."""

    def __init__(self, sampler: Iterable[int], count: int) -> None:
        self.sampler, self.count = sampler, count
        self.generator = getattr(sampler, "generator", None)  # accelerate keeps it alike on all ranks

    def __iter__(self) -> Iterator[int]:
        return islice(iter(self.sampler), self.count)

    def __len__(self) -> int:
        return self.count


def first_of(sampler: Any, examples: int, count: int, *, tell: bool) -> Sampler[int] | None:
    """A sampler of training examples, ended after ``count``.

    Args:
        sampler: As from ``Trainer``; one that does not give all examples one by one stays as it is.
        examples: Size of the training set.
        count: As from ``whole_windows``.
        tell: Whether to log what is left out.
    """
    if count == examples or sampler is None or len(sampler) != examples:
        return sampler
    if tell:
        _log.info(
            "%d of %d examples fill no effective batch and are left out of every epoch%s; last_window keep takes a "
            "step of them, as large as any other",
            *(examples - count, examples),
            ", the same ones, which are never trained on" if isinstance(sampler, SequentialSampler) else "",
        )
    if type(sampler) is RandomSampler and not sampler.replacement:  # accelerate seeds this one anew in every epoch
        return RandomSampler(sampler.data_source, num_samples=count, generator=sampler.generator)
    return FirstOf(sampler, count)
