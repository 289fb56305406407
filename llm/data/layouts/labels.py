"""How sure a label is, and how much a pair counts: the columns ``preference`` and ``weight``, and what ratings say.

A difference of ratings becomes a probability on one scale for all: the whole width of the scale is worth
``NATS`` of log odds, so p = sigmoid(NATS * difference / width). Votes become the mean of their Beta posterior.

Example:
    >>> [round(from_ratings((2.0, other), (0.0, 4.0)), 2) for other in (1.0, 0.0)], round(from_votes(9, 3), 2)
    ([0.73, 0.88], 0.71)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache

from llm.data.layouts.base import Columns, Comparison, Layout, Malformed

NATS = 4.0  # log odds of the best possible rating against the worst: 98 %
_PREFERENCE = "the probability, from 0 to 1, that the chosen answer is the better one"
_WEIGHT = "how much the pair or prompt counts, a finite number of at least 0"


def labelled(layout: Layout) -> Layout:
    """The same layout, which also reads the columns ``preference`` and ``weight``."""
    return replace(layout, read=_labelled(layout.read))


@cache
def _labelled(own: Callable[[Columns], Iterable[Comparison]]) -> Callable[[Columns], Iterator[Comparison]]:
    """One for each reader, by which layouts that are read alike are known."""

    def read(columns: Columns) -> Iterator[Comparison]:
        for comparison in own(columns):
            yield labelled_by(columns, comparison)

    return read


def labelled_by(columns: Columns, comparison: Comparison) -> Comparison:
    """A comparison with what the columns ``preference`` and ``weight`` of its record say, where they stand there.

    Raises:
        Malformed: A preference is no number from 0 to 1, or a weight no finite number of at least 0.
    """
    preference, weight = _number(columns, "preference", _PREFERENCE), weight_in(columns)
    if preference is not None and not math.isnan(preference):  # how tables write that a rating is missing
        if not 0 <= preference <= 1:
            raise _wrong("preference", _PREFERENCE, preference)
        comparison = comparison._replace(preference=preference)
    return comparison if weight is None else comparison._replace(weight=weight)


def weight_in(columns: Columns) -> float | None:
    """What the column ``weight`` of a record of a pair or a prompt says; None where nothing stands there.

    Raises:
        Malformed: It is no finite number of at least 0.
    """
    weight = _number(columns, "weight", _WEIGHT)
    if weight is not None and not 0 <= weight < math.inf:
        raise _wrong("weight", _WEIGHT, weight)
    return weight


def from_ratings(ratings: Iterable[float | None], scale: tuple[float, float]) -> float | None:
    """The probability that the better rated of two answers is the better one; None where a rating is missing.

    Args:
        ratings: Of both answers.
        scale: Where ratings begin and end.

    Raises:
        Malformed: A rating lies outside its scale.
    """
    least, most = scale
    known = [rating for rating in ratings if rating is not None]
    for rating in known:
        if not least <= rating <= most:
            raise Malformed(
                f"a rating is {rating:g}, outside its scale from {least:g} to {most:g}: mend or leave out the record"
            )
    return 1 / (1 + math.exp(-NATS * (max(known) - min(known)) / (most - least))) if len(known) == 2 else None


def from_votes(chosen: float | None, rejected: float | None) -> float | None:
    """The mean of the share of voters for the chosen answer, uniform before; None where a count is missing or below 0.

    Args:
        chosen: Votes for the chosen answer.
        rejected: Votes for the other.
    """
    if chosen is None or rejected is None or chosen < 0 or rejected < 0:
        return None
    return (chosen + 1) / (chosen + rejected + 2)


def _number(columns: Columns, name: str, meaning: str) -> float | None:
    """The number in a column; None where there is no column, or nothing stands in it."""
    value = columns.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise _wrong(name, meaning, value) from None


def _wrong(name: str, meaning: str, found: object) -> Malformed:
    return Malformed(
        f"{name!r} should be {meaning}, found {found!r:.40}: correct it, leave it empty, or rename the column if it "
        "says something else"
    )
