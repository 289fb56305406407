"""openai/webgpt_comparisons: a question with its full text, two answers and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm.data.layouts.base import (
    Columns,
    Comparison,
    Layout,
    Malformed,
    answer,
    field,
    having,
    number,
    question,
    said,
    unpacked,
)
from llm.data.layouts.labels import from_ratings
from llm.data.layouts.verdicts import difference


def _read(columns: Columns) -> Iterator[Comparison]:
    asked = unpacked(field(columns, "question"))
    if isinstance(asked, str):
        asked = {"full_text": asked}
    if not isinstance(asked, Mapping):
        raise Malformed(f"'question' should hold its full_text, found {said(asked)}")
    scores = [number(columns, name) for name in ("score_0", "score_1")]
    lead = difference(*scores)
    sides = ("answer_0", "answer_1") if lead > 0 else ("answer_1", "answer_0")
    yield Comparison(
        question(answer(asked, "full_text")),
        *(answer(columns, name) for name in sides),
        source=asked.get("dataset"),
        question_id=asked.get("id"),
        margin=abs(lead),
        preference=from_ratings(scores, (-1.0, 1.0)),
    )


LAYOUT = Layout(
    "webgpt",
    "{question: {full_text}, answer_0, answer_1, score_0, score_1}",
    having("question", "answer_0", "answer_1", "score_0", "score_1"),
    _read,
)
