"""Worst-case weights over the whole effective batch, on top of ``transformers.Trainer``.

The effective batch is every accumulation micro-batch of every data-parallel rank. Weights couple all of it, so found
micro-batch by micro-batch they give a wrong gradient, not an approximation. One optimizer step therefore runs

1. a no-grad forward of every micro-batch, the losses gathered over ranks, one ``worst_case`` call;
2. forward and backward of ``world * sum_i q_i l_i``, without the examples whose weight is zero.

With one micro-batch per step both collapse into one: the weights come from the detached losses of the pass that is
differentiated. ``llm.training.passes`` has the other ways.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Sized
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..adversary.acting import bound
from ..adversary.effective_batch import AdversaryAccount, EffectiveBatch, equal_weights
from ..adversary.equal_losses import Accuracy, precision_of, rounding_of
from ..adversary.rules import Reweighting, state_of
from ..adversary.schedule import AdaptiveStrength, RadiusSchedule
from ..adversary.spec import parse_reweighting
from ..adversary.windows import LastWindow, first_of, whole_windows
from ..run.folder import making_no_folder
from .checkpointing import CheckpointingTrainer
from .choice import PassChoice
from .guards import check_checkpoints, check_dataset, check_finite, check_setup
from .passes import Pass, Passes

Batch = dict[str, Tensor]


class RobustTrainer(CheckpointingTrainer):
    """Trains on ``max_q sum_i q_i l_i`` over an ambiguity set around the uniform weights.

    Subclasses say what one example's loss is; everything else (optimizers, schedulers, mixed precision, checkpoints,
    logging integrations) is ``transformers.Trainer``. Batches must carry ``index``, the position of each example.

    Args:
        ambiguity: The set the adversary chooses from, or a rule to compare with (``llm.adversary.rules``), or its text
            (``"tv:0.2"``); ``None`` and ``"erm"`` train on the mean, as ``Trainer``.
        schedule: Strength of the adversary over the steps; ``None`` means full strength throughout.
        passes: How often a step looks at its examples; ``carried`` is approximate (``llm.training.passes``).
        last_window: Whether an epoch under a set ends with its last full effective batch (``llm.adversary.windows``).
        example_ids: Name of every training example, used in error messages.
        columns: What a set may refer to by name (``tv:0.2,by=source``): one entry per training example each.
        **kwargs: Everything ``transformers.Trainer`` takes.

    Raises:
        ValueError: More than one visible GPU without a launcher; dropout under two passes; an unknown column;
            ``passes`` that cannot be had; an adversary that cannot act (``llm.adversary.acting``).
        NonFiniteLoss: A loss is nan or infinite (before the optimizer step that would have used it).
        CheckpointError: A checkpoint could not be written; earlier ones are untouched.
    """

    def __init__(
        self,
        *,
        ambiguity: Reweighting | str | None,
        schedule: RadiusSchedule | None = None,
        passes: Passes = "auto",
        last_window: LastWindow = "drop",
        example_ids: Sequence[str] | None = None,
        columns: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        with making_no_folder(kwargs.get("args")):
            super().__init__(**kwargs)
        ambiguity = parse_reweighting(ambiguity) if isinstance(ambiguity, str) else ambiguity
        examples = len(self.train_dataset) if isinstance(self.train_dataset, Sized) else 0
        self.ambiguity = bound(ambiguity, columns or {}, batch=min(self.effective_batch, examples or 2))
        self.last_window = last_window
        self.schedule = schedule or RadiusSchedule()
        self.example_ids = example_ids
        self.account = AdversaryAccount(examples)
        self.ledger = self.account.ledger
        self.resumable = [self.ledger]
        if (state := state_of(self.ambiguity)) is not None:
            self.resumable.append(state)
        self.adaptive: AdaptiveStrength | None = None
        self.loss_is_scaled_for_ga = ambiguity is not None
        check_dataset(self.train_dataset, self.args)
        check_checkpoints(self.args)
        self.choice = PassChoice(passes, self)
        check_setup(self.args, self.accelerator, self.model, two_passes=self.choice.may_look_twice)

    @abstractmethod
    def example_losses(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Loss of every example of one micro-batch, shape ``(n,)``, differentiable."""

    @abstractmethod
    def take_rows(self, inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """The micro-batch that holds only the examples ``rows``."""

    def with_constants(self, model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The micro-batch with what its losses need beside the trained weights, so that two passes compute it once."""
        del model
        return inputs

    def constant_forwards(self, inputs: dict[str, Tensor]) -> float:
        """Forward passes of other models that ``with_constants`` runs per example of a micro-batch."""
        return 0.0

    @property
    def effective_batch(self) -> int:
        """How many examples of all ranks an optimizer step weighs together."""
        return self.args.train_batch_size * self.args.gradient_accumulation_steps * self.accelerator.num_processes

    @property
    def epoch_examples(self) -> int:
        """How many examples of all ranks an epoch sees."""
        examples = len(self.ledger.visits)
        whole = self.ambiguity is None or self.last_window == "keep"
        return examples if whole else whole_windows(examples, self.effective_batch)

    @cached_property
    def accuracy(self) -> Accuracy:
        """How far apart two equal losses may be computed."""
        return Accuracy(rounding_of(precision_of(self.args, self.model)))

    def adapt(self, adaptive: AdaptiveStrength) -> None:
        """Let held-out metrics move the strength of the adversary."""
        self.adaptive = adaptive
        self.add_callback(adaptive)
        self.resumable.append(adaptive)

    def _remove_unused_columns(self, dataset, description=None):
        """Keep all: what a batch must hold is said by the losses, not by the signature of the model's forward pass."""
        return dataset

    def _get_collator_with_removed_columns(self, data_collator, description=None):
        return data_collator

    # -- the effective batch ---------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        return first_of(sampler, len(self.ledger.visits), self.epoch_examples, tell=self.is_world_process_zero())

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Fetch the accumulation window; attach the weights that are known before its backward passes."""
        window, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.ambiguity is None:
            return window, items
        window = [self._prepare_inputs(inputs) for inputs in window]
        way = self.choice.of(window, strength=self._strength())
        if way is Pass.SINGLE:
            return window, items
        index = torch.cat([inputs["index"] for inputs in window])
        if way in (Pass.TWO, Pass.HELD):
            window, losses = self.window_losses(window, differentiable=way is Pass.HELD)
            weights = self._window_weights(torch.cat(losses).detach(), index)
            if way is Pass.HELD:
                window = [{**inputs, "losses": part} for inputs, part in zip(window, losses, strict=True)]
        else:
            weights = equal_weights(self.accelerator, index)
        shares = weights.split([len(inputs["index"]) for inputs in window])
        pairs, drop = zip(window, shares, strict=True), way is Pass.TWO
        return [self._weighted(inputs, share, drop=drop) for inputs, share in pairs], items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: FBT002
        """Mean loss of the micro-batch without an ambiguity set, its share of the robust loss with one.

        Without a set, micro-batches of different sizes count alike, as in ``Trainer``; in the plain phase of a
        robust run every example does. The two agree where all micro-batches are full.
        """
        losses = inputs["losses"] if "losses" in inputs else self.example_losses(model, inputs)
        weights = inputs.get("weights")
        if self.ambiguity is None:
            self._book_equal(losses.detach(), inputs["index"])
            loss = losses.mean()
        else:
            if weights is None:
                weights = self._window_weights(losses.detach(), inputs["index"])
            elif self._strength() == 0.0:  # no pass 1 was needed, so this is the first look at the losses
                self._book_equal(losses.detach(), inputs["index"])
            elif self.choice.passes == "carried":
                weights = weights * self._carried_multipliers(losses.detach(), inputs["index"])
            # DDP, FSDP and DeepSpeed average gradients over ranks; the weights sum to one over all of them.
            loss = self.accelerator.num_processes * (weights * losses).sum()
        return (loss, {"losses": losses}) if return_outputs else loss

    def window_losses(self, window: list[Batch], *, differentiable: bool) -> tuple[list[Batch], list[Tensor]]:
        """The micro-batches with what later passes need in them, and the losses of their examples."""
        model: Any = self.model_wrapped
        model.train()
        with torch.set_grad_enabled(differentiable), self.compute_loss_context_manager():
            window = [self.with_constants(model, inputs) for inputs in window]
            return window, [self.example_losses(model, inputs) for inputs in window]

    def _window_weights(self, losses: Tensor, index: Tensor) -> Tensor:
        """Worst-case weights of this rank's examples, shape ``(n,)``; they sum to one over all ranks."""
        batch, strength = self._gathered(losses, index), self._strength()
        weights = batch.weights(self.ambiguity, strength, accuracy=self.accuracy)
        self.account.book(batch, weights, step=self.state.global_step, strength=strength)
        return weights[batch.mine]

    def _carried_multipliers(self, losses: Tensor, index: Tensor) -> Tensor:
        """What this rank's examples of one micro-batch weigh among the latest losses, shape ``(n,)``; approximate."""
        batch, strength, carried = self._gathered(losses, index), self._strength(), self.choice.carried
        assert self.ambiguity is not None
        rule = self.ambiguity.with_strength(strength)
        multipliers = carried.multipliers(rule, *batch.without_padding(), accuracy=self.accuracy)
        self.account.book_carried(
            batch, multipliers, carried.losses, carried.weights, step=self.state.global_step, strength=strength
        )
        mine = torch.zeros_like(batch.losses)
        mine[batch.present > 0] = multipliers
        return mine[batch.mine]

    def _gathered(self, losses: Tensor, index: Tensor) -> EffectiveBatch:
        """The examples of all ranks, refused if a loss is not finite."""
        batch = EffectiveBatch.gathered(self.accelerator, losses.float(), index)
        check_finite(batch.losses, batch.index, self.example_ids, self.state.global_step)
        return batch

    def _weighted(self, inputs: dict[str, Tensor], weights: Tensor, *, drop: bool) -> dict[str, Tensor]:
        """The micro-batch with its weights ``(n,)``; ``drop`` leaves the examples of weight zero out."""
        rows = torch.nonzero(weights).flatten()
        if not drop or len(rows) == len(weights):
            return {**inputs, "weights": weights}
        if len(rows) == 0:  # every rank must run the same number of forward passes: keep a dummy
            rows = torch.zeros(1, dtype=torch.long, device=weights.device)
        return {**self.take_rows(inputs, rows), "weights": weights[rows]}

    # -- what the log and the report say ---------------------------------------------------------

    def _strength(self) -> float:
        scheduled = self.schedule(self.state.global_step, max(self.state.max_steps, 1))
        return scheduled if self.adaptive is None else scheduled * self.adaptive.level

    def _book_equal(self, losses: Tensor, index: Tensor) -> None:
        """Book one micro-batch of plain training, of all ranks."""
        self.account.book_equal(
            self._gathered(losses, index),
            step=self.state.global_step,
            micro_batches=self.current_gradient_accumulation_steps,
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of the robust diagnostics since the last training log."""
        if "loss" in logs:
            logs |= self.account.summary()
        super().log(logs, start_time)
