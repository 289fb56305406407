"""False claims about sets, transport and parts of batches, by somebody who had not read the code of the search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from planted_numbers import Planted

from dro_core import KL, CVaR, TotalVariation, worst_case
from proofs_check import Claim, Instances, Relation
from proofs_check.claim import dyadic


@dataclass(frozen=True)
class Symmetric:
    """Losses at 0 with mass ``centre``, and at each offset and its negative with the same mass; a radius."""

    offsets: tuple[float, ...]
    masses: tuple[float, ...]
    centre: float
    radius: float

    def gap(self, radius: float) -> float:
        """Return the worst case over a KL ball; the mean is 0."""
        losses = np.array([0.0, *self.offsets, *(-offset for offset in self.offsets)])
        weights = np.array([self.centre, *self.masses, *self.masses])
        return float(worst_case(losses, KL(radius), reference=weights / weights.sum()).value)


def kl_growth() -> Planted:
    """The gap is sqrt(2 rho Var) (1 + skewness sqrt(rho) + excess kurtosis rho/12 ...): symmetry removes the first
    term only. False for heavy tails, a rare large loss of either sign, and small radii."""
    rows = st.lists(st.tuples(dyadic(1 / 8, 1, steps=8), st.integers(1, 8).map(float)), min_size=1, max_size=3)
    drawn = st.tuples(rows, st.integers(0, 8).map(float), dyadic(1 / 64, 1 / 4))

    def built(d: tuple[list[tuple[float, float]], float, float]) -> Symmetric:
        offsets, masses = zip(*d[0], strict=True)
        return Symmetric(offsets, masses, d[1], d[2])

    claim = Claim[Symmetric](
        label="blind-kl-growth",
        statement="for symmetric losses the KL gap grows no faster than sqrt(rho): gap(4 rho) <= 2 gap(rho)",
        reference="planted",
        assumptions={
            "masses in [1/64, 64], that of 0 perhaps 0": lambda x: (
                min(x.masses) >= 1 / 64 and 0 <= x.centre <= 64 and max(x.masses) <= 64
            ),
            "offsets in [1/64, 8]": lambda x: min(x.offsets) >= 1 / 64 and max(x.offsets) <= 8,
            "1/64 <= radius <= 1/4": lambda x: 1 / 64 <= x.radius <= 0.25,
        },
        instances=Instances(
            Symmetric,
            (Symmetric((1.0,), (1.0,), 0.0, 1 / 64), Symmetric((1.0,), (1.0,), 1.0, 1 / 16)),
            drawn.map(built),
        ),
        lhs=lambda x: x.gap(4 * x.radius),
        rhs=lambda x: 2 * x.gap(x.radius),
        scale=lambda x: max(x.offsets),
    )
    return Planted(claim, "missing condition", Symmetric((1.0,), (1.0,), 8.0, 1 / 32))


@dataclass(frozen=True)
class Moved:
    """Weights w and features x of one pair, which may be moved by ``reach`` in every coordinate."""

    weights: tuple[float, ...]
    features: tuple[float, ...]
    reach: float

    def loss(self, shift: float) -> float:
        """Return log(1 + exp(shift - <w, x>))."""
        return float(np.logaddexp(0.0, shift - np.dot(self.weights, self.features)))

    @property
    def length(self) -> float:
        """The Euclidean norm of w."""
        return float(np.linalg.norm(self.weights))


def moved_features() -> Planted:
    """The worst move costs reach |w|_1, up to sqrt(d) reach |w|_2: true up to d = 4, false from d = 5 on for weights of
    one size and a pair that is clearly wrong, where the slope of the loss is near 1."""
    rows = st.lists(st.tuples(dyadic(-2, 2), dyadic(-2, 2)), min_size=1, max_size=6)

    def built(d: tuple[list[tuple[float, float]], float]) -> Moved:
        weights, features = zip(*d[0], strict=True)
        return Moved(weights, features, d[1])

    claim = Claim[Moved](
        label="blind-wasserstein-logistic",
        statement="the logistic loss with features moved by eps in the sup norm is at most l + 2 eps |w|_2",
        reference="planted",
        assumptions={
            "at most 64 features": lambda x: len(x.weights) <= 64,
            "weights and features in [-2, 2]": lambda x: max(map(abs, x.weights + x.features)) <= 2,
            "|w|_2 at least 1/64": lambda x: x.length >= 1 / 64,
            "1/64 <= eps <= 1": lambda x: 1 / 64 <= x.reach <= 1,
        },
        instances=Instances(
            Moved,
            (Moved((1.0,), (1.0,), 0.5), Moved((1.0,) * 4, (-2.0,) * 4, 0.5)),
            st.tuples(rows, dyadic(1 / 64, 1)).map(built),
        ),
        lhs=lambda x: x.loss(x.reach * float(np.sum(np.abs(x.weights)))),
        rhs=lambda x: x.loss(0.0) + 2 * x.reach * x.length,
        scale=lambda x: x.reach * x.length,
    )
    return Planted(claim, "high dimension", Moved((1.0,) * 16, (-1.0,) * 16, 0.25))


@dataclass(frozen=True)
class Batch:
    """Losses of a batch, which is cut into parts of ``size``; the last part may be smaller."""

    losses: tuple[float, ...]
    size: int

    @property
    def parts(self) -> list[tuple[float, ...]]:
        """The losses of each part."""
        return [self.losses[start : start + self.size] for start in range(0, len(self.losses), self.size)]


def unequal_parts() -> Planted:
    """The mean must weigh the parts by their sizes. Without that it still holds for most sizes of parts: it fails where
    seven or eight losses have one or two left over and a large loss is among those, or with more and smaller parts."""

    def tail(losses: tuple[float, ...]) -> float:
        return float(worst_case(np.array(losses), CVaR(0.25)).value)

    claim = Claim[Batch](
        label="blind-microbatches",
        statement="CVaR(1/4) of a batch is at least the mean of CVaR(1/4) over its parts of at most m losses",
        reference="planted",
        assumptions={
            "parts of 2 to 16": lambda x: 2 <= x.size <= 16,
            "at most 64 losses in [0, 1]": lambda x: len(x.losses) <= 64 and 0 <= min(x.losses) <= max(x.losses) <= 1,
        },
        instances=Instances(
            Batch,
            (Batch((0.0, 1.0, 0.0, 1.0), 2), Batch((0.0, 0.0, 0.0, 0.0, 1.0), 4)),
            st.builds(Batch, st.lists(dyadic(0, 1), min_size=2, max_size=12).map(tuple), st.integers(2, 8)),
        ),
        lhs=lambda x: float(np.mean([tail(part) for part in x.parts])),
        rhs=lambda x: tail(x.losses),
        scale=lambda x: 1.0,
    )
    return Planted(claim, "larger than tested", Batch((*(0.0,) * 8, 1.0), 8))


@dataclass(frozen=True)
class Thousandths:
    """Losses 0, 1, ..., n - 1 of equal mass; a radius in thousandths."""

    scenarios: int
    radius: int


def kept_scenarios() -> Planted:
    """n - floor(n rho) scenarios keep a weight, which differs from the claim only where n rho is an integer."""

    def kept(x: Thousandths) -> float:
        weights = worst_case(np.arange(float(x.scenarios)), TotalVariation(x.radius / 1000)).weights
        return float(np.sum(weights > 1e-9))

    claim = Claim[Thousandths](
        label="blind-tv-kept",
        statement="the worst case of TV(rho) keeps n - ceil(n rho) + 1 of n different losses",
        reference="planted",
        assumptions={
            "2 <= n <= 64": lambda x: 2 <= x.scenarios <= 64,
            "0 < rho < 1": lambda x: 0 < x.radius < 1000,
        },
        instances=Instances(
            Thousandths,
            (Thousandths(8, 100), Thousandths(24, 400)),
            st.builds(Thousandths, st.integers(2, 24), st.integers(1, 999)),
        ),
        lhs=kept,
        rhs=lambda x: x.scenarios + 1 + (-x.scenarios * x.radius) // 1000,
        scale=lambda x: float(x.scenarios),
        relation=Relation.EQUAL,
    )
    return Planted(claim, "rare coincidence", Thousandths(8, 250))


SETS = (kl_growth(), moved_features(), unequal_parts(), kept_scenarios())
