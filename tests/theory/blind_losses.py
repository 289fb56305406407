"""False claims about the worst case of one vector of losses, by somebody who had not read the code of the search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from planted_numbers import Planted

from dro_core import KL, AmbiguitySet, ChiSquare, ChiSquarePenalty, TotalVariation, worst_case
from proofs_check import Claim, Instances, Relation
from proofs_check.claim import Array, Assumptions, dyadic


@dataclass(frozen=True)
class Losses:
    """Losses with masses proportional to p, and a number: a radius, a price or the rise of a loss."""

    losses: tuple[float, ...]
    masses: tuple[float, ...]
    level: float

    @property
    def values(self) -> Array:
        """The losses as an array, ``(n,)``."""
        return np.array(self.losses)

    @property
    def reference(self) -> Array:
        """The distribution p, ``(n,)``."""
        return np.array(self.masses) / sum(self.masses)

    @property
    def mean(self) -> float:
        """E l under p."""
        return float(self.reference @ self.values)

    @property
    def variance(self) -> float:
        """Var l under p."""
        return float(self.reference @ (self.values - self.mean) ** 2)

    @property
    def spread(self) -> float:
        """Largest loss minus smallest."""
        return max(self.losses) - min(self.losses)

    @property
    def second(self) -> float:
        """The largest loss below the maximum."""
        return max(loss for loss in self.losses if loss < max(self.losses))


def value(x: Losses, ball: AmbiguitySet, losses: Array | None = None) -> float:
    """Return the worst case of the losses, or of others with the same masses."""
    return float(worst_case(x.values if losses is None else losses, ball, reference=x.reference).value)


def atoms(
    masses: st.SearchStrategy[float], least: int, most: int, level: st.SearchStrategy[float]
) -> Instances[Losses]:
    """Draw ``least`` to ``most`` losses in [0, 1] with masses, and a level."""
    rows = st.lists(st.tuples(dyadic(0, 1), masses), min_size=least, max_size=most)

    def built(drawn: tuple[list[tuple[float, float]], float]) -> Losses:
        losses, masses = zip(*drawn[0], strict=True)
        return Losses(losses, masses, drawn[1])

    return Instances(Losses, (), st.tuples(rows, level).map(built))


def tried(instances: Instances[Losses], *corners: Losses) -> Instances[Losses]:
    """Begin with instances that an author would try by hand."""
    return Instances(Losses, corners, instances.strategy)


DIFFERENT: Assumptions[Losses] = {
    "masses from 0, not all 0": lambda x: min(x.masses) >= 0 and sum(x.masses) > 0,
    "losses in [-8, 8], spread at least 1/64": lambda x: max(map(abs, x.losses)) <= 8 and x.spread >= 1 / 64,
}
POSITIVE: Assumptions[Losses] = {**DIFFERENT, "every mass at least 2^-40": lambda x: x.reference.min() >= 2**-40}
SMALL_MASSES = st.integers(1, 4).map(float)


def rising_maximum() -> Planted:
    """False where the largest loss has mass 0: q << p keeps it at 0, so that L does not move at all."""

    def risen(x: Losses) -> float:
        top = np.arange(len(x.losses)) == np.argmax(x.values)
        return value(x, TotalVariation(x.level), x.values + top) - value(x, TotalVariation(x.level))

    claim = Claim[Losses](
        label="blind-tv-rise",
        statement="raising the largest loss by 1 raises the TV(rho) value by at least rho",
        reference="planted",
        assumptions={**DIFFERENT, "0 <= radius <= 1": lambda x: 0 <= x.level <= 1},
        instances=tried(
            atoms(dyadic(0, 1), 2, 6, dyadic(0, 1)),
            Losses((0.0, 1.0), (0.5, 0.5), 0.25),
            Losses((0.0, 1.0, 1.0), (0.0, 0.5, 0.5), 0.5),
        ),
        lhs=lambda x: x.level,
        rhs=risen,
        scale=lambda x: 1.0,
    )
    return Planted(claim, "masses at zero", Losses((0.0, 0.5, 1.0), (0.5, 0.5, 0.0), 0.5))


def worst_scenario() -> Planted:
    """False where two scenarios share the largest loss: the adversary has the mass of both to begin with."""

    def two_points(x: Losses) -> float:
        """Return the value with all other losses raised to the second largest."""
        mass = float(x.reference[np.argmax(x.values)])
        share = float(worst_case(np.array([0.0, 1.0]), KL(x.level), reference=np.array([1 - mass, mass])).value)
        return x.second + (max(x.losses) - x.second) * share

    claim = Claim[Losses](
        label="blind-kl-two-points",
        statement="KL value <= s + (M - s) b, b = sup of a coin of the mass of the worst scenario, s the next loss",
        reference="planted",
        assumptions={**POSITIVE, "0 <= radius <= 1": lambda x: 0 <= x.level <= 1},
        instances=tried(
            atoms(SMALL_MASSES, 2, 5, dyadic(0, 1)),
            Losses((0.0, 1.0), (1.0, 1.0), 0.25),
            Losses((0.0, 0.0, 1.0), (1.0, 2.0, 1.0), 0.125),
        ),
        lhs=lambda x: value(x, KL(x.level)),
        rhs=two_points,
        scale=lambda x: x.spread,
    )
    return Planted(claim, "ties", Losses((0.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.125))


def threshold_below_the_maximum() -> Planted:
    """False once rho > 1 - P(l = M): then the threshold is M itself. True at every smaller radius, so up to 1/2 in
    most draws."""

    def dual(x: Losses) -> float:
        top = max(x.losses)
        thresholds = [eta for eta in x.losses if eta < top]
        tails = [float(x.reference @ np.maximum(x.values - eta, 0)) for eta in thresholds]
        return min(x.level * top + (1 - x.level) * eta + tail for eta, tail in zip(thresholds, tails, strict=True))

    claim = Claim[Losses](
        label="blind-tv-dual-strict",
        statement="TV value = min over losses eta < M of rho M + (1-rho) eta + E (l-eta)_+, for rho <= 3/4, n >= 5",
        reference="planted",
        assumptions={
            **POSITIVE,
            "0 <= radius <= 3/4": lambda x: 0 <= x.level <= 0.75,
            "five scenarios or more": lambda x: len(x.losses) >= 5,
        },
        instances=tried(
            atoms(SMALL_MASSES, 5, 8, dyadic(0, 0.75)), Losses((0.0, 0.25, 0.5, 0.75, 1.0), (1.0,) * 5, 0.75)
        ),
        lhs=lambda x: value(x, TotalVariation(x.level)),
        rhs=dual,
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
    )
    return Planted(claim, "wrong strictness", Losses((0.0, 0.25, 0.5, 0.75, 1.0), (1.0, 1.0, 1.0, 1.0, 4.0), 0.75))


def chi_square_equality() -> Planted:
    """The weights stay positive for every loss up to 2 rho = 1/(n - 1), not 1/(n - 2). False where one loss is far
    below the others and the radius is near the end of the range."""

    def radius(x: Losses) -> float:
        return x.level / (2 * (len(x.losses) - 2))

    drawn = st.lists(dyadic(0, 1), min_size=6, max_size=12)
    pairs = st.tuples(drawn, dyadic(0, 1)).map(lambda d: Losses(tuple(d[0]), (1.0,) * len(d[0]), d[1]))
    claim = Claim[Losses](
        label="blind-chi2-equality",
        statement="ChiSquare(rho) value = mean + sqrt(2 rho Var l) for n equal masses and 2 rho <= 1/(n-2)",
        reference="planted",
        assumptions={
            **POSITIVE,
            "equal masses": lambda x: min(x.masses) == max(x.masses),
            "six scenarios or more": lambda x: len(x.losses) >= 6,
            "0 <= share <= 1": lambda x: 0 <= x.level <= 1,
        },
        instances=Instances(Losses, (Losses((0.0, 0.0, 0.0, 1.0, 1.0, 1.0), (1.0,) * 6, 1.0),), pairs),
        lhs=lambda x: value(x, ChiSquare(radius(x))),
        rhs=lambda x: x.mean + float(np.sqrt(2 * radius(x) * x.variance)),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
    )
    return Planted(claim, "index off by one", Losses((0.0, *(1.0,) * 7), (1.0,) * 8, 1.0))


def chi_square_price() -> Planted:
    """The weights stay positive while lam >= E l - min l, which lam >= B ensures and lam >= 7 B/8 does not: false for
    a rare small loss among large ones, and lam near the end of the range."""
    claim = Claim[Losses](
        label="blind-chi2-penalty",
        statement="sup <q, l> - lam chi2(q, p) = E l + Var l / (2 lam) for lam >= 7 (max l - min l) / 8",
        reference="planted",
        assumptions={**POSITIVE, "7/8 <= lam/B <= 2": lambda x: 0.875 <= x.level <= 2},
        instances=tried(
            atoms(st.integers(1, 16).map(float), 2, 5, dyadic(0.875, 2)),
            Losses((0.0, 1.0), (1.0, 1.0), 0.875),
            Losses((0.0, 0.0, 1.0), (8.0, 8.0, 1.0), 0.875),
        ),
        lhs=lambda x: value(x, ChiSquarePenalty(x.level * x.spread)),
        rhs=lambda x: x.mean + x.variance / (2 * x.level * x.spread),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
    )
    return Planted(claim, "end of a range", Losses((0.0, 1.0), (1.0, 15.0), 0.875))


LOSSES = (rising_maximum(), worst_scenario(), threshold_below_the_maximum(), chi_square_equality(), chi_square_price())
