"""False claims about minibatches and groups of answers, by somebody who had not read the code of the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb

import numpy as np
from hypothesis import strategies as st
from planted_numbers import Planted
from scipy.stats import binom

from proofs_check import Claim, Instances
from proofs_check.claim import Array, Assumptions


@dataclass(frozen=True)
class Draws:
    """n draws of a coin that shows 1 with probability part/64: a loss, a reward or a vote."""

    n: int
    part: int

    @property
    def work(self) -> float:
        """How many sums there are."""
        return self.n + 1.0

    @property
    def p(self) -> float:
        """The probability of a 1."""
        return self.part / 64

    def expected(self, function: Callable[[Array], Array]) -> float:
        """Return the mean of a function of the number of ones."""
        sums = np.arange(self.n + 1)
        return float(binom.pmf(sums, self.n, self.p) @ function(sums.astype(float)))

    def bias(self, alpha: float) -> float:
        """Return by how much CVaR(alpha) of the draws is below that of the coin on average."""
        return min(1.0, self.p / alpha) - self.expected(lambda k: np.minimum(1.0, k / (alpha * self.n)))


INNER: Assumptions[Draws] = {"0 < p < 1": lambda x: 0 < x.part < 64}


def cvar_exponent() -> Planted:
    """At p = 1/2 the bias is .399/sqrt(n) in the limit. False for n > 90 or so, beyond what is drawn."""
    claim = Claim[Draws](
        label="blind-cvar-exponent",
        statement="the bias of CVaR(1/2) of n zero-one losses is at most .5 n^-.55",
        reference="planted",
        assumptions={"1 <= n <= 4096": lambda x: 1 <= x.n <= 4096, **INNER},
        instances=Instances(
            Draws, (Draws(1, 32), Draws(64, 32)), st.builds(Draws, st.integers(1, 64), st.integers(1, 63))
        ),
        lhs=lambda x: x.bias(0.5),
        rhs=lambda x: 0.5 * x.n**-0.55,
        scale=lambda x: 1.0,
    )
    return Planted(claim, "exponent at large n", Draws(4096, 32))


@dataclass(frozen=True)
class Tails(Draws):
    """The same with a level of CVaR in parts of 64."""

    level: int


def bias_from_one_draw() -> Planted:
    """At p = alpha and n = 2 the bias is alpha (1 - alpha), which is above (1 - alpha)/sqrt(2) for alpha > .7071.
    False in that thin band only: at n = 2, p near alpha, alpha in (.7071, .75]."""
    claim = Claim[Tails](
        label="blind-cvar-from-one",
        statement="the bias of CVaR(alpha), alpha in [1/2, 3/4], of n zero-one losses is at most bias_1/sqrt(n)",
        reference="planted",
        assumptions={
            "1 <= n <= 256": lambda x: 1 <= x.n <= 256,
            "1/2 <= alpha <= 3/4": lambda x: 32 <= x.level <= 48,
            "0 < p < 1": lambda x: 0 < x.part < 64,
        },
        instances=Instances(
            Tails,
            (Tails(2, 32, 32), Tails(64, 48, 48)),
            st.builds(Tails, st.integers(1, 16), st.integers(1, 63), st.integers(32, 48)),
        ),
        lhs=lambda x: x.bias(x.level / 64),
        rhs=lambda x: Draws(1, x.part).bias(x.level / 64) / np.sqrt(x.n),
        scale=lambda x: 1.0,
    )
    return Planted(claim, "thin band", Tails(2, 48, 48))


def group_weight() -> Planted:
    """The share lost to the group is 1/(8 G p (1-p)) in the limit, at most .67/G here. False at G = 3 and 4 and p at
    the ends of the range, where it is 1.163/G and 1.151/G."""
    claim = Claim[Draws](
        label="blind-grpo-weight",
        statement="GRPO with G answers weighs a prompt by at least (1 - 1.15/G)/sqrt(p(1-p)), p in [1/4, 3/4]",
        reference="planted",
        assumptions={"2 <= G <= 64": lambda x: 2 <= x.n <= 64, "1/4 <= p <= 3/4": lambda x: 16 <= x.part <= 48},
        instances=Instances(
            Draws, (Draws(2, 16), Draws(8, 16)), st.builds(Draws, st.integers(2, 16), st.integers(16, 48))
        ),
        lhs=lambda x: 1 - 1.15 / x.n,
        rhs=lambda x: x.expected(lambda k: np.sqrt(k * (x.n - k)) / x.n) / np.sqrt(x.p * (1 - x.p)),
        scale=lambda x: 1.0,
    )
    return Planted(claim, "small-n exception", Draws(3, 16))


@dataclass(frozen=True)
class Attempts(Draws):
    """The same with the k of pass@k."""

    k: int

    @property
    def solved(self) -> float:
        """The pass rate of k answers."""
        return 1 - (1 - self.p) ** self.k


def pass_at_k_variance() -> Planted:
    """k^2 zeta_1/n is the leading term of the variance of a U-statistic, k^2 zeta_1/(n-k+1) a guess at the others. True
    for k <= 3; false for k = 4 from n = 9 on, at p = 28/64, the end of the range, and a little below it."""

    def variance(x: Attempts) -> float:
        failures = np.array([comb(x.n - ones, x.k) / comb(x.n, x.k) for ones in range(x.n + 1)])
        return x.expected(lambda k: (1 - failures - x.solved) ** 2)

    answers = st.tuples(st.integers(1, 16), st.integers(1, 28), st.sampled_from((1, 2, 4)))
    claim = Claim[Attempts](
        label="blind-pass-at-k-variance",
        statement="the unbiased pass@k of n answers has variance at most k^2 p (1-p)^(2k-1)/(n-k+1), k <= 4, p <= 7/16",
        reference="planted",
        assumptions={
            "1 <= k <= 4, k <= n <= 64": lambda x: 1 <= x.k <= 4 and x.k <= x.n <= 64,
            "0 < p <= 7/16": lambda x: 0 < x.part <= 28,
        },
        instances=Instances(
            Attempts,
            (Attempts(2, 28, 2), Attempts(4, 28, 4)),
            answers.map(lambda d: Attempts(max(d[0], d[2]), d[1], d[2])),
        ),
        lhs=variance,
        rhs=lambda x: x.k**2 * x.p * (1 - x.p) ** (2 * x.k - 1) / (x.n - x.k + 1),
        scale=lambda x: x.solved * (1 - x.solved),
    )
    return Planted(claim, "end of a range", Attempts(12, 28, 4))


def leave_one_out() -> Planted:
    """The exact limit is p <= (2G-4)/(3G-5), what is claimed is that of G + 1. False between the two."""

    def variance(x: Draws, gradient: Callable[[Array], Array]) -> float:
        mean = x.expected(gradient)
        return x.expected(lambda k: (gradient(k) - mean) ** 2)

    claim = Claim[Draws](
        label="blind-leave-one-out",
        statement="a leave-one-out baseline over G >= 4 answers, two actions, has no more variance than none while "
        "p <= (2G-2)/(3G-2)",
        reference="planted",
        assumptions={
            "4 <= G <= 256": lambda x: 4 <= x.n <= 256,
            "p <= (2G-2)/(3G-2)": lambda x: 0 < x.p <= (2 * x.n - 2) / (3 * x.n - 2),
        },
        instances=Instances(
            Draws, (Draws(4, 32), Draws(16, 40)), st.builds(Draws, st.integers(4, 16), st.integers(1, 48))
        ),
        lhs=lambda x: variance(x, lambda k: k * (x.n - k) / (x.n * (x.n - 1))),
        rhs=lambda x: variance(x, lambda k: (1 - x.p) * k / x.n),
        scale=lambda x: x.p * (1 - x.p) / x.n,
    )
    return Planted(claim, "index off by one", Draws(4, 38))


def smoothed_margin() -> Planted:
    """Half a win more on either side cancels the bias of order 1/n; the sign of what is left changes with n. False
    from n = 6 on at p near 1/2, later above: one to five comparisons are drawn."""
    claim = Claim[Draws](
        label="blind-smoothed-margin",
        statement="log((k+1/2)/(n-k+1/2)) of k wins in n is on average no larger than the true margin, p in [1/2, 7/8]",
        reference="planted",
        assumptions={"1 <= n <= 512": lambda x: 1 <= x.n <= 512, "1/2 <= p <= 7/8": lambda x: 32 <= x.part <= 56},
        instances=Instances(
            Draws, (Draws(1, 48), Draws(5, 40)), st.builds(Draws, st.integers(1, 5), st.integers(32, 56))
        ),
        lhs=lambda x: x.expected(lambda k: np.log((k + 0.5) / (x.n - k + 0.5))),
        rhs=lambda x: float(np.log(x.p / (1 - x.p))),
        scale=lambda x: 1.0,
    )
    return Planted(claim, "larger than tested", Draws(16, 48))


def majority_of_votes() -> Planted:
    """True for odd panels. An even one, ties broken by a coin, is no better than with one annotator less: false at
    every even n."""
    claim = Claim[Draws](
        label="blind-majority",
        statement="the majority of n annotators who err with probability e errs with at most e (4e(1-e))^((n-1)/2)",
        reference="planted",
        assumptions={"1 <= n <= 63": lambda x: 1 <= x.n <= 63, "0 < e <= 1/2": lambda x: 0 < x.part <= 32},
        instances=Instances(
            Draws, (Draws(3, 32), Draws(9, 16)), st.builds(Draws, st.sampled_from((1, 3, 5, 7, 9)), st.integers(1, 32))
        ),
        lhs=lambda x: x.expected(lambda k: (np.sign(2 * k - x.n) + 1) / 2),
        rhs=lambda x: x.p * (4 * x.p * (1 - x.p)) ** ((x.n - 1) / 2),
        scale=lambda x: x.p,
    )
    return Planted(claim, "parity", Draws(2, 16))


SAMPLES = (
    cvar_exponent(),
    bias_from_one_draw(),
    group_weight(),
    pass_at_k_variance(),
    leave_one_out(),
    smoothed_margin(),
    majority_of_votes(),
)
