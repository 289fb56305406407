"""Prompts and single answers as token ids, for policies that write and reward models that read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm.data.pairs import DataError
from llm.data.prompts import Prompt
from llm.text.rendering import Refused, Rendered
from llm.text.tokens import Reader
from llm.text.window import sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompts(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, refused: dict[int, str] | None = None
) -> list[list[int]]:
    """Ids that an answer follows on, special tokens at the beginning included; nothing is cut.

    Args:
        prompts: The chats.
        tokenizer: Of the model that answers.
        refused: Takes the places of chats that cannot be read, which then have no ids, and the reasons.

    Raises:
        DataError: A chat cannot be read, and ``refused`` is None; the message names the prompt.
    """
    reader = Reader(tokenizer)
    texts: dict[int, Rendered] = {}
    rows: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        try:
            text = reader.renderer.asked(prompt.messages)
            if text.literal:
                rows[place] = reader.asked([text])[0]
            else:
                texts[place] = text
        except Refused as reason:
            if refused is None:
                raise _unreadable(prompt, reason) from reason
            refused[place] = str(reason)
    rows.update(zip(texts, reader.asked(list(texts.values())), strict=True))
    return [rows.get(place, []) for place in range(len(prompts))]


def refused_prompts(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Places of prompts whose answers a reward model cannot read -> why: its chat template refuses them."""
    renderer, refused = Reader(tokenizer).renderer, dict[int, str]()
    for place, prompt in enumerate(prompts):
        try:
            renderer.answered(prompt.messages, ["a"], strict=False)
        except Refused as reason:
            refused[place] = str(reason)
    return refused


def encode_answers(
    prompts: Sequence[Prompt], answers: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> list[list[int]]:
    """Every prompt with its answer, in at most ``max_length`` tokens, as ``encode_pairs`` reads them.

    All answers to equal chats are read after the same part of it. Of an answer that the chat template does not write
    whole (thoughts, mostly) the part is read that it writes, as whoever serves the model would; and what reads like a
    special token is read as one where the tokenizer cannot read it as text.

    Raises:
        ValueError: ``max_length`` leaves no room for text.
        DataError: The chat template refuses a chat; the message names the prompt.
    """
    rows: list[list[int]] = [[] for _ in prompts]
    if not rows:
        return rows
    reader = Reader(tokenizer)
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(repr(prompt.messages), []).append(place)
    groups = [_rendered(reader, prompts[held[0]], [answers[place] for place in held]) for held in places.values()]
    frame = reader.frame(prompts[0].messages, answers[0])
    for held, tokens in zip(places.values(), reader.answered(groups, strict=False), strict=True):
        for place, (ids, _) in zip(held, sequences(tokens, max_length, frame).rows, strict=True):
            rows[place] = ids
    return rows


def _rendered(reader: Reader, prompt: Prompt, answers: Sequence[str]) -> list[Rendered]:
    try:
        return reader.renderer.answered(prompt.messages, answers, strict=False)
    except Refused as reason:
        raise _unreadable(prompt, reason) from reason


def _unreadable(prompt: Prompt, reason: Refused) -> DataError:
    return DataError(f"Prompt {prompt.id!r} cannot be read: {reason}.")
