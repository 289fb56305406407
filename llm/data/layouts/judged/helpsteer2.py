"""nvidia/HelpSteer2: two rated rows per prompt, and its folder of preferences with their strength."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llm.data.layouts.base import (
    Chat,
    Columns,
    Comparison,
    Dropped,
    Layout,
    Message,
    answer,
    having,
    joined,
    number,
    question,
)
from llm.data.layouts.labels import from_ratings
from llm.data.layouts.verdicts import difference
from llm.data.records import Record

_HELPFULNESS = (0.0, 4.0)  # from, to
_STRONGEST = 3.0
_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n?")


def _couples(records: Iterator[Record]) -> Iterator[Record]:
    """Join two consecutive rows with the same prompt; a row without a partner stays alone."""
    waiting: Record | None = None
    for record in records:
        if waiting is None:
            waiting = record
        elif waiting.columns.get("prompt") == record.columns.get("prompt"):
            yield joined(waiting, record)
            waiting = None
        else:
            yield Record(waiting.place, {"rows": (waiting.columns,)})
            waiting = record
    if waiting is not None:
        yield Record(waiting.place, {"rows": (waiting.columns,)})


def _steered(columns: Columns) -> Iterator[Comparison]:
    """Read nvidia/HelpSteer2: two rows per prompt, the higher ``helpfulness`` is chosen."""
    rows = columns["rows"]
    if len(rows) < 2:
        raise Dropped("answer without a second one to the same prompt")
    ratings = [number(row, "helpfulness") for row in rows]
    lead = difference(*ratings)
    better, worse = rows if lead > 0 else reversed(rows)
    yield Comparison(
        _steered_prompt(answer(better, "prompt")),
        answer(better, "response"),
        answer(worse, "response"),
        margin=abs(lead),
        preference=from_ratings(ratings, _HELPFULNESS),
    )


def _steered_preference(columns: Columns) -> Iterator[Comparison]:
    """Read HelpSteer2's ``preference`` folder: a strength from -3 (response_1 much better) to 3."""
    strength = number(columns, "preference_strength")
    if strength is None or abs(strength) > _STRONGEST:  # -100 marks two answers that are both unfit
        raise Dropped("no rating")
    lead = difference(0.0, strength)
    names = ("response_1", "response_2") if lead > 0 else ("response_2", "response_1")
    prompt = _steered_prompt(answer(columns, "prompt"))
    better, worse = (answer(columns, name) for name in names)
    yield Comparison(
        prompt, better, worse, margin=abs(lead), preference=from_ratings((abs(lead), 0.0), (0.0, _STRONGEST))
    )


def _steered_prompt(text: str) -> Chat:
    r"""Split "user turn\n<extra_id_1>Assistant\nturn\n<extra_id_1>User\nturn" into messages."""
    first, *rest = _TURN.split(text)
    turns = zip(rest[::2], rest[1::2], strict=True)
    return question(first) + tuple(Message(role=role.lower(), content=content) for role, content in turns)


LAYOUT = Layout(
    "helpsteer2",
    "{prompt, response, helpfulness} in two consecutive rows per prompt",
    having("prompt", "response", "helpfulness"),
    _steered,
    _couples,
)
PREFERENCE = Layout(
    "helpsteer2-preference",
    "{prompt, response_1, response_2, preference_strength}",
    having("prompt", "response_1", "response_2", "preference_strength"),
    _steered_preference,
)
