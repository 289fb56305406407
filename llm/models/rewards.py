"""Rewards of token sequences under a sequence classifier, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..text.batches import padded
from .logprobs import evaluation_mode

TokenRows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class RewardBatches:
    """How sequences are put together for a forward pass.

    Attributes:
        sequences: At most so many.
        tokens: At most so many, padding included, unless a single sequence has more; None: no limit.
        multiple: Lengths are rounded up to a multiple of this,
        max_length: but not beyond this: a model may have no positions there.
    """

    sequences: int
    tokens: int | None = None
    multiple: int = 1
    max_length: int | None = None

    def of(self, groups: Sequence[TokenRows]) -> Iterator[list[tuple[int, int]]]:
        """Places (group, row in it) of the sequences of each batch: the longest groups first, a group side by side."""
        longest = [max(map(len, rows), default=0) for rows in groups]
        order = sorted(range(len(groups)), key=lambda group: -longest[group])
        batch: list[tuple[int, int]] = []
        columns = 0
        for group in order:
            for row in range(len(groups[group])):
                full = len(batch) == self.sequences
                if batch and (full or (self.tokens is not None and columns * (len(batch) + 1) > self.tokens)):
                    yield batch
                    batch = []
                if not batch:
                    columns = self.columns(longest[group])
                batch.append((group, row))
        if batch:
            yield batch

    def columns(self, longest: int) -> int:
        """Columns of a batch whose longest sequence has that many tokens."""
        rounded = -(-longest // self.multiple) * self.multiple
        return rounded if self.max_length is None else max(longest, min(rounded, self.max_length))


@torch.inference_mode()
def batch_rewards(model: nn.Module, rows: TokenRows, pad: int, columns: int) -> NDArray[np.float64]:
    """Rewards ``(n,)`` of one batch, on the device of the model."""
    device = next(model.parameters()).device
    ids, mask = padded(rows, pad, columns)
    return model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0].double().cpu().numpy()


def rewards_of(
    model: nn.Module,
    groups: Sequence[TokenRows],
    pad: int,
    batches: RewardBatches,
    wanted: Callable[[int], bool] = lambda group: True,
) -> list[NDArray[np.float64]]:
    """Rewards of all sequences, group by group.

    Args:
        model: A sequence classifier with one output; asked in evaluation mode, and left as it was.
        groups: Sequences that belong together, and may stand in one batch.
        pad: The token of padding.
        batches: What is read at once.
        wanted: Asked before each batch whether a group's rewards are still wanted; those of others are nan.
    """
    found = [np.full(len(rows), np.nan) for rows in groups]
    with evaluation_mode(model):
        for planned in batches.of(groups):
            batch = [(group, row) for group, row in planned if wanted(group)]
            if not batch:
                continue
            rows = [groups[group][row] for group, row in batch]
            rewards = batch_rewards(model, rows, pad, batches.columns(max(map(len, rows))))
            for (group, row), reward in zip(batch, rewards, strict=True):
                found[group][row] = reward
    return found
