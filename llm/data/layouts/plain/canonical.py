"""The layout that `data convert` writes, TRL's explicit one, and ultrafeedback_binarized: prompt, chosen, rejected."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llm.data.layouts.base import Columns, Comparison, Dropped, Layout, Undecided, unless_nan
from llm.data.layouts.turns import explicit, messages
from llm.data.layouts.verdicts import rated_margin


def kind(columns: Columns) -> str | None:
    """Which of the layouts with a prompt, chosen and rejected this is, or None.

    Raises:
        Dropped: The columns are there, but one of them is null here: the next record must decide.
    """
    if not {"prompt", "chosen", "rejected"} <= columns.keys():
        return None
    prompt, chosen, rejected = (columns[name] for name in ("prompt", "chosen", "rejected"))
    if chosen is None or rejected is None:
        raise Dropped("empty answer")
    if prompt is None:
        raise Dropped("empty prompt")
    if {"score_chosen", "score_rejected"} <= columns.keys():
        return "ultrafeedback-binarized"
    return "canonical" if isinstance(prompt, list) and isinstance(chosen, str) else "trl"


def _read(columns: Columns) -> Iterator[Comparison]:
    yield explicit(columns, messages(columns, "prompt", role="user"))._replace(margin=rated_margin(columns))


def _scored(columns: Columns) -> Iterator[Comparison]:
    """Read HuggingFaceH4/ultrafeedback_binarized, whose rejected answer was drawn among all others."""
    if rated_margin(columns) == 0:
        raise Undecided("tie")
    named = unless_nan(columns.get("question_id")) or unless_nan(columns.get("prompt_id"))
    for comparison in _read(columns):
        yield comparison._replace(question_id=named)


def _is(name: str) -> Callable[[Columns], bool]:
    return lambda columns: kind(columns) == name


BINARIZED = Layout(
    "ultrafeedback-binarized",
    "{prompt: text, chosen and rejected: [messages], score_chosen, score_rejected}",
    _is("ultrafeedback-binarized"),
    _scored,
)
CANONICAL = Layout("canonical", "{prompt: [messages], chosen: text, rejected: text}", _is("canonical"), _read)
TRL = Layout(
    "trl",
    "{prompt: text or [messages] (optional), chosen and rejected: text, a message or [messages]}",
    _is("trl"),
    _read,
)
