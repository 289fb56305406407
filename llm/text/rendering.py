"""From a conversation to text, with the place of its answer.

A tokenizer with a chat template renders the chat itself. Without one the plain layout is used: every message is
``Role: content``, a blank line stands between messages, the prompt ends in ``Assistant:``.

Where an answer stands is known from what was put in: the template also renders the chat with a mark for its answer.
What a template makes of an answer is compared with the answer, so nothing of it is dropped or rewritten unseen. Texts
that read like special tokens are put in as marks as well, and stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llm.data.layouts.tools import calls_text, tools_of
from llm.data.pairs import DataError, Message
from llm.text.calls import place_of_call, turn_of, without_tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER_LOST = "its chat template leaves out or rewrites a part of the answer"
_PLANES = {  # private use: no data have a text there
    plane: re.compile(f"[{chr(plane)}-{chr(plane + 0xFFFF)}]") for plane in (0xF0000, 0x100000)
}
_SWITCHES = {"preserve_thinking": True, "keep_thinking": True, "clear_thinking": False}
# What templates that ask for the date are told: a run of tomorrow reads the same tokens.
_TODAY = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
_TOOLS = frozenset({"tools"})
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)


class Refused(DataError):
    """A conversation cannot be rendered as it is; the message is the reason, without the conversation's name."""


class Rendered(NamedTuple):
    """A conversation as text.

    Attributes:
        text: All of it.
        start: The first character of its answer,
        end: and the one after the last.
        literal: Where characters of the data read like special tokens: first, one past the last.
        lost: What of the prompt the text does not show: "system", "thoughts", "tool_calls", "tools", "turn".
    """

    text: str
    start: int
    end: int
    literal: tuple[tuple[int, int], ...] = ()
    lost: frozenset[str] = frozenset()


class Renderer:
    """How one tokenizer's conversations are written.

    Args:
        tokenizer: Of transformers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.template = str(tokenizer.chat_template) if tokenizer.chat_template else None
        self.special = special_texts(tokenizer)
        self._tokenizer: Any = tokenizer
        self._pattern = re.compile("|".join(map(re.escape, self.special)) or "(?!)")
        self._fixed = {"chat_template": undated(str(self.template))} if "strftime_now" in (self.template or "") else {}
        self._switches = {name: value for name, value in _SWITCHES.items() if name in (self.template or "")}

    def answered(self, chat: Sequence[Message], answers: Sequence[str], *, strict: bool = True) -> list[Rendered]:
        """The conversations of a chat with each of its answers.

        Args:
            chat: What is answered.
            answers: Its answers.
            strict: Refuse an answer that the template does not write whole; else what it writes of it is read.

        Raises:
            Refused: The template refuses the chat, or leaves out or rewrites a part of an answer.
        """
        if self.template is None:
            prompt, lost = plain_prompt(chat), _tools_beside(chat)
            ends = ((answer, len(prompt) + 1 + len(answer)) for answer in answers)
            return [Rendered(f"{prompt} {answer}", len(prompt), end, lost=lost) for answer, end in ends]
        turns = [turn_of(answer) for answer in answers]
        marks = _Marks(_strings([*chat, *turns]), self._pattern)
        hidden, turns = marks.hide([dict(message) for message in chat]), marks.hide(turns)
        frame, asked = self._written([*hidden, _said(marks.probe)]), self._written(hidden, add_generation_prompt=True)
        lost = self._tools_lost(hidden, asked)
        placed = (
            self._placed_call(hidden, turn, frame.partition(marks.probe), asked, strict=strict)
            if "tool_calls" in turn
            else self._placed(hidden, turn["content"], frame, marks.probe, strict=strict)
            for turn in turns
        )
        return [marks.shown(_from(rendered, asked)._replace(lost=rendered.lost | lost)) for rendered in placed]

    def asked(self, chat: Sequence[Message]) -> Rendered:
        """A chat that waits for its answer, which begins at the end of the text.

        Raises:
            Refused: The template refuses the chat.
        """
        if self.template is None:
            text = plain_prompt(chat)
            return Rendered(text, len(text), len(text), lost=_tools_beside(chat))
        marks = _Marks(_strings(list(chat)), self._pattern)
        hidden = marks.hide([dict(message) for message in chat])
        text = self._written(hidden, add_generation_prompt=True)
        lost = _lost(hidden, text) | self._tools_lost(hidden, text)
        return marks.shown(Rendered(text, len(text), len(text), lost=lost))

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """Where a text reads like special tokens."""
        return self._pattern.finditer(text)

    def _placed(
        self, chat: Sequence[Mapping[str, object]], answer: str, frame: str, probe: str, *, strict: bool
    ) -> Rendered:
        whole = [*chat, _said(answer)]
        first = text = self._written(whole)
        shown = _between(text, *frame.partition(probe)[::2]) or (0, len(text))
        for switches in ({}, self._switches) if self._switches else ({},):
            if switches:
                text = self._written(whole, **switches)
                frame = self._written([*chat, _said(probe)], **switches)
            before, found, after = frame.partition(probe)
            place = _between(text, before, after)
            if found and place and text[slice(*place)].strip() == answer.strip():
                return Rendered(text, *place, lost=_lost(chat, text))
            place = self._with_thoughts(chat, answer, text, probe, switches)
            if place:
                return Rendered(text, *place, lost=_lost(chat, text))
        if strict:
            raise Refused(ANSWER_LOST)
        return Rendered(first, *shown, lost=_lost(chat, first))

    def _placed_call(
        self,
        chat: Sequence[Mapping[str, object]],
        turn: Mapping[str, object],
        frame: Sequence[str],
        asked: str,
        *,
        strict: bool,
    ) -> Rendered:
        """Where an answer stands that calls tools: between what is asked and what ends the text."""
        text = self._written([*chat, turn])
        place = place_of_call(text, turn, frame, asked, self.special)
        if strict and not place:
            raise Refused(ANSWER_LOST)
        return Rendered(text, *(place or (0, len(text))), lost=_lost(chat, text))

    def _tools_lost(self, chat: Sequence[Mapping[str, object]], asked: str) -> frozenset[str]:
        """Whether the text of a chat is the same without its definitions of tools, or lacks the name of one."""
        tools = tools_of(chat)
        if not tools:
            return frozenset()
        missing = any(tool["function"]["name"] not in asked for tool in tools)
        same = self._written(without_tools(chat), add_generation_prompt=True) == asked
        return _TOOLS if missing or same else frozenset()

    def _with_thoughts(
        self, chat: Sequence[Mapping[str, object]], answer: str, text: str, probe: str, switches: Mapping[str, bool]
    ) -> tuple[int, int] | None:
        """Where an answer stands whose thoughts the template writes in its own way, all of them."""
        if not (parts := _THOUGHT.fullmatch(answer)):
            return None
        frame = self._written([*chat, _said(probe) | {"reasoning_content": probe}], **switches)
        pieces = frame.split(probe)
        if len(pieces) != 3 or not (place := _between(text, pieces[0], pieces[2])):
            return None
        if _letters(text[slice(*place)]) != _letters(parts[1] + pieces[1] + parts[2]):
            return None
        return place

    def _written(self, chat: Sequence[Mapping[str, object]], **said: object) -> str:
        if tools := tools_of(chat):
            chat, said = without_tools(chat), {"tools": tools, **said}
        try:
            return self._tokenizer.apply_chat_template(chat, tokenize=False, **self._fixed, **said)
        except Exception as error:  # a template is a program of somebody else
            raise Refused(f"its chat template refuses the chat: {' '.join(str(error).split()).rstrip('.')}") from error


class _Marks:
    """Characters that no text has, in place of an answer and of texts that read like special tokens."""

    def __init__(self, texts: Sequence[str], special: re.Pattern[str]) -> None:
        self.found = sorted({match for text in texts for match in special.findall(text)})
        plane = next((p for p, taken in _PLANES.items() if not any(map(taken.search, texts))), None)
        if plane is None:
            raise Refused("its text has characters of both planes for private use")
        self.probe = chr(plane)
        self._of = {text: chr(plane + 1 + i) for i, text in enumerate(self.found)}
        self._special = special

    def hide(self, value: object) -> Any:
        """The same with marks for texts that read like special tokens, whatever holds them."""
        if not self.found:
            return value
        if isinstance(value, str):
            return self._special.sub(lambda match: self._of[match[0]], value)
        if isinstance(value, dict):
            return {name: self.hide(item) for name, item in value.items()}
        return [self.hide(item) for item in value] if isinstance(value, list) else value

    def shown(self, rendered: Rendered) -> Rendered:
        """With the texts in their places again."""
        if not self.found:
            return rendered
        text, literal, places = "", [], {rendered.start: 0, rendered.end: 0}
        back = {mark: found for found, mark in self._of.items()}
        for position, character in enumerate(rendered.text):
            if position in places:
                places[position] = len(text)
            if found := back.get(character):
                literal.append((len(text), len(text) + len(found)))
            text += found or character
        places = {position: places[position] if position < len(rendered.text) else len(text) for position in places}
        return Rendered(text, places[rendered.start], places[rendered.end], tuple(literal), rendered.lost)


def special_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts that a tokenizer reads as special tokens, the longest first."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | set(tokenizer.all_special_tokens), key=lambda text: (-len(text), text))


def plain_prompt(messages: Sequence[Message]) -> str:
    """The plain layout of a chat that waits for its answer; calls of tools stand below what is said, as JSON."""
    return "\n\n".join([*(f"{m['role'].capitalize()}: {m['content']}{calls_text(m)}" for m in messages), "Assistant:"])


def undated(template: str) -> str:
    """A chat template that asks for the date, with the one that it is told in training; any other as it is."""
    return _TODAY + template if "strftime_now" in template else template


def folded(template: str) -> str:
    """A chat template that reads the system turn as the beginning of the first turn of the user."""
    return (
        "{%- if messages and messages[0]['role'] == 'system' -%}"
        "{%- if messages[1:] and messages[1]['role'] == 'user' -%}"
        "{%- set first = {'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']} -%}"
        "{%- set messages = [first] + messages[2:] -%}"
        "{%- else -%}"
        "{%- set messages = [{'role': 'user', 'content': messages[0]['content']}] + messages[1:] -%}"
        "{%- endif -%}{%- endif -%}"
    ) + template


def _said(content: str) -> dict[str, object]:
    return {"role": "assistant", "content": content}


def _tools_beside(chat: Sequence[Message]) -> frozenset[str]:
    return _TOOLS if tools_of(chat) else frozenset()


def _from(rendered: Rendered, asked: str) -> Rendered:
    """The same with the answer where the model goes on: what stands between that and its text, it writes too."""
    begins = rendered.text.startswith(asked) and len(asked) <= rendered.end
    return rendered._replace(start=len(asked)) if begins else rendered


def _between(text: str, before: str, after: str) -> tuple[int, int] | None:
    fits = text.startswith(before) and text.endswith(after) and len(before) + len(after) <= len(text)
    return (len(before), len(text) - len(after)) if fits else None


def _letters(text: str) -> str:
    return "".join(text.split())


def _lost(chat: Sequence[Mapping[str, Any]], text: str) -> frozenset[str]:
    lost = set()
    for message in chat:
        content = str(message.get("content") or "").strip()
        if content not in text:
            named = "thoughts" if "</think>" in content else "turn"
            lost.add("system" if message["role"] == "system" else named)
        calls = message.get("tool_calls") or []
        if any(str(call.get("function", call).get("name")) not in text for call in calls):
            lost.add("tool_calls")
    return frozenset(lost)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for item in held for text in _strings(item)]
