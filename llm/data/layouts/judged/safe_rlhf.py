"""PKU-SafeRLHF: two responses, which of them is better (more helpful) and which is safer."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, answer, having, question
from llm.data.layouts.verdicts import first_wins

_COLUMNS = ("prompt", "response_0", "response_1", "better_response_id")


def _read(columns: Columns) -> Iterator[Comparison]:
    """The more helpful response is chosen; the category says whether it is the safer one too."""
    first = first_wins(columns, "better_response_id", ("0",), ("1",))
    sides = ("response_0", "response_1") if first else ("response_1", "response_0")
    category, noted = None, ()
    if "safer_response_id" in columns:
        safer = first_wins(columns, "safer_response_id", ("0",), ("1",)) == first
        category = "better and safer" if safer else "better, not safer"
        noted = () if safer else ("better_response_id is read, safer_response_id names the other answer",)
    chat = question(answer(columns, "prompt"))
    yield Comparison(chat, *(answer(columns, name) for name in sides), category=category, noted=noted)


LAYOUT = Layout(
    "pku-saferlhf", "{prompt, response_0, response_1, better_response_id, safer_response_id}", having(*_COLUMNS), _read
)
