"""What all robust TRL trainers share: the adversary, the position of every example, the state in checkpoints."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import datasets
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput

from ..adversary.adversary import Adversary
from ..adversary.effective_batch import EffectiveBatch
from ..adversary.equal_losses import Accuracy
from ..adversary.inaction import bound, concerns, inaction
from ..adversary.ledger import LEDGER, AdversaryLedger
from ..adversary.rules import Reweighting
from ..adversary.schedule import AdaptiveStrength, RadiusSchedule
from ..adversary.spec import parse_reweighting
from ..training.guards import check_finite
from ..training.resuming import loading
from .columns import Columns
from .refusals import check_columns

INDEX = "robust_index"  # the column, and the key of a batch, that says which training example something is

_log = logging.getLogger(__name__)


class RobustMixin(Trainer):
    """Common part of ``RobustPairs`` and ``RobustOnline``; stands before a TRL trainer among the bases.

    Args:
        *args: What the TRL trainer takes.
        ambiguity: The set the adversary chooses from, or a rule (``llm.adversary.rules``), or its text form
            (``"tv:0.2,by=source"``, ``"dr_dpo:1"``); ``None`` or ``"erm"`` trains exactly as TRL does, and so does a
            set that holds equal weights alone, such as ``"tv:0"``. ``by=`` names a column of the training set, of pairs
            ``length_gap`` and ``chosen_is_longer`` too, bins or products of them (``llm.data.grouping``).
        schedule: Strength of the adversary over the steps; ``None`` means full strength throughout.
        adaptive: Lets a metric of the evaluations while training move the strength, such as
            ``AdaptiveStrength("loss")``: of several evaluation sets the worst.
        **kwargs: What the TRL trainer takes.

    Attributes:
        untouched: Whether it trains exactly as TRL does; known once it is built.
        adversary: The rule in force, its strength, and the account of its answers; it travels in checkpoints.

    Raises:
        ValueError: An argument that would make the weights wrong; the message names the remedy.
        NonFiniteLoss: A loss is nan or infinite (before the optimizer step that would have used it).
    """

    untouched = False
    masses: Tensor | None = None
    model: PreTrainedModel  # this and the next are those of Trainer
    model_wrapped: nn.Module
    raise_batch: ClassVar[str]  # what makes the effective batch larger

    def __init__(
        self,
        *args: Any,
        ambiguity: Reweighting | str | None,
        schedule: RadiusSchedule | None = None,
        adaptive: AdaptiveStrength | None = None,
        **kwargs: Any,
    ) -> None:
        self._asked = parse_reweighting(ambiguity) if isinstance(ambiguity, str) else ambiguity
        # The schedule weakens a set and never enlarges it: what can reweight nothing now never will.
        chosen = None if getattr(self._asked, "holds_only_reference", False) else self._asked
        self.adversary = Adversary(chosen, 0)  # TRL asks for the columns while it is built
        given = inspect.signature(super().__init__).bind_partial(*args, **kwargs).arguments
        self._check_before(chosen, adaptive, given)
        super().__init__(*args, **kwargs)
        self.untouched = chosen is None and not self._does_more()
        if self.untouched:
            return
        self.check_base()
        data = self._labelled(_map_style(self.train_dataset))
        # Batches of one are refused by the mixins, in the words of their settings.
        batch = max(min(self.effective_batch, len(data)), 2)
        rule = bound(chosen, Columns(data), batch=batch, remedy=self.raise_batch, seed=self.args.seed)
        self.adversary = Adversary(rule, len(data), schedule=schedule, masses=self.masses)
        self.adversary.adaptive = adaptive
        self.train_dataset = data.add_column(INDEX, list(range(len(data))))  # type: ignore[arg-type]

    def _check_before(
        self, chosen: Reweighting | None, adaptive: AdaptiveStrength | None, given: Mapping[str, object]
    ) -> None:
        """Refuse, before TRL loads and computes anything, what its arguments alone show to be wrong."""
        arguments, data = given.get("args"), given.get("train_dataset")
        arguments = arguments if isinstance(arguments, TrainingArguments) else None
        if chosen is not None:
            self.check_base()
        self.check_given(arguments, data, robust=chosen is not None)
        if chosen is None or data is None:
            return
        rows = _map_style(data)
        batch = len(rows) if arguments is None else self.batch_of(arguments, arguments.world_size)
        check_columns(chosen, rows, batch=batch, remedy=self.raise_batch)
        if adaptive is not None and (
            given.get("eval_dataset") is None or getattr(arguments, "eval_strategy", "no") == "no"
        ):
            raise ValueError(
                "adaptive moves the strength by evaluations while training, and there are none: give eval_dataset and "
                "set eval_strategy"
            )

    def check_given(self, arguments: TrainingArguments | None, data: object, *, robust: bool) -> None:
        """Refuse more of what was given, ``None`` where it was not; ``robust``: with a set that can reweight."""

    def _does_more(self) -> bool:
        """Whether it is asked for anything beside worst-case weights, so that it is not TRL's trainer without a set."""
        return False

    def _labelled(self, data: datasets.Dataset) -> datasets.Dataset:
        """The rows that count, after a look at what else they say."""
        return data

    @property
    def ambiguity(self) -> Reweighting | None:
        """The set or rule in force, bound to the training set; ``None`` where there is nothing to choose."""
        return self.adversary.rule

    @property
    def ledger(self) -> AdversaryLedger:
        """Sum of multipliers, visits and last loss by row of ``train_dataset`` as the trainer prepared it."""
        return self.adversary.ledger

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.untouched:
            return
        columns = self._signature_columns or []
        self._signature_columns = columns if INDEX in columns else [*columns, INDEX]

    @abstractmethod
    def check_base(self) -> None:
        """Raise TypeError unless the trainer among the bases is one whose losses are known."""

    @staticmethod
    @abstractmethod
    def batch_of(arguments: TrainingArguments, processes: int) -> int:
        """How many examples of all ranks, or prompts, are weighed together, by TRL's arguments."""

    @property
    def effective_batch(self) -> int:
        """How many examples of all ranks, or prompts, are weighed together."""
        return self.batch_of(self.args, self.accelerator.num_processes)

    @cached_property
    @abstractmethod
    def accuracy(self) -> Accuracy:
        """How far apart two equal losses may be computed."""

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as TRL does, and say so where the adversary did not act."""
        done = super().train(*args, **kwargs)
        if (said := inaction(self._asked, self.ledger)) and self.is_world_process_zero():
            _log.warning("%s", said)
        return done

    def _tell(self) -> None:
        """Say what groups leave undone in batches of this size."""
        batch, first = self.effective_batch, self.is_world_process_zero()
        for said in concerns(self._asked, self.ambiguity, batch=batch) if first else ():
            _log.warning("%s", said)

    def _strength(self) -> float:
        plain = self.ambiguity is None
        return 0.0 if plain else self.adversary.strength(self.state.global_step, self.state.max_steps)

    def _solved(self, batch: EffectiveBatch) -> Tensor:
        """Check, solve and book one effective batch; its worst-case weights, shape ``(n,)``."""
        step = self.state.global_step
        check_finite(batch.losses, batch.index, None, step)
        return self.adversary.weigh(batch, step=step, strength=self._strength(), accuracy=self.accuracy)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of the robust diagnostics since the last training log to what TRL logs."""
        if "loss" in logs:
            logs |= self.adversary.summary()
        super().log(logs, start_time)

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate while training, and let the worst held-out set move the strength."""
        before = len(self.state.log_history)
        metrics = super()._evaluate(*args, **kwargs)
        if (adaptive := self.adversary.adaptive) is not None:
            adaptive.observe(self._worst(adaptive.metric, self.state.log_history[before:]))
        return metrics

    def _worst(self, metric: str, rows: list[dict[str, float]]) -> float:
        sets: object = self.eval_dataset
        names = [f"{name}_{metric}" for name in sets] if isinstance(sets, dict) else []
        wanted = {f"eval_{name}" for name in (metric, *names)}
        if found := [number for row in rows for name, number in row.items() if name in wanted]:
            return max(found) if metric.endswith("loss") else min(found)
        known = sorted({name.removeprefix("eval_") for row in rows for name in row if name.startswith("eval_")})
        raise ValueError(f"the evaluation has no {metric}, which the radius should follow; it has {', '.join(known)}")

    # -- checkpoints -------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002
        """Save as TRL does; inside a checkpoint the state of the adversary, too."""
        super().save_model(output_dir, _internal_call=_internal_call)
        if _internal_call and output_dir is not None and self.args.should_save and not self.untouched:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            self.adversary.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load them, and the state of the adversary; checkpoints of earlier versions, or of plain TRL, have none."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or self.untouched:
            return
        if not (Path(checkpoint) / LEDGER).exists():
            _log.warning("%s has no account of the adversary, which begins anew", checkpoint)
            return
        with loading(Path(checkpoint), "the state of the adversary"):
            self.adversary.load(Path(checkpoint))


def _map_style(data: object) -> datasets.Dataset:
    if isinstance(data, datasets.Dataset):
        if INDEX in data.column_names:
            raise ValueError(
                f"train_dataset has a column {INDEX}, which is what the mixins add to tell its rows apart: rename yours"
            )
        return data
    raise ValueError(
        f"robust training needs to know which example is which, and a {type(data).__name__} has no positions: give "
        "train_dataset as a datasets.Dataset, or ambiguity=None"
    )
