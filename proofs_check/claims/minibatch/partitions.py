"""Claims: what cutting a batch into parts does to the worst case, and what groups do (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, ChiSquare, CVaR, Grouped, TotalVariation, worst_case
from proofs_check.claim import Array, Claim, Instances, Verdict, mutant, shrunk, stated, swapped
from proofs_check.exact.certificates import exact_cvar, exact_tv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dro_core import AmbiguitySet

_PARTS = 16  # sizes are multiples of 1/16
Row = tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """Losses of a batch, the number of the micro-batch that each falls into, a size in 16ths."""

    losses: Row
    part: Row
    parts: int

    @property
    def pieces(self) -> list[list[int]]:
        """The places of each micro-batch."""
        return [[i for i, k in enumerate(self.part) if k == number] for number in sorted(set(self.part))]


@dataclass(frozen=True)
class GroupedCut(Cut):
    """The same with the group of each loss; the adversary weighs group means."""

    groups: Row


@dataclass(frozen=True)
class Coins:
    """n independent draws of a group, with masses, and of a loss of 1 with a chance in 16ths, else 0; a size."""

    masses: Row
    chances: Row
    n: int
    parts: int


@stated
def microbatch_understates() -> Claim[Cut]:
    """Worst cases of micro-batches are too small, however the batch is cut.

    Problem: n losses, cut into parts of any sizes n_1, n_2, ...; the worst case of each part by itself.
    Guarantee (tight: parts with the same losses): sum_k n_k/n L(part k) <= L(batch), for total variation, CVaR,
        chi-square and KL.
    Source: theory.md section 3: the worst case is concave in the distribution, of which the batch is the mixture.
    Example: losses 0 and 1, each by itself: 1/2 (0 + 1) = 1/2; together CVaR(1/2) is 1.
    """

    def apart(x: Cut, pieces: Sequence[list[int]]) -> Array:
        losses, n = np.array(x.losses, float), len(x.losses)
        rows = [[len(piece) / n * _value(losses[piece], ball) for piece in pieces] for ball in _sets(x)]
        return np.sum(rows, axis=1) - min(x.losses)

    def whole(x: Cut) -> Array:
        return np.array([_value(np.array(x.losses, float), ball) for ball in _sets(x)]) - min(x.losses)

    claim = Claim[Cut](
        label="microbatch-understates",
        statement="sum_k n_k/n L(part k) <= L(batch) for every cut of a batch (TV, CVaR, chi-square, KL)",
        reference="theory.md section 3",
        assumptions={
            "a part for each loss": lambda x: len(x.part) == len(x.losses),
            "0 < size <= 1": lambda x: 1 <= x.parts <= _PARTS,
        },
        instances=_cuts(),
        lhs=lambda x: apart(x, x.pieces),
        rhs=whole,
        scale=lambda x: float(max(x.losses) - min(x.losses)),
        tight=True,
        effort=0.5,
    )
    unweighted = mutant(claim, "parts counted alike", lhs=lambda x: _alike(x) - min(x.losses))
    equal = mutant(claim, "no loss at all", lhs=whole, rhs=lambda x: apart(x, x.pieces))
    return claim.with_mutants(shrunk(claim), unweighted, equal)


@stated
def microbatch_understates_exactly() -> Claim[Cut]:
    """The same for total variation and CVaR, in rational numbers.

    Problem, guarantee: those of `microbatch-understates`, for the two sets whose worst case is a rational number.
    Source: theory.md section 3.
    Example: losses 0, 0, 1, 1 cut into halves (0, 1) and (0, 1): both sides are the same.
    """
    claim = microbatch_understates()

    def verified(x: Cut) -> bool:
        losses, n, size = [Fraction(loss) for loss in x.losses], len(x.losses), Fraction(x.parts, _PARTS)
        for value in (exact_tv, exact_cvar):
            parts = ((piece, [losses[i] for i in piece]) for piece in x.pieces)
            apart = sum((len(piece) * value(own, [1] * len(piece), size) for piece, own in parts), Fraction(0))
            if apart > n * value(losses, [1] * n, size):
                return False
        return True

    def halves(x: Cut, *, cut: bool) -> Array:
        losses = np.array(x.losses, float)
        pieces = x.pieces if cut else [list(range(len(losses)))]
        rows = [[len(p) / len(losses) * _value(losses[p], ball) for p in pieces] for ball in _sets(x)[:2]]
        return np.sum(rows, axis=1) - min(x.losses)

    exact = Claim[Cut](
        label="microbatch-understates-exactly",
        statement="sum_k n_k/n L(part k) <= L(batch) for every cut of a batch (TV, CVaR)",
        reference="theory.md section 3",
        assumptions=claim.assumptions,
        instances=claim.instances,
        lhs=lambda x: halves(x, cut=True),
        rhs=lambda x: halves(x, cut=False),
        scale=claim.scale,
        tight=True,
        verifies=verified,
        effort=0.5,
    )
    return exact.with_mutants(shrunk(exact), swapped(exact))


@stated
def microbatch_groups() -> Claim[GroupedCut]:
    """Over groups, worst cases of micro-batches are not always too small.

    Problem: as `microbatch-understates`, but the adversary reweights group means, the reference being how often each
        group occurs in the batch, or in the part.
    Guarantee (false): sum_k n_k/n L(part k) <= L(batch). A group mean is a quotient, so the worst case is not
        concave in the distribution: a group that is rare in one part lets one loss stand for all of it there.
    Source: the reading of `microbatch-understates` for groups; refuted here.
    Example: see by hand: micro-batches of .5 and 0 from a batch of 3/16.
    """
    claim = Claim[GroupedCut](
        label="microbatch-understates-groups",
        statement="sum_k n_k/n L(part k) <= L(batch) for every cut, for TV over group means",
        reference="theory.md section 3, misread",
        assumptions={
            "a part and a group for each loss": lambda x: len(x.part) == len(x.losses) == len(x.groups),
            "0 < size <= 1": lambda x: 1 <= x.parts <= _PARTS,
        },
        instances=Instances(GroupedCut, (_RARE_GROUP,)),
        lhs=lambda x: sum(len(piece) / len(x.losses) * _grouped(x, piece) for piece in x.pieces),
        rhs=lambda x: _grouped(x, list(range(len(x.losses)))),
        scale=lambda x: float(max(x.losses) - min(x.losses)),
        expected=Verdict.REFUTED,
        violates=_cut_violates,
        by_hand=(
            "TV(1/4) over two groups. Batch A 1 0 0 0, B 0 0 0 0: means (1/4, 0), shares 1/2: 3/4 * 1/4 = 3/16.\n"
            "One part holds A 1, B 0 0 0: means (1, 0), shares (1/4, 3/4): worst case (1/4 + 1/4) * 1 = 1/2.\n"
            "The other holds A 0 0 0, B 0: worst case 0. Their mean is 1/4 > 3/16."
        ),
    )
    worse = mutant(claim, "up to 1/32 more", rhs=lambda x: _grouped(x, list(range(len(x.losses)))) + 1 / 32)
    return claim.with_mutants(worse)


@stated
def grouped_underestimates() -> Claim[Coins]:
    """Minibatches do not always understate a worst case over groups.

    Problem: n independent draws of (group, loss); the worst case over a total-variation ball around the shares of the
        groups that were drawn, on their group means; Lbar_n its mean, L the value of the population.
    Guarantee (false): Lbar_n <= L, which holds for reweighted losses (`plugin-underestimates`). Means of few draws
        differ by chance, and the adversary takes the larger.
    Source: the reading of `plugin-underestimates` for groups; refuted here.
    Example: see by hand: fair coins in two groups, 9/16 > 1/2.
    """
    claim = Claim[Coins](
        label="grouped-underestimates",
        statement="Lbar_n <= L for total variation over group means",
        reference="L20, misread for groups",
        assumptions={
            "a chance for each group, masses positive": lambda x: len(x.masses) == len(x.chances) and min(x.masses) > 0,
            "chances and size in [0, 1]": lambda x: 0 <= min(x.chances) <= max(x.chances) <= _PARTS >= x.parts > 0,
        },
        instances=Instances(Coins, (Coins((1, 1), (8, 8), 2, 4), Coins((1, 1), (8, 8), 4, 4))),
        lhs=lambda x: float(_mean_group_value(x)),
        rhs=_group_value,
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=_coins_violate,
        by_hand=(
            "Fair coins in two equal groups, TV(1/4): both group means are 1/2, so L = 1/2.\n"
            "n = 2: in one group (chance 1/2) the value is the mean of two coins, in the mean 1/2. In two it is\n"
            "0, 1 or, if they differ (chance 1/2), 1/2 + 1/4: 1/4 + 3/8 = 5/8. Lbar_2 = 1/4 + 5/16 = 9/16 > 1/2."
        ),
    )
    worse = mutant(claim, "up to 1/32 more", rhs=lambda x: _group_value(x) + 1 / 32)
    return claim.with_mutants(worse)


_RARE_GROUP = GroupedCut((1, 0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 1, 1, 1, 1), 4, (0, 1, 1, 1, 0, 0, 0, 1))


def _value(losses: Array, ball: AmbiguitySet) -> float:
    return float(worst_case(losses, ball).value)


def _sets(x: Cut) -> tuple[AmbiguitySet, ...]:
    size = x.parts / _PARTS
    return TotalVariation(size), CVaR(size), ChiSquare(size), KL(size)


def _alike(x: Cut) -> Array:
    losses = np.array(x.losses, float)
    return np.mean([[_value(losses[piece], ball) for ball in _sets(x)] for piece in x.pieces], axis=0)


def _grouped(x: GroupedCut, piece: list[int]) -> float:
    """The worst case over group means of some of the losses, by ``dro_core``."""
    groups = tuple(x.groups[i] for i in piece)
    names = {group: k for k, group in enumerate(sorted(set(groups)))}
    ball = Grouped(TotalVariation(x.parts / _PARTS), tuple(names[group] for group in groups))
    return _value(np.array([x.losses[i] for i in piece], float), ball)


def exact_grouped(losses: Sequence[int], groups: Sequence[int], radius: Fraction) -> Fraction:
    """Return the worst case of total variation over the group means of equally likely losses.

    Example:
        >>> exact_grouped([1, 0, 0, 0], [0, 1, 1, 1], Fraction(1, 4))
        Fraction(1, 2)
    """
    names = sorted(set(groups))
    rows = [[loss for loss, group in zip(losses, groups, strict=True) if group == name] for name in names]
    return exact_tv([Fraction(sum(row), len(row)) for row in rows], [len(row) for row in rows], radius)


def _cut_violates(x: GroupedCut) -> bool:
    radius, n = Fraction(x.parts, _PARTS), len(x.losses)

    def value(piece: list[int]) -> Fraction:
        return exact_grouped([x.losses[i] for i in piece], [x.groups[i] for i in piece], radius)

    apart = sum((len(piece) * value(piece) for piece in x.pieces), Fraction(0)) / n
    return apart > value(list(range(n)))


def _group_value(x: Coins) -> float:
    masses = np.array(x.masses, float)
    means = np.array(x.chances) / _PARTS
    return float(worst_case(means, TotalVariation(x.parts / _PARTS), reference=masses / masses.sum()).value)


def _mean_group_value(x: Coins) -> Fraction:
    """Lbar_n, over all sequences of draws."""
    radius, total = Fraction(x.parts, _PARTS), Fraction(0)
    for drawn in product(product(range(len(x.masses)), (0, 1)), repeat=x.n):
        chance = Fraction(1)
        for group, loss in drawn:
            right = Fraction(x.chances[group], _PARTS)
            chance *= Fraction(x.masses[group], sum(x.masses)) * (right if loss else 1 - right)
        total += chance * exact_grouped([loss for _, loss in drawn], [group for group, _ in drawn], radius)
    return total


def _coins_violate(x: Coins) -> bool:
    population = exact_tv([Fraction(c, _PARTS) for c in x.chances], x.masses, Fraction(x.parts, _PARTS))
    return _mean_group_value(x) > population


def _cuts() -> Instances[Cut]:
    corners = (
        Cut((0, 1), (0, 1), 8),
        Cut((0, 0, 1, 1), (0, 1, 0, 1), 8),
        Cut((5, 0, 0, 0, 0), (0, 1, 1, 1, 1), 4),
        Cut((0, 1, 2, 3, 4, 5, 6, 7), (0, 0, 1, 1, 2, 2, 3, 3), 2),
    )
    rows = st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 2)), min_size=2, max_size=9)
    drawn = st.tuples(rows, st.integers(1, _PARTS)).map(
        lambda d: Cut(tuple(loss for loss, _ in d[0]), tuple(part for _, part in d[0]), d[1])
    )
    return Instances(Cut, corners, drawn)
