"""The collapse radius under minibatches, whose adversary sees a few margins at a time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from hypothesis import strategies as st

from dro_core import CVaR, TotalVariation, margin_collapse, worst_case
from proofs_check.claim import Claim, Instances, mutant, shrunk, stated, swapped
from proofs_check.claims.collapse.pairs import Row, exact_reach, exact_size, reach
from proofs_check.exact.certificates import exact_cvar, exact_tv

_PARTS = 16  # sizes are multiples of 1/16


@dataclass(frozen=True)
class Batched:
    """Margins of N pairs, of which an adversary sees n at a time; the size of its set in 16ths."""

    values: Row
    n: int
    parts: int

    @property
    def work(self) -> float:
        """How many minibatches there are."""
        return float(comb(len(self.values), self.n))


@stated
def collapse_minibatch() -> Claim[Batched]:
    """Minibatches collapse later than the whole sample.

    Problem: margins m_1 ... m_N; h_n = the mean, over all minibatches of n, of min over q in U of <q, m>: with weights
        made for each minibatch, a direction is useless once h_n <= 0. r(n) = the least size of U with h_n <= 0.
    Guarantee: h_n >= h_{n+1}, so r(n) >= r(n+1) >= r(N) (CVaR: alpha). So for every direction, and for the largest.
    Source: theory.md section 3: the worst case is concave in the distribution, and a minibatch of n + 1 is the mean of
        its parts of n. Total variation and CVaR weigh by rank, so r(n) is that of the mean ordered minibatch; in the
        exact check all minibatches are enumerated.
    Example: margins 1, 1, 1, -1, total variation: r(4) = 1/4. Of the pairs three are (1, 1), which no q brings below 1,
        and three (1, -1), which 1/2 brings to -1: r(2) = 1/2.
    """

    def radii(x: Batched, n: int) -> list[float]:
        return [reach(kind, margin_collapse(x.values, kind, batch=n)) for kind in ("tv", "cvar")]

    claim = Claim[Batched](
        label="collapse-minibatch",
        statement="h_n >= h_{n+1}, and r(n) >= r(n+1) >= r(N): the radius falls as minibatches grow (TV, CVaR)",
        reference="theory.md section 3",
        assumptions={
            "1 <= n < N": lambda x: 1 <= x.n < len(x.values),
            "0 < size <= 1": lambda x: 1 <= x.parts <= _PARTS,
        },
        instances=_batched(),
        lhs=lambda x: [*radii(x, x.n + 1), *radii(x, len(x.values)), *_least(x, x.n + 1)],
        rhs=lambda x: [*radii(x, x.n), *radii(x, x.n + 1), *_least(x, x.n)],
        scale=lambda x: float(max(x.values) - min(x.values)),
        verifies=_minibatches_hold,
        effort=0.5,
    )
    same = mutant(
        claim,
        "minibatches collapse with the sample",
        lhs=lambda x: radii(x, x.n),
        rhs=lambda x: radii(x, len(x.values)),
    )
    return claim.with_mutants(shrunk(claim), swapped(claim), same)


def _least(x: Batched, n: int) -> list[float]:
    """h_n of total variation and of CVaR, over all minibatches."""
    batches, size = np.array(list(combinations(x.values, n)), float), x.parts / _PARTS
    values = (np.asarray(worst_case(-batches, ball).value) for ball in (TotalVariation(size), CVaR(size)))
    return [-float(value.mean()) for value in values]


def _minibatches_hold(x: Batched) -> bool:
    """Prove the radii by enumeration: at r(n) the exact h_n is 0."""
    whole = len(x.values)
    for kind in ("tv", "cvar"):
        sizes = {n: _batch_size(x.values, n, kind) for n in (x.n, x.n + 1, whole)}
        reaches = [exact_reach(kind, sizes[n]) for n in (x.n, x.n + 1, whole)]
        given = Fraction(x.parts, _PARTS)
        falling = _exact_least(x.values, x.n, kind, given) >= _exact_least(x.values, x.n + 1, kind, given)
        if not falling or reaches != sorted(reaches, reverse=True):
            return False
        if not all(_useless_from(x.values, n, kind, sizes[n]) for n in (x.n, x.n + 1)):
            return False
    return True


def _useless_from(values: Row, n: int, kind: str, size: Fraction | None) -> bool:
    """Whether h_n is 0 at this size, or at most 0 at no size, or positive at every one, as the size says."""
    if size is None:
        return Fraction(sum(map(min, combinations(values, n)))) > 0
    if size == int(kind == "cvar"):
        return sum(values) <= 0
    return _exact_least(values, n, kind, size) == 0


def _batch_size(values: Row, n: int, kind: str) -> Fraction | None:
    """Return r(n), by the mean of the ordered minibatches."""
    ordered, whole = sorted(values), len(values)
    means = [
        sum(
            (Fraction(comb(i, k) * comb(whole - 1 - i, n - 1 - k) * m, comb(whole, n)) for i, m in enumerate(ordered)),
            Fraction(0),
        )
        for k in range(n)
    ]
    return exact_size(means, [1] * n, kind)


@lru_cache(maxsize=4096)
def _exact_least(values: Row, n: int, kind: str, size: Fraction) -> Fraction:
    worst = exact_tv if kind == "tv" else exact_cvar
    batches = list(combinations(values, n))
    return -sum((worst([-m for m in batch], [1] * n, size) for batch in batches), Fraction(0)) / len(batches)


def _batched() -> Instances[Batched]:
    values = ((1, 1, 1, -1), (3, 2, 1, -1), (2, 1, 1, 1), (1, 1, -1, -2))
    corners = tuple(Batched(row, n, parts) for row in values for n, parts in ((1, 4), (2, 8), (3, 4)))
    rows = st.lists(st.integers(-3, 5), min_size=2, max_size=5).map(tuple)
    draws = rows.flatmap(lambda row: st.builds(Batched, st.just(row), st.integers(1, len(row) - 1), st.integers(1, 16)))
    return Instances(Batched, corners, draws)
