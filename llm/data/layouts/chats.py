"""Layouts that say which answer was chosen: canonical, TRL's three, hh-rlhf, ultrafeedback_binarized."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from llm.data.layouts.base import (
    Chat,
    Columns,
    Comparison,
    Dropped,
    Layout,
    Malformed,
    Message,
    Undecided,
    field,
    messages,
    number,
)

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _decided(columns: Columns) -> str | None:
    """Return which of the plain layouts this is, or None.

    Raises:
        Dropped: The columns are there, but one of them is null here: the next record must decide.
    """
    if not {"chosen", "rejected"} <= columns.keys():
        return None
    if columns["chosen"] is None or columns["rejected"] is None:
        raise Dropped("empty answer")
    chosen, prompt = columns["chosen"], columns.get("prompt")
    if prompt is not None:
        return "canonical" if isinstance(prompt, list) and isinstance(chosen, str) else "trl"
    if "prompt" in columns:
        raise Dropped("empty prompt")
    if isinstance(chosen, list):
        return "trl-implicit"
    return "hh-rlhf" if "Assistant:" in str(chosen) else None


def _explicit(columns: Columns) -> Iterator[Comparison]:
    prompt = messages(columns, "prompt", role="user")
    yield Comparison(prompt, _answer(columns, "chosen", prompt), _answer(columns, "rejected", prompt))


def _answer(columns: Columns, name: str, prompt: Chat) -> str:
    value = field(columns, name)
    if value is None or isinstance(value, str):
        return value or ""
    turns = messages(columns, name)
    return _only_answer(turns[len(prompt) :] if turns[: len(prompt)] == prompt else turns)


def _implicit(columns: Columns) -> Iterator[Comparison]:
    yield parted(messages(columns, "chosen"), messages(columns, "rejected"))


def parted(chosen: Chat, rejected: Chat) -> Comparison:
    """Compare two whole conversations: their shared beginning is the prompt.

    Raises:
        Dropped: They are equal, part before the last answer, or do not end with an answer.
    """
    if chosen == rejected:
        raise Dropped("chosen equals rejected")
    both = zip(chosen, rejected, strict=False)
    shared = next((i for i, (a, b) in enumerate(both) if a != b), min(len(chosen), len(rejected)))
    return Comparison(chosen[:shared], _only_answer(chosen[shared:]), _only_answer(rejected[shared:]))


def _only_answer(turns: Chat) -> str:
    if len(turns) > 1:
        raise Dropped("conversations differ before the last answer")
    if not turns:
        raise Dropped("empty answer")
    if turns[0]["role"] != "assistant":
        raise Dropped("conversation does not end with an assistant turn")
    return turns[0]["content"]


def _transcripts(columns: Columns) -> Iterator[Comparison]:
    prompt, chosen = _split_transcript(field(columns, "chosen"))
    other_prompt, rejected = _split_transcript(field(columns, "rejected"))
    if prompt != other_prompt:
        raise Dropped("conversations differ before the last answer")
    yield Comparison(prompt, chosen, rejected)


def _split_transcript(text: object) -> tuple[Chat, str]:
    """Cut a Human/Assistant transcript before its last answer."""
    if text is None:
        raise Dropped("empty answer")
    if not isinstance(text, str):
        raise Malformed(f"expected a Human/Assistant transcript, found {type(text).__name__}")
    opening, *pieces = _TURN.split("\n\n" + text.lstrip())
    if opening.strip() or not pieces:
        raise Dropped("text is not a Human/Assistant transcript")
    turns = _turns(pieces)
    if turns[-1][0] != "assistant":
        raise Dropped("conversation does not end with an assistant turn")
    return _merged(turns[:-1]), turns[-1][1]


def spoken(text: str) -> Chat:
    """Return the turns of a dialogue whose first speaker, the human, may go unnamed."""
    opening, *pieces = _TURN.split("\n\n" + text.lstrip())
    return _merged([("user", opening.strip())] * bool(opening.strip()) + _turns(pieces))


def _turns(pieces: list[str]) -> list[tuple[str, str]]:
    return [(_ROLES[role], content.strip()) for role, content in zip(pieces[::2], pieces[1::2], strict=True)]


def _merged(turns: list[tuple[str, str]]) -> Chat:
    """Join two turns in a row by the same speaker, which hh-rlhf has and chat templates refuse."""
    merged: list[Message] = []
    for role, content in turns:
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += "\n\n" + content
        else:
            merged.append({"role": role, "content": content})
    return tuple(merged)


def _scored(columns: Columns) -> Iterator[Comparison]:
    """Read HuggingFaceH4/ultrafeedback_binarized: the prompt as text, both conversations and their scores."""
    chosen, rejected = number(columns, "score_chosen"), number(columns, "score_rejected")
    margin = None if chosen is None or rejected is None else chosen - rejected
    if margin == 0:
        raise Undecided("tie")
    named = columns.get("question_id") or columns.get("prompt_id")
    for comparison in _explicit(columns):
        yield comparison._replace(question_id=named, margin=margin)


def _is(name: str) -> Callable[[Columns], bool]:
    return lambda columns: _decided(columns) == name


def _has_scores(columns: Columns) -> bool:
    return {"score_chosen", "score_rejected"} <= columns.keys() and _decided(columns) in ("canonical", "trl")


LAYOUTS = (
    Layout(
        "ultrafeedback-binarized",
        "{prompt: text, chosen and rejected: [messages], score_chosen, score_rejected}",
        _has_scores,
        _scored,
    ),
    Layout("canonical", "{prompt: [messages], chosen: text, rejected: text}", _is("canonical"), _explicit),
    Layout(
        "trl",
        "{prompt: text or [messages] (optional), chosen and rejected: text or [messages]}",
        _is("trl"),
        _explicit,
    ),
    Layout("trl-implicit", "", _is("trl-implicit"), _implicit),
    Layout(
        "hh-rlhf",
        "{chosen and rejected: '\\n\\nHuman: ...\\n\\nAssistant: ...'}",
        _is("hh-rlhf"),
        _transcripts,
    ),
)
