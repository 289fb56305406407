"""Texts that read like special tokens and are none, read as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm.text.alignment import Aligned, single, tokenised
from llm.text.rendering import Rendered, Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class AsText:
    """Reads conversations whose data mention special tokens.

    Args:
        tokenizer: Of transformers.
        renderer: Knows the texts of its special tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, renderer: Renderer) -> None:
        self._tokenizer: Any = tokenizer
        self._renderer = renderer
        self._special: dict[str, Any] = {text: tokenizer.convert_tokens_to_ids(text) for text in renderer.special}

    def read(self, rendered: Rendered) -> Aligned | None:
        """Tokens of a text some parts of which read like special tokens and are none; None where that fails.

        The text is read in sections between the special tokens of the template. That a tokenizer reads sections as it
        reads the whole is tried on the same text with marks in place of those parts.
        """
        marked = list(rendered.text)
        for first, last in rendered.literal:
            marked[first:last] = "\ue000" * (last - first)
        control = "".join(marked)
        cuts = self._cuts(control)
        whole, tried = tokenised(self._tokenizer, [control], split=False)[0], self._sections(control, cuts)
        found = self._sections(rendered.text, cuts)
        special = {*self._special.values()} - {self._tokenizer.unk_token_id}
        alike = [i for i in found.ids if i in special] == [i for i in tried.ids if i in special]
        return found if alike and whole.ids == tried.ids else None

    def _cuts(self, text: str) -> list[tuple[int, int, Aligned]]:
        """What special tokens take of a text: their own, and where they are told so, the white space beside it."""
        cuts: list[tuple[int, int, Aligned]] = []
        start = 0
        for match in self._renderer.matches(text):
            token = self._special[match[0]]
            first, last = match.span()
            known = self._tokenizer.added_tokens_decoder.get(token)
            if known is not None and known.lstrip:
                first = max(len(text[:first].rstrip()), start)
            if known is not None and known.rstrip:
                last = len(text) - len(text[last:].lstrip())
            cuts.append((first, last, single(token, match.start() - first, match.end() - first)))
            start = last
        return cuts

    def _sections(self, text: str, cuts: Sequence[tuple[int, int, Aligned]]) -> Aligned:
        parts: list[tuple[int, int, Aligned]] = []
        start = 0
        for first, last, token in cuts:
            if first > start:
                parts.append((start, first, tokenised(self._tokenizer, [text[start:first]], split=True)[0]))
            parts.append((first, last, token))
            start = last
        if start < len(text):
            parts.append((start, len(text), tokenised(self._tokenizer, [text[start:]], split=True)[0]))

        def count(character: int, name: str) -> int:
            inside = ((getattr(read, name)(character - first), read, last) for first, last, read in parts)
            return sum(len(read.ids) if last <= character else max(found, 0) for found, read, last in inside)

        ids = [i for _, _, read in parts for i in read.ids]
        return Aligned(ids, lambda character: count(character, "before"), lambda character: count(character, "behind"))
