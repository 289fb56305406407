"""What reward models and policies share when they are trained on pairs: batches, held-out metrics, the bar."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import ceil
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction, TrainerCallback

from ..adversary.equal_losses import Accuracy
from ..data.pairs import Pair
from ..models.architectures import on_meta
from ..run.progress import Steps
from ..statistics.ties import credit
from ..text.batches import PER_SEQUENCE, PairCollator, by_length, longest_first
from .losses import PairLoss, Sigmoid, least_losses, margins_in, softened
from .robust_trainer import RobustTrainer

Metrics = Callable[[EvalPrediction], dict[str, float]]


class PairTrainer(RobustTrainer):
    """``RobustTrainer`` on batches of ``llm.text.encoding.PairCollator``; subclasses say what the margin of a pair is.

    Attributes:
        pair_loss: From margins, or the scores of both answers, to losses, one per pair.
        seconds_before: What earlier sessions of the run took.
        preferences: Of every training pair the probability that its label is right, ``(n,)``; None: labels are certain.
        labels: Whether the losses are those of labels, as opposed to those of texts.
        flat: Whether sequences are read one behind the other, without padding (``llm.models.flat``).
    """

    pair_loss: PairLoss = Sigmoid()
    measures = True
    seconds_before = 0.0
    preferences: Tensor | None = None
    labels: ClassVar[bool] = True
    flat: bool = False

    @property
    def logistic(self) -> bool:
        """Whether losses are -log sigmoid(margin), so that margins can be told from them."""
        return self.pair_loss.logistic and self.preferences is None

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """As every trainer does; a model without weights, of which a plan is made, stays where it is."""
        if not on_meta(model):
            super()._move_model_to_device(model, device)

    def read_flat(self) -> None:
        """Read every batch without its padding from now on; losses are the same to rounding.

        Raises:
            ValueError: The model lets sequences of a row see each other, or the setup is none that this was tried in.
        """
        from ..models.flat import check_flat

        if self.is_fsdp_enabled or self.is_deepspeed_enabled or self.args.torch_compile:
            raise ValueError("padding_free works with whole models that are not compiled: leave one of them out")
        if not on_meta(self.model):
            check_flat(self.model, self.processing_class, self.read_by())
        self.flat = True

    def read_by(self) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
        """What reads sequences without padding: one number of each."""
        from ..models.flat import flat_answer_logps

        return flat_answer_logps

    def soften(self, preferences: Sequence[float]) -> None:
        """Take labels as right with these probabilities, one per training pair; before the first step.

        Raises:
            ValueError: They are no such probabilities, or ``regret:`` does not know the least of the losses.
        """
        given = torch.tensor(preferences, dtype=torch.float64)
        if len(given) != len(self.ledger.visits) or not ((given >= 0) & (given <= 1)).all():
            raise ValueError(f"soft labels are {len(self.ledger.visits)} probabilities, one for every training pair")
        if self.adversary.shifted:
            from ..adversary.regret import with_least

            self.adversary.rule = with_least(self.adversary.rule, least_losses(self.pair_loss, given).numpy())
        self.preferences = given.float().to(self.args.device)

    def losses_of(self, told: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """The losses ``(n,)`` of the training pairs of a batch by what ``pair_loss`` reads of them."""
        if self.preferences is None:
            return self.pair_loss(told)
        return softened(self.pair_loss, told, self.preferences[inputs["index"]].to(told))

    def explained(self, margins: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """What the labels say of the margins ``(n,)``: (2 p - 1) m, of which the loss is to first order a function."""
        return (
            margins if self.preferences is None else (2 * self.preferences[inputs["index"]].to(margins) - 1) * margins
        )

    @cached_property
    def accuracy(self) -> Accuracy:
        """How far apart the losses of two equal pairs may be computed."""
        return replace(super().accuracy, logistic=self.logistic)

    def held_out_metrics(self, pairs: Sequence[Pair]) -> Metrics:
        """The ``compute_metrics`` of an evaluation on these pairs."""
        return metrics_by_category(pairs, self.pair_loss)

    @abstractmethod
    def margins(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """How far the model prefers the chosen answer of every pair, shape ``(n,)``, float32, differentiable."""

    def example_losses(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """Loss of every pair, shape ``(n,)``, in float32."""
        margins = self.margins(model, inputs)
        if not self.logistic:
            self.told.append(self.explained(margins.detach(), inputs))
        return self.losses_of(margins, inputs)

    def take_rows(self, inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """The pairs ``rows``: their chosen and their rejected sequences."""
        both = torch.cat([rows, rows + len(inputs["index"])])
        sequences = {name: inputs[name][both] for name in PER_SEQUENCE if name in inputs}
        return {**sequences, "index": inputs["index"][rows]}

    def regrouped(self, window: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The pairs of one step in micro-batches of similar length: padding then costs little.

        Which pairs are weighed together does not depend on it. A window that is not full stays as it is: without a set
        its micro-batches count alike, whatever their size.
        """
        collator = self.data_collator
        full = len({len(inputs["index"]) for inputs in window}) == 1
        return by_length(window, collator) if full and isinstance(collator, PairCollator) else window

    def _finalize_training(self, trial, num_train_samples, start_time):
        return super()._finalize_training(trial, num_train_samples, start_time - self.seconds_before)

    # -- held-out pairs --------------------------------------------------------------------------

    def held_out(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        """What is measured of every held-out pair, ``(n, ...)``; here its margin."""
        return self.margins(model, inputs)

    def held_out_losses(self, measured: Tensor) -> Tensor:
        """Losses ``(n,)`` of held-out pairs by what was measured of them."""
        return self.pair_loss(measured)

    def with_group(self, of_all: Metrics, labels: Sequence[object] | None) -> Metrics:
        """The metrics of held-out pairs, and accuracy and loss of the worst of their groups.

        Args:
            of_all: ``held_out_metrics``.
            labels: One per held-out pair; None for the metrics as they are.
        """
        if labels is None:
            return of_all
        names = np.array([str(label) for label in labels])

        def metrics(prediction: EvalPrediction) -> dict[str, float]:
            accuracies, losses = [], []
            for name in sorted(set(names[prediction.label_ids].tolist())):
                part = _part(prediction, names[prediction.label_ids] == name)
                accuracies.append(of_all(part)["accuracy"])
                losses.append(float(self.held_out_losses(torch.as_tensor(part.predictions)).double().mean()))
            worst = {"worst_group_accuracy": min(accuracies), "worst_group_loss": max(losses)}
            return {**of_all(prediction), **worst}

        return metrics

    def with_files(self, of_all: Metrics, pairs: Sequence[Pair], by_file: Mapping[str, str]) -> Metrics:
        """The metrics of held-out pairs, and the same with ``_NAME``, loss included, of those of every file.

        Args:
            of_all: ``held_out_metrics``.
            pairs: The held-out pairs.
            by_file: Their ids -> name of the file; empty where there is one.
        """
        if not by_file:
            return of_all
        names = np.array([by_file[pair.id] for pair in pairs])

        def metrics(prediction: EvalPrediction) -> dict[str, float]:
            found = dict(of_all(prediction))
            for name in dict.fromkeys(names.tolist()):
                part = _part(prediction, names[prediction.label_ids] == name)
                loss = float(self.held_out_losses(torch.as_tensor(part.predictions)).double().mean())
                found |= {f"{what}_{name}": value for what, value in {"loss": loss, **of_all(part)}.items()}
            return found

        return metrics

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """Pairs of similar length share a batch, whatever the number of ranks; results are told apart by ``index``."""
        if isinstance(self.data_collator, PairCollator) and hasattr(eval_dataset, "__len__"):
            return longest_first(eval_dataset)
        return super()._get_eval_sampler(eval_dataset)

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        """As of the base class, with the mean over pairs as ``eval_loss``.

        The base class repeats the mean of every batch, where ranks fill up their last one with pairs that were seen.
        """
        del prediction_loss_only
        found = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)  # noqa: FBT003
        losses = self.held_out_losses(torch.as_tensor(found.predictions)).double()
        return found._replace(metrics={**(found.metrics or {}), f"{metric_key_prefix}_loss": float(losses.mean())})

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """What is measured of the pairs of one evaluation batch, and which ones these are; no loss of the batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, self.held_out(model, inputs), inputs["index"]


def _part(prediction: EvalPrediction, rows: np.ndarray) -> EvalPrediction:
    return EvalPrediction(predictions=prediction.predictions[rows], label_ids=prediction.label_ids[rows])


def steps_of(trainer: RobustTrainer) -> tuple[int, int]:
    """Optimizer steps of a run, and of an epoch, as ``Trainer`` counts them."""
    arguments, examples = trainer.args, trainer.epoch_examples
    together = arguments.per_device_train_batch_size * arguments.world_size
    batches = examples // together if arguments.dataloader_drop_last else -(-examples // together)
    per_epoch = max(-(-batches // arguments.gradient_accumulation_steps), 1)
    return arguments.max_steps if arguments.max_steps > 0 else ceil(arguments.num_train_epochs * per_epoch), per_epoch


def texts_of(pairs: Iterable[Pair]) -> Iterator[str]:
    """What the tokenizer of a model from scratch is trained on."""
    return (text for pair in pairs for text in (pair.prompt[-1]["content"], pair.chosen, pair.rejected))


def metrics_by_category(pairs: Sequence[Pair], loss: PairLoss) -> Metrics:
    """``compute_metrics`` of a held-out set, by what ``loss`` reads: accuracy and loss, also of its worst category."""
    categories = np.array([pair.category for pair in pairs])

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        correct = credit(margins_in(np.asarray(prediction.predictions)))
        losses = loss(torch.as_tensor(prediction.predictions)).numpy()
        group = categories[prediction.label_ids]
        return {
            "accuracy": float(correct.mean()),
            "worst_category_accuracy": float(min(correct[group == name].mean() for name in set(group))),
            "worst_category_loss": float(max(losses[group == name].mean() for name in set(group))),
        }

    return metrics


class StepBar(TrainerCallback):
    """The optimizer steps, with the latest losses behind them instead of a line for every log."""

    bar: Steps | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the bar, where a resumed run left off."""
        if state.is_world_process_zero:
            self.bar = Steps(total=state.max_steps, initial=state.global_step, desc="training", dynamic_ncols=True)

    def on_step_end(self, args, state, control, **kwargs):
        """One step further."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the latest mean and robust loss."""
        logs = logs or {}
        if self.bar is not None and "mean_loss" in logs:
            self.bar.set_postfix({name: f"{logs[name]:.3f}" for name in ("mean_loss", "robust_loss")})

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
