"""What rates that are only sampled do to prompt weights: from the same answers, and from others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from hypothesis import strategies as st

from proofs_check.claim import Assumptions, Claim, Curve, Instances, Verdict, mutant, shrunk, stated, swapped
from proofs_check.exact.groups import mixed_mean, sampled_mean

_ONE = Fraction(1)
_FLATTENED = ("maxrl", "rs", "pass_at_k")
_FALLING = (*_FLATTENED, "steep", "worst")


@dataclass(frozen=True)
class Sampled:
    """A rule that makes weights of rates, G answers, and two prompts: the harder and the easier, in parts of a whole.

    The rules: "rs", 1/(m + 4/knob), "maxrl", 1/m, "pass_at_k", (1 - m)^knob, "steep", 1/m^2, and "worst", twice the
    weight up to the rate 1/2.
    """

    kind: str
    knob: int
    size: int
    hard: int
    easy: int
    whole: int

    @property
    def rates(self) -> tuple[Fraction, Fraction]:
        """The rates of the harder and the easier prompt."""
        return Fraction(self.hard, self.whole), Fraction(self.easy, self.whole)

    def weight(self, rate: Fraction) -> Fraction:
        """Return f(rate)."""
        return {
            "rs": lambda: 1 / (rate + Fraction(4, self.knob)),
            "maxrl": lambda: 1 / rate,
            "pass_at_k": lambda: (1 - rate) ** self.knob,
            "steep": lambda: 1 / rate**2,
            "worst": lambda: Fraction(2 if rate <= Fraction(1, 2) else 1),
        }[self.kind]()


_ADMITTED: Assumptions[Sampled] = {
    "2 to 12 answers": lambda x: 2 <= x.size <= 12,
    "hard first, rates in parts of at most 64": lambda x: 0 <= x.hard <= x.easy <= x.whole <= 64,
}
_INNER: Assumptions[Sampled] = {**_ADMITTED, "0 < p < 1": lambda x: 0 < x.hard <= x.easy < x.whole}


@stated
def sampled_rates_flatten() -> Claim[Sampled]:
    """Weights made of the sampled rate of the same answers tell prompts less apart than they were meant to.

    Problem: advantages f(m) (r - m), m the mean reward of G answers, so that prompts weigh w of `group-weights`, in the
        place of f(p); rates p < p'. f is 1/m (MaxRL), 1/(m + eta) (RS-GRPO) or (1 - m)^k (pass@(k+1), plugged in).
    Guarantee (tight: equal rates): 1 <= w(p)/w(p') <= f(p)/f(p'). For every f that falls, w falls, and
        w(p)/w(p') <= f(1/G)/f(1 - 1/G), at most G - 1 for MaxRL, in place of no bound.
    Source: here, by s d/ds E u(X) = E X (u(X) - u(X - 1)) for X binomial with chance s. With s = 1 - p and u(x) =
        (1 + x)^k that is at most k E u, so w/(1-p)^k falls with 1 - p. For 1/(m + eta) used twice it says that
        (p + eta) w rises with p. The rest: w is a mean of f(1/G), ..., f(1 - 1/G), and p moves it to the latter.
    Example: 1/m, G = 4, p = 1/4, p' = 1/2: w = 37/16, 7/4, ratio 1.32, not 2.
    """
    claim = Claim[Sampled](
        label="sampled-rates-flatten",
        statement="1 <= w(p)/w(p') <= f(p)/f(p') for p < p', w from G answers, f of MaxRL, RS-GRPO, plugged-in pass@k",
        reference="theory.md section 3",
        assumptions=_INNER,
        instances=_same_answers(),
        lhs=lambda x: tuple(map(float, _flat_sides(x)[0])),
        rhs=lambda x: tuple(map(float, _flat_sides(x)[1])),
        scale=lambda x: float(x.weight(x.rates[0]) * x.weight(x.rates[1])),
        tight=True,
        verifies=lambda x: all(low <= high for low, high in zip(*_flat_sides(x), strict=True)),
    )

    def of(kind: str, name: str) -> Claim[Sampled]:
        ratio = _ratio_sides
        return mutant(
            claim,
            name,
            lhs=lambda x: float(ratio(replace(x, kind=kind))[0]),
            rhs=lambda x: float(ratio(replace(x, kind=kind))[1]),
        )

    return claim.with_mutants(shrunk(claim), swapped(claim), of("steep", "1/m^2"), of("worst", "a step"))


@stated
def sampled_rates_flatten_any() -> Claim[Sampled]:
    """Sampling does not flatten every weighting that falls with the rate.

    Problem: as in `sampled-rates-flatten`, for any f that falls.
    Guarantee (false): w(p)/w(p') <= f(p)/f(p'). Sets like total variation and CVaR weigh prompts on one side of a level
        alike; sampled rates cross the level, and tell prompts apart that were to weigh the same. Nor does it hold for
        1/m^2.
    Source: the reading of sampling as shrinkage.
    Example: f = 2 up to rate 1/2, else 1, and G = 3: w is proportional to 2 - p, which is 15/8 at 1/8 and 3/2 at 1/2.
    """
    claim = Claim[Sampled](
        label="sampled-rates-flatten-any",
        statement="w(p)/w(p') <= f(p)/f(p') for p < p', w from G answers, for every f that falls",
        reference="theory.md section 3, misread",
        assumptions=_INNER,
        instances=Instances(Sampled, (Sampled("worst", 1, 3, 1, 4, 8), Sampled("steep", 1, 4, 8, 11, 12))),
        lhs=lambda x: float(_ratio_sides(x)[0]),
        rhs=lambda x: float(_ratio_sides(x)[1]),
        scale=lambda x: float(x.weight(x.rates[0]) * x.weight(x.rates[1])),
        expected=Verdict.REFUTED,
        violates=lambda x: _ratio_sides(x)[0] > _ratio_sides(x)[1],
        by_hand=(
            "f = 2 up to the rate 1/2, else 1, and G = 3: of two groups with both outcomes, m = 1/3 and m = 2/3.\n"
            "One right and one wrong answer are given, the third is right with chance p: E f = 2 (1 - p) + p = 2 - p.\n"
            "At p = 1/8 that is 15/8, at p' = 1/2 it is 3/2: a ratio of 5/4, where f(p)/f(p') = 2/2."
        ),
    )
    near = mutant(claim, "by a hundredth at most", lhs=lambda x: float(_ratio_sides(x)[0]) - 0.01)
    convex = mutant(claim, "for convex f", instances=Instances(Sampled, (Sampled("steep", 1, 4, 8, 11, 12),)))
    return claim.with_mutants(near, convex)


@stated
def split_rates() -> Claim[Sampled]:
    """Weights made of other answers than those they weigh are too large in the mean, and stay a worst case.

    Problem: E f(S/G), S the number of right answers among G others, in the place of f(p); f falls and is convex on
        [0, 1]: 1/(m + eta), (1 - m)^k.
    Guarantee (tight: p = 0): E f(S/G) >= E f(S/(G+1)) >= f(p), and E f(S/G) >= E f(S'/G) for a prompt of larger rate:
        expected weights still fall with the rate, so they are a worst case (`antitone-is-worst-case`) of the batch.
    Source: Bernstein polynomials of a convex function fall with their degree to it, and keep its direction [L53].
        Jensen for the limit. 1/m itself has no mean: S may be 0.
    Example: (1 - m)^2, p = 1/2: G = 2 has 1/4 + 1/8 = 3/8, G = 3 has 1/4 + 1/12 = 1/3, and f(p) = 1/4.
    """
    claim = Claim[Sampled](
        label="split-rates",
        statement="E f(S/G) >= E f(S/(G+1)) >= f(p) for convex f, and E f(S/G) falls with p as f does",
        reference="L53",
        assumptions=_ADMITTED,
        instances=_other_answers(),
        lhs=lambda x: tuple(map(float, _split_sides(x)[0])),
        rhs=lambda x: tuple(map(float, _split_sides(x)[1])),
        scale=lambda x: float(x.weight(Fraction(0))),
        tight=True,
        verifies=lambda x: all(low <= high for low, high in zip(*_split_sides(x), strict=True)),
        curve=Curve("size", tuple(Sampled("rs", 32, size, 1, 8, 16) for size in range(2, 13))),
    )
    unbiased = mutant(
        claim, "unbiased", lhs=lambda x: float(_split_sides(x)[0][0]), rhs=lambda x: float(x.weight(x.rates[0]))
    )
    return claim.with_mutants(shrunk(claim), swapped(claim), unbiased)


def _mixed(x: Sampled, rate: Fraction) -> Fraction:
    return mixed_mean(lambda m: (x.weight(m), _ONE), rate, x.size)[_ONE]


def _ratio_sides(x: Sampled) -> tuple[Fraction, Fraction]:
    """Both sides of w(p) f(p') <= w(p') f(p)."""
    p, r = x.rates
    return _mixed(x, p) * x.weight(r), _mixed(x, r) * x.weight(p)


def _flat_sides(x: Sampled) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """The same where it is claimed, w(p') <= w(p), and w(p) f(1 - 1/G) <= w(p') f(1/G)."""
    (p, r), end = x.rates, Fraction(1, x.size)
    hard, easy = _mixed(x, p), _mixed(x, r)
    less, more = _ratio_sides(x) if x.kind in _FLATTENED else (hard, hard)
    return (less, easy, hard * x.weight(1 - end)), (more, hard, easy * x.weight(end))


def _split_sides(x: Sampled) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    p, r = x.rates
    few, more = (sampled_mean(x.weight, p, size) for size in (x.size, x.size + 1))
    return (more, x.weight(p), sampled_mean(x.weight, r, x.size)), (few, more, few)


_KNOBS = st.integers(1, 8)


def _same_answers() -> Instances[Sampled]:
    corners = tuple(
        Sampled(kind, 2, size, hard, easy, 12)
        for kind in _FALLING
        for size, hard, easy in ((2, 3, 6), (4, 3, 6), (4, 8, 11), (3, 2, 6), (8, 5, 5))
    )
    return Instances(Sampled, corners, _drawn(_FALLING, 1))


def _other_answers() -> Instances[Sampled]:
    kinds = ("rs", "pass_at_k")
    corners = tuple(
        Sampled(kind, 4, size, hard, easy, 8)
        for kind in kinds
        for size, hard, easy in ((2, 4, 6), (8, 1, 5), (3, 0, 8))
    )
    return Instances(Sampled, corners, _drawn(kinds, 0))


def _drawn(kinds: tuple[str, ...], least: int) -> st.SearchStrategy[Sampled]:
    def build(whole: int) -> st.SearchStrategy[Sampled]:
        part = st.integers(least, whole - least)
        drawn = st.tuples(st.sampled_from(kinds), _KNOBS, st.integers(2, 10), st.tuples(part, part))
        return drawn.map(lambda d: Sampled(d[0], d[1], d[2], min(d[3]), max(d[3]), whole))

    return st.sampled_from((6, 8, 16)).flatmap(build)
