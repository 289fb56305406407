"""Claims about losses that exponentiate, KLDPO and Dr. DPO (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from dro_core import KLPenalty, worst_case
from proofs_check.claim import Array, Assumptions, Claim, Instances, mutant, shrunk, stated, swapped
from proofs_check.exact.enclosures import exp_bounds, log_bounds

Row = tuple[int, ...]


@dataclass(frozen=True)
class Tempered:
    """Losses in eighths, equally likely, and a temperature in eighths."""

    eighths: Row
    heat: int

    @property
    def exact(self) -> list[Fraction]:
        """The losses."""
        return [Fraction(loss, 8) for loss in self.eighths]

    @property
    def losses(self) -> Array:
        """The losses as floats."""
        return np.array(self.eighths) / 8

    @property
    def temperature(self) -> float:
        """The temperature, in the unit of the losses."""
        return self.heat / 8

    @property
    def ratio(self) -> float:
        """B over the temperature."""
        return (max(self.eighths) - min(self.eighths)) / self.heat


@stated
def kldpo_hidden_rate() -> Claim[Tempered]:
    """Weights exp((l - mean l)/tau), not normalised, hide a larger learning rate.

    Problem: the weights with which KLDPO multiplies the losses of a batch; normalised they are those of a KL penalty.
    Guarantee (tight: tau -> infinity): 1 <= mean weight <= exp(B^2/(8 tau^2)), so the step is that of the penalty times
        a factor above 1, which grows with the spread of the losses in the batch.
    Source: the weights are those of 2502.01930; Jensen's inequality and Hoeffding's lemma [H63].
    Example: losses 0 and 1, tau = 1/4: weights e^-2 and e^2, mean cosh 2 = 3.76; e^2 = 7.39.
    """

    def mean_weight(x: Tempered) -> float:
        raw: Array = np.exp((x.losses - x.losses.mean()) / x.temperature)
        return float(raw.mean())

    def bounds(x: Tempered, share: float = 1 / 8) -> tuple[float, float]:
        return mean_weight(x), float(np.exp(share * x.ratio**2))

    claim = Claim[Tempered](
        label="kldpo-hidden-rate",
        statement="1 <= mean exp((l - mean l)/tau) <= exp(B^2/(8 tau^2))",
        reference="2502.01930; H63",
        assumptions=_TEMPERED,
        instances=_tempered(),
        lhs=lambda x: (1.0, mean_weight(x)),
        rhs=bounds,
        scale=mean_weight,
        tight=True,
        verifies=_rate_verified,
    )
    ninth = mutant(claim, "a ninth for an eighth", rhs=lambda x: bounds(x, 1 / 9))
    none = mutant(claim, "a mean weight of 1", lhs=mean_weight, rhs=lambda x: 1.0)
    return claim.with_mutants(shrunk(claim), ninth, none)


@stated
def drdpo_is_optimistic() -> Claim[Tempered]:
    """Dr. DPO's loss is the best case of a KL penalty, not the worst: it weighs hard pairs down.

    Problem: l_b = -b log E exp(-l/b), weights of its gradient q proportional to exp(-l/b).
    Guarantee (tight: b -> infinity): l_b = min over q of <q, l> + b KL(q, p), so <q, l> <= l_b <= E l, and
        l_b >= E l - B^2/(8b). Robust losses lie above the mean.
    Source: the loss is that of 2407.07880; Jensen's inequality, Hoeffding's lemma [H63].
    Example: losses 0 and 1, b = 1: l_b = -log((1 + 1/e)/2) = .380 < 1/2, weights .731 and .269.
    """

    def loss(x: Tempered) -> float:
        return -float(worst_case(-x.losses, KLPenalty(x.temperature)).value)

    def under_weights(x: Tempered) -> float:
        raw = np.exp((min(x.losses) - x.losses) / x.temperature)
        return float(raw @ x.losses / raw.sum())

    def floor(x: Tempered, share: float = 1 / 8) -> float:
        return float(x.losses.mean()) - share * x.ratio**2 * x.temperature

    claim = Claim[Tempered](
        label="drdpo-is-optimistic",
        statement="E_q l <= -b log E exp(-l/b) <= E l and >= E l - B^2/(8b), q proportional to exp(-l/b)",
        reference="2407.07880; H63",
        assumptions=_TEMPERED,
        instances=_tempered(),
        lhs=lambda x: (under_weights(x), loss(x), floor(x)),
        rhs=lambda x: (loss(x), float(x.losses.mean()), loss(x)),
        scale=lambda x: x.ratio * x.temperature * min(1.0, x.ratio),
        verifies=_optimistic_verified,
    )
    robust = mutant(claim, "robust", lhs=lambda x: float(x.losses.mean()), rhs=loss)
    ninth = mutant(claim, "a ninth for an eighth", lhs=lambda x: floor(x, 1 / 9), rhs=loss)
    return claim.with_mutants(swapped(claim), robust, ninth)


_TEMPERED: Assumptions[Tempered] = {
    "B/8 <= temperature <= 64 B, some losses differ": lambda x: 1 / 64 <= x.ratio <= 8 and x.heat > 0,
}


def _tempered() -> Instances[Tempered]:
    corners = (Tempered((0, 8), 2), Tempered((0, 8), 8), Tempered((0, 8), 512), Tempered((0, 0, 0, 40), 8))
    rows = st.lists(st.integers(-32, 32), min_size=2, max_size=6).map(tuple)
    return Instances(Tempered, corners, st.builds(Tempered, rows, st.integers(4, 256)))


def _rate_verified(x: Tempered) -> bool:
    mean, n, heat = sum(x.exact, Fraction(0)) / len(x.exact), len(x.exact), Fraction(x.heat, 8)
    low, high = (sum((exp_bounds((loss - mean) / heat)[k] for loss in x.exact), Fraction(0)) / n for k in (0, 1))
    return low >= 1 and high <= exp_bounds(((max(x.exact) - min(x.exact)) / heat) ** 2 / 8)[0]


def _optimistic_verified(x: Tempered) -> bool:
    mean, n, heat = sum(x.exact, Fraction(0)) / len(x.exact), len(x.exact), Fraction(x.heat, 8)
    raw = [exp_bounds((min(x.exact) - loss) / heat) for loss in x.exact]
    low, high = (sum((pair[k] for pair in raw), Fraction(0)) for k in (0, 1))
    least = min(x.exact) - heat * log_bounds(high / n)[1]
    most = min(x.exact) - heat * log_bounds(low / n)[0]
    above = sum((pair[1] * (loss - min(x.exact)) for pair, loss in zip(raw, x.exact, strict=True)), Fraction(0))
    spread = max(x.exact) - min(x.exact)
    return min(x.exact) + above / low <= least and most <= mean and mean - spread**2 / (8 * heat) <= least
