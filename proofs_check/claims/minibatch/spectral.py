"""Claims: minibatch training is exact training for another risk, which can be written down (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st
from scipy.special import betainc  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from dro_core import CVaR, Minibatch, TotalVariation, worst_case
from proofs_check.claim import Array, Claim, Curve, Instances, Relation, mutant, shrunk, stated, swapped
from proofs_check.claims.minibatch.bias_bounds import CAP, CappedLosses, capped_runs, tail_sets
from proofs_check.claims.minibatch.sampled import MASSES, RADIUS, SampledLosses, cvar_value, exact_plugin, tv_value
from synthetic import plugin_value
from synthetic.biases.without_enumeration import atoms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dro_core import AmbiguitySet
    from proofs_check.claims.minibatch.sampled import ExactValue

_PARTS = 16  # sizes are multiples of 1/16


@dataclass(frozen=True)
class Batch:
    """Losses of a batch, the size n of the minibatches whose objective it is to train, a size in 16ths."""

    losses: tuple[int, ...]
    n: int
    parts: int


@dataclass(frozen=True)
class TwoSizes:
    """Losses of 1 with probability part/64, else 0; minibatches of n and of more; a radius in 16ths."""

    part: int
    n: int
    more: int
    parts: int

    @property
    def work(self) -> float:
        """How many losses there are in all minibatches of the larger size."""
        return float(self.more) ** 2

    @property
    def eps(self) -> float:
        """The probability of the loss 1."""
        return self.part / 64

    @property
    def radius(self) -> float:
        """Rho."""
        return self.parts / _PARTS


@stated
def minibatch_is_spectral() -> Claim[CappedLosses]:
    """Training on minibatches is exact training for another, explicit risk of the population.

    Problem: total variation, with a cap and without, and CVaR: sets whose value is sum q_i l_(i) on n losses in order,
        q_1 <= ... <= q_n. Losses are drawn independently from any distribution with quantile function Q.
    Guarantee (exact): Lbar_n = integral of Q(u) phi_n(u) du, phi_n(u) = sum_i n q_i C(n-1, i-1) u^(i-1) (1-u)^(n-i).
        phi_n is a density that does not fall, for its Bernstein coefficients n q_i do not: a spectral risk.
    Source: derived. E l_(i) is the mean of Q under the beta law of the ith of n uniform numbers.
    Example: n = 2, total variation of radius 1/2: q = (0, 1), phi_2(u) = 2u, the mean larger one of two losses.
    """

    def spectral(x: CappedLosses, shift: int = 0) -> list[float]:
        return [_quantile_mean(x, _rank_weights(ball, x.n), shift) for ball in tail_sets(x)]

    claim = Claim[CappedLosses](
        label="minibatch-is-spectral",
        statement="Lbar_n = int Q(u) phi_n(u) du, phi_n = sum n q_i C(n-1,i-1) u^(i-1) (1-u)^(n-i) (TV, capped, CVaR)",
        reference="theory.md section 3",
        assumptions={**MASSES, **RADIUS, **CAP},
        instances=capped_runs(largest=64),
        lhs=lambda x: [plugin_value(x.losses, x.reference, x.n, ball) for ball in tail_sets(x)],
        rhs=spectral,
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        verifies=_spectral_verified,
        effort=0.15,
    )
    population = mutant(claim, "the set itself, of the population", rhs=_population)
    late = mutant(claim, "one rank later", rhs=lambda x: spectral(x, shift=1))
    return claim.with_mutants(shrunk(claim), population, late)


@stated
def minibatch_of_a_batch() -> Claim[Batch]:
    """A large batch can train the objective of a small one without any bias.

    Problem: N losses, sets whose value is linear in the sorted losses, weights q_1 <= ... <= q_n on n of them.
    Algorithm: the jth smallest of N gets sigma_j = sum_i q_i C(j-1, i-1) C(N-j, n-i)/C(N, n): ``dro_core.Minibatch``.
    Guarantee (exact): its value is the mean, over all choices of n of the N losses, of their own worst case. So over
        independent draws it has the mean Lbar_n. The spectrum phi_n, cut into N pieces, is only near it.
    Source: derived: i - 1 of the others lie below the jth smallest and n - i above.
    Example: losses 0, 1, 2, CVaR(1/2), n = 2, the larger one of a pair: (1 + 2 + 2)/3 = 5/3, sigma = (0, 1, 2)/3.
    """

    def by_rank(x: Batch, n: int | None = None) -> list[float]:
        sets = [Minibatch(ball, n or x.n) for ball in _balls(x)]
        return [float(worst_case(np.array(x.losses, float), ball).value) for ball in sets]

    def pieces(x: Batch) -> list[float]:
        row = SampledLosses(tuple(map(float, x.losses)), (1.0,) * len(x.losses), x.parts / _PARTS, x.n)
        return [_quantile_mean(row, _rank_weights(ball, x.n)) for ball in _balls(x)]

    claim = Claim[Batch](
        label="minibatch-of-a-batch",
        statement="sum_j sigma_j l_(j) = the mean worst case over all choices of n of N losses (TV, CVaR)",
        reference="theory.md section 3",
        assumptions={
            "1 <= n <= N": lambda x: 1 <= x.n <= len(x.losses),
            "0 < size <= 1": lambda x: 1 <= x.parts <= _PARTS,
        },
        instances=_batches(),
        lhs=by_rank,
        rhs=lambda x: [float(np.mean(values)) for values in _subset_values(x)],
        scale=lambda x: float(max(x.losses) - min(x.losses)),
        relation=Relation.EQUAL,
        verifies=_ranks_verified,
        effort=0.4,
    )
    near = mutant(claim, "phi_n cut into N pieces", lhs=pieces)
    whole = mutant(claim, "weights of the whole batch", lhs=lambda x: by_rank(x, len(x.losses)))
    return claim.with_mutants(near, whole)


@stated
def batch_size_is_a_radius() -> Claim[TwoSizes]:
    """Batches of two sizes train different objectives under total variation, whatever the sizes.

    Problem: total variation of radius 0 < rho < 1; minibatches of n and of m > n draws; a loss 1 with probability eps.
    Guarantee (tight: rho -> 1): Lbar_m - Lbar_n >= rho [(1-eps)^n - (1-eps)^m] > 0. So with a constant c between the
        two, batches of n prefer the rare loss to the constant, Lbar_n < c, and batches of m the constant.
    Source: derived: Lbar_n = (1 - rho) CVaR part + rho P(some draw is 1) (`tv-bias-split`), neither of which falls.
    Example: eps = 1/2, rho = 1/2, n = 1, m = 2: Lbar_1 = 1/2, Lbar_2 = 3/4, and 1/2 (1/2 - 1/4) = 1/8 <= 1/4.
    """

    def value(x: TwoSizes, n: int) -> float:
        return atoms([0.0, 1.0], [1 - x.eps, x.eps]).plugin_value(n, TotalVariation(x.radius))

    claim = Claim[TwoSizes](
        label="batch-size-is-a-radius",
        statement="Lbar_m - Lbar_n >= rho [(1-eps)^n - (1-eps)^m] > 0 for n < m, TV, losses 1 with probability eps",
        reference="theory.md section 3",
        assumptions={
            "1 <= n < m": lambda x: 1 <= x.n < x.more,
            "0 < eps < 1": lambda x: 0 < x.part < 64,
            "0 < rho < 1": lambda x: 0 < x.parts < _PARTS,
        },
        instances=_sizes(),
        lhs=lambda x: x.radius * ((1 - x.eps) ** x.n - (1 - x.eps) ** x.more),
        rhs=lambda x: value(x, x.more) - value(x, x.n),
        scale=lambda x: 1.0,
        tight=True,
        verifies=_sizes_differ,
        curve=Curve("more", tuple(TwoSizes(2, 8, m, 4) for m in range(9, 129, 4))),
    )
    least = mutant(claim, "the whole of rho", lhs=lambda x: (1 - x.eps) ** x.n - (1 - x.eps) ** x.more)
    same = mutant(claim, "no difference at all", lhs=lambda x: value(x, x.more) - value(x, x.n), rhs=lambda x: 0.0)
    return claim.with_mutants(least, same, swapped(claim))


def _rank_weights(ball: AmbiguitySet, n: int) -> Array:
    """The weights of n losses in their order."""
    return worst_case(np.arange(float(n)), ball).weights


def _quantile_mean(x: SampledLosses, q: Array, shift: int = 0) -> float:
    """The integral of the quantile function over phi_n, whose integral from 0 to u is sum_i q_i P(i or more of n <= u).

    ``shift`` is a mistake in the rank, for a mutant.
    """
    order = np.argsort(x.losses)
    rank = np.arange(1, x.n + 1)
    below = np.minimum(np.cumsum(x.reference[order]), 1.0)[:, None]
    filled = betainc(rank + shift, x.n - rank + 1, below) @ q
    return float(np.diff(filled, prepend=0.0) @ np.array(x.losses)[order])


def _population(x: CappedLosses) -> list[float]:
    losses = np.array(x.losses)
    return [float(worst_case(losses, ball, reference=x.reference).value) for ball in tail_sets(x)]


def exact_rank_weights(value: ExactValue, n: int) -> list[Fraction]:
    """Return q_1 <= ... <= q_n of a set whose value is linear in sorted losses: its values of losses 0 and 1.

    Example:
        >>> exact_rank_weights(tv_value(0.25), 4)
        [Fraction(0, 1), Fraction(1, 4), Fraction(1, 4), Fraction(1, 2)]
    """
    zero, one = Fraction(0), Fraction(1)
    tops = [value([zero, one], [Fraction(n - k, n), Fraction(k, n)]) for k in range(n + 1)]
    return [tops[n - i + 1] - tops[n - i] for i in range(1, n + 1)]


def _spectral_verified(x: CappedLosses) -> bool:
    values = tv_value(x.level), tv_value(x.level, x.max_ratio), cvar_value(x.level)
    ordered = sorted(zip(x.exact_losses, x.exact_reference, strict=True))
    for value in values:
        q = exact_rank_weights(value, x.n)
        ahead, total, below = Fraction(0), Fraction(0), Fraction(0)
        for loss, mass in ordered:
            below += mass
            filled = _exact_filled(q, below)
            total, ahead = total + loss * (filled - ahead), filled
        if q != sorted(q) or sum(q) != 1 or total != exact_plugin(x, x.n, value):
            return False
    return True


def _exact_filled(q: Sequence[Fraction], u: Fraction) -> Fraction:
    """The integral of phi_n from 0 to u: P(j of n uniform numbers lie below u) times q_1 + ... + q_j, over all j."""
    n, total, ahead = len(q), Fraction(0), Fraction(0)
    for j in range(1, n + 1):
        ahead += q[j - 1]
        total += comb(n, j) * u**j * (1 - u) ** (n - j) * ahead
    return total


def _balls(x: Batch) -> tuple[TotalVariation, CVaR]:
    return TotalVariation(x.parts / _PARTS), CVaR(x.parts / _PARTS)


def _subset_values(x: Batch) -> list[Array]:
    rows = np.array(list(combinations(x.losses, x.n)), float)
    return [np.asarray(worst_case(rows, ball).value) for ball in _balls(x)]


def _ranks_verified(x: Batch) -> bool:
    whole, size = len(x.losses), Fraction(x.parts, _PARTS)
    ordered = [Fraction(loss) for loss in sorted(x.losses)]
    equal = [Fraction(1, x.n)] * x.n
    for value in (tv_value(size), cvar_value(size)):
        q = exact_rank_weights(value, x.n)
        ranked = sum(
            (
                q[i] * Fraction(comb(j, i) * comb(whole - 1 - j, x.n - 1 - i), comb(whole, x.n)) * loss
                for j, loss in enumerate(ordered)
                for i in range(x.n)
            ),
            Fraction(0),
        )
        mean = sum((value(list(chosen), equal) for chosen in combinations(ordered, x.n)), Fraction(0))
        if ranked != mean / comb(whole, x.n):
            return False
    return True


def _sizes_differ(x: TwoSizes) -> bool:
    eps, radius = Fraction(x.part, 64), Fraction(x.parts, _PARTS)
    coin = SampledLosses((0.0, 1.0), (64.0 - x.part, float(x.part)), 0.0, x.n)
    small, large = (exact_plugin(coin, n, tv_value(radius)) for n in (x.n, x.more))
    return large - small >= radius * ((1 - eps) ** x.n - (1 - eps) ** x.more) > 0


def _batches() -> Instances[Batch]:
    corners = (
        Batch((0, 1, 2), 2, 8),
        Batch((0, 0, 0, 1), 2, 4),
        Batch((3, -1, 4, 1, -5, 9), 4, 3),
        Batch((0, 1, 2, 3, 4, 5, 6), 1, 8),
        Batch((0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1), 3, 15),
    )
    rows = st.lists(st.integers(-8, 8), min_size=2, max_size=7).map(tuple)
    drawn = rows.flatmap(lambda row: st.builds(Batch, st.just(row), st.integers(1, len(row)), st.integers(1, _PARTS)))
    return Instances(Batch, corners, drawn)


def _sizes() -> Instances[TwoSizes]:
    corners = (
        TwoSizes(32, 1, 2, 8), TwoSizes(1, 8, 512, 15), TwoSizes(1, 8, 9, 4), TwoSizes(16, 2, 3, 15),
        TwoSizes(63, 1, 2, 1), TwoSizes(1, 128, 512, 1),
    )  # fmt: skip
    sizes = st.tuples(st.integers(1, 63), st.integers(1, 48), st.integers(1, 48), st.integers(1, _PARTS - 1))
    return Instances(TwoSizes, corners, sizes.map(lambda d: TwoSizes(d[0], d[1], d[1] + d[2], d[3])))
