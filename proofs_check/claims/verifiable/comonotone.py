"""Which prompt weights are a worst case of any set that treats prompts alike: those that fall with the pass rate."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from proofs_check.claim import Assumptions, Claim, Instances, Relation, mutant, shrunk, stated
from proofs_check.claims.verifiable.rates import (
    ADMITTED,
    Rates,
    Weighted,
    batches,
    dot,
    exact_hull_value,
    floats,
    hull_value,
    largest_swap,
    missed,
    rises,
    shares,
)
from proofs_check.exact.divergences import divergence_ball

_WEIGHTED: Assumptions[Weighted] = {
    **ADMITTED,
    "at most six prompts": lambda x: len(x.parts) <= 6,
    "weights of 0 to 64, not all 0": lambda x: 0 <= min(x.weights) <= max(x.weights) <= 64 and max(x.weights) > 0,
}


@stated
def antitone_is_worst_case() -> Claim[Weighted]:
    """Weights that fall with the pass rate are a worst case, of two sets at least.

    Problem: prompts with losses 1 - p and weights q that sum to 1, q_i >= q_j wherever p_i < p_j.
    Guarantee (exact): no q' in the hull of all permutations of q has a larger mean loss: a convex set that treats
        prompts alike. Nor has any in a divergence ball E phi(n q') <= r around equal weights, with phi convex, least at
        phi(1) = 0, and r = E phi(n q). Both sets depend on the batch.
    Source: theory.md section 3: the rearrangement inequality; for the ball, n q and the losses rise together, so
        some convex phi has the losses as its slopes at n q, and phi(n q') >= phi(n q) + l (n q' - n q).
    Example: p = 0, 1/2, 1 and q = (4, 2, 1)/7: the mean loss is 4/7 + 1/7 = 5/7; (2, 4, 1)/7 has 4/7.
    """
    claim = Claim[Weighted](
        label="antitone-is-worst-case",
        statement="weights that fall with p are a worst case over their permutations and over a divergence ball",
        reference="theory.md section 3",
        assumptions={**_WEIGHTED, "weights fall with the rate": lambda x: not rises(x.exact, x.weights)},
        instances=_falling(),
        lhs=lambda x: float(dot(shares(x.weights), _losses(x))),
        rhs=lambda x: hull_value(floats(shares(x.weights)), x.losses),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=_is_worst_case,
    )
    turned = mutant(claim, "weights that rise", lhs=lambda x: float(dot(shares(_turned(x)), _losses(x))))
    squares = mutant(claim, "the hull of sharper weights", rhs=lambda x: hull_value(floats(_squares(x)), x.losses))
    return claim.with_mutants(turned, squares, shrunk(claim))


@stated
def worst_case_is_antitone() -> Claim[Weighted]:
    """Weights that rise somewhere with the pass rate are a worst case of no set that treats prompts alike.

    Problem: prompts with losses 1 - p and any weights q that sum to 1; U any convex set that holds q and, with a q',
        its permutations, whether it depends on the batch or on nothing but n.
    Guarantee (tight: two prompts): the worst mean loss over U exceeds that of q by (q_j - q_i) (p_j - p_i) at least,
        for every pair. So q is a worst case only if q_i >= q_j wherever p_i < p_j.
    Source: theory.md section 3: swap the two weights (comonotonicity). The least such U is the hull of all
        permutations of q, so it is the only one to be looked at.
    Example: p = 1/2, 9/10 and q = (3, 5)/8 have the mean loss 1/4, and swapped 7/20: 1/4 * 2/5 = 1/10 more.
    """
    claim = Claim[Weighted](
        label="worst-case-is-antitone",
        statement="max over U of E l - E_q l >= (q_j - q_i)(p_j - p_i) for every convex U that treats prompts alike",
        reference="theory.md section 3",
        assumptions=_WEIGHTED,
        instances=_any(),
        lhs=lambda x: float(largest_swap(x.exact, shares(x.weights))),
        rhs=lambda x: missed(floats(shares(x.weights)), x.losses),
        scale=lambda x: 1.0,
        tight=True,
        verifies=_swaps_gain,
    )
    falling = mutant(
        claim,
        "falling weights gain too",
        lhs=lambda x: float(largest_swap([1 - p for p in x.exact], shares(x.weights))),
    )
    both = mutant(claim, "two pairs are swapped", lhs=lambda x: 2 * float(largest_swap(x.exact, shares(x.weights))))
    return claim.with_mutants(shrunk(claim), falling, both)


def _losses(x: Rates) -> list[Fraction]:
    return [1 - p for p in x.exact]


def _turned(x: Weighted) -> list[int]:
    return [max(x.weights) + 1 - weight for weight in x.weights]


def _squares(x: Weighted) -> list[Fraction]:
    return shares([Fraction(weight) ** 2 for weight in x.weights])


def _is_worst_case(x: Weighted) -> bool:
    """By all permutations, and by a divergence with the losses as its slopes."""
    q, losses = shares(x.weights), _losses(x)
    return exact_hull_value(q, losses) == dot(q, losses) and divergence_ball(q, losses) is not None


def _swaps_gain(x: Weighted) -> bool:
    q, losses = shares(x.weights), _losses(x)
    gained = exact_hull_value(q, losses) - dot(q, losses)
    has_ball = divergence_ball(q, losses) is not None
    return gained >= largest_swap(x.exact, q) and (gained == 0) == (not rises(x.exact, q)) == has_ball


def _falling() -> Instances[Weighted]:
    corners = (
        Weighted((0, 1, 2), 2, (4, 2, 1)),
        Weighted((1, 1, 3), 4, (1, 5, 0)),
        Weighted((0, 4, 8), 8, (3, 3, 3)),
        Weighted((8, 2, 5, 2), 8, (0, 9, 1, 9)),
    )

    def build(x: Rates) -> st.SearchStrategy[Weighted]:
        drawn = st.lists(st.integers(0, 32), min_size=len(x.parts) - 1, max_size=len(x.parts) - 1)
        return drawn.map(lambda weights: _assigned(x, [33, *weights]))

    return Instances(Weighted, corners, batches().flatmap(build))


def _assigned(x: Rates, weights: list[int]) -> Weighted:
    """Give the largest weight to the smallest rate, and so on."""
    order = sorted(range(len(x.parts)), key=lambda i: x.parts[i])
    given = dict(zip(order, sorted(weights, reverse=True), strict=True))
    return Weighted(x.parts, x.whole, tuple(given[i] for i in range(len(x.parts))))


def _any() -> Instances[Weighted]:
    corners = (Weighted((5, 9), 10, (3, 5)), Weighted((1, 3), 4, (3, 1)), Weighted((0, 1, 2, 4), 4, (1, 4, 2, 3)))

    def build(x: Rates) -> st.SearchStrategy[Weighted]:
        weights = st.tuples(*[st.integers(0, 32)] * len(x.parts)).filter(any)
        return weights.map(lambda drawn: Weighted(x.parts, x.whole, drawn))

    return Instances(Weighted, corners, batches(most=5).flatmap(build))
