r"""``number``: the result of the answer equals the number in the column ``answer``, exactly or within a tolerance.

Of both, the number is the last one inside ``<answer>`` tags, else inside the last ``\boxed{}``, else behind the last
``####``, else of the whole text. Read are signs, thousands separators, decimals, exponents, fractions (``3/4``,
``\frac{3}{4}``, ``1 1/2``); units, currencies and percent signs are passed over.
"""

from __future__ import annotations

import re
from fractions import Fraction

from .base import Checker, Row, given, said

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?(?!\d)|\.\d+(?:[eE][+-]?\d{1,3})?"
_NUMBER = re.compile(
    rf"(?:(?<![\w.)])(?P<sign>[-+\u2212])\s?\$?)?(?:"
    rf"(?:(?P<whole>(?<![\d.,/])\d{{1,9}})\s?)?\\[dt]?frac\{{(?P<over>\d+)\}}\{{(?P<under>\d+)\}}"
    rf"|(?:(?P<whole2>(?<![\d.,/])\d{{1,9}})\s)?(?<![\d.,])(?P<over2>\d+)\s?/\s?(?P<under2>\d+)(?!\d)"
    rf"|(?P<plain>{_PLAIN}))"
)
_SHORT = re.compile(r"\\[dt]?frac\s?(\d)\s?(\d)(?!\d)")
_LONGEST = 400  # characters of a number


def _tolerance(text: str) -> Fraction:
    value = Fraction(text)
    if value < 0:
        raise ValueError("it must be at least 0")
    return value


OPTIONS = {"tolerance": _tolerance, "relative": _tolerance}
ARGUMENT = False


def number_in(text: str) -> Fraction | None:
    r"""The number that a text gives as its result; None where there is none.

    >>> [str(number_in(text)) for text in ("2 + 2 = 4.", r"\boxed{\frac{3}{6}}, from 7", "#### $1,250.50", "1 1/2 km")]
    ['4', '1/2', '2501/2', '3/2']
    """
    for place in _places(_plain_latex(said(text))):
        found = [match for match in _NUMBER.finditer(place) if len(match[0]) <= _LONGEST]
        if found:
            return _value(found[-1])
    return None


def _plain_latex(text: str) -> str:
    r"""Without what LaTeX puts into numbers: ``1{,}000``, ``1\,000``, and ``\frac12`` with its braces."""
    for written, meant in (("{,}", ","), ("\\!", ""), ("\\,", "")):
        text = text.replace(written, meant)
    return _SHORT.sub(r"\\frac{\1}{\2}", text)


def _places(text: str) -> list[str]:
    boxed = _boxed(text)
    if boxed is not None:
        return [boxed]
    return [text.rpartition("####")[2]] if "####" in text else [text]


def _boxed(text: str) -> str | None:
    begin = text.rfind("\\boxed{")
    if begin < 0:
        return None
    depth = 0
    for place in range(begin + 6, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin + 7 : place]
    return text[begin + 7 :]


def _value(found: re.Match[str]) -> Fraction | None:
    over, under = found["over"] or found["over2"], found["under"] or found["under2"]
    if over is not None:
        if not int(under):
            return None
        value = int(found["whole"] or found["whole2"] or 0) + Fraction(int(over), int(under))
    else:
        value = Fraction(found["plain"].replace(",", ""))
    return -value if found["sign"] in ("-", "\u2212") else value


def checker(tolerance: Fraction = Fraction(0), relative: Fraction = Fraction(0)) -> Checker:
    """Equality within ``tolerance`` plus ``relative`` times the number that is wanted, in exact arithmetic."""

    def score(text: str, row: Row) -> float:
        got, wanted = number_in(text), number_in(str(row["answer"]))
        return float(got is not None and wanted is not None and abs(got - wanted) <= tolerance + relative * abs(wanted))

    def lacks(row: Row) -> str | None:
        if given(row, "answer") is None:
            return "no `answer`"
        return None if number_in(str(row["answer"])) is not None else "no number in `answer`"

    return Checker(score, lacks)
