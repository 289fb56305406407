"""Claims: how losses of 0 and 1 see a worst case, over pairs and over groups (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, ChiSquare, CVaR, Grouped, TotalVariation, worst_case
from proofs_check.claim import Claim, Instances, Verdict, mutant, shrunk, stated, swapped
from proofs_check.exact.certificates import exact_cvar, exact_tv
from proofs_check.exact.enclosures import GAP, enclosure

if TYPE_CHECKING:
    from dro_core import AmbiguitySet

Row = tuple[int, ...]
_PARTS = 16  # sizes are multiples of 1/16


@dataclass(frozen=True)
class Errors:
    """Masses of the pairs, which of them each of two models ranks wrong (0 or 1), and a size in 16ths."""

    masses: Row
    first: Row
    second: Row
    parts: int

    def error(self, wrong: Row) -> Fraction:
        """The share of pairs that are ranked wrong."""
        return Fraction(sum(m for m, one in zip(self.masses, wrong, strict=True) if one), sum(self.masses))

    @property
    def sets(self) -> tuple[AmbiguitySet, ...]:
        """Four balls."""
        size = self.parts / _PARTS
        return TotalVariation(size), CVaR(size), ChiSquare(size), KL(size)

    def value(self, wrong: Row, ball: AmbiguitySet) -> float:
        """The worst-case error of a model."""
        masses = np.array(self.masses) / sum(self.masses)
        return float(worst_case(np.array(wrong, float), ball, reference=masses).value)


@dataclass(frozen=True)
class GroupErrors:
    """Equal groups of ``size`` pairs, how many of each two models rank wrong, a total-variation radius in 16ths."""

    first: Row
    second: Row
    size: int
    parts: int

    def value(self, wrong: Row) -> float:
        """The worst-case error over group means."""
        losses = [float(i < count) for count in wrong for i in range(self.size)]
        groups = tuple(k for k in range(len(wrong)) for _ in range(self.size))
        return float(worst_case(np.array(losses), Grouped(TotalVariation(self.parts / _PARTS), groups)).value)


@stated
def zero_one_invariance() -> Claim[Errors]:
    """The worst-case error over pairs ranks models exactly as the error does.

    Problem: losses 1 for pairs that are ranked wrong, else 0; a ball of total variation, CVaR, chi-square or KL over
        pairs; e the error of a model.
    Guarantee (exact for TV and CVaR, to 1e-9 for the others): e_1 <= e_2 implies L_1 <= L_2, so equal errors have equal
        worst cases, wherever the mistakes are. L = min(1, e + rho) for TV and e > 0, min(1, e/alpha) for CVaR.
    Source: Hu, Niu, Sato, Sugiyama 2018, 1611.02041: a loss of two values sees one number of the distribution.
    Example: errors 1/4 on easy pairs or on hard ones: TV(1/4) gives 1/2 for both.
    """

    def sides(x: Errors, wrong: Row) -> list[float]:
        return [x.value(wrong, ball) for ball in x.sets]

    def closed(x: Errors, wrong: Row, radius: float | None = None) -> list[float]:
        e, size = float(x.error(wrong)), x.parts / _PARTS
        moved = size if radius is None else radius
        return [min(1.0, e + moved) if e > 0 else 0.0, min(1.0, e / size)]

    claim = Claim[Errors](
        label="zero-one-invariance",
        statement="0-1 losses: e_1 <= e_2 => L_1 <= L_2 over pairs, L = min(1, e + rho) (TV), min(1, e/alpha) (CVaR)",
        reference="1611.02041",
        assumptions={
            "a mass for each pair": lambda x: len(x.masses) == len(x.first) == len(x.second) and min(x.masses) > 0,
            "losses of 0 and 1": lambda x: {*x.first, *x.second} <= {0, 1},
            "the first error is no larger": lambda x: x.error(x.first) <= x.error(x.second),
            "0 < size <= 1": lambda x: 0 < x.parts <= _PARTS,
        },
        instances=_errors(),
        lhs=lambda x: [*sides(x, x.first), *sides(x, x.second)[:2], *closed(x, x.second)],
        rhs=lambda x: [*sides(x, x.second), *closed(x, x.second), *sides(x, x.second)[:2]],
        scale=lambda x: 1.0,
        tight=True,
        verifies=_errors_verified,
        effort=0.5,
    )
    wide = mutant(
        claim, "twice the radius", lhs=lambda x: closed(x, x.second, x.parts / 8), rhs=lambda x: sides(x, x.second)[:2]
    )
    more = mutant(claim, "e rho in place of rho", lhs=lambda x: sides(x, x.second)[0], rhs=_proportional)
    return claim.with_mutants(shrunk(claim), swapped(claim), wide, more)


@stated
def zero_one_groups() -> Claim[GroupErrors]:
    """The worst-case error over **groups** does not rank models as the error does.

    Problem: as `zero-one-invariance`, over the means of groups.
    Guarantee (false): e_1 <= e_2 implies L_1 <= L_2. Groups see where the mistakes are, which is what they are for.
    Source: the reading of 1611.02041 for groups; refuted here.
    Example: see by hand.
    """
    claim = Claim[GroupErrors](
        label="zero-one-invariance-groups",
        statement="for 0-1 losses e_1 <= e_2 implies L_1 <= L_2 over group means (TV)",
        reference="1611.02041, misread",
        assumptions={
            "the first error is no larger": lambda x: sum(x.first) <= sum(x.second),
            "counts up to the size of a group": lambda x: (
                min(*x.first, *x.second) >= 0 and max(*x.first, *x.second) <= x.size
            ),
        },
        instances=Instances(GroupErrors, (GroupErrors((2, 0), (1, 1), 4, 4), GroupErrors((8, 0), (5, 5), 16, 4))),
        lhs=lambda x: x.value(x.first),
        rhs=lambda x: x.value(x.second),
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=lambda x: _exact_groups(x, x.first) > _exact_groups(x, x.second),
        by_hand=(
            "Two groups of four pairs, TV(1/4) over them. One model is wrong on 2 and 0: group errors 1/2 and 0.\n"
            "The other is wrong on 1 and 1: 1/4 and 1/4. Both errors are 2/8.\n"
            "Worst cases: 3/4 * 1/2 + 1/4 * 0 = 3/8, and 1/4."
        ),
    )
    return claim.with_mutants(mutant(claim, "up to 1/32 more", rhs=lambda x: x.value(x.second) + 1 / 32))


def _errors_verified(x: Errors) -> bool:
    size, worst = Fraction(x.parts, _PARTS), list[list[Fraction]]()
    for wrong in (x.first, x.second):
        e, masses = x.error(wrong), list(x.masses)
        found = [exact_tv(wrong, masses, size), exact_cvar(wrong, masses, size)]
        if found != [min(Fraction(1), e + size) if e else Fraction(0), min(Fraction(1), e / size)]:
            return False
        worst.append(found)
    if any(a > b for a, b in zip(*worst, strict=True)):
        return False
    masses = [float(mass) for mass in x.masses]
    rows = [[float(one) for one in wrong] for wrong in (x.first, x.second)]
    pairs = [[enclosure(row, ball, masses) for row in rows] for ball in x.sets[2:]]
    return all(low.dual <= high.primal + GAP for low, high in pairs)


def _proportional(x: Errors) -> float:
    e = float(x.error(x.second))
    return e * (1 + x.parts / _PARTS)


def _errors() -> Instances[Errors]:
    corners = (
        Errors((1, 1, 1, 1), (1, 0, 0, 0), (0, 0, 0, 1), 4),
        Errors((1, 2, 1), (0, 0, 0), (1, 0, 1), 8),
        Errors((1, 62, 1), (1, 0, 0), (1, 0, 1), 1),
        Errors((3, 1), (0, 1), (1, 0), 16),
    )
    one = st.tuples(st.integers(1, 8), st.integers(0, 1), st.integers(0, 1))

    def ordered(d: tuple[list[tuple[int, int, int]], int]) -> Errors:
        masses, first, second = (tuple(column) for column in zip(*d[0], strict=True))
        x = Errors(masses, first, second, d[1])
        return x if x.error(first) <= x.error(second) else Errors(masses, second, first, d[1])

    rows = st.lists(one, min_size=2, max_size=6)
    return Instances(Errors, corners, st.tuples(rows, st.integers(1, _PARTS)).map(ordered))


def _exact_groups(x: GroupErrors, wrong: Row) -> Fraction:
    return exact_tv([Fraction(count, x.size) for count in wrong], [1] * len(wrong), Fraction(x.parts, _PARTS))
