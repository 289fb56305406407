"""From a raw record to a :class:`Pair`: the layouts of preference data, told apart by their columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One comparison: after ``prompt``, the answer ``chosen`` was preferred to ``rejected``.

    Attributes:
        id: Unique inside its file.
        prompt: The chat up to, and without, the answers.
        chosen: The preferred answer.
        rejected: The other answer.
        source: Where the pair comes from; the unit of a mixture.
        category: What it is about; the unit of a report.
        question_id: Pairs with the same one share a question, and intervals cluster on it.
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: str = "unknown"
    category: str = "unknown"
    question_id: str | None = None


class Texts(NamedTuple):
    """The three texts of a record, once its layout is undone."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


class Dropped(Exception):
    """The record is sound but no usable comparison; the message is the reason it is counted under."""


class Malformed(Exception):
    """The record does not fit the layout of its file; the message says how."""


KNOWN_LAYOUTS = (
    "canonical {prompt: [messages], chosen: text, rejected: text}, "
    "TRL {prompt: text or [messages] (optional), chosen and rejected: text or [messages]}, "
    "hh-rlhf {chosen and rejected: '\\n\\nHuman: ...\\n\\nAssistant: ...'}"
)
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def layout_of(columns: Mapping[str, Any]) -> str | None:
    """Return the layout of a record ("canonical", "trl", "trl-implicit", "hh-rlhf"), or None.

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


def texts_of(columns: Mapping[str, Any], layout: str) -> Texts:
    """Undo ``layout``.

    Raises:
        Dropped: The record cannot be compared (its reason is counted).
        Malformed: A field is missing or has the wrong type.
    """
    readers: dict[str, Callable[[Mapping[str, Any]], Texts]] = {
        "canonical": _explicit,
        "trl": _explicit,
        "trl-implicit": _implicit,
        "hh-rlhf": _transcripts,
    }
    texts = readers[layout](columns)
    _usable(texts)
    return texts


def _usable(texts: Texts) -> None:
    if not any(message["content"].strip() for message in texts.prompt):
        raise Dropped("empty prompt")
    if not texts.chosen.strip() or not texts.rejected.strip():
        raise Dropped("empty answer")
    if texts.chosen.strip() == texts.rejected.strip():
        raise Dropped("chosen equals rejected")
    try:
        "".join((texts.chosen, texts.rejected, *(m["content"] for m in texts.prompt))).encode()
    except UnicodeEncodeError:  # a lone surrogate from a \ud83d escape: no tokenizer takes it
        raise Dropped("text is not valid Unicode") from None


def _explicit(columns: Mapping[str, Any]) -> Texts:
    prompt = _messages(columns, "prompt", role="user")
    return Texts(prompt, *(_answer(columns, name, prompt) for name in ("chosen", "rejected")))


def _answer(columns: Mapping[str, Any], name: str, prompt: tuple[Message, ...]) -> str:
    value = _field(columns, name)
    if value is None or isinstance(value, str):
        return value or ""
    turns = _messages(columns, name)
    return _only_answer(turns[len(prompt) :] if turns[: len(prompt)] == prompt else turns)


def _implicit(columns: Mapping[str, Any]) -> Texts:
    chosen, rejected = (_messages(columns, name) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise Dropped("chosen equals rejected")
    both = zip(chosen, rejected, strict=False)
    shared = next((i for i, (a, b) in enumerate(both) if a != b), min(len(chosen), len(rejected)))
    return Texts(chosen[:shared], _only_answer(chosen[shared:]), _only_answer(rejected[shared:]))


def _only_answer(turns: tuple[Message, ...]) -> str:
    if len(turns) > 1:
        raise Dropped("conversations differ before the last answer")
    if not turns:
        raise Dropped("empty answer")
    if turns[0]["role"] != "assistant":
        raise Dropped("conversation does not end with an assistant turn")
    return turns[0]["content"]


def _transcripts(columns: Mapping[str, Any]) -> Texts:
    prompt, chosen = _split_transcript(_field(columns, "chosen"))
    other_prompt, rejected = _split_transcript(_field(columns, "rejected"))
    if prompt != other_prompt:
        raise Dropped("conversations differ before the last answer")
    return Texts(prompt, chosen, rejected)


def _split_transcript(text: object) -> tuple[tuple[Message, ...], str]:
    """Cut a Human/Assistant transcript before its last answer.

    Two turns in a row by the same speaker, which hh-rlhf has and chat templates refuse, become one.
    """
    if text is None:
        raise Dropped("empty answer")
    if not isinstance(text, str):
        raise Malformed(f"expected a Human/Assistant transcript, found {type(text).__name__}")
    opening, *pieces = _TURN.split("\n\n" + text.lstrip())
    if opening.strip() or not pieces:
        raise Dropped("text is not a Human/Assistant transcript")
    turns = [(_ROLES[role], content.strip()) for role, content in zip(pieces[::2], pieces[1::2], strict=True)]
    if turns[-1][0] != "assistant":
        raise Dropped("conversation does not end with an assistant turn")
    return _merged(turns[:-1]), turns[-1][1]


def _merged(turns: list[tuple[str, str]]) -> tuple[Message, ...]:
    merged: list[Message] = []
    for role, content in turns:
        if merged and merged[-1]["role"] == role:
            merged[-1]["content"] += "\n\n" + content
        else:
            merged.append({"role": role, "content": content})
    return tuple(merged)


def _field(columns: Mapping[str, Any], name: str) -> object:
    if name not in columns:
        raise Malformed(f"no {name!r} here, found {', '.join(columns) or 'nothing'}")
    return columns[name]


def _messages(columns: Mapping[str, Any], name: str, *, role: str | None = None) -> tuple[Message, ...]:
    """Return the field as messages; a plain text is one message of ``role`` where a role is given."""
    value = _field(columns, name)
    if value is None:
        return ()
    if isinstance(value, str) and role is not None:
        return ({"role": role, "content": value},)
    if not isinstance(value, list):
        raise Malformed(f"{name!r} should be a list of messages, found {type(value).__name__}")
    return tuple(_message(name, item) for item in value)


def _message(name: str, item: object) -> Message:
    match item:
        case {"role": str(role), "content": str(content)}:
            return {"role": role, "content": content}
        case dict():
            found = ", ".join(f"{key}: {type(value).__name__}" for key, value in item.items())
        case _:
            found = type(item).__name__
    raise Malformed(f"a message of {name!r} should have role and content, both text, found {found}")
