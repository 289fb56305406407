"""What prompts compare by: a reward known up to a function of the prompt, and regrets and pass rates, which are not."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from operator import mul
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import KLPenalty, TotalVariation, worst_case
from proofs_check.claim import Array, Assumptions, Claim, Instances, Relation, Verdict, mutant, stated
from proofs_check.claims.verifiable.rates import Row, dot, floats
from proofs_check.exact.certificates import exact_tv

if TYPE_CHECKING:
    from collections.abc import Callable

_PARTS = 8  # radii, rewards and offsets are multiples of 1/8


@dataclass(frozen=True)
class Rewarded:
    """Prompts with rewards of their answers, how likely each answer is, what is added to all rewards of a prompt.

    Rewards, what is added and the radius in 8ths.
    """

    rewards: tuple[Row, ...]
    likely: tuple[Row, ...]
    offsets: Row
    parts: int

    def values(self, *, moved: bool = False) -> list[Fraction]:
        """The mean reward of each prompt."""
        rows = zip(self.rewards, self.likely, self.offsets, strict=True)
        return [Fraction(sum(map(mul, r, q)), _PARTS * sum(q)) + Fraction(moved * c, _PARTS) for r, q, c in rows]

    def regrets(self, *, moved: bool = False) -> list[Fraction]:
        """What the best answer to each prompt has more than the mean."""
        best = [Fraction(max(r) + moved * c, _PARTS) for r, c in zip(self.rewards, self.offsets, strict=True)]
        return [top - value for top, value in zip(best, self.values(moved=moved), strict=True)]


_ADMITTED: Assumptions[Rewarded] = {
    "rewards and offsets in [-8, 8]": lambda x: max(map(abs, (*sum(x.rewards, ()), *x.offsets))) <= 64,
    "0 <= radius <= 1": lambda x: 0 <= x.parts <= _PARTS,
    "every answer has some mass": lambda x: min(map(min, x.likely)) > 0,
}


@stated
def easy_prompts_compare() -> Claim[Rewarded]:
    """Rewards that were learnt from preferences do not say which prompts are hard.

    Problem: rewards r(x, y) and r(x, y) + c(x) give every pair of answers to a prompt the same margin, so Bradley-Terry
        data know them alike, and the policy that is best for one is best for the other. V_x = mean reward; an adversary
        over prompts with losses -V, in a total-variation ball.
    Guarantee (false): its weights do not depend on c. Whatever c adds to a prompt makes it easier.
    Source: the use of a reward model's means to find hard prompts. Rewards 0 and 1 do not have this freedom: with c
        added they are others. Nor have regrets: `regrets-compare`.
    Example: V = 0, 1: at rho = 1/4 the weights are 3/4, 1/4. With c = 2, 0 they are 1/4, 3/4.
    """
    claim = Claim[Rewarded](
        label="easy-prompts-compare",
        statement="worst-case weights over prompts do not change if a function of the prompt is added to the reward",
        reference="theory.md section 3, misread",
        assumptions=_ADMITTED,
        instances=Instances(Rewarded, (_TWO,)),
        lhs=lambda x: _weights(x.values(moved=True), x),
        rhs=lambda x: _weights(x.values(), x),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        expected=Verdict.REFUTED,
        violates=_moves_the_adversary,
        by_hand=(
            "Two prompts, one answer each, rewards 0 and 1: losses 0 and -1, and rho = 1/4 moves 1/4 to the first.\n"
            "Add 2 to the reward of the first: losses -2 and -1, and the same 1/4 goes to the second.\n"
            "(3/4, 1/4) has the mean loss -7/4 now, (1/4, 3/4) has -5/4."
        ),
    )
    priced = mutant(
        claim, "of a KL penalty", lhs=lambda x: _tilted(x.values(moved=True)), rhs=lambda x: _tilted(x.values())
    )
    hardest = mutant(
        claim,
        "nor does the hardest prompt",
        lhs=lambda x: float(np.argmin(floats(x.values(moved=True)))),
        rhs=lambda x: float(np.argmin(floats(x.values()))),
    )
    return claim.with_mutants(priced, hardest)


@stated
def regrets_compare() -> Claim[Rewarded]:
    """Regrets compare across prompts, whatever is added to the reward of a prompt.

    Problem: as in `easy-prompts-compare`, with the losses max_y r(x, y) - V_x.
    Guarantee (exact): losses, worst-case value (total variation) and weights (KL penalty) do not depend on c.
    Source: c cancels. Regrets need the best answer's reward; pass rates have it, 1.
    Example: rewards (0, 1) and (4, 4), equally likely: regrets 1/2 and 0, whatever c; by the values alone the first
        prompt is the harder one, and with c = 5, 0 the easier.
    """
    claim = Claim[Rewarded](
        label="regrets-compare",
        statement="worst cases over prompts of max_y r(x, y) - V_x do not change if a function of x is added to r",
        reference="theory.md section 3",
        assumptions=_ADMITTED,
        instances=_rewarded(),
        lhs=lambda x: _seen(x.regrets(moved=True), x),
        rhs=lambda x: _seen(x.regrets(), x),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=_regrets_stay,
    )

    def of(name: str, losses: Callable[[Rewarded, int], list[Fraction]]) -> Claim[Rewarded]:
        return mutant(claim, name, lhs=lambda x: _seen(losses(x, 1), x), rhs=lambda x: _seen(losses(x, 0), x))

    return claim.with_mutants(
        of("values", lambda x, moved: [-value for value in x.values(moved=bool(moved))]),
        of("against the best answer of all", _against_best_of_all),
    )


def _weights(values: list[Fraction], x: Rewarded) -> Array:
    return np.asarray(worst_case(-floats(values), TotalVariation(x.parts / _PARTS)).weights)


def old_weights(x: Rewarded) -> list[float]:
    """Return the worst-case weights before anything is added to the rewards, as dro_core finds them."""
    return _weights(x.values(), x).tolist()


def _tilted(losses: list[Fraction]) -> Array:
    return np.asarray(worst_case(floats(losses), KLPenalty(1.0)).weights)


def _seen(losses: list[Fraction], x: Rewarded) -> Array:
    """The losses, their worst value in total variation, and the weights of a KL penalty."""
    given = floats(losses)
    value = float(worst_case(given, TotalVariation(x.parts / _PARTS)).value)
    return np.concatenate([given, [value], _tilted(losses)])


def _against_best_of_all(x: Rewarded, moved: int) -> list[Fraction]:
    rows = zip(x.rewards, x.offsets, strict=True)
    best = max(Fraction(max(row) + moved * offset, _PARTS) for row, offset in rows)
    return [best - value for value in x.values(moved=bool(moved))]


def _moves_the_adversary(x: Rewarded) -> bool:
    """Whether the exact worst value under the new losses is larger than their mean under the old worst weights."""
    losses, radius = [-value for value in x.values(moved=True)], Fraction(x.parts, _PARTS)
    old = [Fraction(weight) for weight in old_weights(x)]
    return exact_tv(losses, [1] * len(losses), radius) > dot(old, losses)


def _regrets_stay(x: Rewarded) -> bool:
    before, after = x.regrets(), x.regrets(moved=True)
    one, other = (exact_tv(losses, [1] * len(losses), Fraction(x.parts, _PARTS)) for losses in (before, after))
    return before == after and min(after) >= 0 and one == other


_TWO = Rewarded(((0,), (8,)), ((1,), (1,)), (16, 0), 2)


def _rewarded() -> Instances[Rewarded]:
    corners = (
        Rewarded(((0, 8), (32, 32)), ((1, 1), (1, 1)), (40, 0), 2),
        Rewarded(((0, 8), (-8, 3)), ((1, 2), (5, 1)), (-7, 9), 4),
        Rewarded(((1, 2, 3), (4, 0, 8), (8, 8, 0)), ((1, 1, 1), (2, 1, 1), (1, 1, 6)), (0, 3, -3), 0),
    )

    def build(n: int, answers: int) -> st.SearchStrategy[Rewarded]:
        def table(low: int, high: int) -> st.SearchStrategy[tuple[Row, ...]]:
            return st.tuples(*[st.tuples(*[st.integers(low, high)] * answers)] * n)

        offsets = st.tuples(*[st.integers(-16, 16)] * n)
        return st.builds(Rewarded, table(-16, 16), table(1, 6), offsets, st.integers(0, _PARTS))

    sizes = st.tuples(st.integers(2, 4), st.integers(1, 3))
    return Instances(Rewarded, corners, sizes.flatmap(lambda size: build(*size)))
