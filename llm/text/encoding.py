"""From pairs to token ids: both answers after the same part of their prompt; what is left out, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, TypedDict

from dro_core.command_line.pace import paced
from llm.data.pairs import DataError, Pair
from llm.text.rendering import Refused, Rendered
from llm.text.tokens import Reader, Tokens
from llm.text.truncation import Truncation
from llm.text.window import Frame, Window, room_for, sequences, whole_from

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from llm.text.token_cache import TokenCache

TooLong = Literal["cut", "drop", "refuse"]
EQUAL_TOKENS = "its two answers have the same tokens"
_DROPPED = "it is longer than max_length"
_log = logging.getLogger(__name__)
_LOST = {
    "system": "system turns",
    "thoughts": "thoughts of earlier answers",
    "tool_calls": "calls of tools",
    "tools": "definitions of tools",
    "turn": "parts of turns",
}
_BATCH = 1000  # pairs per call of the tokenizer: large enough for its own batching, small enough for a bar


class NothingLeft(DataError):
    """There are pairs, and none of them can be read."""


class EncodedPair(TypedDict):
    """The two token sequences of the pair at ``index``, special tokens included.

    The spans say where the answers stand, first position and one past the last: the answer's own tokens and the
    token that ends it, which a cut answer lacks. ``window`` says what both show of the prompt. ``reference`` are
    log-probabilities, where they were computed.
    """

    index: int
    chosen: list[int]
    rejected: list[int]
    chosen_span: tuple[int, int]
    rejected_span: tuple[int, int]
    window: Window
    reference: NotRequired[tuple[float, float]]


class EncodedPairs:
    """A map-style dataset of encoded pairs.

    Attributes:
        pairs: The pairs themselves, in the order of the items.
        kept: Where they stood among those that were given.
        left_out: Where the others stood -> why they are not here.
        truncation: What was cut.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        items: Sequence[EncodedPair],
        truncation: Truncation,
        left_out: Mapping[int, str] = MappingProxyType({}),
    ):
        self.kept = [place for place in range(len(pairs)) if place not in left_out]
        self.pairs: Sequence[Pair] = [pairs[place] for place in self.kept]
        self.left_out = left_out
        self.truncation = truncation
        self._items, self._reference = items, None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> EncodedPair:
        item = self._items[index]
        if self._reference is None:
            return item
        chosen, rejected = self._reference[index].tolist()
        return {**item, "reference": (chosen, rejected)}

    def put_reference(self, logps: np.ndarray) -> None:
        """Keep log-probabilities ``(pairs, 2)`` of the chosen and the rejected answers under a reference policy."""
        if logps.shape != (len(self), 2):
            raise ValueError(
                f"log-probabilities of {len(self)} pairs have the shape ({len(self)}, 2), not {logps.shape}"
            )
        self._reference = logps


def encode_pairs(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    too_long: TooLong = "cut",
    progress: bool = False,
    watch: Callable[[Pair, Seen], object] | None = None,
    cache: TokenCache | None = None,
) -> EncodedPairs:
    """Tokenise both answers of every pair after the same part of their prompt, in at most ``max_length`` tokens each.

    Left out, and counted, are pairs whose two sequences are the same, which nothing can be learned from, and pairs that
    the chat template refuses or does not write whole.

    Args:
        pairs: The pairs.
        tokenizer: A transformers tokenizer, fast or slow.
        max_length: Tokens per sequence, special tokens included.
        too_long: What becomes of a pair that needs more: it is cut (see ``llm.text.window``), left out, or an error.
        progress: Show a bar on stderr.
        watch: Is shown every pair, those that are left out too, and what is read of it.
        cache: Where what was read before is found, and kept for the next time.

    Raises:
        ValueError: ``max_length`` leaves no room for text.
        NothingLeft: There are pairs, and none is left; the message names one.
        DataError: A pair is too long.
    """

    def read() -> Iterator[Seen]:
        encoder = PairEncoder(tokenizer, max_length, too_long)
        return (seen for batch in _batches(pairs, progress=progress) for seen in encoder.read(batch))

    seen_of = (
        read() if cache is None else cache.read(pairs, tokenizer, max_length=max_length, too_long=too_long, read=read)
    )
    items: list[EncodedPair] = []
    left_out: dict[int, str] = {}
    truncation = Truncation()
    for place, (pair, seen) in enumerate(zip(pairs, seen_of, strict=True)):
        if watch is not None:
            watch(pair, seen)
        if seen.reason or seen.item is None:
            left_out[place] = seen.reason
        elif not isinstance(seen_of, Sequence):
            items.append({**seen.item, "index": len(items)})
        truncation.add(seen)
    kept = _Kept(seen_of, left_out) if isinstance(seen_of, Sequence) else items
    found = EncodedPairs(pairs, kept, truncation, left_out)
    if pairs and not kept:
        place, reason = next(iter(left_out.items()))
        raise NothingLeft(f"None of {len(pairs)} pairs can be read: of pair {pairs[place].id!r}, {reason}.")
    _say(found, pairs, max_length)
    return found


class Seen(NamedTuple):
    """What is read of one pair.

    Attributes:
        item: Its tokens, at index 0; None where there are none.
        reason: Why the pair is left out; "" where it is not.
        lost: What the chat template leaves out of its prompt.
        absent: Nothing of what is asked is read.
        answers_cut: Answers that lost tokens: 0, 1 or 2.
        tokens_cut: Tokens that both sequences lost.
        whole_from: The least ``max_length`` at which its prompt is whole.
    """

    item: EncodedPair | None
    reason: str = ""
    lost: frozenset[str] = frozenset()
    absent: bool = False
    answers_cut: int = 0
    tokens_cut: int = 0
    whole_from: int = 0


class _Kept(Sequence[EncodedPair]):
    """Those of what is read that are not left out, looked up when they are asked for."""

    def __init__(self, seen: Sequence[Seen], left_out: Container[int]) -> None:
        self._seen, self._places = seen, [place for place in range(len(seen)) if place not in left_out]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        item = self._seen[self._places[index]].item
        assert item is not None  # it would be left out
        return {**item, "index": index}


class PairEncoder:
    """Reads pairs, a few at a time, and keeps none of them; the arguments are those of :func:`encode_pairs`.

    Attributes:
        renderer: How their conversations are written.
        frame: Tokens that stand around texts; None before the first pair.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, too_long: TooLong = "cut") -> None:
        self._reader, self._max_length, self._too_long = Reader(tokenizer), max_length, too_long
        self.renderer = self._reader.renderer
        self.frame: Frame | None = None

    def read(self, pairs: Sequence[Pair]) -> list[Seen]:
        """What is read of each pair.

        Raises:
            ValueError: ``max_length`` leaves no room for text.
            DataError: A pair is too long, and that was to be refused.
        """
        rendered = [self._rendered(pair) for pair in pairs]
        groups = [group for group in rendered if not isinstance(group, str)]
        if groups and self.frame is None:
            pair = next(pair for pair, group in zip(pairs, rendered, strict=True) if not isinstance(group, str))
            self.frame = self._reader.frame(pair.prompt, pair.chosen)
            room_for(0, [0], self._max_length, self.frame)
        tokens = iter(self._tokens(groups))
        return [
            Seen(None, group) if isinstance(group, str) else self._seen(pair, group, next(tokens))
            for pair, group in zip(pairs, rendered, strict=True)
        ]

    def _rendered(self, pair: Pair) -> list[Rendered] | str:
        try:
            return self._reader.renderer.answered(pair.prompt, [pair.chosen, pair.rejected])
        except Refused as reason:
            return str(reason)

    def _tokens(self, groups: Sequence[list[Rendered]]) -> list[list[Tokens] | str]:
        try:
            return list(self._reader.answered(groups))
        except Refused:
            return [self._alone(group) for group in groups]

    def _alone(self, group: list[Rendered]) -> list[Tokens] | str:
        try:
            return self._reader.answered([group])[0]
        except Refused as reason:
            return str(reason)

    def _seen(self, pair: Pair, group: list[Rendered], tokens: list[Tokens] | str) -> Seen:
        if isinstance(tokens, str) or self.frame is None:
            return Seen(None, str(tokens))
        read, frame = sequences(tokens, self._max_length, self.frame), self.frame
        lost = sum(len(found.ids) for found in tokens) - sum(len(found) for found, _ in read.rows)
        if lost and self._too_long != "cut":
            if self._too_long == "refuse":
                raise DataError(
                    f"Pair {pair.id!r} has {max(len(found.ids) for found in tokens)} tokens, and max_length is "
                    f"{self._max_length}: raise it, or say too_long=cut or drop."
                )
            return Seen(None, _DROPPED)
        (chosen, chosen_span), (rejected, rejected_span) = read.rows
        window = read.room.window
        return Seen(
            {
                "index": 0, "chosen": chosen, "rejected": rejected, "chosen_span": chosen_span,
                "rejected_span": rejected_span, "window": window,
            },
            EQUAL_TOKENS if chosen == rejected else "",
            lost=group[0].lost,
            absent=window.cut > 0 and window.start <= frame.start and window.end <= frame.end,
            answers_cut=read.answers_cut,
            tokens_cut=lost,
            whole_from=whole_from(sum(window), max(len(found.ids) for found in tokens) - sum(window), frame),
        )  # fmt: skip


def _batches(pairs: Sequence[Pair], *, progress: bool) -> Iterable[Sequence[Pair]]:
    starts = paced(range(0, len(pairs), _BATCH), "batches tokenised", shown=progress)
    return (pairs[start : start + _BATCH] for start in starts)


def _say(found: EncodedPairs, pairs: Sequence[Pair], max_length: int) -> None:
    """What a reader of the screen must know."""
    cut = found.truncation
    for reason, count in cut.left_out.items():
        first = next(pairs[place].id for place, why in found.left_out.items() if why == reason)
        _log.warning("%d of %d pairs are left out, %r first: %s", count, len(pairs), first, reason)
    for what, count in cut.lost.items():
        _log.warning("the chat template leaves %s out of the prompts of %d pairs", _LOST[what], count)
    if cut.tokens_cut:
        _log.info(
            "max_length %d: %d of %d prompts are cut, %d show nothing of what is asked, %d answers are cut",
            max_length, cut.prompts_cut, cut.pairs, cut.prompts_absent, cut.answers_cut,
        )  # fmt: skip
