"""Counting what a model sees of pairs, one at a time: numbers, hashes and a few ids are kept, texts are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.hub import address_of
from ..data.overview import Cases, Overview, overview
from ..data.pairs import Pair, PairSet, PairStream, length_baseline
from ..text.encoding import EQUAL_TOKENS, EncodedPair, PairEncoder, Seen
from ..text.rendering import ANSWER_LOST, Renderer
from .audit import CASES, SHARE_WHOLE, Audit, Identical
from .groups import GroupCounts
from .marks import framed_twice, special
from .overlap import TrainingTexts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 1000  # pairs per call of the tokenizer
_LOST = {"system": "system_lost", "thoughts": "thoughts_lost", "tool_calls": "tool_calls_lost"}


class Auditor:
    """Looks at the pairs of one file and at its suites.

    Args:
        tokenizer: Of the model.
        max_length: Tokens per sequence.
        suites: Whether pairs of suites will be looked for among the training pairs.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int, suites: bool = False) -> None:
        self._encoder = PairEncoder(tokenizer, max_length)
        self._max_length, self._unknown = max_length, _unknown(tokenizer)
        self._cases = {name: Cases() for name in CASES}
        self._identical = IdenticalCounts()
        self._left_out, self._groups = Counter[str](), GroupCounts()
        self._texts = TrainingTexts() if suites else None
        self._tokens = self._unknown_tokens = self._longer = 0.0
        self._lengths = Counter[int]()
        self._suites: dict[str, Identical] = {}
        self._overlap: dict[str, dict[str, dict[str, Cases]]] = {}

    def through(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs themselves, each after it was looked at; a thousand are held at a time."""
        return self._shown(pairs, self.see)

    def see(self, pair: Pair, seen: Seen) -> None:
        """Count a pair of the file, and what is read of it."""
        found = {"pairs": True, **_text(pair, self._encoder.renderer), **_lost(pair, seen)}
        if seen.item is not None:
            found |= self._read(seen, seen.item)
        elif seen.reason:
            self._left_out[seen.reason] += 1
        for name, holds in found.items():
            if holds:
                self._cases[name].add(pair)
        self._identical.add(pair, seen)
        self._groups.add(pair)
        self._longer += length_baseline(pair)
        if self._texts is not None:
            self._texts.add(pair)

    def suite(self, name: str, pairs: Iterable[Pair]) -> None:
        """Look for the pairs of a suite among those of the file, which must all have been seen."""
        if self._texts is None:
            raise ValueError("suites are looked for among pairs that were remembered: say suites=True")
        identical = IdenticalCounts()
        self._overlap[name] = self._texts.overlap(self._shown(pairs, identical.add))
        self._suites[name] = identical.found()

    def audit(
        self, seen: Overview, *, file: str, ignored: Mapping[str, int] | None = None, batch: int | None = None
    ) -> Audit:
        """What was found.

        Args:
            seen: The overview of the same pairs.
            file: What they are called.
            ignored: Columns with text that were not read -> records.
            batch: Pairs that are compared in a step; None: not known.
        """
        return Audit(
            file=file,
            max_length=self._max_length,
            **self._cases
            | {name: getattr(seen, name) for name in ("duplicates", "contradictions", "negative_margins")},
            token_identical=self._identical.found(),
            unknown_token_share=self._unknown_tokens / max(self._tokens, 1),
            ignored_columns=dict(ignored or {}),
            longer_wins=self._longer / max(self._cases["pairs"].count, 1),
            sources=dict(self._groups.sources.most_common()),
            prompts=seen.prompts,
            overlap=self._overlap,
            suites=self._suites,
            left_out=dict(self._left_out),
            groups=self._groups.records(batch),
            length=self._length(),
        )

    def _read(self, seen: Seen, item: EncodedPair) -> dict[str, bool]:
        chosen, rejected = item["chosen"], item["rejected"]
        first, other = item["chosen_span"][0], item["rejected_span"][0]
        self._tokens += len(chosen) + len(rejected)
        if self._unknown is not None:
            self._unknown_tokens += chosen.count(self._unknown) + rejected.count(self._unknown)
        self._lengths[seen.whole_from] += 1
        cut = item["window"].cut > 0
        return {
            "prompt_whole_both": not cut,
            "prompt_cut": cut,
            "prompt_absent": seen.absent,
            "same_window": chosen[:first] == rejected[:other],
            "answers_cut": seen.answers_cut > 0,
        }

    def _shown(self, pairs: Iterable[Pair], see: Callable[[Pair, Seen], object]) -> Iterator[Pair]:
        rest = iter(pairs)
        while batch := list(islice(rest, _BATCH)):
            for pair, seen in zip(batch, self._encoder.read(batch), strict=True):
                see(pair, seen)
                yield pair

    def _length(self) -> int | None:
        left = ceil(SHARE_WHOLE * self._lengths.total())
        for length, count in sorted(self._lengths.items()):
            left -= count
            if left <= 0:
                return length
        return None


class IdenticalCounts:
    """Counts the pairs of one file whose two sequences are the same."""

    def __init__(self) -> None:
        self._cases, self._pairs = Cases(), 0
        self._groups = {name: (Counter[str](), Counter[str]()) for name in ("category", "source")}

    def add(self, pair: Pair, seen: Seen) -> None:
        """Look at a pair, and what is read of it."""
        equal = seen.reason == EQUAL_TOKENS
        self._pairs += 1
        if equal:
            self._cases.add(pair)
        for name, (found, all_of_them) in self._groups.items():
            group = getattr(pair, name) or "unknown"
            all_of_them[group] += 1
            found[group] += equal

    def found(self) -> Identical:
        """What was counted."""
        by_category, by_source = (
            {name: (count, everything[name]) for name, count in found.most_common() if count}
            for found, everything in self._groups.values()
        )
        return Identical(self._cases, self._pairs, by_category, by_source)


Source = PairStream | PairSet


def audit_of(
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    suites: Mapping[str, Source] | None = None,
    batch: int | None = None,
) -> Audit:
    """Audit a file and its suites; of a stream, a thousand pairs are held at a time.

    Args:
        source: The pairs of the file.
        tokenizer: Of the model.
        max_length: Tokens per sequence.
        suites: Name -> pairs.
        batch: Pairs that are compared in a step; None: not known.

    Raises:
        DataError: A file cannot be read.
        ValueError: ``max_length`` leaves no room for text.
    """
    auditor = Auditor(tokenizer, max_length=max_length, suites=bool(suites))
    seen = overview(auditor.through(_pairs(source)))
    for name, suite in (suites or {}).items():
        auditor.suite(name, _pairs(suite))
    address = address_of(source.name)
    file = Path(source.name).name if address is None else address.name
    return auditor.audit(seen, file=file, ignored=source.ignored, batch=batch)


def _pairs(source: Source) -> Iterable[Pair]:
    return source.pairs if isinstance(source, PairSet) else source


def _unknown(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token for what the tokenizer does not know; None where it is also one that ends or frames texts."""
    named: Any = tokenizer
    unknown, others = named.unk_token_id, {named.bos_token_id, named.eos_token_id, named.pad_token_id}
    return None if unknown in others else unknown


def _text(pair: Pair, renderer: Renderer) -> dict[str, bool]:
    return {"special_token_text": special(pair, renderer), "double_framing": framed_twice(pair)}


def _lost(pair: Pair, seen: Seen) -> dict[str, bool]:
    """What the chat template leaves out of a pair, or refuses it for."""
    refused = seen.reason if seen.item is None else ""
    thoughts = any("</think>" in answer for answer in (pair.chosen, pair.rejected))
    system = any(message["role"] == "system" for message in pair.prompt) and "system" in refused.lower()
    return {
        "system_lost": "system" in seen.lost or system,
        "thoughts_lost": "thoughts" in seen.lost or (refused == ANSWER_LOST and thoughts),
        "tool_calls_lost": bool(seen.lost & {"tool_calls", "tools"}),
    }
