"""Where total variation moves its mass on sampled pass rates, and how much of it lands where nothing is learnt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import log
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import AmbiguitySet, KLPenalty, TotalVariation, worst_case
from proofs_check.claim import Array, Claim, Curve, Instances, Relation, Verdict, mutant, stated
from proofs_check.claims.verifiable.rates import Row, dot, floats
from proofs_check.exact.certificates import exact_tv

if TYPE_CHECKING:
    from collections.abc import Callable

_PARTS = 32  # radii are multiples of 1/32


@dataclass(frozen=True)
class Step:
    """How many answers of G were right, prompt by prompt, and the radius in 32nds."""

    right: Row
    size: int
    parts: int

    @property
    def radius(self) -> Fraction:
        """Rho."""
        return Fraction(self.parts, _PARTS)

    @property
    def losses(self) -> list[Fraction]:
        """1 less the sampled rates."""
        return [1 - Fraction(right, self.size) for right in self.right]

    def share(self, *counts: int) -> Fraction:
        """The share of prompts with that many right answers."""
        return Fraction(sum(right in counts for right in self.right), len(self.right))


@dataclass(frozen=True)
class Classes:
    """Masses of groups that failed, that have half of their answers right, and that are solved; e^(1/(2 t)) of KL."""

    failed: int
    mixed: int
    solved: int
    base: int

    @property
    def masses(self) -> Row:
        """Of the three classes."""
        return self.failed, self.mixed, self.solved


@stated
def tv_drains_from_the_top() -> Claim[Step]:
    """Total variation pours its mass on the groups that failed and takes it from those that are solved.

    Problem: n prompts with G sampled answers, losses 1 less the share of right ones, the total-variation ball of radius
        rho around equal weights. Groups without signal, all wrong or all right, have no gradient. m_0 and m_1: their
        shares.
    Guarantee (exact): where some group failed, the mass on failed ones grows by min(rho, 1 - m_0), that on solved ones
        falls by min(rho, m_1). So mass without signal grows by min(rho, 1 - m_0) - min(rho, m_1): nothing is lost while
        solved groups last, all that moves where there are none. Where none failed and some are mixed, it falls by
        min(rho, m_1).
    Source: theory.md section 3: the worst case drains the smallest losses and fills the largest.
    Example: 8 failed, 8 mixed, 16 solved of 32: rho = .3 moves .3 from solved to failed ones, and mixed ones keep .25.
        With 16 mixed ones in place of the solved ones, mixed ones go from .75 to .45.
    """
    claim = Claim[Step](
        label="tv-drains-from-the-top",
        statement="TV(rho) adds min(rho, 1 - m_0) to failed groups, if any, takes min(rho, m_1) from solved ones",
        reference="theory.md section 3",
        assumptions={
            "some group is not solved": lambda x: min(x.right) < x.size,
            "radius in [0, 1]": lambda x: 0 <= x.parts <= _PARTS,
            "counts of right answers": lambda x: 0 <= min(x.right) <= max(x.right) <= x.size <= 16,
        },
        instances=_steps(),
        lhs=_moved,
        rhs=lambda x: floats(_closed_form(x)),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=_moves_exactly,
        curve=Curve("parts", tuple(Step((0, 0, 3, 5, 8, 8, 8, 8), 8, parts) for parts in range(_PARTS + 1))),
    )

    def wasted(name: str, lost: Callable[[Step], Fraction]) -> Claim[Step]:
        return mutant(claim, name, rhs=lambda x: floats([*_closed_form(x)[:2], lost(x)]))

    whole = wasted("all of rho is lost", lambda x: min(x.radius, 1 - x.share(0)) if 0 in x.right else Fraction(0))
    none = wasted("nothing is lost", lambda x: Fraction(0))
    even = mutant(
        claim,
        "taken from all in proportion",
        rhs=lambda x: floats([_closed_form(x)[0], -x.radius * x.share(x.size), _closed_form(x)[2]]),
    )
    return claim.with_mutants(whole, none, even)


@stated
def smooth_sets_waste_less() -> Claim[Classes]:
    """Smooth weights do not always waste less than those of total variation.

    Problem: groups that failed, half right ones, and solved ones; weights of a KL penalty of temperature t on losses
        1 - p, which lie at some total-variation distance from equal ones; the worst case of total variation at that
        distance.
    Guarantee (false): the KL penalty puts no more mass on groups without signal. It takes from every group that fails
        less, the mixed ones too, where total variation takes from solved ones first.
    Source: the look of the weights. See `tv-drains-from-the-top`.
    Example: equal masses, e^(1/(2t)) = 2: weights (4, 2, 1)/7, 5/7 without signal at distance 5/21. Total variation
        leaves the mixed ones their 1/3. 8 failed, 8 mixed, 16 solved at t = .3: mixed ones fall from .25 to .15.
    """
    claim = Claim[Classes](
        label="smooth-sets-waste-less",
        statement="a KL penalty puts no more mass on groups without signal than total variation at equal distance",
        reference="theory.md section 3, misread",
        assumptions={"some of each": lambda x: min(x.masses) > 0 and x.base > 1},
        instances=Instances(Classes, (Classes(1, 1, 1, 2), Classes(8, 8, 16, 5), Classes(1, 8, 1, 2))),
        lhs=lambda x: 1 - float(_floating(x, _priced(x))[1]),
        rhs=lambda x: 1 - float(_floating(x, TotalVariation(_distance(x)))[1]),
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=_wastes_more,
        by_hand=(
            "Equal masses, losses 1, 1/2, 0, KL weights 4/7, 2/7, 1/7: 5/7 without signal, 5/21 more on failed ones.\n"
            "Total variation at 5/21 takes that from the solved groups, which have 1/3: 2/3 without signal.\n"
            "5/7 > 2/3."
        ),
    )
    near = mutant(claim, "to a hundredth", lhs=lambda x: 0.99 - float(_floating(x, _priced(x))[1]))
    few = mutant(claim, "where few are solved", instances=Instances(Classes, (Classes(8, 8, 4, 2),)))
    return claim.with_mutants(near, few)


def _moved(x: Step) -> Array:
    """What failed groups gain, what solved ones gain, and what all without signal gain."""
    weights = np.asarray(worst_case(floats(x.losses), TotalVariation(float(x.radius))).weights)
    gained, right = weights - 1 / len(x.right), np.array(x.right)
    failed, solved = float(gained[right == 0].sum()), float(gained[right == x.size].sum())
    return np.array([failed, solved, failed + solved])


def _closed_form(x: Step) -> list[Fraction]:
    failed = min(x.radius, 1 - x.share(0)) if 0 in x.right else Fraction(0)
    solved = -min(x.radius, x.share(x.size))
    return [failed, solved, failed + solved]


def drained(x: Step) -> list[Fraction]:
    """Return the weights of total variation: mass goes from the smallest losses to the largest, evenly among these."""
    weights = [Fraction(1, len(x.right))] * len(x.right)
    left, order = x.radius, sorted(range(len(x.right)), key=lambda i: x.losses[i])
    worst = [i for i in order if x.losses[i] == x.losses[order[-1]]]
    for i in order:
        taken = Fraction(0) if i in worst else min(left, weights[i])
        weights[i], left = weights[i] - taken, left - taken
    given = (1 - sum(weights, Fraction(0))) / len(worst)
    return [weight + given * (i in worst) for i, weight in enumerate(weights)]


def _moves_exactly(x: Step) -> bool:
    """Drain by hand: those weights have the exact worst value, and no other masses of the classes have it."""
    weights = drained(x)
    optimal = dot(weights, x.losses) == exact_tv(x.losses, [1] * len(x.right), x.radius)
    gained = [
        sum((weights[i] for i, r in enumerate(x.right) if r in counts), Fraction(0)) - x.share(*counts)
        for counts in ((0,), (x.size,), (0, x.size))
    ]
    return optimal and gained == _closed_form(x)


def _floating(x: Classes, ambiguity: AmbiguitySet) -> Array:
    p = np.array(x.masses) / sum(x.masses)
    return np.asarray(worst_case(np.array([1.0, 0.5, 0.0]), ambiguity, reference=p).weights)


def _priced(x: Classes) -> AmbiguitySet:
    return KLPenalty(1 / (2 * log(x.base)))


def _distance(x: Classes) -> float:
    return float(_tv_worst(x)[0]) - x.failed / sum(x.masses)


def _kl_worst(x: Classes) -> list[Fraction]:
    """Weights of the classes with e^(l/t) = base^2, base, 1."""
    raw = [mass * Fraction(x.base) ** power for mass, power in zip(x.masses, (2, 1, 0), strict=True)]
    return [part / sum(raw) for part in raw]


def _tv_worst(x: Classes) -> list[Fraction]:
    """Weights of the classes in total variation, at the distance of those of KL."""
    p = [Fraction(mass, sum(x.masses)) for mass in x.masses]
    distance = sum((abs(q - mass) for q, mass in zip(_kl_worst(x), p, strict=True)), Fraction(0)) / 2
    solved = min(distance, p[2])
    return [p[0] + distance, p[1] - (distance - solved), p[2] - solved]


def _wastes_more(x: Classes) -> bool:
    """In rational numbers, the weights of total variation proved by their exact value."""
    q, losses = _tv_worst(x), [Fraction(1), Fraction(1, 2), Fraction(0)]
    distance = q[0] - Fraction(x.failed, sum(x.masses))
    return dot(q, losses) == exact_tv(losses, x.masses, distance) and _kl_worst(x)[1] < q[1]


def _steps() -> Instances[Step]:
    steps = (
        Step((0, 0, 3, 5, 8, 8, 8, 8), 8, 8),
        Step((0, 1, 2, 3), 4, 8),
        Step((1, 2, 4, 4), 4, 4),
        Step((0, 0, 4, 2), 4, 24),
        Step((0, 0), 4, 16),
    )
    corners = (*steps, *(replace(steps[0], parts=parts) for parts in (0, 20, 32)))

    def build(size: int) -> st.SearchStrategy[Step]:
        right = st.lists(st.integers(0, size), min_size=1, max_size=8).map(lambda drawn: (*drawn, 1))
        return st.tuples(right, st.integers(0, _PARTS)).map(lambda d: Step(d[0], size, d[1]))

    return Instances(Step, corners, st.integers(2, 8).flatmap(build))
