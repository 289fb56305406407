"""Prompts and single answers as token ids, for policies that write and reward models that read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm.data.prompts import Prompt
from llm.text.framing import frame_of, joined, token_ids, tokenised
from llm.text.rendering import rendered, rendered_prompt


def encode_prompts(prompts: Sequence[Prompt], tokenizer: Any) -> list[list[int]]:
    """Ids that an answer follows on, special tokens at the beginning included; nothing is cut.

    Raises:
        DataError: The chat template refuses a chat.
    """
    prefix = frame_of(tokenizer).prefix
    texts = [rendered_prompt(prompt.messages, tokenizer) for prompt in prompts]
    return [[*prefix, *ids] for ids in token_ids(tokenizer, texts)]


def encode_answers(
    prompts: Sequence[Prompt], answers: Sequence[str], tokenizer: Any, *, max_length: int
) -> list[list[int]]:
    """Every prompt with its answer, framed and cut to ``max_length`` as ``encode_pairs`` does it.

    Raises:
        ValueError: ``max_length`` leaves no room for text.
        DataError: The chat template refuses a chat.
    """
    frame = frame_of(tokenizer)
    room = frame.room(max_length)
    pairs = [prompt.answered(answer, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    texts = [rendered(pair, tokenizer)[:1] for pair in pairs]
    return [joined(*ids, frame, room).ids for (ids,) in tokenised(texts, tokenizer)]
