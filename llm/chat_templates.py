"""Chat templates by which other tools, which render chats themselves, write the very text a model was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .framing import Frame, frame_of

# The plain layout of ``llm.rendering``: messages as "Role: content", a blank line between them.
PLAIN = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
_ANSWERED = "messages[-1]['role'] == 'assistant'"


def bare_template(tokenizer: Any) -> str:
    """The layout of the training without first and last token, for tools that put both around the text themselves.

    A template of the tokenizer's own is wrapped: its first token is taken off, and the last one after an answer, as
    ``llm.rendering`` does.
    """
    if not tokenizer.chat_template:
        return PLAIN
    original = str(tokenizer.chat_template).removesuffix("\n")  # jinja drops it at the end, and not inside a block
    steps = ["{%- set text -%}{{ '' }}" + original + "{{ '' }}{%- endset -%}"]  # '' keeps white space at the edges
    if tokenizer.bos_token:
        steps.append("{%- set text = text.removeprefix(" + _literal(tokenizer.bos_token) + ") -%}")
    if tokenizer.eos_token:
        end = _literal(tokenizer.eos_token)
        steps.append("{%- if " + _ANSWERED + " and text.rstrip().endswith(" + end + ") -%}")
        steps.append("{%- set text = text.rstrip().removesuffix(" + end + ") -%}{%- endif -%}")
    return "".join(steps) + "{{ text }}"


def framed_template(tokenizer: Any) -> str:
    """The layout of the training, with those special tokens around an answered chat that the tokenizer does not add."""
    start, end = (special_text(tokenizer, ids) for ids in missing_frame(tokenizer))
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
