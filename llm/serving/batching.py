"""Requests of many clients in the same forward passes: one thread asks the model, and the others wait."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple, Protocol

from .items import Answered
from .reading import ReadItem, Written

_log = logging.getLogger(__name__)
LINGER = 0.004  # seconds that a request waits for company
_CHARACTERS = 2**18  # that are read together at most, unless a single request has more

Item = Answered | Written


class ReadsAndScores(Protocol):
    """What the thread asks; a ``RewardReader``."""

    def read(self, items: Sequence[Item]) -> list[ReadItem]:
        """What is read of each item."""
        ...

    def rewards(self, items: Sequence[ReadItem], wanted: Callable[[int], bool] = ...) -> list[list[float]]:
        """Rewards of the rows of each."""
        ...


class ItemRewards(NamedTuple):
    """What was read of an item, and the reward of each of its answers."""

    read: ReadItem
    rewards: list[float]


class _Job(NamedTuple):
    items: Sequence[Item]
    size: int
    future: Future[list[ItemRewards]]


class Batcher:
    """Hands the items of requests to a model, those that wait at the same time together.

    A request that is cancelled is not computed any more, and not held while others are.

    Args:
        reader: Asked by one thread alone.
        linger: Seconds that a request waits for company while the model is idle.
    """

    def __init__(self, reader: ReadsAndScores, *, linger: float = LINGER) -> None:
        self._reader, self._linger = reader, linger
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._left_over: _Job | None = None
        self._thread = threading.Thread(target=self._run, name="rewards", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[Item]) -> Future[list[ItemRewards]]:
        """The rewards of the items, in their order, once there are any."""
        future: Future[list[ItemRewards]] = Future()
        job = _Job(items, sum(map(_size, items)), future)
        self._jobs.put(job)
        future.add_done_callback(lambda done: self._forget(job) if done.cancelled() else None)
        return future

    def _forget(self, job: _Job) -> None:
        """Take it out of the queue, unless the thread has it already."""
        with self._jobs.mutex, suppress(ValueError):
            self._jobs.queue.remove(job)

    @property
    def waiting(self) -> int:
        """Requests that the model has not come to."""
        return self._jobs.qsize()

    def close(self, timeout: float | None = None) -> None:
        """Let the thread end once all is done; nothing may be submitted any more."""
        self._jobs.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while jobs := self._together():
            self._try([job for job in jobs if not job.future.cancelled()])
            del jobs  # while it waits, it holds nothing

    def _try(self, jobs: Sequence[_Job]) -> None:
        """Answer all; where that fails, each alone, so that one request is no other's problem."""
        try:
            self._answer(jobs)
        except Exception as error:  # of the tokenizer, the model or the device
            if len(jobs) > 1:
                for job in jobs:
                    self._try([job])
                return
            _log.warning("a request failed: %s: %s", type(error).__name__, error)
            for job in jobs:
                _settle(job, error)

    def _together(self) -> list[_Job]:
        """The jobs that are there, and come within a moment, up to a size; none: there will be no more."""
        first = self._left_over or self._jobs.get()
        self._left_over = None
        if first is None:
            return []
        jobs, size, until = [first], first.size, time.monotonic() + self._linger
        while size < _CHARACTERS:
            try:
                job = self._jobs.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            if size + job.size > _CHARACTERS:
                self._left_over = job
                break
            jobs.append(job)
            size += job.size
        return jobs

    def _answer(self, jobs: Sequence[_Job]) -> None:
        owners = [job for job in jobs for _ in job.items]
        read = self._reader.read([item for job in jobs for item in job.items])
        rewards = self._reader.rewards(read, lambda place: not owners[place].future.cancelled())
        found = iter(zip(read, rewards, strict=True))
        for job in jobs:
            _settle(job, [ItemRewards(*next(found)) for _ in job.items])


def _settle(job: _Job, result: list[ItemRewards] | Exception) -> None:
    if not job.future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        job.future.set_exception(result)
    else:
        job.future.set_result(result)


def _size(item: Item) -> int:
    if isinstance(item, Written):
        return len(item.text)
    asked = sum(len(message["content"]) for message in item.chat)
    return sum(asked + len(answer) for answer in item.answers)
