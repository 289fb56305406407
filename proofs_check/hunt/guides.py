"""Which instances to start from: those nearest to a violation, by several measures, since no single one leads there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import random

    from proofs_check.claim import Array

Measure = tuple[str, int]  # "scale" or "sides", and an entry; -1 for the worst entry

_KEPT = 6  # instances of a measure
_ENTRIES = 6  # longer vectors have one measure of each kind
_SMALL = 1e-6  # of the scale: where both sides are that small their ratio says nothing


@dataclass
class Guides:
    """The best instances by each measure, best first.

    The margin in scales is largest, zero, where both sides vanish, so that it alone leads away from most violations;
    the margin as a share of both sides does not. A vector has both for every entry, since a bound that is reached
    everywhere in one entry would hide all others.
    """

    kept: dict[Measure, list[tuple[float, Any]]] = field(default_factory=dict[Measure, list[tuple[float, Any]]])

    def add(self, instance: Any, beyond: Array, sides: Array, scale: float) -> dict[Measure, float]:
        """Return the scores of an instance, and keep it where it is among the best.

        Args:
            instance: to keep.
            beyond: left side minus right side, entry by entry.
            sides: sum of their absolute values, entry by entry.
            scale: size of the instance.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(sides > _SMALL * scale, beyond / sides, -1.0)
        scores = {("scale", -1): float(np.max(beyond)) / scale, ("sides", -1): float(np.nanmax(shares, initial=-1.0))}
        if 1 < beyond.size <= _ENTRIES:
            for k in range(beyond.size):
                scores |= {("scale", k): float(beyond[k]) / scale, ("sides", k): float(shares[k])}
        for measure, score in scores.items():
            if np.isfinite(score):
                self._keep(measure, score, instance)
        return scores

    def choose(self, rng: random.Random) -> Any:
        """Return an instance that is among the best by some measure."""
        best = self.kept[rng.choice(list(self.kept))]
        return best[min(rng.randrange(len(best)), rng.randrange(len(best)))][1]

    def starts(self, count: int) -> list[tuple[Measure, Any]]:
        """Return starts for an optimiser: the best by each measure, then the second best, and so on."""
        ranked = [
            (measure, best[rank][1]) for rank in range(_KEPT) for measure, best in self.kept.items() if rank < len(best)
        ]
        return ranked[:count]

    def _keep(self, measure: Measure, score: float, instance: Any) -> None:
        best = self.kept.setdefault(measure, [])
        if len(best) == _KEPT and score <= best[-1][0]:
            return
        if sum(abs(score - one) <= 1e-12 for one, _ in best) < 2:
            best.append((score, instance))
            best.sort(key=lambda pair: -pair[0])
            del best[_KEPT:]
