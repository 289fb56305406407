"""What all robust TRL trainers share: the set, the position of every example, and the account of the weights."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import datasets
from torch import Tensor
from transformers import Trainer

from dro_core import AmbiguitySet, parse_ambiguity

from ..adversary.acting import bound, inaction
from ..adversary.effective_batch import AdversaryAccount, EffectiveBatch
from ..adversary.equal_losses import Accuracy
from ..adversary.rules import Reweighting
from ..adversary.schedule import RadiusSchedule
from ..training.guards import check_finite

INDEX = "robust_index"  # the column, and the key of a batch, that says which training example something is

_log = logging.getLogger(__name__)


class Columns(Mapping[str, list[Any]]):
    """The columns of a data set by name, read when asked for."""

    def __init__(self, data: datasets.Dataset) -> None:
        self._data = data

    def __getitem__(self, name: str) -> list[Any]:
        return list(self._data[name])

    def __contains__(self, name: object) -> bool:
        return name in self._data.column_names

    def __iter__(self) -> Iterator[str]:
        return iter(self._data.column_names)

    def __len__(self) -> int:
        return len(self._data.column_names)


class Adversary(Trainer):
    """Common part of ``RobustPairs`` and ``RobustOnline``; stands before a TRL trainer among the bases.

    Args:
        *args: What the TRL trainer takes.
        ambiguity: The set the adversary chooses from, or its text form (``"tv:0.2,by=source"``); ``None`` or
            ``"erm"`` trains exactly as TRL does, and so does a set that holds equal weights alone, such as ``"tv:0"``.
            ``by=`` names a column of the training set.
        schedule: Strength of the adversary over the steps; ``None`` means full strength throughout.
        **kwargs: What the TRL trainer takes.

    Attributes:
        ambiguity: The set in force, bound to the training set; ``None`` where there is nothing to choose.
        ledger: Sum of multipliers, visits and last loss by row of ``train_dataset`` as the trainer prepared it.

    Raises:
        ValueError: An argument that would make the weights wrong; the message names the remedy.
        NonFiniteLoss: A loss is nan or infinite (before the optimizer step that would have used it).
    """

    def __init__(
        self, *args: Any, ambiguity: AmbiguitySet | str | None, schedule: RadiusSchedule | None = None, **kwargs: Any
    ) -> None:
        self._asked = parse_ambiguity(ambiguity) if isinstance(ambiguity, str) else ambiguity
        # The schedule weakens a set and never enlarges it: what can reweight nothing now never will.
        chosen = None if self._asked is None or self._asked.holds_only_reference else self._asked
        self.ambiguity: Reweighting | None = chosen  # TRL asks for the columns while it is built
        super().__init__(*args, **kwargs)
        data = self.train_dataset
        self.schedule = schedule or RadiusSchedule()
        # The mixins check the size of the batch, which counts examples in one and prompts in the other.
        self.ambiguity = bound(chosen, {} if chosen is None else Columns(_map_style(data)), batch=2)
        self._account = AdversaryAccount(0 if chosen is None else len(_map_style(data)))
        self.ledger = self._account.ledger
        if chosen is not None:
            self.train_dataset = _map_style(data).add_column(INDEX, list(range(len(data))))  # type: ignore[arg-type]

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self.ambiguity is None:
            return
        columns = self._signature_columns or []
        self._signature_columns = columns if INDEX in columns else [*columns, INDEX]

    @cached_property
    @abstractmethod
    def accuracy(self) -> Accuracy:
        """How far apart two equal losses may be computed."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as TRL does, and say so where the adversary did not act."""
        done = super().train(*args, **kwargs)
        if (said := inaction(self._asked, self.ledger)) and self.is_world_process_zero():
            _log.warning("%s", said)
        return done

    def _strength(self) -> float:
        return self.schedule(self.state.global_step, max(self.state.max_steps, 1))

    def _solved(self, batch: EffectiveBatch) -> Tensor:
        """Check, solve and book one effective batch; its worst-case weights, shape ``(n,)``."""
        step, strength = self.state.global_step, self._strength()
        check_finite(batch.losses, batch.index, None, step)
        weights = batch.weights(self.ambiguity, strength, accuracy=self.accuracy)
        self._account.book(batch, weights, step=step, strength=strength)
        return weights

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of the robust diagnostics since the last training log to what TRL logs."""
        if "loss" in logs:
            logs |= self._account.summary()
        super().log(logs, start_time)


def _map_style(data: Any) -> datasets.Dataset:
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
