"""Which of two answers a column says is better.

Known values, whatever their case: ``first`` and ``second``; ``a`` and ``b``, alone or behind what they are
(``model_a``, ``winner_model_b``, ``[[A]]``); ``A>B`` and ``B>A``; the names of the two columns; ``tie`` in its forms;
and numbers, which count the answers from 0 or from 1: a file that has a 0 counts from 0, one that has a 2 from 1.

Example:
    >>> winner = Winner(("left_text", "right_text"), ())
    >>> [winner.of(value, counted_from=0) for value in ("model_b", "A>B", "tie (bothbad)", "right_text", 0, None)]
    ['second', 'first', 'tie', 'second', 'first', None]
    >>> Winner(("a", "b"), ("1", "0")).of(1, counted_from=None)
    'first'
"""

from __future__ import annotations

import math
import re
from typing import Literal, NamedTuple

Outcome = Literal["first", "second", "tie"]

_SIDES: dict[str, Outcome] = {"first": "first", "second": "second", "1st": "first", "2nd": "second"}
_SIDES |= {"left": "first", "right": "second"}
_OF = r"(?:(?:answer|assistant|candidate|completion|model|option|output|reply|response|winner)[\W_]*)*"
_LETTER = re.compile(rf"\W*{_OF}([ab])\W*")  # a, model_a, winner: b, [[A]]
_ORDER = re.compile(r"\W*([ab])\s*([<>=≈]+)\s*([ab])\W*")
_TIE = re.compile(rf"\W*{_OF}(tied?|draw|equal|same|both|neither)([\W_].*)?|0\.5")


class Winner(NamedTuple):
    """How a column is read.

    Attributes:
        names: Of the columns of the first and of the second answer.
        outcomes: The values that say first, second and tie, in lower case; empty: the known ones.
    """

    names: tuple[str, str]
    outcomes: tuple[str, ...]

    def of(self, value: object, *, counted_from: int | None) -> Outcome | None:
        """What a value says; None where there is none.

        Args:
            value: As it stands in the column.
            counted_from: 0 or 1, where numbers count the answers; None: not known.

        Raises:
            ValueError: It says nothing that is known; the message says what would.
        """
        text = said(value)
        if text is None:
            return None
        if self.outcomes:
            if text in self.outcomes:
                return ("first", "second", "tie")[self.outcomes.index(text)]
            raise ValueError(f"the winner {value!r:.40} is none of {', '.join(self.outcomes)}")
        names = [name.casefold() for name in self.names]
        if text in names and names[0] != names[1]:
            return "first" if names.index(text) == 0 else "second"
        if counts(value) and counted_from is not None and int(text) - counted_from in (0, 1):
            return "second" if int(text) - counted_from else "first"
        if (known := _known(text)) is not None and not isinstance(value, bool):
            return known
        raise ValueError(_remedy(value, counted_from))


def said(value: object) -> str | None:
    """A value as text in lower case, whole numbers without a point; None for null, NaN and nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).strip().casefold()
    return (re.sub(r"(?<=\d)\.0+$", "", text) or None) if not isinstance(value, bool) else text


def counts(value: object) -> bool:
    """Whether a value counts the answers: 0, 1 or 2, as a number or as text."""
    return not isinstance(value, bool) and said(value) in ("0", "1", "2")


def _known(text: str) -> Outcome | None:
    if text in _SIDES:
        return _SIDES[text]
    if order := _ORDER.fullmatch(text):
        left, sign, right = order.groups()
        if left == right or {"<", ">"} <= set(sign):
            return None
        if not set(sign) & {"<", ">"}:
            return "tie"
        return "first" if (left == "a") == (">" in sign) else "second"
    if letter := _LETTER.fullmatch(text):
        return "first" if letter[1] == "a" else "second"
    return "tie" if _TIE.fullmatch(text) else None


def _remedy(value: object, counted_from: int | None) -> str:
    example = "write winner=COLUMN:FIRST/SECOND with the values that say so, such as winner=label:1/0"
    if not counts(value):
        return f"the winner is {value!r:.40}, which is neither side nor a tie: {example}"
    if counted_from is None:
        return f"the winner is {said(value)} wherever one looks, which may be the first answer or the second: {example}"
    return f"the winner is {said(value)} where others are 0 or 2: numbers count the answers from 0 or from 1; {example}"
