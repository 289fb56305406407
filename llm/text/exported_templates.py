"""Chat templates by which other tools, which render chats themselves, write the very text a model was trained on."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .rendering import undated
from .tokens import Reader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The plain layout of ``llm.text.rendering``: messages as "Role: content", a blank line between them.
PLAIN = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n\\n' }}{% endif %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ '\\n' + ((call['function'] or call) | tojson) }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
_ANSWERED = "messages[-1]['role'] == 'assistant'"


def bare_template(tokenizer: Any) -> str:
    """The layout of the training without first and last token, for tools that put both around the text themselves."""
    return _stripped(tokenizer, first=tokenizer.bos_token or tokenizer.cls_token, last=Reader(tokenizer).ending().rest)


def exported_template(tokenizer: PreTrainedTokenizerBase, *, generates: bool) -> str:
    """The chat template of an exported folder: with it ``apply_chat_template`` alone gives the tokens of the training.

    It is the tokenizer's own, if there is one and it writes all of them; one that asks for the date is told that of the
    training. A policy keeps its own in any case: it is asked for prompts, of that day.
    """
    own, reader = tokenizer.chat_template, Reader(tokenizer)
    ending = reader.ending()
    if own and generates:
        return str(own)
    if own and not (ending.before or ending.after):
        return undated(str(own))
    return _between(reader, _stripped(tokenizer, last=ending.unread), ending.before, ending.after)


def without_edges(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, or where it puts special tokens around a text by itself, a copy that does not.

    With it and :func:`exported_template`, ``tokenizer(text)`` has each of them once. One in Python stays as it is.
    """
    if not tokenizer.is_fast or not any(Reader(tokenizer).written):
        return tokenizer
    from tokenizers.processors import TemplateProcessing

    bare: Any = copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    return bare


def _stripped(tokenizer: PreTrainedTokenizerBase, *, first: str | None = None, last: str = "") -> str:
    """The tokenizer's own template without a text at the beginning, and without one after an answer."""
    if not tokenizer.chat_template:
        return PLAIN
    original = undated(str(tokenizer.chat_template)).removesuffix(
        "\n"
    )  # jinja drops it at the end, and not inside a block
    steps = ["{%- set text -%}{{ '' }}" + original + "{{ '' }}{%- endset -%}"]  # '' keeps white space at the edges
    if first:
        steps.append("{%- set text = text.removeprefix(" + _literal(first) + ") -%}")
    if last:
        end = "{%- set text = text.removesuffix(" + _literal(last) + ") -%}"
        steps.append("{%- if " + _ANSWERED + " -%}" + end + "{%- endif -%}")
    return "".join(steps) + "{{ text }}"


def _between(reader: Reader, template: str, before: Sequence[int], after: Sequence[int]) -> str:
    start, end = (reader.special_text(ids) for ids in (before, after))
    head = "{{ " + _literal(start) + " }}" if start else ""
    return head + template + ("{% if " + _ANSWERED + " %}{{ " + _literal(end) + " }}{% endif %}" if end else "")


def with_end(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, or where the template ends answers by another token, a copy whose end token that is."""
    token = Reader(tokenizer).ending().token
    if token is None or token == tokenizer.eos_token_id:
        return tokenizer
    ended = copy.deepcopy(tokenizer)
    ended.eos_token = tokenizer.convert_ids_to_tokens(token)
    return ended


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
