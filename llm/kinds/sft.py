"""Supervised fine-tuning on the chosen answers, against the worst reweighting of each effective batch.

The loss of an example is the mean of -log pi over the tokens of its answer, and a batch is the (weighted) mean of
its examples: every *example* counts alike. Trainers that average over the tokens of a batch let an answer count by
its length; the two agree on batches of one example, and where all answers are equally long.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

from ..data.pairs import Pair
from ..judging.margins import MarginOf, likelihood_margins
from ..models.loading import load_policy, tiny_policy
from ..models.logprobs import answer_logps, answer_tokens
from ..statistics.ties import credit
from ..training.config import SFTConfig
from ..training.pair_trainer import Metrics, PairTrainer, texts_of
from ..training.run import Task


class SFTTrainer(PairTrainer):
    """``RobustTrainer`` with the mean negative log-likelihood of the tokens of the chosen answer.

    Training reads the chosen answers alone, evaluation both: it also ranks them.
    """

    measures = False
    labels = False

    @property
    def logistic(self) -> bool:
        """Never: the loss is no function of the margin."""
        return False

    def get_train_dataloader(self) -> DataLoader:
        """Batches without the rejected answers."""
        both: object = self.data_collator
        self.data_collator = both.of("chosen")
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = both

    def example_losses(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """-log pi(answer | prompt) per answer token of every chosen sequence, in nats, shape ``(n,)``."""
        return -self._logps(model, inputs) / answer_tokens(inputs)

    def _logps(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return (self.read_by() if self.flat else answer_logps)(model, inputs)

    def take_rows(self, inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """The chosen sequences ``rows``."""
        return {name: tensor[rows] for name, tensor in inputs.items()}

    def margins(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Differences log pi(chosen) - log pi(rejected), summed over tokens, of batches with both sides, ``(n,)``."""
        return likelihood_margins(model, inputs)

    def held_out_metrics(self, pairs: Sequence[Pair]) -> Metrics:
        """The ``compute_metrics`` of an evaluation on these pairs."""
        return imitation_metrics(pairs)

    def held_out(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Margin, -log pi(chosen) and its number of tokens, ``(n, 3)``."""
        chosen, rejected = self._logps(model, inputs).chunk(2)
        return torch.stack([chosen - rejected, -chosen, answer_tokens(inputs).chunk(2)[0]], dim=1)

    def held_out_losses(self, measured: Tensor) -> Tensor:
        """-log pi(chosen) per token, ``(n,)``."""
        return measured[:, 1] / measured[:, 2]


def imitation_metrics(pairs: Sequence[Pair]) -> Metrics:
    """``compute_metrics`` of held-out pairs.

    ``accuracy``: share of pairs with log pi(chosen) > log pi(rejected), summed over tokens; a tie is half.
    ``token_loss``: mean -log pi over all tokens of all chosen answers, whose exponential is the perplexity (the
    ``loss`` beside it is the mean over examples). Both accuracy and ``loss`` also of the worst category.
    """
    categories = np.array([pair.category for pair in pairs])

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        margins, costs, tokens = np.asarray(prediction.predictions, dtype=np.float64).T
        correct, losses = credit(margins), costs / tokens
        seen = categories[prediction.label_ids]
        groups = [seen == name for name in set(seen)]
        return {
            "accuracy": float(correct.mean()),
            "token_loss": float(costs.sum() / tokens.sum()),
            "worst_category_accuracy": float(min(correct[group].mean() for group in groups)),
            "worst_category_loss": float(max(losses[group].mean() for group in groups)),
        }

    return metrics


class SFTTask(Task[SFTConfig]):
    """A causal model trained to give the chosen answers."""

    adapter_task = "CAUSAL_LM"
    sides = ("chosen",)

    def load(self, train: Sequence[Pair]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy to start from; ``tiny`` learns its tokenizer from the training pairs."""
        if self.config.model != "tiny":
            return load_policy(self.config.model, **self.config.loading())
        return tiny_policy(texts_of(train), **self.config.from_scratch())

    def margin_of(self, output: Path) -> MarginOf:
        """By log pi(chosen) - log pi(rejected), summed over tokens."""
        del output
        return likelihood_margins

    def trainer(self, **common: Any) -> SFTTrainer:
        """The trainer of the run."""
        return SFTTrainer(**common)


TASK = SFTTask
