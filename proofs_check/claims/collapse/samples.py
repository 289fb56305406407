"""What a sample makes of the collapse radius: larger than it is, and larger than nothing where there is nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import product
from math import comb, factorial, prod

import numpy as np
from hypothesis import strategies as st

from proofs_check.claim import Claim, Curve, Instances, Verdict, mutant, shrunk, stated, swapped
from proofs_check.claims.collapse.pairs import ADMITTED, Pairs, Row, Rows, balance_reach, lattice, weighed
from proofs_check.exact.balance import EXACT
from synthetic import sample_counts


@dataclass(frozen=True)
class Drawn(Pairs):
    """A population of pairs, of which n are drawn."""

    n: int

    @property
    def work(self) -> float:
        """Four for every sample, of which each makes a program to solve."""
        return 4.0 * comb(self.n + len(self.rows) - 1, self.n)


@dataclass(frozen=True)
class Unlabelled:
    """Features of pairs whose labels are fair coins."""

    rows: Rows

    @property
    def work(self) -> float:
        """Four for every choice of labels, of which each makes a program to solve."""
        return 4.0 * 2.0 ** len(self.rows)


@stated
def collapse_sample() -> Claim[Drawn]:
    """The in-sample radius is too large, and the more so the smaller the sample.

    Problem: r_n = the radius of n draws from p, over the pairs that were drawn; as a number in [0, 1], 1 if infinite.
    Guarantee (tight: a population that is separable): E r_n >= E r_{n+1} >= r(p), for total variation, CVaR (1 - alpha)
        and chi-square (2 rho/(1 + 2 rho)).
    Source: theory.md section 3: each is the value of a program that is convex in (p, q), hence convex in p, and a
        sample of n + 1 is the mean of its parts of n. All samples are enumerated in rational numbers.
    Example: x = 1 or -1 by a fair coin, total variation: r = 0. Of four draws 3 : 1 (chance 1/2) has 1/4, 4 : 0 (1/8)
        is infinite: E r_4 = 1/4.
    """
    claim = Claim[Drawn](
        label="collapse-sample",
        statement="E r_n >= E r_{n+1} >= r for the radius of n draws (TV, CVaR, chi-square, as numbers up to 1)",
        reference="theory.md section 3",
        assumptions={**ADMITTED, "at least one draw": lambda x: x.n >= 1},
        instances=_populations(),
        lhs=lambda x: (float(mean_reach(x, x.n + 1)), float(_population_reach(x))),
        rhs=lambda x: (float(mean_reach(x, x.n)), float(mean_reach(x, x.n + 1))),
        scale=lambda x: 1.0,
        tight=True,
        verifies=lambda x: mean_reach(x, x.n) >= mean_reach(x, x.n + 1) >= _population_reach(x),
        curve=Curve("n", tuple(replace(_coin(3, "tv"), n=n) for n in range(1, 13))),
        effort=0.25,
    )
    return claim.with_mutants(shrunk(claim), swapped(claim))


@stated
def collapse_sample_null() -> Claim[Unlabelled]:
    """Features without any signal have a radius of at least d/2n.

    Problem: n pairs with features of rank d, labels that are fair coins; r = the chi-square radius in sample.
    Guarantee (tight: features of one size, d = 1): E 2 r/(1 + 2 r) >= d/n, where infinity counts as 1; so E r >= d/2n.
    Source: theory.md section 3 has the law for many pairs, 2 n r -> chi-square with d degrees (KL and Burg too). Here a
        bound of its mean for any number of them: 2 r/(1 + 2 r) = 1 - min_w E (1 - <w, x>)_+^2 is at least
        1 - min_w E (1 - <w, x>)^2 = m' S^-1 m, m the mean and S the second moments, and random signs leave S as it is
        and make E m m' = S/n. All signs are enumerated in rational numbers.
    Example: x = +-1, n = 2: equal signs have r infinite, others 0, each with chance 1/2: 1/2 = d/n.
    """

    def share(x: Unlabelled, more: int = 0) -> float:
        return float(_share(x) + Fraction(more, len(x.rows)))

    claim = Claim[Unlabelled](
        label="collapse-sample-null",
        statement="E 2r/(1 + 2r) >= d/n if labels are fair coins, features of rank d (chi-square): r of order d/2n",
        reference="theory.md section 3",
        assumptions={"features in [-8, 8]": lambda x: np.max(np.abs(x.rows)) <= 8},
        instances=_unlabelled(),
        lhs=share,
        rhs=lambda x: float(null_reach(x)),
        scale=lambda x: 1.0,
        tight=True,
        verifies=lambda x: _share(x) <= null_reach(x),
        effort=0.4,
    )
    free = mutant(claim, "one degree more", lhs=lambda x: share(x, 1))
    columns = mutant(claim, "dependent columns count", lhs=lambda x: len(x.rows[0]) / len(x.rows))
    halved = mutant(claim, "the 1/2 of the ball forgotten", rhs=lambda x: float(null_reach(x)) / 2)
    return claim.with_mutants(shrunk(claim), free, columns, halved)


@stated
def collapse_sample_estimates() -> Claim[Drawn]:
    """The in-sample radius does not estimate that of the population.

    Problem: r_n = the radius of n draws, r = that of the population, as in `collapse-sample`.
    Guarantee (false): E r_n <= r. Where labels are noise every set collapses, r = 0, and samples still have a radius.
    Source: the reading of an in-sample value as a property of the data. `collapse-sample` says which way it errs.
    Example: E r_4 = 1/4 for a fair coin, twice the 1/2n of `collapse-sample-null`.
    """
    claim = Claim[Drawn](
        label="collapse-sample-estimates",
        statement="E r_n <= r: the radius of n draws does not exceed that of the population in the mean",
        reference="theory.md section 3, misread",
        assumptions={**ADMITTED, "at least one draw": lambda x: x.n >= 1},
        instances=Instances(Drawn, (_coin(4, "tv"), _coin(4, "chi2"))),
        lhs=lambda x: float(mean_reach(x, x.n)),
        rhs=lambda x: float(_population_reach(x)),
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=lambda x: mean_reach(x, x.n) > _population_reach(x),
        curve=Curve("n", tuple(_coin(n, "tv") for n in range(1, 13))),
        by_hand=(
            "x = 1, and the label a fair coin: E_p y x = 0, so r = 0. Draw four labels.\n"
            "2 : 2 has r = 0; 3 : 1 or 1 : 3 (chance 8/16) has r = 3/4 - 1/2 = 1/4; 4 : 0 or 0 : 4 (chance 2/16) has\n"
            "none, which counts as 1. E r_4 = 8/16 1/4 + 2/16 = 1/4 > 0."
        ),
    )
    return claim.with_mutants(mutant(claim, "less d/2n", lhs=lambda x: float(mean_reach(x, x.n)) - 1 / (2 * x.n)))


@lru_cache(maxsize=4096)
def mean_reach(x: Drawn, n: int) -> Fraction:
    """Return E r_n over all samples of n, as a number in [0, 1]."""
    total, whole = Fraction(0), sum(x.masses)
    for counts in sample_counts(n, len(x.rows)).tolist():
        ways = factorial(n) // prod(map(factorial, counts))
        chance = ways * prod(mass**count for mass, count in zip(x.masses, counts, strict=True))
        seen = [i for i, count in enumerate(counts) if count]
        total += chance * balance_reach([x.rows[i] for i in seen], [counts[i] for i in seen], x.kind)
    return total / whole**n


@lru_cache(maxsize=4096)
def null_reach(x: Unlabelled) -> Fraction:
    """Return E 2 r/(1 + 2 r) over all signs of the rows."""
    first, *rest = x.rows  # to turn all signs changes nothing
    signs = list(product((1, -1), repeat=len(rest)))
    total = Fraction(0)
    for sign in signs:
        rows = [first, *(tuple(s * entry for entry in row) for s, row in zip(sign, rest, strict=True))]
        total += balance_reach(rows, [1] * len(rows), "chi2")
    return total / len(signs)


def _population_reach(x: Drawn) -> Fraction:
    return balance_reach(x.rows, x.masses, x.kind)


def _share(x: Unlabelled) -> Fraction:
    """d/n."""
    return Fraction(int(np.linalg.matrix_rank(np.array(x.rows))), len(x.rows))


def _coin(n: int, kind: str) -> Drawn:
    return Drawn(((1,), (-1,)), (1, 1), kind, n)


def _populations() -> Instances[Drawn]:
    biased: Row = (3, 1)
    corners = tuple(
        Drawn(rows, masses, kind, n)
        for rows, masses in (
            (((1,), (-1,)), biased),
            (((1, 0), (-1, 1), (0, -1)), (2, 1, 1)),
            (((1,), (2,)), (1, 1)),
        )
        for kind in EXACT
        for n in (1, 3)
    )
    rows = st.one_of(lattice(4, 1), lattice(4, 2))
    draws = st.tuples(weighed(rows), st.sampled_from(EXACT), st.integers(1, 3))
    return Instances(Drawn, corners, draws.map(lambda d: Drawn(*d[0], d[1], d[2])))


def _unlabelled() -> Instances[Unlabelled]:
    corners = (((1,), (1,)), ((1,), (1,), (1,)), ((1, 1), (1, 1), (1, 1)), ((1, 0), (0, 1), (1, 1), (2, -1)))
    draws = st.integers(1, 3).flatmap(lambda d: lattice(5, d)).map(Unlabelled)
    return Instances(Unlabelled, tuple(map(Unlabelled, corners)), draws)
