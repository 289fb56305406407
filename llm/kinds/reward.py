"""Bradley-Terry reward models, trained against the worst reweighting of each effective batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.pairs import Pair
from ..judging.margins import MarginOf, reward_margins
from ..models.loading import load_reward_model, tiny_reward_model
from ..training.config import RewardConfig
from ..training.pair_trainer import PairTrainer, texts_of
from ..training.run import Task


class RewardTrainer(PairTrainer):
    """``RobustTrainer`` with the Bradley-Terry loss; batches as ``llm.text.encoding.PairCollator`` makes them."""

    def margins(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Differences of the rewards r(chosen) - r(rejected), shape ``(n,)``, in float32."""
        if not self.flat:
            return reward_margins(model, inputs)
        chosen, rejected = self.read_by()(model, inputs).float().chunk(2)
        return chosen - rejected

    def read_by(self) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
        """Rewards, of a causal classifier."""
        from ..models.flat import flat_rewards

        return flat_rewards


class RewardTask(Task[RewardConfig]):
    """A sequence classifier with one output, trained on the Bradley-Terry loss."""

    adapter_task = "SEQ_CLS"

    def load(self, train: Sequence[Pair]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model that the settings name; ``tiny`` learns its tokenizer from the training pairs."""
        if self.config.model != "tiny":
            return load_reward_model(self.config.model, **self.config.loading())
        return tiny_reward_model(texts_of(train), **self.config.from_scratch())

    def margin_of(self, output: Path) -> MarginOf:
        """By its rewards."""
        del output
        return reward_margins

    def trainer(self, **common: Any) -> RewardTrainer:
        """The trainer of the run."""
        return RewardTrainer(**common)


TASK = RewardTask
