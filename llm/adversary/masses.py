"""How much examples count before anybody reweights them: the reference distribution of an effective batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.pairs import DataError, Pair
from .comparisons import RandomSubset, Shuffled
from .rules import Reweighting, layers

_log = logging.getLogger(__name__)


def weighing(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that count: all but those of weight 0.

    Raises:
        DataError: None does.
    """
    kept = [pair for pair in pairs if pair.weight != 0]
    if pairs and not kept:
        raise DataError(
            f"all {len(pairs)} training pairs have weight 0: give those that should count a weight above 0, or leave "
            "the column weight out"
        )
    if len(kept) < len(pairs):
        _log.info("%d of %d training pairs have weight 0 and are left out", len(pairs) - len(kept), len(pairs))
    return kept


def masses_of(weights: Sequence[float | None]) -> Tensor | None:
    """Relative masses ``(n,)`` of examples, None counts as 1; None where all are equal, so that nothing changes.

    Raises:
        ValueError: One is no finite number above 0.
    """
    masses = torch.tensor([1.0 if weight is None else weight for weight in weights], dtype=torch.float64)
    if bad := torch.nonzero(~(masses.isfinite() & (masses > 0))).flatten().tolist():
        raise ValueError(
            f"the weight of example #{bad[0]} is {masses[bad[0]]:g}, and weights are finite and above 0: leave out "
            "examples that should not count"
        )
    return None if len(masses) == 0 or (masses == masses[0]).all() else (masses / masses.mean()).float()


def check_masses(rule: Reweighting | None, masses: Tensor | None) -> None:
    """Refuse rules that deal weights among examples which must count alike.

    Raises:
        ValueError: One sentence with the remedy.
    """
    if masses is not None and any(isinstance(part, RandomSubset | Shuffled) for part in layers(rule)):
        raise ValueError(
            f"{rule} deals weights to random examples, which must count alike, and these have a column weight: leave "
            "it out, or choose another rule"
        )
