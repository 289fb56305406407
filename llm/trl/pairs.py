"""Worst-case weights for TRL's reward and DPO trainers.

TRL reduces its losses inside private functions that change with almost every release. What does not change is
``compute_loss``: at one example per micro-batch it returns that example's loss. So the micro-batches of one
accumulation window are the examples, and one optimizer step runs

1. ``compute_loss`` on all of them without gradient, the losses gathered over ranks, one ``worst_case`` call;
2. ``compute_loss`` and backward of ``world * q_i l_i`` on those with a weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, cast

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import TrainingArguments
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_trainer import RewardTrainer

from ..adversary.effective_batch import EffectiveBatch, plain_weights
from ..adversary.equal_losses import Accuracy, precision_of, rounding_of
from ..adversary.inaction import check_losses
from ..adversary.last_window import LastWindow, first_of, whole_windows
from ..adversary.regret import with_least
from ..training.guards import check_setup
from ..training.losses import Sigmoid, dpo_accuracy, least_losses
from .datasets import PROCESSED
from .labels import check_sigmoid, counting, masses_in, preferences_in, softened_loss
from .mixin import INDEX, RobustMixin
from .refusals import check_arguments, check_layout

_WEIGHT, _SKIP = "robust_weight", "robust_skip"
_LONGEST = 1024  # tokens of an answer, where nothing tells


class RobustPairs(RobustMixin):
    """Stands before ``trl.RewardTrainer`` or ``trl.DPOTrainer`` and trains on ``max_q sum_i q_i l_i``.

    The effective batch is ``gradient_accumulation_steps`` examples on every rank;
    ``per_device_train_batch_size`` must be 1. What an epoch has left over and fills no effective batch is left out,
    unless ``last_window`` is ``"keep"``. A column ``weight`` of the training set is the reference from which the worst
    case starts, without a set the weights of the mean; rows of weight 0 are left out. With ``soft_labels="data"`` the
    column ``preference`` is the probability that the chosen answer is the better one, under the sigmoid loss.

    TRL's metrics are those of all examples and of certain labels, each example counted once, before the
    update. Arguments and attributes: see ``RobustMixin``.
    """

    raise_batch = "raise gradient_accumulation_steps"

    def __init__(
        self,
        *args: Any,
        last_window: LastWindow = "drop",
        soft_labels: Literal["none", "data"] = "none",
        **kwargs: Any,
    ) -> None:
        self.last_window, self.soft_labels = last_window, soft_labels
        self.preferences: Tensor | None = None
        super().__init__(*args, **kwargs)
        if self.untouched:
            return
        _check_pairs(self)
        if self.preferences is not None:
            check_sigmoid(self.args, self.train_dataset)
            self.adversary.rule = with_least(
                self.adversary.rule, least_losses(Sigmoid(), self.preferences.double().cpu()).numpy()
            )
        two_passes = self.args.gradient_accumulation_steps > 1
        check_setup(self.args, self.accelerator, self.model, two_passes=two_passes)
        self.loss_is_scaled_for_ga = True
        self._tell()
        self.data_collator = _Indexed(self.data_collator)

    def _does_more(self) -> bool:
        data: object = self.train_dataset
        return self.soft_labels != "none" or (isinstance(data, Dataset) and masses_in(data) is not None)

    def _labelled(self, data: Dataset) -> Dataset:
        data = counting(data)
        masses, preferences = masses_in(data), preferences_in(data, self.soft_labels)
        self.masses = None if masses is None else masses.to(self.args.device)
        self.preferences = None if preferences is None else preferences.to(self.args.device)
        return data

    def _prepare_dataset(
        self, dataset: Dataset | IterableDataset, *args: object, **kwargs: object
    ) -> Dataset | IterableDataset:
        """TRL tokenises; what has its columns already (``llm.trl.datasets``) stays, which its DPO trainer refuses."""
        columns, theirs = set(getattr(dataset, "column_names", None) or ()), cast(Any, super())
        return dataset if columns >= PROCESSED else theirs._prepare_dataset(dataset, *args, **kwargs)

    def check_base(self) -> None:
        """Raise TypeError before another trainer of TRL."""
        if not isinstance(self, (RewardTrainer, DPOTrainer)):
            raise TypeError(
                "RobustPairs goes before trl.RewardTrainer or trl.DPOTrainer, whose loss at one example per batch is "
                "that example's; for GRPO and RLOO use RobustOnline"
            )

    def check_given(self, arguments: TrainingArguments | None, data: object, *, robust: bool) -> None:
        """Refuse pairs that TRL cannot join, and arguments that leave a set without the losses of single pairs."""
        check_layout(data)
        if robust and arguments is not None:
            check_arguments(arguments, arguments.world_size)

    @staticmethod
    def batch_of(arguments: TrainingArguments, processes: int) -> int:
        """How many examples of all ranks an optimizer step weighs together."""
        return arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * processes

    @cached_property
    def accuracy(self) -> Accuracy:
        """As of our trainers; losses of DPO other than the sigmoid are measured by its slope."""
        arguments = self.args
        precision, kinds = precision_of(arguments, self.model), getattr(arguments, "loss_type", ["sigmoid"])
        centred = getattr(arguments, "center_rewards_coefficient", None) is not None  # a second term in every loss
        logistic = list(kinds) == ["sigmoid"] and self.preferences is None and not centred
        single = Accuracy(rounding_of(precision), logistic=logistic)
        if not isinstance(self, DPOTrainer):
            return single
        return dpo_accuracy(single, Sigmoid(), beta=self.beta, precision=precision, tokens=self._longest_answer())

    def _longest_answer(self) -> int:
        """In tokens; as TRL calls the columns of its prepared data, else the longest it would take."""
        data: object = self.train_dataset
        answers = [data[name] for name in ("chosen_ids", "rejected_ids") if name in data.column_names]
        limit: int = getattr(self.args, "max_length", None) or _LONGEST
        return max((len(ids) for column in answers for ids in column), default=limit)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Sampler[int] | None:
        sampler, examples = super()._get_train_sampler(*args, **kwargs), len(self.ledger.visits)
        if self.ambiguity is None or self.last_window == "keep":
            return sampler
        whole = whole_windows(examples, self.effective_batch)
        return first_of(sampler, examples, whole, tell=self.is_world_process_zero())

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Fetch the accumulation window; attach the weights where they need a pass of their own."""
        window, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.untouched or len(window) < 2:
            return window, items
        window = [self._prepare_inputs(inputs) for inputs in window]
        index = torch.cat([inputs[INDEX] for inputs in window])
        if self._strength() == 0.0:
            weights = plain_weights(self.accelerator, index, masses=self.masses)
            return [{**inputs, _WEIGHT: weight} for inputs, weight in zip(window, weights, strict=True)], items
        batch = self._gathered(self._losses_without_grad(window), index)
        weights = self._solved(batch)
        return _ordered(window, weights[batch.mine], self._skippable(batch, weights)), items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: FBT002
        """TRL's loss without a set and in evaluation; the example's share of the robust loss in training."""
        asked = {"return_outputs": return_outputs, "num_items_in_batch": num_items_in_batch}
        if self.untouched:
            return super().compute_loss(model, inputs, **asked)
        if not self._training():
            return self._theirs(model, inputs, **asked)
        if _SKIP in inputs:
            return torch.zeros((), device=self.args.device, requires_grad=True)
        weight = inputs.get(_WEIGHT)
        if weight is None:  # one micro-batch per step: the forward pass that is differentiated gives the weights
            loss = self._loss(model, inputs)
            batch = self._gathered(loss.detach().float()[None], inputs[INDEX])
            weight = self._solved(batch)[batch.mine][0]
        elif self._strength() == 0.0:  # no pass 1 was needed, so this is the first look at the loss
            loss = self._loss(model, inputs)
            self._book_plain(loss.detach().float()[None], inputs[INDEX], weight)
        else:
            with self._metrics_set_aside():
                loss = self._loss(model, inputs)
        # DDP, FSDP and DeepSpeed average gradients over ranks; the weights sum to one over all of them.
        return self.accelerator.num_processes * weight * loss

    def _loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """TRL's loss of one example, of a label that may be uncertain."""
        loss = self._theirs(model, inputs)
        return loss if self.preferences is None else softened_loss(loss, self.preferences[inputs[INDEX]][0])

    def _gathered(self, losses: Tensor, index: Tensor) -> EffectiveBatch:
        return EffectiveBatch.gathered(self.accelerator, losses, index, masses=self.masses)

    def _theirs(self, model: nn.Module, inputs: dict[str, Tensor], **kwargs: Any) -> Any:
        ours = (INDEX, _WEIGHT, _SKIP)
        return super().compute_loss(model, {name: x for name, x in inputs.items() if name not in ours}, **kwargs)

    def _training(self) -> bool:
        return self.model.training

    @torch.no_grad()
    def _losses_without_grad(self, window: Sequence[dict[str, Tensor]]) -> Tensor:
        model = self.model_wrapped
        model.train()
        with self.compute_loss_context_manager():
            return torch.stack([self._loss(model, inputs).float() for inputs in window])

    def _skippable(self, batch: EffectiveBatch, weights: Tensor) -> int:
        """How many examples without weight each rank may leave out of pass 2.

        The same number on all ranks, because every forward pass talks to the others; it leaves at least one, since
        some rank has a weight. DeepSpeed counts backward passes itself, so there all are run.
        """
        if self.is_deepspeed_enabled:
            return 0
        ignored = ((weights == 0) & (batch.present > 0)).reshape(self.accelerator.num_processes, -1)
        return int(ignored.sum(1).min())

    def _book_plain(self, loss: Tensor, index: Tensor, weight: Tensor) -> None:
        steps = self.current_gradient_accumulation_steps
        step, batch = self.state.global_step, self._gathered(loss, index)
        total = None if self.masses is None else self.masses[index[0]] / weight
        self.adversary.book_plain(batch, step=step, micro_batches=steps, total=total, accuracy=self.accuracy)

    @contextmanager
    def _metrics_set_aside(self) -> Iterator[None]:
        """Keep TRL's metrics of pass 1, which saw every example once; what runs inside is not counted again."""
        metrics, tokens = self._metrics, self._total_train_tokens
        self._metrics = {mode: defaultdict(list) for mode in metrics}
        try:
            yield
        finally:
            self._metrics, self._total_train_tokens = metrics, tokens


class _Indexed:
    """A collator that also passes on which training examples a batch holds."""

    def __init__(self, collate: Callable[[list[dict[str, object]]], Mapping[str, object]]) -> None:
        self.collate = collate

    def __call__(self, items: list[dict[str, object]]) -> dict[str, object]:
        index = {INDEX: torch.tensor([item[INDEX] for item in items])} if INDEX in items[0] else {}
        return {**self.collate(items), **index}


def _ordered(window: Sequence[Mapping[str, object]], weights: Tensor, skip: int) -> list[dict[str, object]]:
    """The window with its weights, examples without weight first and ``skip`` of them marked.

    The order puts a real forward and backward pass last, where gradients are synchronised over ranks.
    """
    zero_first = sorted(range(len(window)), key=(weights != 0).tolist().__getitem__)
    marked = [{_SKIP: True}] * skip + [{}] * (len(window) - skip)
    return [{**window[i], _WEIGHT: weights[i], **mark} for i, mark in zip(zero_first, marked, strict=True)]


def _check_pairs(trainer: RobustPairs) -> None:
    check_arguments(trainer.args, trainer.accelerator.num_processes)
    check_losses(trainer.ambiguity, logistic=trainer.accuracy.logistic, labels=True)
    if getattr(trainer, "aux_loss_enabled", False):
        raise ValueError(
            "the router's load-balancing loss belongs to the batch and must not be weighted by example: set "
            "router_aux_loss_coef=0.0"
        )
