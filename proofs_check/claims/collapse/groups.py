"""The collapse radius over groups: what they save, what they only seem to save, and which ones average noise out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import collapse_radius
from proofs_check.claim import Claim, Curve, Instances, Relation, Verdict, mutant, shrunk, stated, swapped
from proofs_check.claims.collapse.pairs import ADMITTED, Pairs, Row, Rows, balance_reach, lattice, reach, weighed
from proofs_check.exact.balance import EXACT

if TYPE_CHECKING:
    from collections.abc import Sequence

    Scenarios = tuple[list[tuple[Fraction, ...]], list[int]]

_PARTS = 16  # flips are multiples of 1/16
_NEAR = 1e-6  # dro_core promises 1e-7 of a radius


@dataclass(frozen=True)
class Grouped(Pairs):
    """Pairs that belong to groups 0, 1, ..."""

    groups: Row


@dataclass(frozen=True)
class Flipped(Grouped):
    """The same with the share of labels that are flipped, in 16ths: the groups do not know them."""

    flips: int


@dataclass(frozen=True)
class Lengths:
    """A judge who sees a longer and a shorter answer: in how many of `parts` the longer is better, how many flips."""

    longer: int
    flips: int
    parts: int


@stated
def collapse_groups() -> Claim[Grouped]:
    """Groups never lower the radius.

    Problem: the adversary reweighs groups g, whose mean features are its scenarios; r = the least set that balances
        them, against that over pairs. Total variation, CVaR (1 - alpha), chi-square, as numbers in [0, 1].
    Guarantee (tight: a group for each pair): r(pairs) <= r(groups).
    Source: theory.md section 3: weights of groups, shared out in proportion to p, are weights of pairs in the same set.
    Example: x = 1, -1, 1, -1 with masses 3, 1, 1, 1, total variation: pairs 1/6. The halves {1, -1}, {1, -1} have means
        1/2 and 0: 2/3, all of the first must go.
    """
    claim = Claim[Grouped](
        label="collapse-groups",
        statement="r(pairs) <= r(groups), whatever the groups (TV, CVaR, chi-square)",
        reference="theory.md section 3",
        assumptions=ADMITTED,
        instances=_grouped(),
        lhs=_pair_reach,
        rhs=lambda x: _found_reach(x, x.groups) + _NEAR,
        scale=lambda x: 1.0,
        tight=True,
        verifies=lambda x: balance_reach(x.rows, x.masses, x.kind) <= balance_reach(*group_means(x), x.kind),
        effort=0.5,
    )
    even = mutant(
        claim,
        "groups of equal mass",
        rhs=lambda x: float(balance_reach(rows := group_means(x)[0], [1] * len(rows), x.kind)),
    )
    return claim.with_mutants(shrunk(claim), swapped(claim), even)


@stated
def collapse_groups_vacuous() -> Claim[Grouped]:
    """With no more groups than features the radius over groups is infinite, whatever the labels.

    Problem: labels of any kind, even fair coins; K groups with independent mean features, so K <= d.
    Guarantee (exact): r = infinity over groups: w with <w, mean of g> = 1 for every g solves K equations in d unknowns.
    Source: theory.md section 3. The value in sample says nothing there; a held-out one does.
    Example: x = (1, 0), (0, 1), (-2, 3) in the groups 0, 1, 1 have the means (1, 0), (-1, 2): w = (1, 1).
    """
    claim = Claim[Grouped](
        label="collapse-groups-vacuous",
        statement="K groups with independent mean features, K <= d: no set collapses, whatever the labels",
        reference="theory.md section 3",
        assumptions={**ADMITTED, "independent means": _are_independent},
        instances=_few_groups(),
        lhs=lambda x: _found_reach(x, x.groups),
        rhs=lambda x: 1.0,
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=lambda x: balance_reach(*group_means(x), x.kind) == 1,
        effort=0.4,
    )
    pairs = mutant(claim, "pairs in place of groups", lhs=_pair_reach)
    one_more = replace(
        mutant(claim, "K = d + 1", instances=Instances(Grouped, (_THREE_MEANS,))), assumptions={**ADMITTED}
    )
    dependent = replace(
        mutant(claim, "dependent means", instances=Instances(Grouped, (_OPPOSITE_MEANS,))), assumptions={**ADMITTED}
    )
    return claim.with_mutants(pairs, one_more, dependent)


@stated
def collapse_groups_noise() -> Claim[Flipped]:
    """Flips average out inside groups that are defined without the label.

    Problem: of every pair's labels a share e < 1/2 is flipped, (x, 1 - e) and (-x, e); groups that do not see which.
    Guarantee (exact): the radius over groups is what it is without flips: their means are multiplied by 1 - 2 e. Over
        pairs it falls, at most to the radius of the clean pairs.
    Source: theory.md section 3.
    Example: x = 1, e = 1/4: infinite over any groups; over pairs it is 1/4, the 3 : 1 of its labels.
    """
    claim = Claim[Flipped](
        label="collapse-groups-noise",
        statement="flips that the groups do not see leave the radius over groups as it is (TV, CVaR, chi-square)",
        reference="theory.md section 3",
        assumptions={**ADMITTED, "0 < e < 1/2": lambda x: 0 < 2 * x.flips < _PARTS},
        instances=_flipped(),
        lhs=lambda x: float(balance_reach(*group_means(with_flips(x)), x.kind)),
        rhs=lambda x: float(balance_reach(*group_means(x), x.kind)),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=lambda x: balance_reach(*group_means(with_flips(x)), x.kind) == balance_reach(*group_means(x), x.kind),
        effort=0.3,
    )
    over_pairs = mutant(claim, "over pairs too", lhs=lambda x: _pair_reach(with_flips(x)))
    seen = mutant(
        claim,
        "groups that see the flips",
        lhs=lambda x: float(balance_reach(*group_means(with_flips(x, seen=True)), x.kind)),
    )
    return claim.with_mutants(over_pairs, seen)


@stated
def collapse_groups_longer() -> Claim[Lengths]:
    """Groups by which answer was chosen do not average noise out.

    Problem: the longer answer is the better one with probability c; a share e of the labels is flipped; pairs grouped
        by whether the chosen answer is the longer one.
    Guarantee (false): in each group a share e of the labels is wrong, as in groups by the length gap alone. The group
        is made of the label: where the shorter one was chosen, c e are flips and (1 - c)(1 - e) are not.
    Source: theory.md section 3; `collapse-groups-noise` has the groups for which it is true.
    Example: c = .8, e = .2: one half of the labels is wrong where the shorter answer was chosen, 6 % where the longer.
    """
    claim = Claim[Lengths](
        label="collapse-groups-longer",
        statement="grouping pairs by whether the chosen answer is longer averages noise out: a share e wrong in each",
        reference="theory.md section 3, misread",
        assumptions={"1/2 < c < 1, 0 < e < 1/2": lambda x: x.parts < 2 * x.longer < 2 * x.parts > 4 * x.flips > 0},
        instances=Instances(Lengths, (Lengths(8, 2, 10), Lengths(6, 1, 10))),
        lhs=lambda x: [float(share) for share in wrong_shares(x)],
        rhs=lambda x: x.flips / x.parts,
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=lambda x: max(wrong_shares(x)) > Fraction(x.flips, x.parts),
        curve=Curve("longer", tuple(Lengths(longer, 4, 20) for longer in range(11, 20))),
        by_hand=(
            "Of 100 pairs the longer answer is better in 80, and a fifth of all labels is flipped.\n"
            "The shorter one is chosen in 80/5 = 16 by a flip and in 20 - 20/5 = 16 rightly: 1/2 wrong, not 1/5.\n"
            "The longer one in 64 rightly and in 4 by a flip: 4/68. By the length gap a fifth is wrong in each group."
        ),
    )
    return claim.with_mutants(mutant(claim, "twice as many at most", rhs=lambda x: 2 * x.flips / x.parts))


def group_means(x: Grouped) -> Scenarios:
    """Return the mean features of the groups, in rational numbers, and their masses."""
    means, masses = list[tuple[Fraction, ...]](), list[int]()
    for group in sorted(set(x.groups)):
        mine = [(row, mass) for row, mass, of in zip(x.rows, x.masses, x.groups, strict=True) if of == group]
        masses.append(sum(mass for _, mass in mine))
        means.append(
            tuple(Fraction(sum(row[k] * mass for row, mass in mine), masses[-1]) for k in range(len(x.rows[0])))
        )
    return means, masses


def with_flips(x: Flipped, *, seen: bool = False) -> Grouped:
    """Return the pairs with their flips as pairs of their own, in the same groups or, if they are seen, in others."""
    turned = tuple(tuple(-entry for entry in row) for row in x.rows)
    masses = (*((_PARTS - x.flips) * mass for mass in x.masses), *(x.flips * mass for mass in x.masses))
    others = tuple(group + (len(x.groups) if seen else 0) for group in x.groups)
    return Grouped((*x.rows, *turned), masses, x.kind, (*x.groups, *others))


def wrong_shares(x: Lengths) -> tuple[Fraction, Fraction]:
    """Return the share of flips where the longer answer was chosen, and where the shorter."""
    c, e = Fraction(x.longer, x.parts), Fraction(x.flips, x.parts)
    return (1 - c) * e / (c * (1 - e) + (1 - c) * e), c * e / (c * e + (1 - c) * (1 - e))


def _found_reach(x: Pairs, groups: Sequence[int] | None) -> float:
    found = collapse_radius(x.features, x.kind, reference=x.reference, groups=groups, folds=0, seeds=())
    return reach(x.kind, found.radius)


def _pair_reach(x: Pairs) -> float:
    return float(balance_reach(x.rows, x.masses, x.kind))


def _are_independent(x: Grouped) -> bool:
    means = np.array([[float(entry) for entry in mean] for mean in group_means(x)[0]])
    return int(np.linalg.matrix_rank(means)) == len(means)


_THREE_MEANS = Grouped(((1, 0), (0, 1), (-1, -1)), (1, 1, 1), "tv", (0, 1, 2))
_OPPOSITE_MEANS = Grouped(((1, 0), (2, 0), (-1, 0)), (1, 1, 1), "tv", (0, 0, 1))


def _grouped() -> Instances[Grouped]:
    rows: Rows = ((1,), (-1,), (1,), (-1,))
    corners = tuple(
        Grouped(rows, masses, kind, groups)
        for kind in EXACT
        for masses, groups in (((3, 1, 1, 1), (0, 0, 1, 1)), ((3, 1, 1, 1), (0, 1, 2, 3)), ((8, 1, 1, 1), (0, 1, 0, 1)))
    )
    drawn = st.integers(1, 3).flatmap(lambda d: weighed(lattice(6, d)))
    return Instances(Grouped, corners, _with_groups(drawn, 4))


def _few_groups() -> Instances[Grouped]:
    corner = Grouped(((1, 0), (0, 1), (-2, 3)), (1, 1, 1), "tv", (0, 1, 1))
    drawn = st.integers(2, 4).flatmap(lambda d: weighed(lattice(6, d)))
    return Instances(Grouped, (corner, replace(corner, rows=((1, 0), (-1, 1), (0, -1)))), _with_groups(drawn, 2))


def _flipped() -> Instances[Flipped]:
    corners = tuple(
        Flipped(rows, (2, 1, 1), kind, (0, 1, 1), flips)
        for rows in (((1,), (-1,), (2,)), ((1, 2), (-1, 1), (0, -2)))
        for kind in EXACT
        for flips in (1, 4)
    )
    drawn = st.integers(1, 2).flatmap(lambda d: weighed(lattice(4, d)))
    draws = st.tuples(_with_groups(drawn, 3), st.integers(1, 7))
    return Instances(
        Flipped, corners, draws.map(lambda d: Flipped(d[0].rows, d[0].masses, d[0].kind, d[0].groups, d[1]))
    )


def _with_groups(drawn: st.SearchStrategy[tuple[Rows, Row]], most: int) -> st.SearchStrategy[Grouped]:
    def build(given: tuple[Rows, Row]) -> st.SearchStrategy[Grouped]:
        groups = st.tuples(*[st.integers(0, most - 1)] * len(given[0]))
        return st.builds(Grouped, st.just(given[0]), st.just(given[1]), st.sampled_from(EXACT), groups)

    return drawn.flatmap(build)
