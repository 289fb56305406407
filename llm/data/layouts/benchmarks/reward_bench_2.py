"""allenai/reward-bench-2: lists of right and of wrong answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Dropped, Layout, answer, having, items, question, text_of
from llm.data.layouts.benchmarks.reward_bench import numbered


def _read(columns: Columns) -> Iterator[Comparison]:
    """Every right answer against every wrong one, all of one question.

    The ids of its subsets overlap, so a question is named by both.
    """
    subset = answer(columns, "subset")
    named = numbered(subset, columns)
    right, wrong = items(columns, "chosen"), items(columns, "rejected")
    if not right or not wrong:
        raise Dropped("empty answer")
    prompt = question(answer(columns, "prompt"))
    for chosen, rejected in itertools.product(right, wrong):
        yield Comparison(prompt, text_of(chosen), text_of(rejected), id=named, category=subset, question_id=named)


LAYOUT = Layout(
    "reward-bench-2",
    "{prompt, chosen and rejected: [texts], subset, id, num_correct, num_incorrect}",
    having("prompt", "chosen", "rejected", "subset", "num_correct", "num_incorrect"),
    _read,
)
