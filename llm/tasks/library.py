"""The tasks by name, and their questions as records."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import itertools
import random
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from . import generated, reasoning_gym
from .address import TEST_SHARE, Question, TaskAddress, TaskError, most


def names() -> list[str]:
    """The tasks of our own: the files in ``generated``."""
    return sorted(file.stem for file in Path(generated.__path__[0]).glob("*.py") if file.stem != "__init__")


def records(address: TaskAddress) -> Iterator[dict[str, object]]:
    """Different questions in the order they are drawn, which name, seed and options decide.

    Raises:
        TaskError: There is no such task or option, or it has not so many different questions.
    """
    row = reasoning_gym.rows(address) if address.name.startswith(reasoning_gym.PREFIX) else _drawn(address)
    seen = set[str]()
    for found in itertools.islice(row, most(address)):
        if found["prompt"] not in seen and address.split in (None, split_of(found["prompt"])):
            seen.add(found["prompt"])
            yield {"id": f"{address.name.rpartition('/')[2]}-{len(seen) - 1:05d}", **found}
        if len(seen) == address.n:
            return
    raise TaskError(
        f"task:{address.name} has only about {len(seen)} different questions with these options, and n is {address.n}: "
        "lower n, or make the task larger."
    )


def split_of(question: str) -> str:
    """``test`` for a fifth of all questions, ``train`` for the others, by a hash of the text."""
    fraction = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8], "big") / 2**64
    return "test" if fraction < TEST_SHARE else "train"


def _drawn(address: TaskAddress) -> Iterator[dict[str, Any]]:
    if address.name not in names():
        close = difflib.get_close_matches(address.name, names(), n=1)
        meant = f", did you mean {close[0]}?" if close else f"; there are {', '.join(names())} and reasoning-gym/NAME."
        raise TaskError(f"there is no task {address.name!r}{meant}")
    draw: Callable[..., Question] = import_module(f"{generated.__name__}.{address.name}").draw
    options = _options(address, draw)
    rng = random.Random(f"{address.name} {address.seed}")
    while True:
        text, answer, difficulty, source = draw(rng, **options)
        yield {"prompt": text, "answer": answer, "difficulty": difficulty, "source": source, "category": address.name}


def _options(address: TaskAddress, draw: Callable[..., Question]) -> dict[str, int]:
    known = list(inspect.signature(draw).parameters)[1:]
    for name, value in address.options:
        if name not in known:
            raise TaskError(
                f"task:{address.name} has no option {name!r}; there are n, seed, split, {', '.join(known)}."
            )
        if not value.isdigit() or not 1 <= int(value) <= 1000:
            raise TaskError(f"task:{address.name}: {name} is a whole number from 1 to 1000, got {value!r}.")
    return {name: int(value) for name, value in address.options}
