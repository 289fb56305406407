"""RM-Bench: a right and a wrong answer in three styles each (brief, detailed, detailed with Markdown)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, Malformed, answer, items, question, text_of, unpacked
from llm.data.layouts.verdicts import one_question

_LEVELS = {-1: "hard", 0: "normal", 1: "easy"}  # as published: hard where the wrong answer has more style


def _fits(columns: Columns) -> bool:
    if not columns.keys() >= {"prompt", "chosen", "rejected", "domain"}:
        return False
    sides = [unpacked(columns[name]) for name in ("chosen", "rejected")]
    return all(isinstance(side, list) and side and all(isinstance(text, str) for text in side) for side in sides)


def _read(columns: Columns) -> Iterator[Comparison]:
    """Every right answer against every wrong one; source: the domain, category: the level, one question."""
    right, wrong = items(columns, "chosen"), items(columns, "rejected")
    if len(right) != 3 or len(wrong) != 3:
        raise Malformed(f"'chosen' and 'rejected' should hold three styles, found {len(right)} and {len(wrong)}")
    domain, prompt = answer(columns, "domain"), question(answer(columns, "prompt"))
    named = f"{domain}/{one_question(columns, prompt)}"
    for (i, chosen), (j, rejected) in itertools.product(enumerate(right), enumerate(wrong)):
        level = _LEVELS[(i > j) - (i < j)]
        yield Comparison(
            prompt, text_of(chosen), text_of(rejected), named, domain, f"{domain}/{level}", question_id=named
        )


LAYOUT = Layout("rm-bench", "{prompt, chosen and rejected: [three texts], domain, id}", _fits, _read)
