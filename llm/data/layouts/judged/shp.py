"""stanfordnlp/SHP: a post and two comments, of which one had more votes; the votes are the margin."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, answer, having, number, question, unless_nan
from llm.data.layouts.labels import from_votes
from llm.data.layouts.verdicts import first_wins


def _read(columns: Columns) -> Iterator[Comparison]:
    first = first_wins(columns, "labels", ("1",), ("0",))
    sides = "AB" if first else "BA"
    votes, others = (number(columns, f"score_{side}") if f"score_{side}" in columns else None for side in sides)
    chosen, rejected = (answer(columns, f"human_ref_{side}") for side in sides)
    yield Comparison(
        question(answer(columns, "history")),
        chosen,
        rejected,
        category=unless_nan(columns.get("domain")),
        question_id=unless_nan(columns.get("post_id")),
        margin=None if votes is None or others is None else votes - others,
        preference=from_votes(votes, others),
    )


LAYOUT = Layout(
    "shp",
    "{history, human_ref_A, human_ref_B, labels, score_A, score_B}",
    having("history", "human_ref_A", "human_ref_B", "labels"),
    _read,
)
