"""Texts that begin alike, such as a prompt with each of its answers: what they share is read once.

A text may be read in two parts where the tokenizer, as far as its parts are known here, never looks across: before a
single space between two letters of ASCII. There no normalisation joins characters, words are told apart, and no model
of words sees two of them. Tokenizers with any other part read every text whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from transformers import AddedToken

LEAST = 64  # characters that two texts share before they are read in parts
_CUT = re.compile(r"(?s).*[A-Za-z](?= [A-Za-z])")
_NORMALISERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
_SPLITTERS = {"BertPreTokenizer", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"}
_PATTERNS = {  # of GPT-4 and Llama 3, and of Qwen
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + numbers +
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for numbers in (r"\p{N}{1,3}", r"\p{N}")
}  # fmt: skip


class _State(TypedDict):
    """A part of a fast tokenizer as it is stored; its type says which entries it has."""

    type: str
    pattern: Mapping[str, str]
    behavior: str
    invert: bool
    use_regex: NotRequired[bool]
    normalizers: list[_State]
    pretokenizers: list[_State]


_Parts = Literal["normalizers", "pretokenizers"]


def separable(tokenizer: Any) -> bool:
    """Whether a tokenizer reads both sides of a space between letters as it reads them together."""
    if not tokenizer.is_fast:
        return False
    inner = tokenizer.backend_tokenizer
    model, splitter = inner.model, _state(inner.pre_tokenizer)
    by_words = type(model).__name__ in ("WordPiece", "WordLevel") or (
        type(model).__name__ == "BPE" and not getattr(model, "dropout", None)
    )
    beside = all(_stands_apart(token) for token in tokenizer.added_tokens_decoder.values())
    return by_words and beside and _known(_state(inner.normalizer), _NORMALISERS) and _separates(splitter)


def cuts(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """For every text, the one that it is read with (itself, or an earlier one), and how many characters they share.

    Texts that are read with the same one share the same beginning; 0 where a text is read whole.
    """
    start = 0
    while start < len(texts):
        shared, end = len(texts[start]), start + 1
        while end < len(texts) and (common := _common(texts[start], texts[end], shared)) >= LEAST:
            shared, end = common, end + 1
        found = _CUT.match(texts[start], 0, shared) if end > start + 1 else None
        yield from ((start, found.end() if found else 0) for _ in range(start, end))
        start = end


def _common(first: str, second: str, most: int) -> int:
    """How many characters two texts begin with together, up to that many."""
    low, high = 0, min(most, len(second))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if second.startswith(first[low:middle], low) else (low, middle - 1)
    return low


def _stands_apart(token: AddedToken) -> bool:
    """Whether an added token neither holds such a space nor may stand beside one."""
    text = str(token.content)
    edges = text[:1] + text[-1:]
    return " " not in text and not re.search(r"[A-Za-z]", edges)


def _state(part: Any) -> _State | None:
    return None if part is None else json.loads(part.__getstate__())


def _parts(state: _State, name: _Parts) -> list[_State]:
    return [inner for part in state[name] for inner in _all(part, name)]


def _all(state: _State, name: _Parts) -> list[_State]:
    return _parts(state, name) if state["type"] == "Sequence" else [state]


def _known(state: _State | None, names: set[str]) -> bool:
    return state is None or all(part["type"] in names for part in _all(state, "normalizers"))


def _separates(state: _State | None) -> bool:
    """Whether words are told apart by known rules, at least one of which parts them at spaces."""
    if state is None:
        return False
    parts = _all(state, "pretokenizers")
    split = [_splits(part) for part in parts]
    return all(found is not None for found in split) and any(split)


def _splits(part: _State) -> bool | None:
    """Whether a rule parts words at spaces; None where it is not known."""
    if part["type"] in _SPLITTERS:
        return part["type"] not in ("Digits", "Punctuation")
    if part["type"] == "ByteLevel":
        return bool(part.get("use_regex", True))
    if part["type"] == "Split" and part["pattern"].get("Regex") in _PATTERNS:
        return (part["behavior"] == "Isolated" and not part["invert"]) or None
    return None
