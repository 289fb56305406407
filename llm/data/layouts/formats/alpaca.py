"""LLaMA-Factory's alpaca: instruction, input, history, system, and chosen and rejected (or two outputs)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm.data.layouts.base import Chat, Columns, Comparison, Layout, Malformed, answer, items, question, reply, unpacked
from llm.data.layouts.turns import after_a_question, explicit, joined
from llm.data.layouts.verdicts import rated_margin


def _fits(columns: Columns) -> bool:
    if "instruction" not in columns:
        return False
    two = unpacked(columns.get("output"))
    return after_a_question(columns) or (isinstance(two, list) and len(two) == 2 and "prompt" not in columns)


def asked(columns: Columns) -> Chat:
    """The earlier exchanges, and the question: the instruction and, on a new line, its input."""
    earlier: Chat = ()
    for exchange in items(columns, "history") if "history" in columns else ():
        if not isinstance(exchange, list) or [*map(type, exchange)] != [str, str]:
            raise Malformed(f"'history' should hold pairs of question and answer, found {exchange!r:.40}")
        earlier += (*question(exchange[0]), reply(exchange[1]))
    return earlier + joined(answer(columns, "instruction"), answer(columns, "input") if "input" in columns else "")


def _read(columns: Columns) -> Iterator[Comparison]:
    yield explicit(_answers(columns), asked(columns))._replace(margin=rated_margin(columns))


def _answers(columns: Columns) -> Mapping[str, object]:
    """Older files have the two answers in one list, the chosen one first."""
    if "chosen" in columns or "output" not in columns:
        return columns
    two = items(columns, "output")
    if len(two) != 2:
        raise Malformed(f"'output' should hold the chosen and the rejected answer, found {len(two)} of them")
    return {"chosen": two[0], "rejected": two[1]}


LAYOUT = Layout("alpaca", "{instruction, input, history, system, chosen, rejected}", _fits, _read)
