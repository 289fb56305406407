"""Published prompt weights that are a worst case for some batches and not for others, and the line between them.

The weights are those of the authors' papers or code, as read; where a part was left out, the docstring says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, combinations
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from proofs_check.claim import Assumptions, Claim, Instances, Relation, Side, mutant, stated
from proofs_check.claims.verifiable.rates import ADMITTED, MIXED, Rates, Row, batches, floats, is_worst, rises

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Histogram:
    """How many groups of earlier batches had each of the pass rates 1/G, 2/G, ...; a batch with one prompt at each."""

    counts: Row

    @property
    def rates(self) -> list[Fraction]:
        """The pass rates of groups with both outcomes."""
        return [Fraction(k, len(self.counts) + 1) for k in range(1, len(self.counts) + 1)]

    @property
    def cumulative(self) -> list[int]:
        """How many had at most that rate."""
        return list(accumulate(self.counts))


@dataclass(frozen=True)
class Mixture:
    """Bundles by rank: how many scores lie below the quantiles, between and above; the mixing weight in quarters."""

    below: int
    between: int
    above: int
    quarters: int

    @property
    def weights(self) -> list[Fraction]:
        """The slope of the objective in the score of each bundle, lowest score first."""
        low = Fraction(self.quarters, 4 * self.below)
        return [low] * self.below + [Fraction(1, self.between)] * self.between + [Fraction(0)] * self.above

    @property
    def rates(self) -> list[Fraction]:
        """Scores as shares of the largest one."""
        n = self.below + self.between + self.above
        return [Fraction(k, n) for k in range(1, n + 1)]


@stated
def grpo_std_is_no_worst_case() -> Claim[Rates]:
    """GRPO's standard deviation weighs the hardest and the easiest prompts most: a worst case for some batches only.

    Problem: prompt weights 1/sqrt(p (1 - p)), what dividing advantages by the standard deviation of a large group comes
        to; losses 1 - p, 0 < p < 1; sets that are convex and treat prompts alike.
    Guarantee (exact): they are a worst case of such a set if and only if p_i + p_j <= 1 for all rates p_i != p_j.
    Source: theory.md section 3: the weight depends on |p - 1/2| and grows with it, so of two rates the larger has the
        larger weight exactly if it is farther from 1/2; `worst-case-is-antitone`.
    Example: 1/4 and 5/8 pass; 1/2 and 9/10 do not: the weights 2 and 10/3 rise.
    """
    return _line(
        "grpo-std-is-no-worst-case",
        "weights 1/sqrt(p (1 - p)) are a worst case of a set that treats prompts alike iff p_i + p_j <= 1, p_i != p_j",
        MIXED,
        lambda p: 1 / (p * (1 - p)),  # their squares
        lambda p: p,
        power=0.5,
    )


@stated
def difficulty_filter_is_no_worst_case() -> Claim[Rates]:
    """Weights that prefer medium prompts are a worst case for some batches only.

    Problem: prompt weights p (1 - p), the expected variance of a reward, by which prompts are filtered (2504.03380);
        losses 1 - p, some 0 < p < 1; sets that are convex and treat prompts alike.
    Guarantee (exact): they are a worst case of such a set if and only if p_i + p_j >= 1 for all rates p_i != p_j.
    Source: theory.md section 3: as for `grpo-std-is-no-worst-case`, with a weight that falls with |p - 1/2|. So of two
        different prompts the one rule or the other is no worst case, unless p_i + p_j = 1.
    Example: 3/4 and 1/4 pass, 1/2 and 1/10 do not: the weights 1/4 and 9/100 rise.
    """
    return _line(
        "difficulty-filter-is-no-worst-case",
        "weights p (1 - p) are a worst case of a set that treats prompts alike iff p_i + p_j >= 1, p_i != p_j",
        {**ADMITTED, "some rate between 0 and 1": lambda x: any(0 < part < x.whole for part in x.parts)},
        lambda p: p * (1 - p),
        lambda p: 1 - p,
    )


@stated
def curverl_log_concave() -> Claim[Histogram]:
    """CurveRL's weights are a worst case exactly if earlier pass rates have a log-concave distribution.

    Problem: prompts weigh f/F (2605.24331): f the share of groups of earlier batches with that pass rate, F that with
        at most that rate, over groups with both outcomes. A batch with one prompt at each rate k/G, losses 1 - p.
    Guarantee (exact): the weights are a worst case of a convex set that treats prompts alike if and only if
        F_k^2 >= F_{k-1} F_{k+1} for every k.
    Source: theory.md section 3: f_k/F_k = 1 - F_{k-1}/F_k. So many easy prompts behind few hard ones weigh most.
    Example: counts 4, 1, 1: F = 4, 5, 6, weights 1, 1/5, 1/6. Counts 1, 1, 4: F = 1, 2, 6, weights 1, 1/2, 2/3.
    """

    def log_concave(numbers: list[int]) -> float:
        padded = [0, *numbers]
        return float(all(b * b >= a * c for a, b, c in zip(padded, padded[1:], padded[2:], strict=False)))

    claim = Claim[Histogram](
        label="curverl-log-concave",
        statement="weights f/F are a worst case of a set that treats prompts alike iff F is log-concave",
        reference="theory.md section 3",
        assumptions={"the lowest rate was seen": lambda x: x.counts[0] > 0 and max(x.counts) <= 64},
        instances=_histograms(),
        lhs=lambda x: is_worst(floats(_hazards(x)), 1 - floats(x.rates)),
        rhs=lambda x: log_concave(x.cumulative),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=lambda x: rises(x.rates, _hazards(x)) != bool(log_concave(x.cumulative)),
    )

    def falls(x: Histogram) -> float:
        return float(list(x.counts) == sorted(x.counts, reverse=True))

    return claim.with_mutants(
        mutant(claim, "iff f falls", rhs=falls),
        mutant(claim, "iff f is log-concave", rhs=lambda x: log_concave(list(x.counts))),
        mutant(claim, "whatever F", rhs=lambda x: 1.0),
    )


@stated
def riskpo_is_spectral() -> Claim[Mixture]:
    """RiskPO's mixed value-at-risk is a worst case over bundles exactly if the tail outweighs the middle.

    Problem: scores of bundles of prompts in order; the objective is w times the mean of scores below the quantile
        alpha plus the mean of those between the quantiles alpha and beta (2510.00911). Its slope in a score: w/alpha
        below alpha, 1/(beta - alpha) between, 0 above. Our reading: at the quantiles as they are, without the division
        by a standard deviation that the code offers.
    Guarantee (exact): slopes are a worst case over bundles of a convex set that treats them alike if and only if
        w (beta - alpha) >= alpha. Then the objective is a spectral risk, and what it weighs are outcomes of bundles,
        not pass rates. Without the mixture, w = 0, it never is.
    Source: theory.md section 3: `worst-case-is-antitone` for ranks.
    Example: alpha = .2, beta = .8: from w = 1/3 on. The code's w = 1.5 is, a range without its tail is not.
    """
    claim = Claim[Mixture](
        label="riskpo-is-spectral",
        statement="RiskPO's slopes w/alpha, 1/(beta-alpha), 0 a worst case over bundles iff w (beta-alpha) >= alpha",
        reference="2510.00911, as read",
        assumptions={"some below and some between": lambda x: x.below >= 1 <= x.between and 0 <= x.quarters <= 64},
        instances=_mixtures(),
        lhs=lambda x: is_worst(floats(x.weights), 1 - floats(x.rates)),
        rhs=lambda x: float(x.quarters * x.between >= 4 * x.below),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=lambda x: rises(x.rates, x.weights) == (x.quarters * x.between < 4 * x.below),
    )
    return claim.with_mutants(
        mutant(claim, "iff w >= 1", rhs=lambda x: float(x.quarters >= 4)),
        mutant(claim, "whatever w", rhs=lambda x: 1.0),
        mutant(claim, "iff w is positive", rhs=lambda x: float(x.quarters > 0)),
    )


def _line(
    label: str,
    statement: str,
    assumptions: Assumptions[Rates],
    weight: Callable[[Fraction], Fraction],
    turned: Callable[[Fraction], Fraction],
    power: float = 1.0,
) -> Claim[Rates]:
    """Weights are ``weight`` to the ``power``; pairs of ``turned`` rates may add up to 1."""

    def given(x: Rates) -> list[Fraction]:
        return [weight(p) for p in x.exact]

    def by_pairs(x: Rates) -> float:
        return float(all(turned(p) + turned(r) <= 1 for p, r in combinations(set(x.exact), 2)))

    claim = Claim[Rates](
        label=label,
        statement=statement,
        reference="theory.md section 3",
        assumptions=assumptions,
        instances=_batches(inner=power < 1),
        lhs=lambda x: is_worst(floats(given(x)) ** power, x.losses),
        rhs=by_pairs,
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=lambda x: rises(x.exact, given(x)) != bool(by_pairs(x)),
    )
    sides: dict[str, Side[Rates]] = {
        "for every batch": lambda x: 1.0,
        "never": lambda x: 0.0,
        "iff every rate lies on one side of 1/2": lambda x: float(all(2 * turned(p) <= 1 for p in x.exact)),
        "iff the mean rate does": lambda x: float(2 * sum(map(turned, x.exact)) <= len(x.parts)),
    }
    return claim.with_mutants(*(mutant(claim, name, rhs=side) for name, side in sides.items()))


def _hazards(x: Histogram) -> list[Fraction]:
    return [Fraction(count, whole) for count, whole in zip(x.counts, x.cumulative, strict=True)]


def _batches(*, inner: bool) -> Instances[Rates]:
    rates = ((2, 5), (4, 7), (6, 3), (4, 4), (1, 1, 7, 7), (5, 7), (1, 1, 15), (1, 15, 15), (3, 5, 1))
    wholes = (8, 8, 8, 8, 8, 8, 16, 16, 8)
    corners = tuple(Rates(parts, whole) for parts, whole in zip(rates, wholes, strict=True))
    draws = batches(int(inner), most=4, inner=inner)
    return Instances(Rates, corners, draws if inner else draws.map(lambda x: Rates((*x.parts, x.whole // 2), x.whole)))


def _histograms() -> Instances[Histogram]:
    corners = tuple(map(Histogram, ((4, 1, 1), (1, 1, 4), (2, 3), (5, 0, 0), (5, 0, 1), (8, 4, 2, 1), (1, 1, 1, 1))))
    rest = st.lists(st.integers(0, 16), min_size=1, max_size=6)
    draws = st.tuples(st.integers(1, 32), rest).map(lambda d: Histogram((d[0], *d[1])))
    return Instances(Histogram, corners, draws)


def _mixtures() -> Instances[Mixture]:
    counts = (2, 6, 2, 0), (2, 6, 2, 1), (2, 6, 2, 2), (2, 6, 2, 6), (4, 2, 0, 4), (1, 4, 1, 1)
    corners = tuple(Mixture(*given) for given in counts)
    some = st.integers(1, 6)
    return Instances(Mixture, corners, st.builds(Mixture, some, some, st.integers(0, 4), st.integers(0, 16)))
