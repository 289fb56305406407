"""Tokens of texts, and which characters they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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


def tokenised(tokenizer: Any, texts: list[str], *, split: bool) -> list[Aligned]:
    """Tokens of every text without special ones around it; ``split`` reads those inside as text.

    verbose=False: a warning about texts longer than the model, which are cut later.
    """
    if not texts:
        return []
    options = {"add_special_tokens": False, "split_special_tokens": split, "verbose": False}
    encoded = tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, **options)
    if tokenizer.is_fast:
        greedy = {i for i, token in tokenizer.added_tokens_decoder.items() if token.lstrip or token.rstrip}
        return [_by_offsets(row, text, greedy) for row, text in zip(encoded.encodings, texts, strict=True)]

    def ids_of(text: str) -> list[int]:
        return tokenizer(text, **options)["input_ids"]

    return [_by_beginnings(ids, text, ids_of) for ids, text in zip(encoded["input_ids"], texts, strict=True)]


def _by_offsets(row: Any, text: str, greedy: set[int]) -> Aligned:
    """Tokens of a fast tokenizer, which says of each where its characters are.

    White space that a ``greedy`` token takes in beside its own text is none of its characters.
    """
    ids: list[int] = row.ids

    def place(token: int) -> tuple[int, int]:
        start, end = row.token_to_chars(token)
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
