"""Encoded pairs as padded batches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from llm.text.encoding import EncodedPair, EncodedPairs

if TYPE_CHECKING:
    import torch

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")
PER_SEQUENCE = ("input_ids", "attention_mask", "answer_mask", "reference")


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
        length = self.padded_length(max(map(len, rows)))
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

    def padded_length(self, longest: int) -> int:
        """Columns of a batch whose longest sequence has that many tokens."""
        rounded = -(-longest // self.multiple) * self.multiple
        return rounded if self.max_length is None else max(longest, min(rounded, self.max_length))


def longest_first(pairs: EncodedPairs | Sequence[EncodedPair]) -> list[int]:
    """Places of pairs by the length of their longer answer, so that little of a batch is padding.

    What runs out of memory does so at once.
    """
    lengths = [max(len(pairs[place][side]) for side in SIDES) for place in range(len(pairs))]
    return sorted(range(len(lengths)), key=lambda place: -lengths[place])


def by_length(batches: Sequence[dict[str, torch.Tensor]], collator: PairCollator) -> list[dict[str, torch.Tensor]]:
    """The pairs of batches of one size in as many batches of that size, the longest pairs first.

    Args:
        batches: As from ``collator``.
        collator: Says how they are padded.
    """
    import torch

    if len(batches) < 2:
        return list(batches)
    pairs, sides = len(batches[0]["index"]), len(batches[0]["input_ids"]) // len(batches[0]["index"])
    lengths = torch.cat([batch["attention_mask"].sum(1).view(sides, pairs).amax(0) for batch in batches])
    order = torch.argsort(lengths, descending=True, stable=True)
    columns = max(batch["input_ids"].shape[1] for batch in batches)
    together = {"index": torch.cat([batch["index"] for batch in batches])}
    for name in PER_SEQUENCE:
        if name in batches[0]:
            filling = collator.pad_id if name == "input_ids" else 0
            together[name] = torch.cat([_by_side(batch[name], sides, columns, filling) for batch in batches], dim=1)
    return [_part(together, rows, collator.padded_length(int(lengths[rows[0]]))) for rows in order.split(pairs)]


def _by_side(values: torch.Tensor, sides: int, columns: int, filling: int) -> torch.Tensor:
    """``(sides n, length)`` or ``(sides n,)`` as ``(sides, n, columns)`` or ``(sides, n)``."""
    import torch

    if values.dim() == 2:
        values = torch.nn.functional.pad(values, (0, columns - values.shape[1]), value=filling)
    return values.view(sides, -1, *values.shape[1:])


def _part(together: dict[str, torch.Tensor], rows: torch.Tensor, length: int) -> dict[str, torch.Tensor]:
    parts = {name: values[:, rows].flatten(0, 1) for name, values in together.items() if name != "index"}
    cut = {name: values[:, :length].contiguous() if values.dim() == 2 else values for name, values in parts.items()}
    return {**cut, "index": together["index"][rows]}
