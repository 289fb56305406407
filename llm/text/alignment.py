"""Tokens of texts, and which characters they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llm.text.beginnings import cuts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Aligned:
    """Tokens of a text.

    Attributes:
        ids: All of them.
        before: How many stand wholly before a character.
        behind: The first token that begins at a character or behind it.
    """

    ids: list[int]
    before: Callable[[int], int]
    behind: Callable[[int], int]


def single(token: int, first: int, last: int) -> Aligned:
    """One token, which holds the characters from ``first`` to before ``last``."""
    return Aligned([token], lambda character: int(character >= last), lambda character: int(character > first))


def tokenised(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], *, split: bool, apart: bool = False
) -> list[Aligned]:
    """Tokens of every text without special ones around it; ``split`` reads those inside as text.

    Args:
        tokenizer: Fast or slow.
        texts: Those of one prompt beside each other.
        split: Whether special tokens inside are read as text.
        apart: Texts may be read in parts, and what they share once: the tokenizer is ``separable``.
    """
    if not texts:
        return []
    if apart:
        return _in_parts(tokenizer, texts, split=split)
    # verbose=False: a warning about texts longer than the model, which are cut later
    read = partial(tokenizer, add_special_tokens=False, split_special_tokens=split, verbose=False)
    encoded = read(texts, return_attention_mask=False, return_token_type_ids=False)
    if tokenizer.is_fast:
        greedy = _greedy(tokenizer)
        return [_by_offsets([(0, row)], text, greedy) for row, text in zip(encoded.encodings or (), texts, strict=True)]

    def ids_of(text: str) -> list[int]:
        return read(text)["input_ids"]

    return [_by_beginnings(ids, text, ids_of) for ids, text in zip(encoded["input_ids"], texts, strict=True)]


def _in_parts(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, split: bool) -> list[Aligned]:
    """The same from parts: the beginning that texts share, and the rest of each."""
    found = list(cuts(texts))
    places: dict[tuple[int, int, int], int] = {}
    pieces: list[str] = []
    parts: list[list[tuple[int, int]]] = []
    for place, (text, (first, cut)) in enumerate(zip(texts, found, strict=True)):
        wanted = [(first, 0, cut), (place, cut, len(text))] if cut else [(place, 0, len(text))]
        for key in wanted:
            if key not in places:
                places[key] = len(pieces)
                pieces.append(texts[key[0]][key[1] : key[2]])
        parts.append([(key[1], places[key]) for key in wanted])
    encoded = tokenizer(
        pieces, return_attention_mask=False, return_token_type_ids=False, add_special_tokens=False,
        split_special_tokens=split, verbose=False,
    )  # fmt: skip
    rows, greedy = encoded.encodings or [], _greedy(tokenizer)
    return [
        _by_offsets([(shift, rows[place]) for shift, place in own], text, greedy)
        for own, text in zip(parts, texts, strict=True)
    ]


def _greedy(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.lstrip or token.rstrip}


def _by_offsets(rows: Sequence[tuple[int, Any]], text: str, greedy: set[int]) -> Aligned:
    """Tokens of a fast tokenizer, which says of each where its characters are.

    A text comes as a whole or in two parts, each with the place of its first character.
    White space that a ``greedy`` token takes in beside its own text is none of its characters.
    """
    (_, head), (shift, tail) = rows[0], rows[-1]
    ids: list[int] = head.ids if len(rows) == 1 else head.ids + tail.ids
    begin = len(head.ids) if len(rows) > 1 else len(ids)

    def place(token: int) -> tuple[int, int]:
        if token < begin:
            start, end = head.token_to_chars(token)
        else:
            start, end = (shift + character for character in tail.token_to_chars(token - begin))
        if ids[token] in greedy:
            own = text[start:end]
            start, end = end - len(own.lstrip()), start + len(own.rstrip())
        return start, end

    def first(holds: Callable[[int, int], bool]) -> int:
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(*place(middle)) else (middle + 1, high)
        return low

    return Aligned(
        ids,
        lambda character: first(lambda start, end: end > character or start >= character),
        lambda character: first(lambda start, _: start >= character),
    )


def _by_beginnings(ids: list[int], text: str, ids_of: Callable[[str], list[int]]) -> Aligned:
    """Tokens of a slow tokenizer: those that the beginning of a text, or its end, has too."""
    return Aligned(
        ids,
        lambda character: _shared(ids, ids_of(text[:character])),
        lambda character: len(ids) - _shared(ids[::-1], ids_of(text[character:])[::-1]),
    )


def _shared(first: list[int], second: list[int]) -> int:
    """How many tokens two sequences begin with together."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))
