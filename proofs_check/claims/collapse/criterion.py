"""When a worst case learns nothing, and how large a set that takes: claims with a proof from either side."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import AmbiguitySet, ChiSquare, CVaR, TotalVariation, worst_case
from proofs_check.claim import Array, Claim, Instances, dyadic, mutant, shrunk, stated, swapped
from proofs_check.claims.collapse.pairs import ADMITTED, CORNERS, Pairs, lattice, margin_reach, reach, weighed
from proofs_check.exact.balance import EXACT, balances, dot, exact_balance, size_against, size_of
from proofs_check.exact.enclosures import GAP
from proofs_check.exact.entropies import enclosed_balance

if TYPE_CHECKING:
    from collections.abc import Callable

_SETS: dict[str, Callable[[float], AmbiguitySet]] = {"tv": TotalVariation, "cvar": CVaR, "chi2": ChiSquare}
_PARTS = 64  # sizes are multiples of 1/64
_ROUNDING, _NEAR = 1e-12, 1e-9


@dataclass(frozen=True)
class Trained(Pairs):
    """The same with the size of the set, in 64ths, and a reward that may be better than none."""

    parts: int
    reward: tuple[float, ...]

    @property
    def size(self) -> Fraction:
        """The radius, or alpha."""
        return Fraction(self.parts, _PARTS)

    def worst(self, reward: Array) -> float:
        """L_U(w): the worst mean logistic loss."""
        losses = np.logaddexp(0, -self.features @ reward)
        return float(worst_case(losses, _SETS[self.kind](float(self.size)), reference=self.reference).value)

    def least(self, reward: Array, size: Fraction) -> float:
        """h(w): the least mean margin over the set of such a size."""
        margins = self.features @ reward
        return -float(worst_case(-margins, _SETS[self.kind](float(size)), reference=self.reference).value)


@dataclass(frozen=True)
class Directed(Pairs):
    """Pairs and a direction that may bear more than it should."""

    reward: tuple[float, ...]


@stated
def collapse_criterion() -> Claim[Trained]:
    """A worst case learns nothing exactly if its set can balance the features.

    Problem: L_U(w) = max over q in U of E_q log(1 + e^-<w, x>); h(w) = min over q in U of E_q <w, x>, M = max |<w, x>|.
    Guarantee: if some q in U has E_q x = 0, then L_U >= log 2 = L_U(0) everywhere: the reward stays zero. If none has,
        some w has h(w) > 0, and L_U(2 h/M^2 w) <= log 2 - h^2/(2 M^2). For every w (tight: equal margins) log(1 + e^-h)
        <= L_U(w).
    Source: theory.md section 3: at w = 0 every q is a worst case, with the subgradient -E_q x / 2. Here: Jensen, and
        l'' <= 1/4. Total variation, CVaR and chi-square; every set is proved to hold such a q, or by a w to hold none.
    Example: margins 1, 1, 1, -1. TV(1/4) holds q = (1/6, 1/6, 1/6, 1/2), and no w has a loss below log 2 = .693.
        TV(1/8) has h(1) = 1/4 and L(1/2) = .658 <= .662.
    """
    claim = Claim[Trained](
        label="collapse-criterion",
        statement="min L_U = log 2 if some q in U has E_q x = 0; if none, L_U(w) <= log 2 - h^2/(2 M^2) for some w",
        reference="theory.md section 3",
        assumptions={
            **ADMITTED,
            "radius at most 1, alpha at least 1/64": lambda x: 1 <= x.parts <= _PARTS,
            "reward in [-8, 8]": lambda x: np.max(np.abs(x.reward)) <= 8,
        },
        instances=_trained(),
        lhs=lambda x: _sides(x)[0],
        rhs=lambda x: _sides(x)[1],
        scale=lambda x: 1.0,
        tight=True,
        verifies=_criterion_holds,
        effort=0.5,
    )

    def mutant_at(name: str, factor: int | Fraction) -> Claim[Trained]:
        return mutant(claim, name, lhs=lambda x: _sides(x, factor)[0], rhs=lambda x: _sides(x, factor)[1])

    half, twice = mutant_at("half of the radius collapses", 2), mutant_at("it takes twice the radius", Fraction(1, 2))
    return claim.with_mutants(shrunk(claim), swapped(claim), half, twice)


@stated
def collapse_radius_exact() -> Claim[Directed]:
    """The collapse radius: the least set that balances, and the most robust direction.

    Problem: r(x) = the least size of a set (total variation, chi-square; CVaR: the largest alpha) with a q in it,
        E_q x = 0; r(m) = the same for margins, E_q m <= 0. Sizes as numbers in [0, 1] that grow with the set (1: none).
    Guarantee (tight): r(<v, x>) <= r(x) for every direction v, with equality for one (minimax), and r(x) = 1, no set of
        this kind, exactly if some v has <v, x_i> > 0 for all i (Gordan).
    Source: theory.md section 3. The best q and the best v are found in rational numbers and prove each other; dro_core
        gives the radii of directions.
    Example: x = (1, 0), (-1, 0), (0, 2), (0, -1) with masses 3, 1, 4, 1 of 9. TV: q = (3, 3, 1, 2)/9 at 1/3; so does
        v = (1, 1): the margins 1, -1, 2, -1 have the mean 1, and 3/9 moved from 2 to -1 take it away. One feature
        alone bears 1/9 or 7/27.
    """
    return _radius_claim("collapse-radius", EXACT, "TV, CVaR, chi-square")


@stated
def collapse_radius_entropies() -> Claim[Directed]:
    """The same for the entropies, KL(q, p) and Burg's E_p log(p/q), whose radii are not rational.

    Problem: r(x) = min of the entropy over q with E_q x = 0; r(m) = the same for margins.
    Guarantee (tight): r(<v, x>) <= r(x) for every direction v, with equality for one, if need be as a limit. Infinite
        exactly if some v has positive margins (KL), or nonnegative ones that are not all zero (Burg).
    Source: theory.md section 3; [O01] for Burg. Enclosed between two rational numbers: from below by -log E_p e^-m and
        E_p log(1 + m), from above by the entropy of a q with E_q x = 0 exactly. dro_core gives the radii of directions.
    Example: margins 1, 1, 1, -1: KL log(4/3)/2 = .144, Burg 3/4 log 3 - log 2 = .131.
    """
    return _radius_claim("collapse-radius-entropies", ("kl", "burg"), "KL, Burg")


def _radius_claim(label: str, kinds: tuple[str, ...], names: str) -> Claim[Directed]:
    """Both sides are radii of directions by dro_core and the one that is proved; ``verifies`` is the proof."""

    def bounds(x: Directed, most: float = 1.0) -> tuple[float, float]:
        radius, reward = _proved(x)
        return min(radius, most), margin_reach(x, reward)

    def given(x: Directed) -> tuple[float, float]:
        radius, found = _proved(x)[0], margin_reach(x, x.reward)
        # Two plateaus for the search, which else climbs rounding errors: directions that bear all, and the best one.
        return radius if abs(found - radius) < _ROUNDING else found, radius - _NEAR

    def one_feature(x: Directed) -> float:
        units = np.eye(len(x.rows[0]), dtype=int).tolist()
        return max(margin_reach(x, [sign * entry for entry in unit]) for unit in units for sign in (1, -1))

    claim = Claim[Directed](
        label=label,
        statement=f"max over v of r(<v, x>) = r(x), infinite exactly if the pairs are separable ({names})",
        reference="theory.md section 3",
        assumptions={**ADMITTED, "direction in [-8, 8]": lambda x: np.max(np.abs(x.reward)) <= 8},
        instances=_directed(kinds),
        lhs=given,
        rhs=bounds,
        scale=lambda x: 1.0,
        tight=True,
        verifies=_is_proved,
        effort=0.5,
    )
    mean = mutant(
        claim,
        "the mean direction bears most",
        rhs=lambda x: (1.0, margin_reach(x, (x.reference @ x.features).tolist())),
    )
    feature = mutant(claim, "one feature bears most", rhs=lambda x: (1.0, one_feature(x)))
    finite = mutant(
        claim, "infinite only if n <= d", rhs=lambda x: bounds(x, 1 if len(x.rows) <= len(x.rows[0]) else 0.99)
    )
    return claim.with_mutants(shrunk(claim), mean, feature, finite)


@lru_cache(maxsize=4096)
def _sides(x: Trained, factor: int | Fraction = 1) -> tuple[Array, Array]:
    """Both sides of the criterion, decided for a set ``factor`` times as large as that of the losses."""
    collapsed, best, size = _decided(x, factor)
    h, peak = max(x.least(best, size), 0.0), float(np.max(np.abs(x.features @ best))) or 1.0
    given, trained = x.worst(np.array(x.reward)), x.worst(2 * h / peak**2 * best)
    other = x.worst(2 * max(x.least(best, x.size), 0.0) / peak**2 * best)
    floor = float(np.logaddexp(0, -x.least(np.array(x.reward), x.size)))
    left = (floor, np.log(2) if collapsed else 0.0, 0.0 if collapsed else trained)
    return np.array(left), np.array((given, min(given, trained, other), np.log(2) - (h / peak) ** 2 / 2))


def _decided(x: Trained, factor: int | Fraction) -> tuple[bool, Array, Fraction]:
    """Return whether the set balances, the reward that bears most, and the size of the set."""
    size = min(x.size / factor if x.kind == "cvar" else x.size * factor, Fraction(1))
    found = exact_balance(x.rows, x.masses, x.kind)
    return _holds(x.kind, size, found.size), np.array([float(entry) for entry in found.reward]), size


def _holds(kind: str, size: Fraction, least: Fraction | None) -> bool:
    """Whether a set of that size holds what the least one holds."""
    return least is not None and (size <= least if kind == "cvar" else size >= least)


def _criterion_holds(x: Trained) -> bool:
    """Whether q is in the set and balances, or every set that balances is larger; in rational numbers."""
    found, p = exact_balance(x.rows, x.masses, x.kind), [Fraction(mass, sum(x.masses)) for mass in x.masses]
    if found.weights is not None and _holds(x.kind, x.size, size_of(x.kind, p, found.weights)):
        return balances(x.rows, found.weights)
    margins = [dot(row, found.reward) for row in x.rows]
    return min(margins) > 0 or not _holds(x.kind, x.size, size_against(x.kind, p, margins))


def _proved(x: Pairs) -> tuple[float, tuple[Fraction, ...]]:
    """Return the radius and the reward that proves it."""
    if x.kind in EXACT:
        found = exact_balance(x.rows, x.masses, x.kind)
        return reach(x.kind, found.size), found.reward
    enclosed = enclosed_balance(x.rows, x.masses, x.kind)
    return reach(x.kind, enclosed.low), enclosed.reward


def _is_proved(x: Pairs) -> bool:
    """Whether weights that balance and a reward meet, or the reward separates; in rational numbers."""
    if x.kind in EXACT:
        exact_balance(x.rows, x.masses, x.kind)  # or it raises
        return True
    found = enclosed_balance(x.rows, x.masses, x.kind)
    if found.low is None or found.high is None or found.weights is None:
        margins = [dot(row, found.reward) for row in x.rows]
        return min(margins) > 0 or (x.kind == "burg" and min(margins) == 0 < max(margins))
    return 0 <= found.high - found.low <= GAP and balances(x.rows, found.weights)


def _trained() -> Instances[Trained]:
    corners = tuple(
        Trained(rows, masses, kind, parts, (0.0,) * len(rows[0]))
        for rows, masses in (*CORNERS, (((1,), (1,)), (1, 1)))
        for kind, sizes in (("tv", (8, 16, 24)), ("cvar", (8, 24, 40)), ("chi2", (8, 16, 48)))
        for parts in sizes
    )
    kinds, sizes = st.sampled_from(EXACT), st.integers(1, _PARTS)
    drawn = st.integers(1, 3).flatmap(lambda d: st.tuples(weighed(lattice(6, d)), st.tuples(*[dyadic(-2, 2)] * d)))
    draws = st.tuples(drawn, kinds, sizes).map(lambda d: Trained(*d[0][0], d[1], d[2], d[0][1]))
    return Instances(Trained, corners, draws)


def _directed(kinds: tuple[str, ...]) -> Instances[Directed]:
    corners = tuple(Directed(*corner, kind, (1.0,) * len(corner[0][0])) for corner in CORNERS for kind in kinds)
    drawn = st.integers(1, 3).flatmap(lambda d: st.tuples(weighed(lattice(6, d)), st.tuples(*[dyadic(-4, 4)] * d)))
    draws = st.tuples(drawn, st.sampled_from(kinds)).map(lambda d: Directed(*d[0][0], d[1], d[0][1]))
    return Instances(Directed, corners, draws)
