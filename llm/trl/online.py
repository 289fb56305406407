"""Worst-case weights for TRL's GRPO and RLOO trainers: over prompts, by the rewards their answers got.

The value of a prompt is the mean reward of its group of completions, and its loss the negative value. The worst
reweighting q of the n prompts of a generation batch multiplies the advantages of prompt i by n q_i: for a loss
that is linear in the advantage of a completion, this weights its policy-gradient term.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from ..adversary.effective_batch import EffectiveBatch
from ..adversary.equal_losses import Accuracy, rounding_of
from ..adversary.inaction import RAISE_BATCH, check_losses
from ..run.launch import check_launch
from .mixin import INDEX, RobustMixin

_PER_SEQUENCE = ("grpo", "dr_grpo")


class RobustOnline(RobustMixin):
    """Stands before ``trl.GRPOTrainer`` or ``trl.RLOOTrainer`` and trains on the worst reweighting of prompts.

    The effective batch is the generation batch: with ``steps_per_generation`` equal to
    ``gradient_accumulation_steps``, TRL's default, the prompts of one optimizer step. Arguments and attributes: see
    ``RobustMixin``.
    """

    raise_batch = RAISE_BATCH
    _seen_rewards: Tensor  # of the completions of all ranks, by reward function

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.ambiguity is not None:
            _check_online(self)
            self._tell()

    def check_base(self) -> None:
        """Raise TypeError before another trainer of TRL."""
        if not isinstance(self, (GRPOTrainer, RLOOTrainer)):
            raise TypeError(
                "RobustOnline goes before trl.GRPOTrainer or trl.RLOOTrainer; for reward models and DPO use RobustPairs"
            )

    @property
    def effective_batch(self) -> int:
        """How many prompts of all ranks a generation weighs together."""
        arguments: Any = self.args
        return arguments.generation_batch_size // arguments.num_generations

    @cached_property
    def accuracy(self) -> Accuracy:
        """Values are means of rewards, which their functions compute in float32."""
        return Accuracy(rounding_of(torch.float32))

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        trainer: Any = super()
        self._seen_rewards = trainer._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._seen_rewards

    def _generate_and_score_completions(self, inputs):
        """Let TRL sample, judge and compute advantages; weight them in training."""
        trainer: Any = super()
        if self.ambiguity is None:
            return trainer._generate_and_score_completions(inputs)
        bare = [{name: x for name, x in row.items() if name != INDEX} for row in inputs]
        output = trainer._generate_and_score_completions(bare)
        assert self.model is not None
        if self.model.training:
            advantages = output["advantages"]
            index = torch.tensor([row[INDEX] for row in inputs], device=advantages.device)
            output["advantages"] = advantages * self._multipliers(index).to(advantages.dtype)
        return output

    def _multipliers(self, index: Tensor) -> Tensor:
        """The factor n q of every completion of this rank, which are of the training examples ``index``."""
        trainer: Any = self
        everyone: Any = self.accelerator.gather(index)
        values = self._prompt_values()
        scored = ~values.isnan()
        if not scored.any():  # TRL gives all of them the advantage 0
            return torch.ones_like(index, dtype=values.dtype)
        batch = EffectiveBatch(
            losses=-values.nan_to_num(0.0),
            index=everyone[:: trainer.num_generations],
            present=scored.to(values.dtype),
            mine=slice(None),
            padded=not bool(scored.all()),
        )
        factors = (scored.sum() * self._solved(batch)).repeat_interleave(trainer.num_generations)
        start = self.accelerator.process_index * len(index)
        return factors[start : start + len(index)]

    def _prompt_values(self) -> Tensor:
        """Mean reward of the group of every prompt of all ranks, shape ``(n,)``; nan where none could be judged."""
        trainer: Any = self
        rewards = self._seen_rewards.double()  # n q is then 1, not 1 - 6e-8, at radius 0
        total = (rewards * trainer.reward_weights.to(rewards.device)).nansum(1)
        if clip := getattr(self, "reward_clip_range", None):  # RLOO
            total = total.clamp(*clip)
        total = total.where(~rewards.isnan().all(1), torch.nan)
        return total.reshape(-1, trainer.num_generations).nanmean(1)


def _check_online(trainer: RobustOnline) -> None:
    arguments: Any = trainer.args
    check_launch(arguments)
    check_losses(trainer.ambiguity, logistic=False)
    if isinstance(trainer, GRPOTrainer) and arguments.loss_type not in _PER_SEQUENCE:
        raise ValueError(
            f"loss_type {arguments.loss_type!r} does not treat completions one by one (most others divide by the "
            "tokens of the whole batch, so weights on prompts would become weights on tokens): set loss_type to 'grpo' "
            "or 'dr_grpo'"
        )
    per_generation, steps = arguments.steps_per_generation, arguments.gradient_accumulation_steps
    if per_generation % steps:
        raise ValueError(
            f"an optimizer step of {steps} micro-batches would mix prompts of generations of {per_generation}, which "
            "are weighted apart: make steps_per_generation a multiple of gradient_accumulation_steps (leave it unset)"
        )
    if arguments.generation_batch_size < 2 * arguments.num_generations:
        raise ValueError(
            "a generation batch of one prompt leaves the adversary nothing to choose: raise "
            "gradient_accumulation_steps or per_device_train_batch_size, or lower num_generations"
        )
