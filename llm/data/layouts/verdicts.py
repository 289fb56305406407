"""Which of two or more answers won: ratings, names of the winner, ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from llm.data.layouts.base import (
    Chat,
    Columns,
    Comparison,
    Dropped,
    Malformed,
    Undecided,
    number,
    present,
    question,
    unless_nan,
)

_RATED = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_avg_rating", "rejected_avg_rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("rating_chosen", "rating_rejected"),
)


def difference(first: float | None, second: float | None) -> float:
    """Return first - second, the sign of which is the preference.

    Raises:
        Dropped: A rating is missing.
        Undecided: They are equal.
    """
    if first is None or second is None:
        raise Dropped("no rating")
    if first == second:
        raise Undecided("tie")
    return first - second


def rated_margin(columns: Columns) -> float | None:
    """How much better the chosen answer was rated, where two columns say so and no ``margin`` does; else None."""
    if unless_nan(columns.get("margin")) not in (None, ""):
        return None
    for names in _RATED:
        if columns.keys() >= set(names):
            chosen, rejected = (number(columns, name) for name in names)
            return None if chosen is None or rejected is None else chosen - rejected
    return None


def first_wins(columns: Columns, name: str, first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether the column names the first of two answers.

    Raises:
        Dropped: It is empty.
        Undecided: It says "tie", "A=B" or that both are bad.
        Malformed: It is none of the known values.
    """
    value = present(columns, name)
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    text = str("" if value is None else value).strip()
    if not text:
        raise Dropped("no verdict")
    if text.lower().startswith(("tie", "both", "a=b")):
        raise Undecided("tie")
    if text not in first and text not in second:
        raise Malformed(f"{name!r} should be {first[0]}, {second[0]} or tie, found {text!r:.40}")
    return text in first


def best_against_lower(
    prompt: str | Chat, rated: Sequence[tuple[float | None, str]], columns: Columns
) -> list[Comparison]:
    """The best of several rated answers against each that is rated lower: one question, k - 1 pairs at most.

    Not all pairs: of seven answers the sixth would be "chosen" against the last, and whatever learns chosen answers
    would learn it.

    Raises:
        Dropped: Fewer than two answers are rated.
        Undecided: All are rated the same.
    """
    (best, chosen), lower = best_and_lower(rated)
    chat = question(prompt) if isinstance(prompt, str) else prompt
    named = one_question(columns, chat)
    return [Comparison(chat, chosen, text, question_id=named, margin=best - rating) for rating, text in lower]


def best_and_lower(rated: Iterable[tuple[float | None, str]]) -> tuple[tuple[float, str], list[tuple[float, str]]]:
    """The best of several rated answers, the first of equals, and all that are rated lower.

    Raises:
        Dropped: Fewer than two answers are rated.
        Undecided: All are rated the same.
    """
    known = [(rating, text) for rating, text in rated if rating is not None]
    if len(known) < 2:
        raise Dropped("fewer than two rated answers")
    best = max(known, key=lambda pair: pair[0])
    lower = [pair for pair in known if pair[0] < best[0]]
    if not lower:
        raise Undecided("tie")
    return best, lower


def one_question(columns: Columns, chat: Chat) -> str:
    """What names the question of several pairs: a column that does, else a hash of the chat."""
    for name in ("question_id", "prompt_id", "id"):
        if unless_nan(columns.get(name)) not in (None, ""):
            return str(columns[name])
    text = "\n".join(message["content"] for message in chat)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
