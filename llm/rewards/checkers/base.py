"""What a checker is, and where an answer says its result."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..names import RewardError

Row = Mapping[str, Any]  # the columns of a prompt
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.S | re.I)
_FENCED = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:```|\Z)", re.S)


@dataclass(frozen=True)
class Checker:
    """A checker by name, ready to be asked.

    Attributes:
        score: Of an answer and the columns of its prompt: 1 right, 0 wrong, or between.
        lacks: What is wrong with the columns of a prompt, as "no `answer`"; None where it can be checked.
        scores: Of many answers at once, where that is faster.
    """

    score: Callable[[str, Row], float]
    lacks: Callable[[Row], str | None]
    scores: Callable[[Sequence[str], Sequence[Row]], list[float]] | None = None


def checker_of(name: str, options: Mapping[str, str], argument: str | None) -> Checker:
    """The checker of that name.

    Raises:
        RewardError: An option or argument that it does not have, or that makes no sense; a package is missing.
    """
    module = import_module(f"{__package__}.{name.replace('-', '_')}")
    known: Mapping[str, Callable[[str], object]] = module.OPTIONS
    if wrong := [key for key in options if key not in known]:
        there = f"there are {', '.join(known)}" if known else "it has none"
        raise RewardError(f"{name}: there is no option {wrong[0]!r}; {there}.")
    if argument is not None and not module.ARGUMENT:
        raise RewardError(f"{name}: nothing but a weight can stand behind the colon, got {argument!r}.")
    values = {}
    for key, text in options.items():
        try:
            values[key] = known[key](text)
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            raise RewardError(f"{name}: {key}={text} makes no sense ({error}).") from error
    return module.checker(argument, **values) if module.ARGUMENT else module.checker(**values)


def said(text: str) -> str:
    """What the answer gives as its result: inside the last ``<answer>`` tags, else all of it."""
    tagged = _TAGGED.findall(text)
    return tagged[-1] if tagged else text


def block(text: str, *languages: str) -> str:
    """The last fenced block in one of these languages or in none named, else all of the text."""
    found = [body for language, body in _FENCED.findall(text) if language.lower() in ("", *languages)]
    return found[-1] if found else text


def given(row: Row, *names: str) -> Any:
    """The first of these columns that holds something; None where none does."""
    return next((row[name] for name in names if row.get(name) not in (None, "", [], {})), None)


def positive(text: str) -> float:
    """A number above 0, for an option."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError("it must be a number above 0")
    return number
