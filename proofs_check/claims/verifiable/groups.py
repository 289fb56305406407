"""What the advantages of G answers weigh a prompt with, in expectation: every published one, exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from proofs_check.claim import Assumptions, Claim, Curve, Instances, Relation, Verdict, mutant, shrunk, stated, swapped
from proofs_check.exact.groups import Root, as_float, expected_weight, mixed_mean

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("rloo", "mean", "grpo", "dgpo", "maxrl", "maxrl_plain", "rs", "pass_at_k")
_ONE = Fraction(1)


@dataclass(frozen=True)
class Group:
    """G answers to a prompt of pass rate p, in parts of a whole, and an objective.

    ``knob`` is e^beta - 1 for "rs", k for "pass_at_k", and means nothing else.
    """

    kind: str
    knob: int
    size: int
    part: int
    whole: int

    @property
    def rate(self) -> Fraction:
        """The pass rate p."""
        return Fraction(self.part, self.whole)


_ADMITTED: Assumptions[Group] = {
    "2 to 10 answers": lambda x: 2 <= x.size <= 10,
    "0 < p < 1": lambda x: 0 < x.part < x.whole <= 64,
    "k at most G": lambda x: 1 <= x.knob <= (x.size if x.kind == "pass_at_k" else 64),
}


@stated
def group_weights() -> Claim[Group]:
    """The prompt weight of every published advantage, whether it was meant or not.

    Problem: G answers with rewards r in {0, 1}, m = mean r, and 1/G sum_j A_j grad log pi(y_j), whose mean is w grad p.
    Guarantee (exact): A = f(m) (r - m), 0 where all rewards are equal, has w = (G-1)/G E f((1 + B)/G), B binomial with
        G - 2 draws of chance p: f(0) and f(1) do not count. RLOO: f = G/(G-1), w = 1, no other f is unbiased for the
        pass rate. GRPO without a standard deviation (Dr. GRPO): f = 1, w = (G-1)/G. With it (G - 1 in the denominator)
        f(m) = 1/sqrt(G/(G-1) m (1-m)): constant for G = 2 and 3, for more least at p = 1/2, and (G-1)/sqrt(G) at p = 0
        and 1. DGPO's mean deviation: f = 1/(2 m (1-m)). MaxRL: f = 1/m, w = (1 - (1-p)^(G-1))/p. RS-GRPO (times beta):
        f = c/(1 + c m), c = e^beta - 1. Others: MaxRL without its baseline, A = r/m, has w = (1 - (1-p)^G)/p; the
        unbiased gradient of pass@k has w = k (1-p)^(k-1).
    Source: E (r_j - p) h = p (1-p) E (h | r_j = 1) - p (1-p) E (h | r_j = 0); G answers of which one is right and one
        wrong leave G - 2. [2402.03300, 2503.20783, 2601.20614, 2602.02710, 2509.24261, 2505.15201]
    Example: G = 2, f = 1: rewards (0, 1) and (1, 0), chance 2 p (1-p), have A = -1/2 and 1/2, and the mean of
        A_j (r_j - p)/(p (1-p)) is 1/(4 p (1-p)): w = 1/2.
    """
    claim = Claim[Group](
        label="group-weights",
        statement="A = f(m)(r - m) weighs prompts (G-1)/G E f((1+B)/G), B ~ Bin(G-2, p); MaxRL (1-(1-p)^G)/p; pass@k",
        reference="theory.md section 3",
        assumptions=_ADMITTED,
        instances=_groups(KINDS),
        lhs=lambda x: as_float(enumerated(x)),
        rhs=lambda x: as_float(_formula(x)),
        scale=lambda x: max(1.0, as_float(_formula(x))),
        relation=Relation.EQUAL,
        verifies=lambda x: enumerated(x) == _formula(x),
        effort=0.6,
    )

    def only(kind: str, name: str, weight: Callable[[Group], float]) -> Claim[Group]:
        return mutant(claim, name, rhs=lambda x: weight(x) if x.kind == kind else as_float(_formula(x)))

    return claim.with_mutants(
        only("mean", "the mean is unbiased", lambda x: 1.0),
        only("grpo", "1/sqrt(p (1-p)) at every G", lambda x: float(x.rate * (1 - x.rate)) ** -0.5),
        only("dgpo", "1/(2 p (1-p)) at every G", lambda x: float(1 / (2 * x.rate * (1 - x.rate)))),
        only("maxrl", "the baseline costs nothing", lambda x: float((1 - (1 - x.rate) ** x.size) / x.rate)),
        only("rs", "c/(1 + c p) at every G", lambda x: float(x.knob / (1 + x.knob * x.rate))),
        only("pass_at_k", "k (1-p)^k", lambda x: float(x.knob * (1 - x.rate) ** x.knob)),
    )


@stated
def group_weights_underestimate() -> Claim[Group]:
    """From few answers, maximum likelihood and risk seeking weigh every prompt too little, the less the more answers.

    Problem: w_G, the weights of `group-weights` for G answers, and w, their limit: 1/p (MaxRL, with and without its
        baseline), c/(1 + c p) (RS-GRPO).
    Guarantee (tight: MaxRL, p near 1): w_G <= w_{G+1} <= w. Not by one factor: what is lost is most where p is small.
    Source: here. MaxRL: w - w_G = (1-p)^G/p. RS-GRPO has no proof here; every instance is calculated.
    Example: p = 1/2, c = 1: w = 2/3; G = 2 has 1/3 and G = 3 has 2/3 (1/2 * 3/4 + 1/2 * 3/5) = 9/20.
    """
    claim = Claim[Group](
        label="group-weights-underestimate",
        statement="w_G <= w_{G+1} <= w for MaxRL, w = 1/p, and RS-GRPO, w = c/(1 + c p)",
        reference="theory.md section 3",
        assumptions={**_ADMITTED, "at most 9 answers": lambda x: x.size <= 9},
        instances=_groups(("maxrl", "maxrl_plain", "rs")),
        lhs=lambda x: (as_float(enumerated(x)), as_float(_formula(replace(x, size=x.size + 1)))),
        rhs=lambda x: (as_float(_formula(replace(x, size=x.size + 1))), float(_exact_limit(x))),
        scale=lambda x: float(_exact_limit(x)),
        tight=True,
        verifies=lambda x: _exact(x, x.size) <= _exact(x, x.size + 1) <= _exact_limit(x),
        effort=0.6,
        curve=Curve("size", tuple(Group("maxrl_plain", 1, size, 1, 20) for size in range(2, 11))),
    )

    def factor(x: Group) -> float:
        return (x.size - 1) / x.size * float(_exact_limit(x))

    common = mutant(
        claim,
        "by (G-1)/G and no more",
        lhs=lambda x: (factor(x), 0.0),
        rhs=lambda x: (as_float(enumerated(x)), 1.0),
    )
    return claim.with_mutants(shrunk(claim), swapped(claim), common)


@stated
def maxrl_groups() -> Claim[Group]:
    """MaxRL does not weigh prompts with 1/p.

    Problem: A = r/m of G answers, 0 where all failed, as in `group-weights`.
    Guarantee (false): w = 1/p. It is (1 - (1-p)^G)/p, at most G. No other advantage of G answers has w = 1/p: what any
        of them weighs in expectation is a polynomial in p.
    Source: the limit of `maxrl-limit`, taken for the estimator.
    Example: G = 8, p = 1/20: 6.73, not 20.
    """
    claim = Claim[Group](
        label="maxrl-groups",
        statement="w = 1/p for MaxRL from G answers",
        reference="2602.02710, misread",
        assumptions=_ADMITTED,
        instances=Instances(Group, (Group("maxrl_plain", 1, 8, 1, 20), Group("maxrl", 1, 2, 1, 2))),
        lhs=lambda x: float(1 / x.rate),
        rhs=lambda x: as_float(enumerated(x)),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        expected=Verdict.REFUTED,
        violates=lambda x: enumerated(x) != {_ONE: 1 / x.rate},
        curve=Curve("size", tuple(Group("maxrl_plain", 1, size, 1, 20) for size in range(2, 11))),
        by_hand=(
            "G = 2 and p = 1/4. A right answer has A = r/m = 1 if the other is right too, 2 if it is wrong.\n"
            "Wrong answers have A = 0, so w is the mean of A over right ones: 1/4 * 1 + 3/4 * 2 = 7/4.\n"
            "That is (1 - (3/4)^2)/(1/4), and not 1/p = 4."
        ),
    )
    return claim.with_mutants(
        mutant(claim, "with one answer more", rhs=lambda x: float((1 - (1 - x.rate) ** (x.size + 1)) / x.rate)),
        mutant(claim, "to one half", lhs=lambda x: max(float(1 / x.rate) - 0.5, 0.0)),
    )


@lru_cache(maxsize=8192)
def enumerated(x: Group) -> Root:
    """Return w over all outcomes of G answers."""
    return expected_weight(lambda rewards: advantages(x.kind, x.knob, rewards), x.rate, x.size)


def advantages(kind: str, knob: int, rewards: tuple[int, ...]) -> tuple[list[Fraction], Fraction]:
    """Return the advantages of one group as (numerators, what stands under the root below them)."""
    size, right = len(rewards), sum(rewards)
    mean = Fraction(right, size)
    if kind == "pass_at_k":
        ways = Fraction(knob * comb(size - right, knob - 1), comb(size - 1, knob - 1))
        return [ways * r for r in rewards], _ONE
    if kind == "maxrl_plain":
        return [r / mean if right else Fraction(0) for r in rewards], _ONE
    if not 0 < right < size:
        return [Fraction(0)] * size, _ONE
    if kind == "rs":
        total = mean * knob + 1
        return [(1 + knob * r) / total - 1 for r in rewards], _ONE
    centred = [r - mean for r in rewards]
    if kind == "grpo":
        return centred, sum((c * c for c in centred), Fraction(0)) / (size - 1)
    scale = {
        "rloo": Fraction(size - 1, size),
        "dgpo": sum((abs(c) for c in centred), Fraction(0)) / size,
        "maxrl": mean,
    }.get(kind, _ONE)
    return [c / scale for c in centred], _ONE


def _formula(x: Group) -> Root:
    """Return w by ``group-weights``."""
    p, size = x.rate, x.size
    match x.kind:
        case "rloo":
            return {_ONE: _ONE}
        case "mean":
            return {_ONE: Fraction(size - 1, size)}
        case "maxrl":
            return {_ONE: (1 - (1 - p) ** (size - 1)) / p}
        case "maxrl_plain":
            return {_ONE: (1 - (1 - p) ** size) / p}
        case "pass_at_k":
            return {_ONE: x.knob * (1 - p) ** (x.knob - 1)}
        case "grpo":
            return mixed_mean(lambda m: (_ONE, Fraction(size, size - 1) * m * (1 - m)), p, size)
        case "dgpo":
            return mixed_mean(lambda m: (1 / (2 * m * (1 - m)), _ONE), p, size)
        case _:
            return mixed_mean(lambda m: (x.knob / (1 + x.knob * m), _ONE), p, size)


def _exact(x: Group, size: int) -> Fraction:
    return _formula(replace(x, size=size))[_ONE]


def _exact_limit(x: Group) -> Fraction:
    return x.knob / (1 + x.knob * x.rate) if x.kind == "rs" else 1 / x.rate


def _groups(kinds: tuple[str, ...]) -> Instances[Group]:
    corners = tuple(
        Group(kind, knob, size, part, 20)
        for kind in kinds
        for knob, size, part in ((2, 2, 10), (2, 4, 3), (3, 8, 1), (1, 6, 19))
    )
    parts = st.sampled_from((4, 6, 16, 64)).flatmap(lambda whole: st.tuples(st.integers(1, whole - 1), st.just(whole)))
    drawn = st.tuples(st.sampled_from(kinds), st.integers(1, 9), st.integers(2, 7), parts)
    return Instances(Group, corners, drawn.map(lambda d: Group(d[0], _knob(*d[:3]), d[2], *d[3])))


def _knob(kind: str, knob: int, size: int) -> int:
    return min(knob, size) if kind == "pass_at_k" else knob
