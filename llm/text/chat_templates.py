"""Chat templates by which other tools, which render chats themselves, write the very text a model was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..data.pairs import Pair
from .framing import Frame, frame_of, joined, tokenised
from .rendering import edges, rendered

# The plain layout of ``llm.text.rendering``: messages as "Role: content", a blank line between them.
PLAIN = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
_UNCUT = 10**6
_ANSWERED = "messages[-1]['role'] == 'assistant'"


def bare_template(tokenizer: Any) -> str:
    """The layout of the training without first and last token, for tools that put both around the text themselves.

    A template of the tokenizer's own is wrapped: its first token is taken off, and the last one after an answer, as
    ``llm.text.rendering`` does.
    """
    if not tokenizer.chat_template:
        return PLAIN
    original = str(tokenizer.chat_template).removesuffix("\n")  # jinja drops it at the end, and not inside a block
    steps = ["{%- set text -%}{{ '' }}" + original + "{{ '' }}{%- endset -%}"]  # '' keeps white space at the edges
    first, last = edges(tokenizer)
    if first:
        steps.append("{%- set text = text.removeprefix(" + _literal(first) + ") -%}")
    if last:
        end = _literal(last)
        steps.append("{%- if " + _ANSWERED + " and text.rstrip().endswith(" + end + ") -%}")
        steps.append("{%- set text = text.rstrip().removesuffix(" + end + ") -%}{%- endif -%}")
    return "".join(steps) + "{{ text }}"


def exported_template(tokenizer: Any, *, generates: bool) -> str:
    """The chat template of an exported folder: with it ``apply_chat_template`` alone gives the tokens of the training.

    A policy keeps the one it started with, which is asked for prompts. A reward model keeps it only if it ends answers
    as the training did: a causal classifier reads its score off the last token.
    """
    own, whole = tokenizer.chat_template, holds_frame(tokenizer)
    if own and (generates or _writes_what_is_read(tokenizer, whole=whole)):
        return own
    return framed_template(tokenizer, frame_of(tokenizer) if whole else missing_frame(tokenizer))


def holds_frame(tokenizer: Any) -> bool:
    """Whether an exported template writes the special tokens around a sequence: one at either end, at most.

    Where a tokenizer puts more around a text, it goes on doing so itself (``add_special_tokens=True``).
    """
    return all(
        ids in ([], [tokenizer.convert_tokens_to_ids(edge)] if edge else [])
        for ids, edge in zip(frame_of(tokenizer), edges(tokenizer), strict=True)
    )


def _writes_what_is_read(tokenizer: Any, *, whole: bool) -> bool:
    """Whether the tokenizer's own template gives the tokens of the training, on a chat of one turn."""
    probe = Pair("probe", ({"role": "user", "content": "a b"},), "c d", "e")
    frame, texts = frame_of(tokenizer), rendered(probe, tokenizer)[:1]
    ((ids,),) = tokenised([texts], tokenizer)
    chat = [*probe.prompt, {"role": "assistant", "content": probe.chosen}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    read = joined(*ids, frame, frame.room(_UNCUT)).ids
    return tokenizer(text, add_special_tokens=not whole)["input_ids"] == read


def framed_template(tokenizer: Any, frame: Frame | None = None) -> str:
    """The layout of the training between the special tokens ``frame``: those that the tokenizer does not add itself."""
    start, end = (special_text(tokenizer, ids) for ids in frame or missing_frame(tokenizer))
    before = "{{ " + _literal(start) + " }}" if start else ""
    after = "{% if " + _ANSWERED + " %}{{ " + _literal(end) + " }}{% endif %}" if end else ""
    return before + bare_template(tokenizer) + after


def missing_frame(tokenizer: Any) -> Frame:
    """The special tokens of a trained sequence that the tokenizer does not write by itself."""
    (prefix, suffix), written = frame_of(tokenizer), tokenizer("a")["input_ids"]
    return Frame(
        [] if written[: len(prefix)] == prefix else prefix,
        [] if written[len(written) - len(suffix) :] == suffix else suffix,
    )


def special_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """Special tokens as text, which the tokenizer reads as these tokens."""
    return "".join(tokenizer.convert_ids_to_tokens(list(ids)))


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
