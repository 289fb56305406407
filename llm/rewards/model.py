"""A reward model as a scorer: answers are given as text, and read through its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..data.prompts import Prompt
from ..models.architectures import placed, reading_length
from ..models.loading import load_reward_model
from ..models.rewards import RewardBatches, rewards_of
from ..models.settings import Loading
from ..text.answers import encode_answers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class RewardScorer:
    """The output of a sequence classifier, for answers given as text: its tokenizer need not be the policy's.

    Args:
        model: One output, in evaluation mode while it is asked.
        tokenizer: The model's own.
        max_length: Tokens of a prompt with its answer; longer ones lose the middle of the prompt.
        batch_size: Answers per forward pass; those of similar length stand together.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, max_length: int, batch_size: int = 32
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_length, self.batch_size = max_length, batch_size
        self.verifiable = False

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> NDArray[np.float64]:
        """Scores, shape ``(n,)``.

        Raises:
            DataError: The model's chat template refuses a prompt.
        """
        rows = encode_answers(prompts, answers, self.tokenizer, max_length=self.max_length)
        batches = RewardBatches(self.batch_size)
        found = rewards_of(self.model, [[row] for row in rows], cast(int, self.tokenizer.pad_token_id), batches)
        return np.array([score for (score,) in found], dtype=np.float64)


def load_model(name: str, *, batch_size: int, device: torch.device | str, **loading: Unpack[Loading]) -> RewardScorer:
    """The trained reward model of that folder or hub name.

    Raises:
        ModelError: There is none.
    """
    model, tokenizer = load_reward_model(name, new_head=False, **loading)
    max_length = reading_length(model, tokenizer)
    return RewardScorer(placed(model, device), tokenizer, max_length=max_length, batch_size=batch_size)
