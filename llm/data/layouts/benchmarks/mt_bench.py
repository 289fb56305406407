"""lmsys/mt_bench_human_judgments: two conversations of two turns, judged at one of them."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, Undecided, having, number
from llm.data.layouts.turns import messages, parted
from llm.data.layouts.verdicts import first_wins

# Questions 81 to 160, ten of each.
_MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")


def _read(columns: Columns) -> Iterator[Comparison]:
    """Two conversations and a winner, judged at turn 1 or 2.

    Both conversations hold both turns, whatever was judged, so they are cut after the judged one. At turn 2 the
    two models answer after their own first answers: such a comparison has no common prompt and is left out.
    """
    first_won = first_wins(columns, "winner", ("model_a",), ("model_b",))
    turn = int(number(columns, "turn") or 1)
    first, second = (_up_to(turn, columns, name) for name in ("conversation_a", "conversation_b"))
    if first[:-1] != second[:-1]:
        raise Undecided("later turn: the conversations differ before the judged answer")
    better, worse = (first, second) if first_won else (second, first)
    yield parted(better, worse)._replace(category=_category(columns))


def _up_to(turn: int, columns: Columns, name: str) -> tuple:
    """Return the conversation up to, and with, its answer number ``turn``."""
    turns = messages(columns, name)
    ends = [place for place, message in enumerate(turns, start=1) if message["role"] == "assistant"]
    return turns[: ends[turn - 1]] if turn <= len(ends) else turns


def _category(columns: Columns) -> str | None:
    try:
        number_of_question = int(columns["question_id"])
    except (KeyError, TypeError, ValueError):
        return None
    return _MT_BENCH[(number_of_question - 81) // 10] if 81 <= number_of_question <= 160 else None


LAYOUT = Layout(
    "mt-bench",
    "{question_id, conversation_a and conversation_b: [messages], winner, turn}",
    having("conversation_a", "conversation_b", "winner", "turn"),
    _read,
)
