"""How much examples count before anybody reweights them: the reference distribution of an effective batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .rules import Reweighting, layers


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
    if masses is None:
        return
    from .comparisons import RandomSubset, Shuffled

    if any(isinstance(part, RandomSubset | Shuffled) for part in layers(rule)):
        raise ValueError(
            f"{rule} deals weights to random examples, which must count alike, and these have a column weight: leave "
            "it out, or choose another rule"
        )
