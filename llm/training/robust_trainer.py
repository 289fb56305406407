"""Worst-case weights over the whole effective batch, on top of ``transformers.Trainer``.

The effective batch is every accumulation micro-batch of every data-parallel rank. Weights couple all of it, so found
micro-batch by micro-batch they give a wrong gradient, not an approximation. One optimizer step therefore runs

1. a no-grad forward of every micro-batch, the losses gathered over ranks, one ``worst_case`` call;
2. forward and backward of ``world * sum_i q_i l_i``, without the examples whose weight is zero.

With one micro-batch per step both collapse into one: the weights come from the detached losses of the pass that is
differentiated.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence, Sized
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..adversary.adversary import Adversary
from ..adversary.effective_batch import EffectiveBatch, plain_weights
from ..adversary.equal_losses import Accuracy, precision_of, rounding_of
from ..adversary.inaction import bound, concerns
from ..adversary.last_window import LastWindow, first_of, whole_windows
from ..adversary.ledger import AdversaryLedger
from ..adversary.masses import masses_of
from ..adversary.radius.slices import Slice, measured
from ..adversary.rules import Reweighting
from ..adversary.schedule import AdaptiveStrength, RadiusSchedule
from ..adversary.spec import parse_reweighting
from ..run.folder import making_no_folder
from .checkpointing import CheckpointingTrainer
from .guards import check_checkpoints, check_dataset, check_finite, check_setup
from .passes import Decision, Passes, StepCost, check_passes, decide, expected_zero_share, skipped_share

Batch = dict[str, Tensor]
_log = logging.getLogger(__name__)


class RobustTrainer(CheckpointingTrainer):
    """Trains on ``max_q sum_i q_i l_i`` over an ambiguity set around the reference weights, which are uniform or given.

    Subclasses say what one example's loss is; everything else (optimizers, schedulers, mixed precision, checkpoints,
    logging integrations) is ``transformers.Trainer``. Batches must carry ``index``, the position of each example.

    Args:
        ambiguity: The set the adversary chooses from, or a rule to compare with (``llm.adversary.rules``), or its text
            (``"tv:0.2"``); ``None`` and ``"erm"`` train on the mean, as ``Trainer``.
        weights: How much every training example counts before it is reweighted, above 0, relative to the others in its
            effective batch; None counts as 1, and where all are equal nothing changes.
        schedule: Strength of the adversary over the steps; ``None`` means full strength throughout.
        passes: How often a step looks at its examples: auto once where one micro-batch holds them all, else twice;
            single insists on the first, two always looks twice, which pays where a set ignores many examples.
        last_window: Whether an epoch under a set ends with its last full effective batch (``adversary.last_window``).
        example_ids: Name of every training example, used in error messages.
        columns: What a set may refer to by name (``tv:0.2,by=source``): one entry per training example each.
        **kwargs: Everything ``transformers.Trainer`` takes.

    Attributes:
        measures: Whether it can measure the radius of such a set: whether losses fall as margins grow.
        slice: The pairs that a set like ``tv:auto=0.5`` takes its radius from, never trained on.
        told: Margins of the pairs of the pass at hand, micro-batch by micro-batch, where losses do not tell them.

    Raises:
        ValueError: More than one visible GPU without a launcher; dropout under two passes; an unknown column;
            ``passes`` that cannot be had; an adversary that cannot act (``llm.adversary.inaction``).
        NonFiniteLoss: A loss is nan or infinite (before the optimizer step that would have used it).
        CheckpointError: A checkpoint could not be written; earlier ones are untouched.
    """

    measures = False

    def __init__(
        self,
        *,
        ambiguity: Reweighting | str | None,
        weights: Sequence[float | None] = (),
        schedule: RadiusSchedule | None = None,
        passes: Passes = "auto",
        last_window: LastWindow = "drop",
        example_ids: Sequence[str] | None = None,
        columns: Mapping[str, Sequence[object]] | None = None,
        **kwargs: Any,
    ) -> None:
        with making_no_folder(kwargs.get("args")):
            super().__init__(**kwargs)
        ambiguity = parse_reweighting(ambiguity) if isinstance(ambiguity, str) else ambiguity
        examples = len(self.train_dataset) if isinstance(self.train_dataset, Sized) else 0
        batch = min(self.effective_batch, examples or 2)
        rule = bound(ambiguity, columns or {}, batch=batch, seed=self.args.seed, measures=self.measures)
        for said in concerns(ambiguity, rule, batch=self.effective_batch) if self.is_world_process_zero() else ():
            _log.warning("%s", said)
        masses = masses_of(weights)
        self.adversary = Adversary(rule, examples, schedule=schedule, masses=masses)
        self.ledger.sources = (columns or {}).get("source")
        self.masses = None if masses is None else masses.to(self.args.device)
        self.slice: Slice | None = None
        self.told, self.last_window, self.example_ids = list[Tensor](), last_window, example_ids
        self.resumable = [self.adversary]
        self.loss_is_scaled_for_ga = ambiguity is not None or self.masses is not None
        check_dataset(self.train_dataset, self.args)
        check_checkpoints(self.args)
        self.passes, window = passes, self.args.gradient_accumulation_steps
        check_passes(passes, micro_batches=window, micro_batch=self.args.train_batch_size)
        self.decision: Decision | None = None  # before the first robust step
        twice = self.ambiguity is not None and (window > 1 or passes == "two")
        check_setup(self.args, self.accelerator, self.model, two_passes=twice)

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

    def regrouped(self, window: list[Batch]) -> list[Batch]:
        """The examples of one step in micro-batches that cost less; the step's examples stay the same."""
        return window

    def constant_forwards(self, inputs: dict[str, Tensor]) -> float:
        """Forward passes of other models that ``with_constants`` runs per example of a micro-batch."""
        return 0.0

    @property
    def ambiguity(self) -> Reweighting | None:
        """The set or rule in force, bound to the training examples."""
        return self.adversary.rule

    @property
    def ledger(self) -> AdversaryLedger:
        """Sum of multipliers, visits and last loss of every training example."""
        return self.adversary.ledger

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
        self.adversary.adaptive = adaptive
        self.add_callback(adaptive)

    def _remove_unused_columns(self, dataset, description=None):
        """Keep all: what a batch must hold is said by the losses, not by the signature of the model's forward pass."""
        return dataset

    def _get_collator_with_removed_columns(self, data_collator, description=None):
        return data_collator

    def _get_dataloader(self, *args, is_training=False, **kwargs):
        """Examples that fill no batch are left out in training alone, where ranks would repeat others beside them."""
        arguments: object = self.args
        asked = arguments.dataloader_drop_last
        arguments.dataloader_drop_last = asked and is_training
        try:
            return super()._get_dataloader(*args, is_training=is_training, **kwargs)
        finally:
            arguments.dataloader_drop_last = asked

    # -- the effective batch ---------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        return first_of(sampler, len(self.ledger.visits), self.epoch_examples, tell=self.is_world_process_zero())

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Fetch the accumulation window; attach the weights that are known before its backward passes."""
        measured(self, self.slice)
        window, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        window = self.regrouped(window)
        if self.ambiguity is None and self.masses is None:
            return window, items
        window, robust = [self._prepare_inputs(inputs) for inputs in window], self._strength() > 0.0
        if robust and self.decision is None:
            self.decision = self.decided(window[0])
            if self.is_world_process_zero():
                _log.info("worst-case weights by %s", self.decision)
        if len(window) == 1 and not (robust and self.passes == "two"):
            return window, items
        index = torch.cat([inputs["index"] for inputs in window])
        if robust:
            window, losses = self._first_pass(window)
            weights = self._window_weights(losses, index)
        else:
            weights = plain_weights(self.accelerator, index, masses=self.masses)
        shares = weights.split([len(inputs["index"]) for inputs in window])
        pairs = zip(window, shares, strict=True)
        return [self._weighted(inputs, share, drop=robust) for inputs, share in pairs], items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: FBT002
        """Mean loss of the micro-batch without an ambiguity set, its share of the robust or weighted loss with one.

        Without a set or weights, micro-batches of different sizes count alike, as in ``Trainer``; in the plain phase of
        a robust run every example does. The two agree where all micro-batches are full.
        """
        self.told.clear()
        losses = self.example_losses(model, inputs)
        weights = inputs.get("weights")
        if self.ambiguity is None and self.masses is None:
            self._book_plain(losses.detach(), inputs["index"])
            loss = losses.mean()
        else:
            if weights is None:
                weights = self._window_weights(losses.detach(), inputs["index"])
            elif self._strength() == 0.0:  # no pass 1 was needed, so this is the first look at the losses
                self._book_plain(losses.detach(), inputs["index"], weights)
            # DDP, FSDP and DeepSpeed average gradients over ranks; the weights sum to one over all of them.
            loss = self.accelerator.num_processes * (weights * losses).sum()
        return (loss, {"losses": losses}) if return_outputs else loss

    def decided(self, inputs: Batch) -> Decision:
        """What the steps do, and what that costs, for micro-batches like ``inputs``."""
        arguments, constants = self.args, self.constant_forwards(inputs)
        assert self.ambiguity is not None
        assert self.model is not None
        zeros = expected_zero_share(self.ambiguity, self.effective_batch, examples=len(self.ledger.visits))
        return decide(
            self.passes,
            StepCost.of(self.model, recomputes=bool(arguments.activation_checkpointing), constants=constants),
            skipped=skipped_share(zeros, self.effective_batch, arguments.train_batch_size),
            micro_batch=arguments.train_batch_size,
            micro_batches=arguments.gradient_accumulation_steps,
        )

    @torch.no_grad()
    def _first_pass(self, window: list[Batch]) -> tuple[list[Batch], Tensor]:
        """The micro-batches with what the second pass needs in them, and the losses of all their examples."""
        model = self.model_wrapped
        model.train()
        self.told.clear()
        with self.compute_loss_context_manager():
            window = [self.with_constants(model, inputs) for inputs in window]
            return window, torch.cat([self.example_losses(model, inputs) for inputs in window])

    def _window_weights(self, losses: Tensor, index: Tensor) -> Tensor:
        """Worst-case weights of this rank's examples, shape ``(n,)``; they sum to one over all ranks."""
        batch, step = self._gathered(losses, index), self.state.global_step
        weights = self.adversary.weigh(batch, step=step, strength=self._strength(), accuracy=self.accuracy)
        return weights[batch.mine]

    def _gathered(self, losses: Tensor, index: Tensor) -> EffectiveBatch:
        """The examples of all ranks, refused if a loss is not finite."""
        margins = torch.cat(self.told).float() if self.told and self.adversary.running.told else None
        batch = EffectiveBatch.gathered(self.accelerator, losses.float(), index, masses=self.masses, margins=margins)
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
        return self.adversary.strength(self.state.global_step, self.state.max_steps)

    def _book_plain(self, losses: Tensor, index: Tensor, weights: Tensor | None = None) -> None:
        """Book one micro-batch of plain training, of all ranks; where examples have masses, with their ``weights``."""
        masses = self.masses
        self.adversary.book_plain(
            self._gathered(losses, index),
            step=self.state.global_step,
            micro_batches=self.current_gradient_accumulation_steps,
            accuracy=None if self.ambiguity is None else self.accuracy,
            total=None if masses is None or weights is None else masses[index[:1]] / weights[:1],
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of the robust diagnostics since the last training log."""
        if "loss" in logs:
            logs |= self.adversary.summary()
        super().log(logs, start_time)
