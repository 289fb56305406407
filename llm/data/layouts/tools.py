r"""Tools: their definitions, which stay with a message of the chat that may use them, and answers that call them.

>>> chat = with_tools(({"role": "user", "content": "Where?"},), '[{"name": "find", "parameters": {}}]')
>>> chat[0]["tools"][0]["function"]["name"]
'find'
>>> CallingAnswer({"role": "assistant", "content": "Look.", "tool_calls": [{"function": {"name": "find"}}]})
'Look.\n{"name": "find"}'
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from llm.data.layouts.base import Chat, Message, unless_nan, unpacked

LEFT_OUT = "definitions of tools left out"


class CallingAnswer(str):
    """The text of an answer that calls tools, as the plain layout writes it.

    Attributes:
        turn: The whole answer, which chat templates write in their own way.
    """

    turn: Message

    def __new__(cls, turn: Message) -> Self:
        """The text of this turn, and the turn."""
        made = super().__new__(cls, turn["content"] + calls_text(turn))
        made.turn = turn
        return made

    def __getnewargs__(self) -> Any:
        """What a copy is made of."""
        return (self.turn,)


def calls_text(message: Message) -> str:
    """The calls of a turn in the plain layout: below what is said, each as JSON on a line."""
    calls = message.get("tool_calls") or []
    return "".join(f"\n{json.dumps(call.get('function', call), ensure_ascii=False)}" for call in calls)


def record_of(answer: str) -> str | list[Message]:
    """An answer ready for JSON: its text, or its turn in a list where it calls tools."""
    return [answer.turn] if isinstance(answer, CallingAnswer) else answer


def definitions(value: object) -> list[dict[str, Any]]:
    """The definitions in a field, which may be JSON text, each as ``{"type": "function", "function": {...}}``.

    What is null in them is left out: tables fill up with it. Nothing where the field holds something else.
    """
    found = unpacked(unless_nan(value))
    found = [found] if isinstance(found, Mapping) else found
    if not isinstance(found, list) or not all(isinstance(tool, Mapping) and _named(tool) for tool in found):
        return []
    filled = [_filled(tool) for tool in found]
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in filled]


def with_tools(chat: Chat, value: object) -> Chat:
    """A chat with the definitions in this field at its first turn, unless one of its turns has its own."""
    found = definitions(value)
    if not found or not chat or any("tools" in message for message in chat):
        return chat
    return ({**chat[0], "tools": found}, *chat[1:])


def tools_of(chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The definitions that a chat has, on whichever turn they stand."""
    return next((message["tools"] for message in chat if message.get("tools")), [])


def beside_text(message: Mapping[str, object]) -> dict[str, object]:
    """What a turn holds beside its role and content."""
    return {name: value for name, value in message.items() if name not in ("role", "content")}


def _named(tool: Mapping[str, object]) -> bool:
    function = tool.get("function", tool)
    return isinstance(function, Mapping) and isinstance(function.get("name"), str)


def _filled(value: object) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(item) for name, item in value.items() if item is not None}
    return [_filled(item) for item in value] if isinstance(value, list) else value
