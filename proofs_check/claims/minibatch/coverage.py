"""Claims about radii from a confidence level, ``dro_core.radius_from_confidence`` (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, prod
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from dro_core import ChiSquare, TotalVariation, radius_from_confidence
from proofs_check.claim import Claim, Curve, Instances, Verdict, mutant, stated, swapped
from proofs_check.exact.enclosures import log_bounds, root_bounds
from synthetic import sample_counts

if TYPE_CHECKING:
    from collections.abc import Callable

Row = tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """n independent observations of k known outcomes, masses proportional to p; 1/misses is delta."""

    masses: Row
    n: int
    misses: int

    @property
    def work(self) -> float:
        """Four for every sample, of which each is a product of rational numbers."""
        return 4.0 * comb(self.n + self.atoms - 1, self.n)

    @property
    def atoms(self) -> int:
        """K."""
        return len(self.masses)

    @property
    def exact(self) -> list[Fraction]:
        """P."""
        return [Fraction(mass, sum(self.masses)) for mass in self.masses]


@stated
def radius_covers() -> Claim[Known]:
    """The published radius of total variation covers the truth at every n and for every number of atoms.

    Problem: n independent observations of k known outcomes; the total-variation ball around their shares, with the
        radius of ``dro_core.radius_from_confidence(TotalVariation, n, delta, atoms=k)``.
    Algorithm: every sample is enumerated; the radius is evaluated between outward-rounded bounds.
    Guarantee (lower): P(truth in the ball) >= 1 - delta.
    Source: [W03], or Cauchy-Schwarz and McDiarmid; ``dro_core.sampling.radius`` takes the smaller radius.
    Example: a fair coin, n = 1, delta = 1/20: the shares lie 1/2 away, and the radius is 1.
    """
    claim = Claim[Known](
        label="radius-covers",
        statement="P(TV(sample, truth) <= radius) >= 1 - delta for the radius of k atoms, at every n",
        reference="W03; derived",
        assumptions={
            "at least two outcomes, masses positive": lambda x: x.atoms >= 2 and min(x.masses) > 0,
            "delta <= 1/2": lambda x: x.misses >= 2 and x.n >= 1,
        },
        instances=_known(),
        lhs=lambda x: 1 - 1 / x.misses,
        rhs=lambda x: float(_covered(x, _radius(x))),
        scale=lambda x: 1.0,
        verifies=lambda x: _covered(x, exact_radius(x)) >= 1 - Fraction(1, x.misses),
        curve=Curve("n", tuple(Known((1, 1), n, 20) for n in range(1, 65))),
        effort=0.4,
    )
    half = mutant(claim, "half the radius", rhs=lambda x: float(_covered(x, _radius(x) / 2)))
    rate = mutant(claim, "radius of order 1/n", rhs=lambda x: float(_covered(x, _radius(x) / Fraction(x.n))))
    one = mutant(claim, "the radius of one mean", rhs=lambda x: float(_covered(x, _one_mean(x))))
    return claim.with_mutants(half, rate, one, swapped(claim))


@stated
def radius_covers_chi_square() -> Claim[Known]:
    """The chi-square quantile over 2n does not cover the truth at small n.

    Problem: as `radius-covers`, the chi-square ball of radius chi2_{k-1}(1 - delta)/(2n) around the shares.
    Guarantee (false): P(truth in the ball) >= 1 - delta. It is asymptotic: a sample that misses an outcome has the
        truth in none of its chi-square balls, as no reweighting gives mass to what was not seen.
    Source: [BT13], as read by a user with few observations; ``dro_core.radius_from_confidence`` says so.
    Example: see by hand.
    """
    claim = Claim[Known](
        label="radius-covers-chi-square",
        statement="P(truth in the chi-square ball of radius chi2_{k-1}/(2n) around the sample) >= 1 - delta at every n",
        reference="BT13, as read",
        assumptions={
            "at least two outcomes, masses positive": lambda x: x.atoms >= 2 and min(x.masses) > 0,
            "delta <= 1/2": lambda x: x.misses >= 2 and x.n >= 1,
        },
        instances=Instances(Known, (Known((1, 1), 4, 20), Known((1, 9), 20, 20), Known((1, 1), 1, 20))),
        lhs=lambda x: 1 - 1 / x.misses,
        rhs=lambda x: float(_shares_within(x, _chi_square, _chi_square_radius(x))),
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=lambda x: seen_whole(x) < 1 - Fraction(1, x.misses),
        curve=Curve("n", tuple(Known((1, 9), n, 20) for n in range(2, 129, 2))),
        by_hand=(
            "A fair coin, n = 4, delta = 1/20. All four throws are the same with chance 2/16 = 1/8.\n"
            "Then one side has no mass in the sample, so none in any q of finite divergence: the truth is not in.\n"
            "The ball covers in at most 7/8 of all samples, and 7/8 < 19/20."
        ),
    )
    return claim.with_mutants(mutant(claim, "1 - 2 delta", lhs=lambda x: 1 - 2 / x.misses))


def exact_radius(x: Known) -> Fraction:
    """Return a number just below the radius of total variation, a rational one."""
    n, k, delta = x.n, x.atoms, Fraction(1, x.misses)
    union = root_bounds(log_bounds((2**k - 2) / delta)[0] / (2 * n))[0]
    mean = root_bounds(Fraction(k - 1, n))[0] / 2 + root_bounds(log_bounds(1 / delta)[0] / (2 * n))[0]
    return min(Fraction(1), union, mean)


def seen_whole(x: Known) -> Fraction:
    """Return P(every outcome occurs): no chi-square ball around other samples holds the truth."""
    return _shares_within(x, _unseen, Fraction(0))


def _covered(x: Known, radius: Fraction) -> Fraction:
    return _shares_within(x, _total_variation, radius)


@lru_cache(maxsize=4096)
def _shares_within(
    x: Known, distance: Callable[[list[Fraction], list[Fraction]], Fraction], radius: Fraction
) -> Fraction:
    """P(distance of the shares from p is at most the radius), over all samples."""
    p, total = x.exact, Fraction(0)
    for counts in sample_counts(x.n, x.atoms).tolist():
        if distance([Fraction(count, x.n) for count in counts], p) <= radius:
            ways = factorial(x.n) // prod(map(factorial, counts))
            total += ways * prod((mass**count for mass, count in zip(p, counts, strict=True)), start=Fraction(1))
    return total


def _unseen(shares: list[Fraction], _p: list[Fraction]) -> Fraction:
    return Fraction(min(shares) == 0)


def _total_variation(shares: list[Fraction], p: list[Fraction]) -> Fraction:
    return sum((abs(a - b) for a, b in zip(shares, p, strict=True)), Fraction(0)) / 2


def _chi_square(shares: list[Fraction], p: list[Fraction]) -> Fraction:
    """Of p from the shares; a number beyond every radius where an outcome is missing."""
    if min(shares) == 0:
        return Fraction(10**9)
    return sum(((b - a) ** 2 / a for a, b in zip(shares, p, strict=True)), Fraction(0)) / 2


def _radius(x: Known) -> Fraction:
    return Fraction(float(radius_from_confidence(TotalVariation, x.n, 1 / x.misses, atoms=x.atoms)))


def _one_mean(x: Known) -> Fraction:
    return Fraction(float(radius_from_confidence(TotalVariation, x.n, 1 / x.misses)))


def _chi_square_radius(x: Known) -> Fraction:
    return Fraction(float(radius_from_confidence(ChiSquare, x.n, 1 / x.misses, atoms=x.atoms)))


def _known() -> Instances[Known]:
    corners = (
        Known((1, 1), 1, 20), Known((1, 1), 64, 2), Known((1, 1, 1), 24, 2), Known((1, 1, 1, 1), 12, 2),
        Known((1, 1023), 8, 20),
    )  # fmt: skip

    def of_size(k: int, most: int) -> st.SearchStrategy[Known]:
        masses = st.tuples(*[st.integers(1, 32)] * k)
        return st.builds(Known, masses, st.integers(1, most), st.sampled_from((2, 4, 10, 20, 100)))

    return Instances(Known, corners, st.one_of(of_size(2, 96), of_size(3, 16), of_size(4, 8)))
