"""What rows of a TRL data set say of their labels (``weight``, ``preference``), and the loss of an uncertain label."""

from __future__ import annotations

import logging
import math

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainingArguments

from ..adversary.masses import masses_of

WEIGHT, PREFERENCE = "weight", "preference"
_log = logging.getLogger(__name__)


def counting(data: Dataset) -> Dataset:
    """The rows that count: all but those of weight 0.

    Raises:
        ValueError: None does.
    """
    if WEIGHT not in data.column_names:
        return data
    kept = [row for row, weight in enumerate(data[WEIGHT]) if weight != 0]
    if not kept:
        raise ValueError(
            f"all {len(data)} rows of train_dataset have weight 0: give those that should count a weight above 0, or "
            "remove the column"
        )
    if len(kept) == len(data):
        return data
    _log.info("%d of %d rows have weight 0 and are left out", len(data) - len(kept), len(data))
    return data.select(kept)


def masses_in(data: Dataset) -> Tensor | None:
    """Relative masses of the rows that count, ``(n,)``; None where they are equal or there is no column ``weight``."""
    if WEIGHT not in data.column_names:
        return None
    return masses_of([weight for weight in data[WEIGHT] if weight != 0])


def preferences_in(data: Dataset, soft_labels: str) -> Tensor | None:
    """The probability that the chosen answer is the better one, ``(n,)``; None where labels are certain.

    Raises:
        ValueError: There is no column ``preference``, or an entry is no probability.
    """
    if soft_labels == "none":
        return None
    if soft_labels != "data":
        raise ValueError(f"soft_labels must be none or data, got {soft_labels!r}")
    column: list[float | None] = list(data[PREFERENCE]) if PREFERENCE in data.column_names else [None]
    known = [p for p in column if p is not None and not math.isnan(p)]
    if not known:
        raise ValueError(
            "soft_labels='data' needs a column preference of train_dataset, the probability that the chosen answer is "
            "the better one: add it, or leave soft_labels at 'none'"
        )
    if wrong := [p for p in known if not 0 <= p <= 1]:
        raise ValueError(f"preference is {wrong[0]:g} in a row of train_dataset, and must lie in [0, 1]: correct it")
    if len(known) < len(column):
        _log.warning("%d of %d rows have no preference: certain labels", len(column) - len(known), len(column))
    return torch.tensor([1.0 if p is None or math.isnan(p) else p for p in column])


def check_sigmoid(arguments: TrainingArguments, data: object) -> None:
    """Refuse losses from which the margin cannot be told.

    Raises:
        ValueError: One sentence with the remedy.
    """
    kinds = getattr(arguments, "loss_type", None) or ["sigmoid"]
    other = [
        name
        for name, changed in {
            f"loss_type {kinds}": list(kinds) != ["sigmoid"],
            "loss_weights": getattr(arguments, "loss_weights", None) not in (None, [1.0]),
            "label_smoothing": bool(getattr(arguments, "label_smoothing", 0.0)),
            "use_weighting": bool(getattr(arguments, "use_weighting", False)),
            "center_rewards_coefficient": getattr(arguments, "center_rewards_coefficient", None) is not None,
            "the column margin": "margin" in (getattr(data, "column_names", None) or ()),
        }.items()
        if changed
    ]
    if other:
        raise ValueError(
            f"soft_labels='data' tells the margin of a pair from its sigmoid loss, which {other[0]} changes: leave it "
            "out"
        )


def softened_loss(loss: Tensor, preference: Tensor) -> Tensor:
    """The loss p l(h) + (1 - p) l(-h) of one pair by l(h) = -log sigmoid(h), differentiable: l(-h) = l(h) + h.

    >>> losses = -torch.nn.functional.logsigmoid(torch.tensor([3.0, -3.0]))
    >>> softened_loss(losses[0], torch.tensor(0.0)).allclose(losses[1])
    True
    """
    kept = loss.clamp_min(torch.finfo(loss.dtype).tiny)
    margin = -kept - torch.log(-torch.expm1(-kept))
    return loss + (1 - preference.to(loss)) * margin
