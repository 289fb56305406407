"""How a task is named: ``task:NAME``, or ``task:NAME?n=1000&seed=1&split=test&OPTION=VALUE``.

Example:
    >>> TaskAddress.of("task:addition?n=20&seed=3&digits=2")
    TaskAddress(name='addition', n=20, seed=3, split=None, options=(('digits', '2'),))
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self
from urllib.parse import parse_qsl

SPELLING = "task:NAME?n=1000&seed=0&split=train, with further options of the task"
TEST_SHARE = 0.2
Split = Literal["train", "test"]
_MOST = 10**6
_TRIES = 50  # draws for each question that is asked for
_ADDRESS = re.compile(r"task:(?P<name>[\w-]+(?:/[\w-]+)?)(?:\?(?P<options>.*))?", re.S)


class TaskError(ValueError):
    """A task that does not exist or cannot be made as asked; one sentence with the remedy."""


class Question(NamedTuple):
    """What a task asks.

    Attributes:
        text: The question.
        answer: The right answer.
        difficulty: How hard it is, the larger the harder, in a unit of the task.
        source: The family within the task, the unit of a mixture.
    """

    text: str
    answer: str
    difficulty: int
    source: str


@dataclass(frozen=True)
class TaskAddress:
    """A task and what is taken of it.

    Attributes:
        name: Of the task; ``reasoning-gym/NAME`` for one of that library.
        n: How many different questions.
        seed: Which.
        split: ``train`` or ``test``: no question is in both, whatever the seeds; None: of all.
        options: Of the task, as text.
    """

    name: str
    n: int = 1000
    seed: int = 0
    split: Split | None = None
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, text: str) -> Self:
        """Read an address.

        Raises:
            TaskError: It is none.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise TaskError(f"{text} names no task; write {SPELLING}.")
        try:
            told = parse_qsl(found["options"] or "", strict_parsing=bool(found["options"]))
        except ValueError as error:
            raise TaskError(f"{text}: options are KEY=VALUE&KEY=VALUE; write {SPELLING}.") from error
        options = dict(told)
        if len(options) < len(told):
            raise TaskError(f"{text}: an option stands twice.")
        n, seed = (_whole(text, key, options.pop(key, usual)) for key, usual in (("n", "1000"), ("seed", "0")))
        split = options.pop("split", None)
        if split not in ("train", "test", None):
            raise TaskError(f"{text}: split is train or test, got {split}.")
        if not 1 <= n <= _MOST:
            raise TaskError(f"{text}: n is how many questions, from 1 to {_MOST}, got {n}.")
        return cls(found["name"], n, seed, split, tuple(options.items()))


def most(address: TaskAddress) -> int:
    """How many questions are drawn at most to find those that are asked for."""
    return address.n * _TRIES + 1000


def _whole(text: str, key: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,12}", value):
        raise TaskError(f"{text}: {key} is a whole number of at least 0, got {value!r}.")
    return int(value)
