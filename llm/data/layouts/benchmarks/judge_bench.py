"""ScalerLab/JudgeBench: a question, two responses and a label such as A>B."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, answer, having, question, unless_nan
from llm.data.layouts.verdicts import first_wins


def _read(columns: Columns) -> Iterator[Comparison]:
    sides = "AB" if first_wins(columns, "label", ("A>B", "A>>B", "A"), ("B>A", "B>>A", "B")) else "BA"
    answers = (answer(columns, f"response_{side}") for side in sides)
    yield Comparison(question(answer(columns, "question")), *answers, id=unless_nan(columns.get("pair_id")))


LAYOUT = Layout(
    "judgebench",
    "{pair_id, source, question, response_A, response_B, label: 'A>B' or 'B>A'}",
    having("question", "response_A", "response_B", "label"),
    _read,
)
