"""Prompts and single answers as token ids, for policies that write and reward models that read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm.data.pairs import DataError, Message
from llm.data.prompts import Prompt
from llm.text.rendering import Refused, Rendered
from llm.text.tokens import Frame, Reader
from llm.text.window import Sequences, sequences

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

    All answers to equal chats are read after the same part of it; otherwise as :class:`AnswerEncoder` reads them.

    Raises:
        ValueError: ``max_length`` leaves no room for text.
        DataError: The chat template refuses a chat; the message names the prompt.
    """
    rows: list[list[int]] = [[] for _ in prompts]
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(repr(prompt.messages), []).append(place)
    groups = [(prompts[held[0]].messages, [answers[place] for place in held]) for held in places.values()]
    for held, found in zip(places.values(), AnswerEncoder(tokenizer, max_length).read(groups), strict=True):
        if isinstance(found, Refused):
            raise _unreadable(prompts[held[0]], found) from found
        for place, (ids, _) in zip(held, found.rows, strict=True):
            rows[place] = ids
    return rows


class AnswerEncoder:
    """Reads chats with their answers, a few at a time, and keeps none of them.

    Of an answer that the chat template does not write whole (thoughts, mostly) the part is read that it writes, as
    whoever serves the model would; and what reads like a special token is read as one where the tokenizer cannot read
    it as text.

    Args:
        tokenizer: Of the model that reads.
        max_length: Tokens of a chat with an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._reader, self._max_length = Reader(tokenizer), max_length
        self._frame: Frame | None = None

    def read(self, groups: Sequence[tuple[Sequence[Message], Sequence[str]]]) -> list[Sequences | Refused]:
        """Of each chat its answers after the same part of it, or why the chat template refuses it.

        Raises:
            ValueError: ``max_length`` leaves no room for text.
        """
        rendered = [self._rendered(*group) for group in groups]
        whole = [found for found in rendered if not isinstance(found, Refused)]
        if not whole:
            return [found for found in rendered if isinstance(found, Refused)]
        if self._frame is None:
            place = next(place for place, found in enumerate(rendered) if not isinstance(found, Refused))
            self._frame = self._reader.frame(groups[place][0], groups[place][1][0])
        tokens = iter(self._reader.answered(whole, strict=False))
        return [
            found if isinstance(found, Refused) else sequences(next(tokens), self._max_length, self._frame)
            for found in rendered
        ]

    def read_written(self, texts: Sequence[tuple[str, str]]) -> list[Sequences]:
        """Conversations that are written out already, special tokens included; each is a group of its own.

        What the tokenizer puts around a conversation is put there where it is missing, and padding is left out.

        Args:
            texts: The conversation, and the beginning of it that is the prompt; "" where that is not known: a
                conversation that is too long then loses its middle.

        Raises:
            ValueError: ``max_length`` leaves no room for text.
        """
        edges = self._reader.edges
        frame = Frame(len(edges.prefix), 0, len(edges.suffix))
        return [sequences([tokens], self._max_length, frame) for tokens in self._reader.written_out(texts)]

    def _rendered(self, chat: Sequence[Message], answers: Sequence[str]) -> list[Rendered] | Refused:
        try:
            return self._reader.renderer.answered(chat, answers, strict=False)
        except Refused as reason:
            return reason


def _unreadable(prompt: Prompt, reason: Refused) -> DataError:
    return DataError(f"Prompt {prompt.id!r} cannot be read: {reason}.")
