"""Intel's orca_dpo_pairs, argilla's version of it, and axolotl: system, a question, chosen and rejected."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, Undecided, answer, first_of, question
from llm.data.layouts.turns import after_a_question, explicit
from llm.data.layouts.verdicts import rated_margin


def _fits(columns: Columns) -> bool:
    return after_a_question(columns) and len(columns.keys() & {"question", "input"}) == 1


def _read(columns: Columns) -> Iterator[Comparison]:
    """argilla/distilabel-intel-orca-dpo-pairs says in ``status`` where its judge saw no difference."""
    if columns.get("status") == "tie":
        raise Undecided("tie")
    chat = question(answer(columns, first_of(columns, "question", "input")))
    yield explicit(columns, chat)._replace(margin=rated_margin(columns))


LAYOUT = Layout("orca", "{system, question or input, chosen, rejected}", _fits, _read)
