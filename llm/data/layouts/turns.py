"""Reading chats: messages in the spellings that exports have, and the answers at their end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.data.layouts.base import (
    Chat,
    Columns,
    Comparison,
    Dropped,
    Malformed,
    Message,
    present,
    said,
    unless_nan,
    unpacked,
)
from llm.data.layouts.tools import CallingAnswer, definitions

DIFFER = "conversations differ before the last answer"
_SPEAKERS = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "bard", "bing", "claude", "ai"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
    "system": "system",
}


def messages(columns: Columns, name: str, *, role: str | None = None) -> Chat:
    """Return the field as messages; a plain text is one message of ``role`` where a role is given.

    A message is spelt ``{role, content}`` or ``{from, value}``, its content as text or as parts of text. One
    message may stand without its list; where no text is expected, the field may be JSON text.

    Raises:
        Malformed: It is neither.
        Dropped: A message holds more than text.
    """
    value = present(columns, name)
    if value is None:
        return ()
    if isinstance(value, str) and role is not None:
        return ({"role": role, "content": value},)
    value = unpacked(value) if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") else value
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        wanted = "a list of messages" if isinstance(value, str) else "text or a list of messages"
        raise Malformed(f"{name!r} should be {wanted}, found {said(value)}")
    return tuple(_message(name, item) for item in value)


def _message(name: str, item: object) -> Message:
    if not isinstance(item, Mapping):
        raise _no_message(name, type(item).__name__)
    known = {key: value for key, value in item.items() if unless_nan(value) is not None}  # Parquet fills up with null
    who, content = known.get("role", known.get("from")), known.get("content", known.get("value"))
    calls = _calls(known, who, content)
    if content is None and calls:
        content = ""
    if isinstance(content, list):
        content = "".join(_part(name, part) for part in content)
    if not isinstance(who, str) or not isinstance(content, str):
        raise _no_message(name, ", ".join(f"{key}: {type(value).__name__}" for key, value in item.items()))
    role = _SPEAKERS.get(who.lower(), who)
    if "role" not in known and who.lower() not in _SPEAKERS:
        raise Malformed(f"a message of {name!r} is from {who!r:.40}; known are {', '.join(_SPEAKERS)}")
    message: Message = {"role": role, "content": "" if calls and content == known.get("value") else content}
    if calls:
        message["tool_calls"] = calls
    for key in ("tool_call_id", "name"):
        if isinstance(known.get(key), str):
            message[key] = known[key]
    if found := definitions(known.get("tools")):
        message["tools"] = found
    return message


def _no_message(name: str, found: str) -> Malformed:
    return Malformed(f"a message of {name!r} should have role and content, both text, found {found}")


def _part(name: str, part: object) -> str:
    """The text of a part of a content; raises ``Dropped`` for a picture or a sound."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return part["text"]
    if isinstance(part, Mapping) and isinstance(part.get("type"), str):
        raise Dropped(f"content that is no text ({part['type']:.20})")
    raise _no_message(name, f"a part that is {said(part)}")


def _calls(known: Mapping[str, object], who: object, content: object) -> list[dict[str, object]]:
    """The tool calls of a message, their arguments as an object where they are JSON text, as templates want them."""
    found = known.get("tool_calls") or known.get("function_call") or []
    if who in ("function_call", "tool_call"):
        found = unpacked(content)  # ShareGPT: the call is what is said
    calls = [found] if isinstance(found, Mapping) else found if isinstance(found, list) else []
    return [_call(call) for call in calls if isinstance(call, Mapping)]


def _call(call: Mapping[str, Any]) -> dict[str, object]:
    function = dict(call.get("function") or {key: call[key] for key in ("name", "arguments") if key in call})
    arguments = unpacked(function.get("arguments"))
    if isinstance(arguments, Mapping):
        function["arguments"] = arguments
    named = {"id": call["id"]} if call.get("id") else {}
    return {**named, "type": "function", "function": function}


def after_a_question(columns: Columns) -> bool:
    """Whether chosen and rejected are answers to what another column asks: no ``prompt``, no whole conversations."""
    chosen = columns.get("chosen")
    decided = columns.keys() >= {"chosen", "rejected"} and "prompt" not in columns
    return decided and not (isinstance(chosen, list) and len(chosen) > 1)


def explicit(columns: Columns, prompt: Chat) -> Comparison:
    """Compare ``chosen`` and ``rejected`` after a prompt: texts, single messages, or whole conversations.

    Raises:
        Dropped: The conversations part before the last answer, or have another prompt.
        Malformed: An answer is something else.
    """
    return compared(columns, prompt, "chosen", "rejected")


def compared(columns: Columns, prompt: Chat, chosen: str, rejected: str) -> Comparison:
    """As :func:`explicit`, for columns of these names."""
    answers = [_turns_of_answer(columns, name) for name in (chosen, rejected)]
    if all(len(turns) > 1 and turns[: len(prompt)] != prompt for turns in answers):
        whole = parted(*answers)  # with a system turn, or earlier turns, that the prompt does not repeat
        if prompt and prompt[-1] not in whole.prompt:
            raise Dropped(DIFFER)
        return whole
    first, second = (turns[len(prompt) :] if turns[: len(prompt)] == prompt else turns for turns in answers)
    return Comparison(prompt, only_answer(first), only_answer(second))


def _turns_of_answer(columns: Columns, name: str) -> Chat:
    return messages(columns, name, role="assistant") or ({"role": "assistant", "content": ""},)


def parted(chosen: Chat, rejected: Chat) -> Comparison:
    """Compare two whole conversations: their shared beginning is the prompt.

    Raises:
        Dropped: They are equal, part before the last answer, or do not end with an answer.
    """
    if chosen == rejected:
        raise Dropped("chosen equals rejected")
    both = zip(chosen, rejected, strict=False)
    shared = next((i for i, (a, b) in enumerate(both) if a != b), min(len(chosen), len(rejected)))
    return Comparison(chosen[:shared], only_answer(chosen[shared:]), only_answer(rejected[shared:]))


def only_answer(turns: Chat) -> str:
    """What is said in the one assistant's turn that these turns must be; raises ``Dropped`` otherwise."""
    if len(turns) > 1:
        raise Dropped(DIFFER)
    if not turns:
        raise Dropped("empty answer")
    if turns[0]["role"] != "assistant":
        raise Dropped("conversation does not end with an assistant turn")
    return CallingAnswer(turns[0]) if turns[0].get("tool_calls") else turns[0]["content"]


def joined(first: str, second: str) -> Chat:
    """The question of an instruction and its input, which may be empty."""
    return ({"role": "user", "content": "\n".join(text for text in (first, second) if text.strip())},)
