"""Soft labels of a run: given by the data before it, or fitted when its folder stands; the same on all ranks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from ...data.overview import prompts_of
from ...data.pairs import DataError, Pair
from ...text.encoding import EncodedPairs
from ..config import ConfigError, TrainConfig
from ..losses import least_losses
from ..pair_trainer import PairTrainer
from .settings import SoftLabels

_log = logging.getLogger(__name__)


def put_soft_labels(trainer: PairTrainer, pairs: Sequence[Pair], config: TrainConfig) -> None:
    """Give a trainer the probabilities that its labels are right; certain ones until they are fitted.

    Args:
        trainer: Of the run.
        pairs: The training pairs, in its order.
        config: The settings.

    Raises:
        DataError: No pair says how sure its label is, or there are fewer prompts than folds.
    """
    if not isinstance(config, SoftLabels) or config.soft_labels == "none":
        if trainer.labels and trainer.adversary.shifted:
            least_losses(trainer.pair_loss, torch.ones(1))  # refuses a loss whose least is not known
            _log.warning("labels are certain (soft_labels none), so %s is the set inside it", trainer.ambiguity)
        return
    if config.soft_labels == "crossfit":
        from .crossfit import check_folds

        if trainer.slice is not None:
            refuse_unestimated(config.ambiguity)
        check_folds(prompts_of(pairs), config.soft_folds)
        trainer.soften([1.0] * len(pairs))
        return
    known = check_given([pair.preference is not None for pair in pairs])
    if known < len(pairs):
        _log.warning(
            "%d of %d training pairs have no preference, and their labels are taken as certain",
            *(len(pairs) - known, len(pairs)),
        )
    trainer.soften([1.0 if pair.preference is None else pair.preference for pair in pairs])


def check_given(given: Sequence[bool]) -> int:
    """How many training pairs say how sure their label is.

    Raises:
        DataError: None does.
    """
    if not any(given):
        raise DataError(
            f"soft_labels data needs the column preference, and none of {len(given)} training pairs has one: add it "
            "(docs/data.md says which layouts have it), or let soft_labels crossfit estimate it"
        )
    return sum(map(bool, given))


def refuse_unestimated(ambiguity: str) -> NoReturn:
    """Say that a set cannot measure its radius on pairs whose labels are as uncertain as those that are fitted.

    Raises:
        ConfigError: One sentence with the remedy.
    """
    raise ConfigError(
        f"{ambiguity} measures its radius on pairs that are held out, whose labels nothing estimates: give the set a "
        "number, or take soft_labels data or none"
    )


def fit_soft_labels(trainer: PairTrainer, encoded: EncodedPairs, config: TrainConfig, output: Path) -> None:
    """Estimate how sure labels are, where that is asked for, and give it to the trainer; before the first step."""
    if isinstance(config, SoftLabels) and config.soft_labels == "crossfit":
        from .crossfit import fitted

        trainer.soften(fitted(trainer, encoded, config, output))


def describe_soft_labels(trainer: PairTrainer, config: TrainConfig) -> dict[str, object]:
    """What ``run.json`` says of them under ``soft_labels``; nothing where labels are certain.

    ``agreement``: mean probability of the labels of the data; ``contradicted``: share that is more likely wrong than
    right; ``entropy``: mean, in nats; ``log_loss``: mean of -log p, which of fitted ones is held out.
    """
    if trainer.preferences is None or not isinstance(config, SoftLabels):
        return {}
    p = trainer.preferences.double().cpu().numpy()
    inside = np.clip(p, 1e-12, 1 - 1e-12)
    entropy = -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside))
    return {
        "soft_labels": {
            "kind": config.soft_labels,
            "agreement": float(p.mean()),
            "contradicted": float((p < 0.5).mean()),
            "entropy": float(entropy.mean()),
            "log_loss": float(-np.log(inside).mean()),
        }
    }
