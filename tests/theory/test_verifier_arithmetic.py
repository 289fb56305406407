"""How `proofs_check/verifier.py` calculates: intervals, logarithms, and worst cases found by sorting."""

from fractions import Fraction
from itertools import product

import mpmath
import numpy as np
import pytest
from scipy.optimize import linprog

from proofs_check import verifier

FUNCTIONS = {
    "sqrt": (mpmath.sqrt, ["1/7", "2", "9/4", "1000001/3", "1/99999999"]),
    "log": (mpmath.log, ["1/7", "2", "9/4", "1000001/3", "1/99999999", "999/1000", "1/2", "3/2"]),
    "exp": (mpmath.exp, ["1/7", "-2", "9/4", "-100/3", "1/99999999", "-64", "17", "-1/2"]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_enclosures_hold_the_number_and_little_else(name):
    reference, places = FUNCTIONS[name]
    with mpmath.workdps(120):
        for place in map(Fraction, places):
            found = verifier.FUNCTIONS[name](place)
            number = reference(mpmath.mpf(place.numerator) / place.denominator)
            low, high = (mpmath.mpf(end.numerator) / end.denominator for end in (found.low, found.high))
            assert low - mpmath.mpf(10) ** -100 * abs(number) <= number <= high + mpmath.mpf(10) ** -100 * abs(number)
            assert high - low <= max(1, abs(number)) ** 2 * mpmath.mpf(10) ** -70
            wide = verifier.FUNCTIONS[name](verifier.Interval(place, place + 1)) if place != -1 else found
            assert wide.low <= found.low < found.high < wide.high


def test_intervals_hold_what_comes_of_their_numbers():
    ends = [Fraction(k, 2) for k in (-3, -1, 1, 4)]
    some = [verifier.Interval(a, b) for a, b in product(ends, ends) if a < b]
    for one, two in product(some, some):
        for a, b in product((one.low, one.high), (two.low, two.high)):
            pairs = [(one + two, a + b), (one - two, a - b), (one * two, a * b), (one - b, a - b), (a - two, a - b)]
            if two.low > 0 or two.high < 0:
                pairs += [(one / two, a / b), (a / two, a / b)]
            assert all(found.low <= number <= found.high for found, number in pairs)


@pytest.mark.parametrize("seed", range(8))
def test_worst_cases_found_by_sorting_are_those_of_a_linear_program(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    losses = [Fraction(int(k), 4) for k in rng.integers(-8, 9, n)]
    masses = [Fraction(int(k)) for k in rng.integers(0, 5, n)]
    masses[0] += 1
    p = [mass / sum(masses) for mass in masses]
    radius, ratio = Fraction(int(rng.integers(0, 9)), 8), 1 + Fraction(int(rng.integers(0, 9)), 4)
    for cap in (None, ratio):
        most = [float((1 if cap is None else min(1, cap * x)) if x else 0) for x in p]
        grow = np.hstack([np.eye(n), -np.eye(n)])  # q - p <= d, sum d <= radius
        found = linprog(
            np.array([*(-float(x) for x in losses), *[0.0] * n]),
            A_ub=np.vstack([grow, [*[0] * n, *[1] * n]]),
            b_ub=np.array([*map(float, p), float(radius)]),
            A_eq=[[1] * n + [0] * n],
            b_eq=[1],
            bounds=[*((0, x) for x in most), *[(0, None)] * n],
        )
        assert float(verifier.tv(losses, p, radius, cap)) == pytest.approx(-found.fun, abs=1e-9)
