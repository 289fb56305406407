"""Worst-case weights for TRL's GRPO and RLOO trainers: over prompts, by the rewards their answers got.

The value of a prompt is the mean reward of its group of completions, and its loss the negative value. The worst
reweighting q of the n prompts of a generation batch multiplies the advantages of prompt i by n q_i: for a loss
that is linear in the advantage of a completion, this weights its policy-gradient term.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor
from transformers import TrainingArguments
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from ..adversary.effective_batch import EffectiveBatch, gather
from ..adversary.equal_losses import Accuracy, rounding_of
from ..adversary.inaction import RAISE_BATCH, check_losses
from ..adversary.weightings.estimates import with_answers
from ..run.launch import check_launch
from .mixin import INDEX, RobustMixin
from .signal import (
    PER_SEQUENCE,
    PER_TOKEN,
    Batch,
    Signals,
    SilentGroups,
    SkipsDullSteps,
    drawn_together,
    further_rows,
    put_together,
    tokens_of,
)

_WEIGHED = ("grpo", "dr_grpo")


class RobustOnline(RobustMixin):
    """Stands before ``trl.GRPOTrainer`` or ``trl.RLOOTrainer`` and trains on the worst reweighting of prompts.

    The effective batch is the generation batch: with ``steps_per_generation`` equal to
    ``gradient_accumulation_steps``, TRL's default, the prompts of one optimizer step. Arguments and attributes: see
    ``RobustMixin``.

    Args:
        silent_groups: What becomes of groups whose completions all earned the same. ``keep``: as in TRL, they stand in
            the mean with advantage 0. ``leave_out``: the mean is over the others, and so is the set; a step without any
            other is skipped. ``draw_again``: further prompts are drawn in their place, for at most ``draw_rounds``
            rounds; what then still has none is left out.
        draw_rounds: See there; at least 1.
    """

    raise_batch = RAISE_BATCH
    lively = False  # whether a group with a signal was trained on since the last optimizer step
    _dull = False  # whether the generation batch at hand has none
    _seen_rewards: Tensor  # of the completions of all ranks, by reward function
    num_generations: int  # this and the following are TRL's
    reward_weights: Tensor
    _metrics: dict[str, dict[str, list[float]]]
    _step: int
    _tokenizer: Any

    def __init__(self, *args: Any, silent_groups: SilentGroups = "keep", draw_rounds: int = 4, **kwargs: Any) -> None:
        self.silent_groups, self.draw_rounds = silent_groups, draw_rounds
        super().__init__(*args, **kwargs)
        if self.ambiguity is not None:
            _check_online(self)
            self.adversary.rule = with_answers(self.ambiguity, self.num_generations)
            self._tell()
        if self._does_more():
            _check_groups(self)
            self.add_callback(SkipsDullSteps(self))

    def check_base(self) -> None:
        """Raise TypeError before another trainer of TRL."""
        if not isinstance(self, (GRPOTrainer, RLOOTrainer)):
            raise TypeError(
                "RobustOnline goes before trl.GRPOTrainer or trl.RLOOTrainer; for reward models and DPO use RobustPairs"
            )

    def _does_more(self) -> bool:
        if self.silent_groups not in get_args(SilentGroups) or self.draw_rounds < 1:
            raise ValueError(
                f"silent_groups is one of {', '.join(get_args(SilentGroups))} and draw_rounds at least 1, got "
                f"{self.silent_groups!r} and {self.draw_rounds}"
            )
        return self.silent_groups != "keep"

    @staticmethod
    def batch_of(arguments: TrainingArguments, processes: int) -> int:
        """How many prompts of all ranks a generation weighs together."""
        told: Any = arguments
        return told.generation_batch_size // told.num_generations

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
        if self.untouched:
            return trainer._generate_and_score_completions(inputs)
        output = self._scored(inputs)
        if self.model.training:
            index = self._prompts_of(inputs)
            self._count(Signals.of(self._totals()))
            if self.silent_groups == "draw_again":
                output, index = self._drawn_again(output, index, list(inputs[0]))
            advantages = output["advantages"]
            start = self.accelerator.process_index * len(inputs)
            factors = self._multipliers(index, output)[start : start + len(inputs)]
            output["advantages"] = advantages * factors.to(advantages.dtype)
        return output

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Take it, and remember whether anything could be learned from it."""
        done = super().training_step(*args, **kwargs)
        self.lively |= not self._dull
        return done

    def _scored(self, inputs: Sequence[Mapping[str, object]]) -> dict[str, Tensor]:
        """What TRL makes of the rows of this rank."""
        trainer: Any = super()
        bare = [{name: x for name, x in row.items() if name != INDEX} for row in inputs]
        return trainer._generate_and_score_completions(bare)

    def _prompts_of(self, inputs: Sequence[Mapping[str, object]]) -> Tensor:
        """The positions in the training set of the prompts of all ranks, ``(prompts,)``."""
        index = torch.tensor([row[INDEX] for row in inputs], device=self.accelerator.device)
        everyone = gather(self.accelerator, index)
        return everyone[:: self.num_generations]

    def _drawn_again(
        self, output: Mapping[str, Tensor], index: Tensor, names: list[str]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The batch with other prompts in the place of those without a signal, as far as any were found."""
        blank, samples, ranks = self._tokenizer.pad_token_id, self.num_generations, self.accelerator.num_processes
        batches = [Batch.gathered(self.accelerator, output, self._seen_rewards, index, blank)]
        chosen = [(0, group) for group in range(len(index))]
        lacking = (~Signals.of(self._totals()).signal).nonzero().flatten().tolist()
        key = (self.args.seed, self.state.global_step, self._step % self.args.gradient_accumulation_steps)
        rows, size = further_rows(len(self.train_dataset), index.tolist(), key), len(output["advantages"])  # type: ignore[arg-type]
        taken = 0
        while taken < self.draw_rounds and (
            many := drawn_together(len(lacking), len(rows), samples=samples, ranks=ranks)
        ):
            asked, rows, taken = rows[:many], rows[many:], taken + 1
            everyone, own = [row for row in asked for _ in range(samples)], many * samples // ranks
            mine = everyone[self.accelerator.process_index * own :][:own]
            more = self._scored([self._row(row, names) for row in mine])
            which = torch.tensor(asked, device=index.device)
            batches.append(Batch.gathered(self.accelerator, more, self._seen_rewards, which, blank))
            for group in Signals.of(self._totals()).signal.nonzero().flatten().tolist()[: len(lacking)]:
                chosen[lacking.pop(0)] = (taken, group)
        whole = put_together(batches, chosen, samples=samples, blank=blank)
        self._seen_rewards = whole.rewards
        self._metrics["train"]["groups/rounds"].append(float(taken))
        return whole.mine(output, start=self.accelerator.process_index * size, size=size), whole.index

    def _row(self, row: int, names: list[str]) -> dict[str, object]:
        data: object = self.train_dataset
        found = data[row]
        return {name: found[name] for name in names}

    def _count(self, groups: Signals) -> None:
        """Log the shares of groups that teach nothing, as they were drawn."""
        metrics = self._metrics["train"]
        shares = {"without_signal": ~groups.signal, "all_right": groups.right, "all_wrong": groups.wrong}
        for name, these in shares.items():
            metrics[f"groups/{name}"].append(float(these.double().mean()))

    def _multipliers(self, index: Tensor, output: Mapping[str, Tensor] | None = None) -> Tensor:
        """The factors of the completions of all ranks, which are of the prompts ``index`` of all ranks.

        n q of the prompts that could be judged; where those without a signal are left out, N q of those that have one,
        N all prompts, so that the mean over N is the weighted mean of the others.
        """
        values, leaves_out = self._prompt_values(), self.silent_groups != "keep"
        there = ~values.isnan()
        counted = int(there.sum())
        if leaves_out:
            there, counted = there & Signals.of(self._totals()).signal, len(values)
        self._dull = leaves_out and not bool(there.any())
        if not there.any():  # TRL gives all of them the advantage 0, but for a KL charge
            plain = torch.zeros_like if leaves_out else torch.ones_like
            return plain(values).repeat_interleave(self.num_generations)
        batch = EffectiveBatch(
            losses=-values.nan_to_num(0.0),
            index=index,
            present=there.to(values.dtype),
            mine=slice(None),
            padded=not bool(there.all()),
            asked=~values.isnan(),
        )
        factors = counted * self._solved(batch)
        if leaves_out and getattr(self, "loss_type", None) in PER_TOKEN and output is not None:
            factors = there * self._token_factor(output, there)
        return factors.repeat_interleave(self.num_generations)

    def _token_factor(self, output: Mapping[str, Tensor], there: Tensor) -> Tensor:
        """Of a loss that TRL divides by the tokens of the batch: how many those are, to those of the prompts there."""
        everyone = gather(self.accelerator, tokens_of(output))
        tokens = everyone.reshape(-1, self.num_generations).sum(1).double()
        return tokens.sum() / tokens[there].sum().clamp(min=1)

    def _totals(self) -> Tensor:
        """What every completion of all ranks earned, ``(prompts, samples)``; nan where it could not be judged."""
        rewards = self._seen_rewards.double()  # n q is then 1, not 1 - 6e-8, at radius 0
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        if clip := getattr(self, "reward_clip_range", None):  # RLOO
            total = total.clamp(*clip)
        return total.where(~rewards.isnan().all(1), torch.nan).reshape(-1, self.num_generations)

    def _prompt_values(self) -> Tensor:
        """Mean reward of the group of every prompt of all ranks, shape ``(n,)``; nan where none could be judged."""
        return self._totals().nanmean(1)


def _check_groups(trainer: RobustOnline) -> None:
    told: Any = trainer.args
    drawn = trainer.silent_groups == "draw_again"
    kind = trainer.loss_type if isinstance(trainer, GRPOTrainer) else "grpo"
    if kind not in (*PER_SEQUENCE, *PER_TOKEN):
        raise ValueError(
            f"silent_groups={trainer.silent_groups!r} needs a loss whose mean over the other groups is known, and "
            f"loss_type {kind!r} is not one: take one of {', '.join((*PER_SEQUENCE, *PER_TOKEN))}, or "
            "silent_groups='keep'"
        )
    if told.fp16:
        raise ValueError(
            "a step without a signal is skipped, which the loss scaling of fp16 does not know: use bf16, or "
            "silent_groups='keep'"
        )
    if drawn and (getattr(told, "normalize_advantages", False) or getattr(told, "scale_rewards", None) == "batch"):
        raise ValueError(
            "silent_groups='draw_again' puts several drawn batches together, whose advantages would be divided by the "
            "deviation of each: set scale_rewards to 'group' or 'none' (RLOO: normalize_advantages=False), or use "
            "silent_groups='leave_out'"
        )


def _check_online(trainer: RobustOnline) -> None:
    arguments: Any = trainer.args
    check_launch(arguments)
    check_losses(trainer.ambiguity, logistic=False, values=True)
    if isinstance(trainer, GRPOTrainer) and trainer.loss_type not in _WEIGHED:
        raise ValueError(
            f"loss_type {trainer.loss_type!r} does not treat completions one by one (most others divide by the "
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
