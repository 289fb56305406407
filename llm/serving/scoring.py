"""Rewards of a stream of items: a window is read at a time, and given in the order of the items."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from math import isfinite, nan
from typing import Any, TypeVar

from ..data.layouts import Pair
from .items import Answered
from .reading import ReadItem, RewardReader

WINDOW = 1024  # items that are read and sorted by length together
_CHARACTERS = 2**22  # of a window: beyond, it has fewer items
_LINGER = 0.05  # seconds after which a window of a slow source is full enough
_Item = TypeVar("_Item")
Row = dict[str, Any]


def score_stream(reader: RewardReader, items: Iterable[Pair | Answered], *, slow: bool = False) -> Iterator[Row]:
    """A row for every answer, or pair of answers, in the order of the items.

    A pair has ``id``, ``reward_chosen``, ``reward_rejected``, ``margin``, ``tokens_chosen``, ``tokens_rejected`` and
    ``cut``; an answer ``id``, ``reward``, ``tokens`` and ``cut``, and its place ``answer`` where a chat has several.
    What is not judged has no margin or reward (None), and a ``reason``.

    Args:
        reader: The model.
        items: Held a window at a time.
        slow: Do not wait for a whole window where the next item takes long to come.

    Raises:
        FloatingPointError: A reward is nan or infinite; names the item.
    """
    for window in _windows(_with_pauses(items) if slow else items):
        read = reader.read(window)
        rewards = reader.rewards(read)
        for item, found, numbers in zip(window, read, rewards, strict=True):
            if not all(map(isfinite, numbers)):
                raise FloatingPointError(f"a reward of {item.id!r} is nan or infinite: check the model")
            if isinstance(item, Pair):
                yield _pair_row(item.id, found, numbers)
            else:
                yield from _answer_rows(item.id, found, numbers)


def _pair_row(name: str, found: ReadItem, rewards: list[float]) -> Row:
    chosen, rejected = rewards or (nan, nan)
    tokens = [len(row) for row in found.rows] or [0, 0]
    row: Row = {
        "id": name, "reward_chosen": _or_none(chosen), "reward_rejected": _or_none(rejected),
        "margin": None if found.reason else chosen - rejected, "tokens_chosen": tokens[0], "tokens_rejected": tokens[1],
        "cut": found.cut,
    }  # fmt: skip
    return row | ({"reason": found.reason} if found.reason else {})


def _answer_rows(name: str, found: ReadItem, rewards: list[float]) -> Iterator[Row]:
    if found.reason:
        yield {"id": name, "reward": None, "tokens": 0, "cut": found.cut, "reason": found.reason}
    for place, (row, reward) in enumerate(zip(found.rows, rewards, strict=True)):
        which = {"answer": place} if len(found.rows) > 1 else {}
        yield {"id": name, **which, "reward": reward, "tokens": len(row), "cut": found.cut}


def _or_none(reward: float) -> float | None:
    return reward if isfinite(reward) else None


def _size(item: Pair | Answered) -> int:
    chat = item.prompt if isinstance(item, Pair) else item.chat
    answers = (item.chosen, item.rejected) if isinstance(item, Pair) else item.answers
    return sum(len(message["content"]) for message in chat) + sum(map(len, answers))


_PAUSE = object()
_END: Any = object()


def _windows(items: Iterable[Any]) -> Iterator[list[Any]]:
    """The items some at a time; a pause ends a window. What was read before an error is given before it is raised."""
    window, characters, problem = [], 0, None
    source = iter(items)
    while problem is None:
        try:
            item = next(source, _END)
        except Exception as error:
            item, problem = _END, error
        if item is not _PAUSE and item is not _END:
            window.append(item)
            characters += _size(item)
        if window and (item is _PAUSE or item is _END or len(window) == WINDOW or characters > _CHARACTERS):
            yield window
            window, characters = [], 0
        if item is _END:
            break
    if problem is not None:
        raise problem


def _with_pauses(items: Iterable[object]) -> Iterator[object]:
    """The items, read ahead by a thread, with a mark wherever the next one is not there at once.

    What ends the reading is raised behind the last item. The thread is left alone with a source that never ends.
    """
    ahead: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(maxsize=64)
    left = threading.Event()

    def put(item: object, error: BaseException | None = None) -> None:
        while not left.is_set():
            try:
                ahead.put((item, error), timeout=0.2)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            for item in items:
                put(item)
                if left.is_set():
                    return
        except BaseException as error:
            put(_END, error)
        else:
            put(_END)

    threading.Thread(target=read, name="reading ahead", daemon=True).start()
    try:
        while True:
            try:
                item, error = ahead.get(timeout=_LINGER)
            except queue.Empty:
                yield _PAUSE
                continue
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        left.set()
