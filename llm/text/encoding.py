"""From pairs to token ids: truncation that protects the answer, special tokens, padding.

Truncation. The answer is kept whole and the prompt loses its beginning, because what the answer replies to
stands at the end. An answer too long by itself keeps its beginning, and the prompt goes altogether.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from llm.data.pairs import Pair
from llm.text.framing import Ids, frame_of, joined, tokenised
from llm.text.rendering import rendered

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["SIDES", "EncodedPairs", "PairCollator", "Side", "Truncation", "encode_pairs", "padded"]

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")
_log = logging.getLogger(__name__)
_BATCH = 1000  # texts per call of the tokenizer: large enough for its own batching, small enough for a bar


@dataclass
class Truncation:
    """What did not fit into ``max_length``.

    Attributes:
        pairs: Pairs encoded.
        prompts_cut: Pairs whose prompt lost tokens beside at least one of their two answers.
        answers_cut: Answers that lost tokens, out of ``2 * pairs``.
        tokens_cut: Tokens lost altogether.
    """

    pairs: int = 0
    prompts_cut: int = 0
    answers_cut: int = 0
    tokens_cut: int = 0


class EncodedPair(TypedDict):
    """The two token sequences of the pair at ``index``, special tokens included.

    The spans say where the answers stand, first position and one past the last: the answer's own tokens and the
    token that ends it, which a cut answer lacks. ``reference`` are log-probabilities, where they were computed.
    """

    index: int
    chosen: list[int]
    rejected: list[int]
    chosen_span: tuple[int, int]
    rejected_span: tuple[int, int]
    reference: NotRequired[tuple[float, float]]


class EncodedPairs:
    """A map-style dataset of encoded pairs.

    Attributes:
        pairs: The pairs themselves, in the order of the items.
        truncation: What was cut.
    """

    def __init__(self, pairs: Sequence[Pair], items: list[EncodedPair], truncation: Truncation):
        self.pairs = pairs
        self.truncation = truncation
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> EncodedPair:
        return self._items[index]

    def put_reference(self, logps: np.ndarray) -> None:
        """Keep log-probabilities ``(pairs, 2)`` of the chosen and the rejected answers under a reference policy."""
        for item, (chosen, rejected) in zip(self._items, logps.tolist(), strict=True):
            item["reference"] = (chosen, rejected)


def encode_pairs(pairs: Sequence[Pair], tokenizer: Any, *, max_length: int, progress: bool = False) -> EncodedPairs:
    """Tokenise both answers of every pair after their prompt, in at most ``max_length`` tokens each.

    Args:
        pairs: The pairs.
        tokenizer: A transformers tokenizer, fast or slow.
        max_length: Tokens per sequence, special tokens included.
        progress: Show a bar on stderr.

    Raises:
        ValueError: ``max_length`` leaves no room for text.
        DataError: The chat template refuses a chat; the message names the pair.
    """
    frame = frame_of(tokenizer)
    room = frame.room(max_length)
    items: list[EncodedPair] = []
    truncation = Truncation()
    for batch in _batches(pairs, progress=progress):
        for texts in tokenised([rendered(pair, tokenizer) for pair in batch], tokenizer):
            _count(truncation, texts, room)
            chosen, rejected = (joined(*ids, frame, room) for ids in texts)
            items.append({
                "index": len(items), "chosen": chosen.ids, "rejected": rejected.ids,
                "chosen_span": chosen.span, "rejected_span": rejected.span,
            })  # fmt: skip
    if truncation.tokens_cut:
        _log.info("max_length %d: %s", max_length, truncation)
    return EncodedPairs(pairs, items, truncation)


def _batches(pairs: Sequence[Pair], *, progress: bool) -> Iterable[Sequence[Pair]]:
    starts = range(0, len(pairs), _BATCH)
    if progress:
        from rich.console import Console
        from rich.progress import track

        starts = track(starts, description="tokenising", console=Console(stderr=True))
    return (pairs[start : start + _BATCH] for start in starts)


def _count(truncation: Truncation, texts: list[Ids], room: int) -> None:
    truncation.pairs += 1
    truncation.prompts_cut += any(prompt and len(prompt) + len(answer) > room for prompt, answer in texts)
    truncation.answers_cut += sum(len(answer) > room for _, answer in texts)
    truncation.tokens_cut += sum(max(0, len(prompt) + len(answer) - room) for prompt, answer in texts)


def padded(rows: Sequence[Sequence[int]], pad: int, length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask ``(rows, length)``, padded on the right to ``length``, or to the longest row.

    On the right whatever the tokenizer says: padding on the left moves the text to other positions, and a model with a
    table of positions then reads a row otherwise in every batch. Tokenizers are told to pad left for generation.
    """
    import torch

    length = max(map(len, rows)) if length is None else length
    ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


class PairCollator:
    """Pad a list of encoded pairs into one batch.

    The batch has ``input_ids``, ``attention_mask`` and ``answer_mask`` of shape ``(2 b, length)``, first the b chosen
    sequences, then the b rejected ones (of shape ``(b, length)`` with one of the sides alone), and ``index`` of shape
    ``(b,)``; where the pairs have reference log-probabilities, ``reference`` of shape ``(2 b,)`` in the same order.
    Padding is on the right, where it moves no token.

    Args:
        tokenizer: Has a padding token.
        pad_to_multiple_of: Lengths are rounded up to a multiple of this,
        max_length: but not beyond this: a model may have no positions there.
        sides: Which answers are in the batch.
    """

    def __init__(
        self,
        tokenizer: Any,
        pad_to_multiple_of: int = 8,
        *,
        max_length: int | None = None,
        sides: Sequence[Side] = SIDES,
    ):
        if tokenizer.pad_token_id is None:
            raise ValueError(
                "The tokenizer has no padding token, and batches need one; "
                "set tokenizer.pad_token (and model.config.pad_token_id) first."
            )
        self.pad_id: int = tokenizer.pad_token_id
        self.multiple = pad_to_multiple_of
        self.max_length = max_length
        self.sides = sides

    def of(self, *sides: Side) -> PairCollator:
        """The same for these answers only."""
        other = copy.copy(self)
        other.sides = sides
        return other

    def __call__(self, items: Sequence[EncodedPair]) -> dict[str, torch.Tensor]:
        """Return the batch of ``items``."""
        import torch

        rows = [item[side] for side in self.sides for item in items]
        spans = [item["chosen_span" if side == "chosen" else "rejected_span"] for side in self.sides for item in items]
        answers = [
            [0] * first + [1] * (end - first) + [0] * (len(row) - end)
            for row, (first, end) in zip(rows, spans, strict=True)
        ]
        length = self._length(rows)
        ids, mask = padded(rows, self.pad_id, length)
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "answer_mask": padded(answers, 0, length)[0],
            "index": torch.tensor([item["index"] for item in items]),
        }
        if "reference" in items[0]:
            both = [dict(zip(SIDES, item.get("reference", ()), strict=True)) for item in items]
            batch["reference"] = torch.tensor([r[side] for side in self.sides for r in both], dtype=torch.float32)
        return batch

    def _length(self, rows: Sequence[Sequence[int]]) -> int:
        longest = max(map(len, rows))
        rounded = -(-longest // self.multiple) * self.multiple
        return rounded if self.max_length is None else max(longest, min(rounded, self.max_length))
