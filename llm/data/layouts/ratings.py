"""Layouts of rated answers, where the higher rating is the preference: Unified-Feedback, UltraFeedback, HelpSteer2."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm.data.layouts.base import (
    Chat,
    Columns,
    Comparison,
    Dropped,
    Layout,
    Malformed,
    Message,
    Undecided,
    answer,
    having,
    items,
    messages,
    number,
    question,
)
from llm.data.layouts.chats import parted
from llm.data.records import Record

_STEERED_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n?")


def _difference(first: float | None, second: float | None) -> float:
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


def _unified(columns: Columns) -> Iterator[Comparison]:
    """Read llm-blender/Unified-Feedback: two conversations, two ratings; ``source`` is the data set of origin."""
    lead = _difference(number(columns, "conv_A_rating"), number(columns, "conv_B_rating"))
    first, second = messages(columns, "conv_A"), messages(columns, "conv_B")
    better, worse = (first, second) if lead > 0 else (second, first)
    yield parted(better, worse)._replace(margin=abs(lead))


def _completions(columns: Columns) -> Iterator[Comparison]:
    """Read openbmb/UltraFeedback: the best answer against one of the others, as ultrafeedback_binarized does.

    "Best" is the highest ``overall_score``, the first of equals. The other one is drawn uniformly from the
    answers with a lower score by a hash of the instruction, so that every reading draws the same.
    """
    instruction = answer(columns, "instruction")
    rated = [(score, text) for score, text in map(_rated, items(columns, "completions")) if score is not None]
    if len(rated) < 2:
        raise Dropped("fewer than two rated answers")
    best, chosen = max(rated, key=lambda pair: pair[0])
    others = [(score, text) for score, text in rated if score < best]
    if not others:
        raise Undecided("tie")
    score, rejected = _drawn(others, instruction)
    yield Comparison(question(instruction), chosen, rejected, margin=best - score)


def _rated(completion: object) -> tuple[float | None, str]:
    if not isinstance(completion, Mapping):
        raise Malformed(f"'completions' should hold objects with response and overall_score, found {completion!r:.40}")
    return number(completion, "overall_score"), answer(completion, "response")


def _drawn(choices: Sequence[Any], seed: str) -> Any:
    digest = hashlib.sha256(seed.encode(errors="surrogatepass")).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


def _couples(records: Iterator[Record]) -> Iterator[Record]:
    """Join two consecutive rows with the same prompt; a row without a partner stays alone."""
    waiting: Record | None = None
    for record in records:
        if waiting is None:
            waiting = record
        elif waiting.columns.get("prompt") == record.columns.get("prompt"):
            yield Record(f"{waiting.place} and {record.place}", {"rows": (waiting.columns, record.columns)})
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
    lead = _difference(*(number(row, "helpfulness") for row in rows))
    better, worse = rows if lead > 0 else reversed(rows)
    yield Comparison(
        _steered_prompt(answer(better, "prompt")),
        answer(better, "response"),
        answer(worse, "response"),
        margin=abs(lead),
    )


def _steered_preference(columns: Columns) -> Iterator[Comparison]:
    """Read HelpSteer2's ``preference`` folder: a strength from -3 (response_1 much better) to 3."""
    strength = number(columns, "preference_strength")
    if strength is None or abs(strength) > 3:  # -100 marks two answers that are both unfit
        raise Dropped("no rating")
    lead = _difference(0.0, strength)
    names = ("response_1", "response_2") if lead > 0 else ("response_2", "response_1")
    prompt = _steered_prompt(answer(columns, "prompt"))
    better, worse = (answer(columns, name) for name in names)
    yield Comparison(prompt, better, worse, margin=abs(lead))


def _steered_prompt(text: str) -> Chat:
    r"""Split "user turn\n<extra_id_1>Assistant\nturn\n<extra_id_1>User\nturn" into messages."""
    first, *rest = _STEERED_TURN.split(text)
    turns = zip(rest[::2], rest[1::2], strict=True)
    return question(first) + tuple(Message(role=role.lower(), content=content) for role, content in turns)


LAYOUTS = (
    Layout(
        "unified-feedback",
        "{conv_A and conv_B: [messages], conv_A_rating, conv_B_rating, source}",
        having("conv_A", "conv_B", "conv_A_rating", "conv_B_rating"),
        _unified,
    ),
    Layout(
        "ultrafeedback",
        "{instruction, completions: [{response, overall_score}]}",
        having("instruction", "completions"),
        _completions,
    ),
    Layout(
        "helpsteer2",
        "{prompt, response, helpfulness} in two consecutive rows per prompt",
        having("prompt", "response", "helpfulness"),
        _steered,
        _couples,
    ),
    Layout(
        "helpsteer2-preference",
        "{prompt, response_1, response_2, preference_strength}",
        having("prompt", "response_1", "response_2", "preference_strength"),
        _steered_preference,
    ),
)
