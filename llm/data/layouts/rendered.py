r"""Texts that hold a whole chat: taken apart into turns, so that no template wraps them a second time.

A text counts as rendered by its structure alone: it begins with the marker of a turn (a token of its own that opens
the text, or what a template puts first, may stand before it) and ends where an answer must come. Then it is either
taken apart completely or refused by the name of its marker; refused, too, is a prompt of special tokens that ends in
an answer. Markers anywhere else are text.

>>> prompt, chosen, rejected, _ = unwrapped(
...     "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Where?\n\nAssistant:", " Here.", " There.")
>>> [message["content"] for message in prompt], chosen
(['Hi', 'Hello.', 'Where?'], 'Here.')
"""

from __future__ import annotations

import re
from typing import NamedTuple

from llm.data.layouts.base import Chat, Comparison, Malformed, Message, Pair, question
from llm.data.layouts.markup import MARKUPS, Markup, Turn, may_begin, merged, thought
from llm.data.layouts.tools import CallingAnswer

_SYSTEM = re.compile(r"\s*<<SYS>>\s*(.*?)\s*<</SYS>>\s*", re.DOTALL)
_WORDS = 3  # a prompt shorter than this (a greeting) may well begin both answers


class Unwrapped(NamedTuple):
    """The turns of a rendered prompt, its two answers without what was repeated in them, and what was done."""

    prompt: Chat
    chosen: str
    rejected: str
    noted: str


def asked(text: str) -> tuple[Chat, str] | None:
    """The turns of a rendered prompt and its marker; None for an ordinary text.

    Raises:
        Malformed: It is rendered, but cannot be taken apart.
    """
    found = _waiting(text) if may_begin(text) else None
    return None if found is None else (_chat(*found), found[0].marker)


def unwrapped(text: str, chosen: str, rejected: str) -> Unwrapped | None:
    """A prompt and its two answers in turns, where the prompt is rendered or repeated in both; None otherwise.

    Raises:
        Malformed: The prompt is rendered, but cannot be taken apart.
    """
    answers = (chosen, rejected)
    if not (may_begin(text) or may_begin(chosen)):
        return _repeated(text, answers)
    found = _waiting(text) or _waiting_for_opened(text, answers)
    if found is not None:
        markup, turns = found
        opened = thought(turns[-1])
        chosen, rejected = (opened + _bare(answer, text, markup) for answer in answers)
        return Unwrapped(_chat(markup, turns), chosen, rejected, f"rendered prompt taken apart ({markup.marker})")
    return _whole(text, answers) or _opened(text, answers) or _repeated(text, answers)


def conversation(text: str) -> tuple[Chat, str, str] | None:
    """A rendered text that ends with an answer as prompt, answer and marker; None for any other text.

    Raises:
        Malformed: It cannot be taken apart.
    """
    for markup in MARKUPS:
        turns = markup.turns(text)
        if turns and len(turns) > 1 and turns[-1].role == "assistant" and turns[-1].content:
            return _messages(markup, turns[:-1]), turns[-1].content, markup.marker
    return None


def mentioned(pair: Pair) -> set[str]:
    """The markers of rendered chats that stand in the texts of a pair, as text: a model may take them for its own."""
    texts = [*(message["content"] for message in pair.prompt), pair.chosen, pair.rejected]
    known = {token for markup in MARKUPS for token in (markup.marker, *markup.ends, *markup.starts)}
    return {token for token in known if any(token in text for text in texts)}


def _waiting(text: str) -> tuple[Markup, list[Turn]] | None:
    """The markup and turns of a text that begins with a turn and ends where an answer must come."""
    for markup in MARKUPS:
        turns = markup.turns(text)
        if turns and markup.waits(turns):
            return markup, turns
        if turns and markup.answered(turns):
            raise Malformed(
                f"the prompt is rendered ({markup.marker}) and ends in an answer; write it as a list of messages that "
                "waits for one"
            )
    return None


def _waiting_for_opened(text: str, answers: tuple[str, str]) -> tuple[Markup, list[Turn]] | None:
    """The same where both answers bring the marker that the prompt lacks."""
    for markup in MARKUPS:
        if all(answer.lstrip().startswith(markup.assistant.strip()) for answer in answers):
            turns = markup.turns(f"{text}\n\n{markup.assistant}")
            if turns:
                return markup, turns
    return None


def _chat(markup: Markup, turns: list[Turn]) -> Chat:
    """The messages of turns, without the answer that they may wait for."""
    return _messages(markup, turns[:-1] if turns[-1].role == "assistant" else turns)


def _messages(markup: Markup, turns: list[Turn]) -> Chat:
    try:
        markup.check(turns)
    except Malformed as problem:
        raise Malformed(f"{problem}; write the prompt as a list of messages") from None
    chat = merged(turns)
    if not any(message["role"] == "user" for message in chat):
        raise Malformed(f"a text rendered with {markup.marker} has no turn of a user; write it as a list of messages")
    return _with_system(chat) if markup.marker == "[INST]" else chat


def _with_system(chat: Chat) -> Chat:
    """Llama 2 writes the system turn into the first user turn."""
    first, *rest = chat
    found = _SYSTEM.match(first["content"])
    if not found:
        return chat
    system: Message = {"role": "system", "content": found[1]}
    return (system, *question(first["content"][found.end() :]), *rest)


def _bare(answer: str, prompt: str, markup: Markup) -> str:
    """An answer without the prompt, the marker and the end tokens around it."""
    answer = answer.lstrip()
    for before in (prompt.strip(), *(start for start in markup.starts), markup.assistant.strip()):
        answer = answer.removeprefix(before).lstrip()
    return markup.unended(answer)


def _whole(text: str, answers: tuple[str, str]) -> Unwrapped | None:
    """Two rendered conversations whose question the prompt repeats."""
    try:
        first, second = map(conversation, answers)
    except Malformed:  # an answer that is a dialogue is text
        return None
    if not first or not second or first[0] != second[0] or first[0][-1]["content"] != text.strip():
        return None
    return Unwrapped(first[0], first[1], second[1], f"rendered answers taken apart ({first[2]})")


def _opened(text: str, answers: tuple[str, str]) -> Unwrapped | None:
    """Two answers that begin with the special token of an assistant's turn."""
    for markup in MARKUPS:
        start = markup.assistant.strip()
        if markup.ends and all(answer.lstrip().startswith(start) for answer in answers):
            chosen, rejected = (_bare(answer, start, markup) for answer in answers)
            return Unwrapped(question(text), chosen, rejected, f"rendered answers taken apart ({markup.marker})")
    return None


def _repeated(text: str, answers: tuple[str, str]) -> Unwrapped | None:
    """Two answers that begin with the whole prompt and go on after it."""
    prompt = text.strip()
    if not all(answer.lstrip().startswith(prompt) for answer in answers) or len(prompt.split()) < _WORDS:
        return None
    chosen, rejected = (answer.lstrip()[len(prompt) :] for answer in answers)
    if not all(rest[:1].isspace() and rest.strip() for rest in (chosen, rejected)):
        return None
    return Unwrapped(question(text), chosen.strip(), rejected.strip(), "prompt repeated at the start of both answers")


def turned(comparison: Comparison) -> Comparison:
    """A comparison whose one question, beside system turns, is taken apart where it is rendered, as often as it is.

    Raises:
        Malformed: It is rendered, but cannot be taken apart.
    """
    *before, last = comparison.prompt or ({"role": "", "content": ""},)
    if last["role"] != "user" or any(message["role"] != "system" for message in before):
        return comparison
    answers = (comparison.chosen, comparison.rejected)
    if any(isinstance(answer, CallingAnswer) for answer in answers):
        alone = asked(last["content"])
        found = alone and Unwrapped(alone[0], *answers, f"rendered prompt taken apart ({alone[1]})")
    else:
        found = unwrapped(last["content"], *answers)
    if found is None:
        return comparison
    return turned(
        comparison._replace(
            prompt=(*before, *found.prompt),
            chosen=found.chosen,
            rejected=found.rejected,
            noted=(*comparison.noted, found.noted),
        )
    )
