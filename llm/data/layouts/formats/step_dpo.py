"""Step-DPO: a question, the steps that both answers begin with, and the step that is right or wrong."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, answer, having, question


def _read(columns: Columns) -> Iterator[Comparison]:
    """The labelled steps, not ``full_chosen`` and ``full_rejected``: nobody judged what follows there."""
    begun = answer(columns, "initial_reason_steps")
    chosen, rejected = (begun + answer(columns, name) for name in ("chosen", "rejected"))
    yield Comparison(question(answer(columns, "prompt")), chosen, rejected)


LAYOUT = Layout(
    "step-dpo",
    "{prompt, initial_reason_steps, chosen, rejected}",
    having("prompt", "initial_reason_steps", "chosen", "rejected"),
    _read,
)
