"""One generated instance, which the laws of the sets look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import kl_div

from dro_core import AmbiguitySet, BurgPenalty, Charged, ChiSquarePenalty, CressieReadPenalty, KLPenalty, worst_case

from . import tolerances as tol
from .registry import Backend, Family, losses, references

PENALTIES = KLPenalty, ChiSquarePenalty, BurgPenalty, CressieReadPenalty


class Problem:
    """One generated instance on one array library, with everything brought back to numpy."""

    def __init__(self, family: Family, backend: Backend, draw: Any) -> None:
        self.family, self.backend, self.draw = family, backend, draw
        self.losses: np.ndarray = draw(losses(), label="losses")
        self.n = len(self.losses)
        self.reference: np.ndarray = draw(references(self.n), label="reference")
        self.ambiguity: AmbiguitySet = draw(family.draw(self.n), label="ambiguity")

    @property
    def seen(self) -> np.ndarray:
        return self.losses[self.reference > 0]

    @property
    def counted(self) -> np.ndarray:
        return self.losses if self.ambiguity.sees_zero_mass else self.seen

    @property
    def range(self) -> float:
        return float(np.ptp(self.counted)) or float(np.finfo(float).tiny)

    @property
    def close(self) -> float:
        rounding = tol.exact(self.n) * float(np.max(np.abs(self.losses)))
        return rounding + self.family.accuracy * self.range

    def solve(self, losses: np.ndarray | None = None, *, ambiguity: Any = None, reference: Any = None) -> Any:
        array = self.backend.array
        mine = self.losses if losses is None else losses
        masses = self.reference if reference is None else reference
        return worst_case(array(mine), ambiguity or self.ambiguity, reference=array(masses))

    def charge(self, weights: np.ndarray) -> float:
        """What a penalty charges for the weights, by scipy; nothing for a set."""
        p, kind = self.reference, self.charging
        ratio = weights[p > 0] / p[p > 0]
        if isinstance(kind, BurgPenalty):
            return float(kl_div(p, weights)[p > 0].sum() * self.price)
        if isinstance(kind, CressieReadPenalty):
            k = kind.order
            return float(p[p > 0] @ (ratio**k - k * ratio + k - 1) / (k * (k - 1)) * self.price)
        if isinstance(kind, KLPenalty):
            return float(kl_div(weights, p).sum() * self.price)
        if isinstance(kind, ChiSquarePenalty):
            return float(p[p > 0] @ (ratio - 1) ** 2 / 2 * self.price)
        return 0.0

    @property
    def charging(self) -> AmbiguitySet:
        """What charges: the penalty of a sum, else the set itself."""
        return self.ambiguity.price if isinstance(self.ambiguity, Charged) else self.ambiguity

    @property
    def price(self) -> float:
        """The price of a penalty, as far as it makes a difference; 0 for a set."""
        size = getattr(self.charging, self.charging.size, 0.0)
        unit = float(np.ptp(self.counted)) or 1.0
        return min(size, 1e15 * unit) if isinstance(self.charging, PENALTIES) else 0.0

    def value(self, losses: np.ndarray | None = None, **changed: Any) -> float:
        return float(self.solve(losses, **changed).value)

    def weights(self, losses: np.ndarray | None = None, **changed: Any) -> np.ndarray:
        return self.backend.numpy(self.solve(losses, **changed).weights)
