"""Published prompt weights of which some batch shows that they are no worst case over prompts."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np

from proofs_check.claim import Array, Claim, Instances, Verdict, mutant, stated
from proofs_check.claims.verifiable.rates import Rates, Row, hull_value
from proofs_check.exact.enclosures import exp_bounds, root_bounds

Bounds = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Published(Rates):
    """A batch, a published rule for its weights, and how many groups had each of its rates, where the rule asks."""

    rule: str
    counts: Row = ()


@stated
def published_weights_are_robust() -> Claim[Published]:
    """What prefers hard prompts by its name, or mostly, is not a worst case over prompts.

    Problem: weights q in proportion to a published function of the rates; losses 1 - p; U the hull of all permutations
        of q, the least convex set with q that treats prompts alike. The rules, of many answers: GRPO's standard
        deviation 1/sqrt(p (1-p)); the difficulty filter p (1-p); DGPO (2601.20614, code) e^(-p/2)/(2 p (1-p)), its
        division by the mean deviation times its weight at temperature 2; CurveRL (2605.24331, code) f/F; GDRO
        (2601.19280, code with its normalisation) e^s over bins of rates, s the mean loss divided by the share of the
        bin. Our reading of the last: 1 - p for its surrogate loss, one step, step size 1, no exploration.
    Guarantee (false): no permutation of q has a larger mean loss. Each rule has one in the batch that is given, where
        a prompt that is solved more often weighs more. So "the hard first" is not what these do for every batch, and
        what is known of worst cases, ambiguity sets and their certificates does not carry over.
    Source: the names of the methods, read as robustness. See `worst-case-is-antitone`.
    Example: DGPO weighs p = 7/8 with 2.95 and p = 1/2 with 1.56.
    """
    claim = Claim[Published](
        label="published-weights-are-robust",
        statement="weights of GRPO's std, difficulty filters, DGPO, CurveRL, GDRO by bin share: worst cases of a set",
        reference="their names, read as robustness",
        assumptions={"rates between 0 and 1": lambda x: 0 < min(x.parts) <= max(x.parts) < x.whole},
        instances=Instances(Published, WITNESSES),
        lhs=lambda x: hull_value(_shares(x), x.losses),
        rhs=lambda x: float(_shares(x) @ x.losses),
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=weighs_easy_more,
        by_hand=(
            "GRPO's standard deviation, p = 1/2 and 9/10: weights 2 and 10/3, q = (3/8, 5/8), losses 1/2 and 1/10.\n"
            "The mean loss is 3/16 + 1/16 = 1/4; with the two weights swapped it is 5/16 + 3/80 = 7/20.\n"
            "A convex set that holds q and treats prompts alike holds the swapped weights."
        ),
    )
    near = mutant(claim, "to a hundredth", lhs=lambda x: hull_value(_shares(x), x.losses) - 0.01)
    swap = mutant(claim, "once the two extremes are swapped back", rhs=lambda x: float(_reordered(x) @ x.losses))
    return claim.with_mutants(near, swap)


WITNESSES = (
    Published((5, 9), 10, "grpo_std"),
    Published((1, 5), 10, "difficulty_filter"),
    Published((4, 7), 8, "dgpo"),
    Published((2, 4, 6), 8, "curverl", (1, 1, 4)),
    Published((1, 5), 10, "gdro", (3, 1)),
)


def weighs_easy_more(x: Published) -> bool:
    """Whether a prompt with a larger rate certainly weighs more than another, in outward-rounded arithmetic."""
    given = [(p, *bounds) for p, bounds in zip(x.exact, weight_bounds(x), strict=True)]
    return any(
        high < other if p < r else other_high < low
        for (p, low, high), (r, other, other_high) in combinations(given, 2)
        if p != r
    )


def weight_bounds(x: Published) -> list[Bounds]:
    """Return rational numbers below and above the weight of each prompt."""
    rates = x.exact
    match x.rule:
        case "grpo_std":
            return [root_bounds(1 / (p * (1 - p))) for p in rates]
        case "difficulty_filter":
            return [(p * (1 - p), p * (1 - p)) for p in rates]
        case "dgpo":
            return [_scaled(exp_bounds(-p / 2), 1 / (2 * p * (1 - p))) for p in rates]
        case "curverl":
            up_to = [sum(count for r, count in zip(rates, x.counts, strict=True) if r <= p) for p in rates]
            shares = [Fraction(count, whole) for count, whole in zip(x.counts, up_to, strict=True)]
            return list(zip(shares, shares, strict=True))
        case _:
            whole = sum(x.counts)
            return [exp_bounds((1 - p) * Fraction(whole, count)) for p, count in zip(rates, x.counts, strict=True)]


def _scaled(bounds: Bounds, factor: Fraction) -> Bounds:
    return factor * bounds[0], factor * bounds[1]


def _shares(x: Published) -> Array:
    raw = np.array([float(low) for low, _ in weight_bounds(x)])
    return raw / raw.sum()


def _reordered(x: Published) -> Array:
    """The weights with those of the hardest and the easiest prompt swapped."""
    weights, ends = _shares(x).copy(), [int(np.argmin(x.parts)), int(np.argmax(x.parts))]
    weights[ends] = weights[ends[::-1]]
    return weights
