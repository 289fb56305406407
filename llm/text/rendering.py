"""From a pair to text.

A tokenizer with a chat template renders the chat itself. Without one the plain layout is used: every message is
``Role: content``, a blank line stands between messages, the prompt ends in ``Assistant:``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llm.data.pairs import DataError, Message, Pair


class Texts(NamedTuple):
    """A rendered conversation, cut where the answer begins."""

    prompt: str
    answer: str


def edges(tokenizer: Any) -> tuple[str | None, str | None]:
    """The first and the last special token of a sequence, by the names that decoders or encoders have for them."""
    return tokenizer.bos_token or tokenizer.cls_token, tokenizer.eos_token or tokenizer.sep_token


def rendered(pair: Pair, tokenizer: Any) -> tuple[Texts, Texts]:
    """The two conversations of a pair, the chosen one first, without the tokenizer's own first and last token.

    Raises:
        DataError: The chat template refuses the chat; the message names the pair.
    """
    render = _plain if not tokenizer.chat_template else _templated
    return render(pair, pair.chosen, tokenizer), render(pair, pair.rejected, tokenizer)


def rendered_prompt(messages: Sequence[Message], tokenizer: Any) -> str:
    """A chat that waits for its answer, without the tokenizer's own first token.

    Raises:
        DataError: The chat template refuses the chat.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        return _plain_prompt(messages)
    try:
        text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise DataError(f"The chat template refuses the prompt {str(messages)[:80]}: {error}.") from error
    return text.removeprefix(edges(tokenizer)[0] or "")


def _plain(pair: Pair, answer: str, tokenizer: Any) -> Texts:
    del tokenizer  # the signature is shared with _templated
    return Texts(_plain_prompt(pair.prompt), " " + answer)


def _plain_prompt(messages: Sequence[Message]) -> str:
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*turns, "Assistant:"])


def _templated(pair: Pair, answer: str, tokenizer: Any) -> Texts:
    """Cut the rendered conversation where the answer begins.

    That is where the rendered prompt ends. Some templates render the prompt alone differently (an empty block
    of thoughts, say); then it is where the answer's text last occurs, and failing that everything is answer.
    """
    from jinja2 import TemplateError

    whole: list[Message] = [*pair.prompt, {"role": "assistant", "content": answer}]
    try:
        prompt = tokenizer.apply_chat_template(list(pair.prompt), add_generation_prompt=True, tokenize=False)
        text = tokenizer.apply_chat_template(whole, tokenize=False)
    except TemplateError as error:
        raise DataError(f"The chat template refuses the chat of pair {pair.id!r}: {error}.") from error
    cut = len(prompt) if text.startswith(prompt) else max(text.rfind(answer.strip()), 0)
    return _unframed(Texts(text[:cut], text[cut:]), tokenizer)


def _unframed(texts: Texts, tokenizer: Any) -> Texts:
    """Take the template's own first and last special token off; the frame puts them back."""
    prompt, answer = texts
    first, last = edges(tokenizer)
    if first:
        prompt = prompt.removeprefix(first)
    if last and answer.rstrip().endswith(last):
        answer = answer.rstrip().removesuffix(last)
    return Texts(prompt, answer)
