"""Answers that call tools, in what a chat template makes of them: where they stand, and whether all is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm.data.layouts.tools import CallingAnswer
from llm.data.pairs import Message


def turn_of(answer: str) -> Message:
    """An answer as the message that a chat template writes."""
    return {**answer.turn} if isinstance(answer, CallingAnswer) else {"role": "assistant", "content": answer}


def without_tools(chat: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """A chat whose turns hold no definitions of tools, which templates are told beside it."""
    return [{name: value for name, value in message.items() if name != "tools"} for message in chat]


def place_of_call(
    text: str, turn: Mapping[str, object], frame: Sequence[str], asked: str, special: Sequence[str]
) -> tuple[int, int] | None:
    """The first character of an answer that calls tools and the one after the last; None where a part of it is missing.

    Args:
        text: The conversation.
        turn: The answer.
        frame: What stands before and after an answer of text, the first and the last of these.
        asked: The text that is answered.
        special: Texts that the tokenizer reads as special tokens: another one may end an answer of this kind.
    """
    start = next((len(begin) for begin in (frame[0], asked) if begin and text.startswith(begin)), 0)
    end = len(text.removesuffix(frame[-1]))
    if end == len(text):
        bare = text.rstrip()
        end = next((len(bare) - len(token) for token in special if bare.endswith(token)), end)
    return (start, end) if start and _shows(text[start:end], turn) else None


def _shows(text: str, turn: Mapping[str, Any]) -> bool:
    """Whether a text has all that a turn says and calls, every part as often, as it is or as JSON writes it."""
    calls = [call.get("function", call) for call in turn["tool_calls"]]
    parts = Counter([turn["content"].strip()])
    parts.update(part for call in calls for part in (call.get("name"), *_leaves(call.get("arguments"))))
    return all(any(text.count(form) >= count for form in _forms(part)) for part, count in parts.items())


def _leaves(value: object) -> Iterator[object]:
    """Names and values of arguments, however deep."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value


def _forms(part: object) -> set[str]:
    if not isinstance(part, str):
        return {json.dumps(part), str(part)}
    return {part, *(json.dumps(part, ensure_ascii=escaped)[1:-1] for escaped in (True, False))}
