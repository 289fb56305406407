"""Errors under shift against the solver, a conic program and exact enumeration of what samples can look like."""

import itertools
from math import factorial

import cvxpy as cp
import numpy as np
import pytest
from scipy import stats

from dro_core import ChiSquare, TotalVariation, worst_case
from llm.statistics.shift_bounds import bounded_limit, chi_square_error, error_limit, exact_limit, tv_error

SAMPLES = [(n, wrong) for n in (1, 5, 40) for wrong in sorted({0, 1, n // 3, n - 1, n})]


@pytest.mark.parametrize(("n", "wrong"), SAMPLES)
@pytest.mark.parametrize("radius", [0.0, 0.05, 0.3, 0.7, 1.0])
def test_total_variation_is_the_worst_case_of_the_sample(n, wrong, radius):
    found = worst_case((np.arange(n) < wrong).astype(float), TotalVariation(radius)).value
    bound = tv_error(wrong / n, radius)
    # The solver moves mass between the sample's own pairs; without an error among them there is none to move to.
    assert found == pytest.approx(bound, abs=1e-12) if wrong else found == 0.0 <= bound


@pytest.mark.parametrize(("n", "wrong"), SAMPLES)
@pytest.mark.parametrize("radius", [0.0, 0.02, 0.4, 3.0, 200.0])
def test_chi_square_is_the_worst_case_of_the_sample(n, wrong, radius):
    found = worst_case((np.arange(n) < wrong).astype(float), ChiSquare(radius / 2)).value
    assert found == pytest.approx(chi_square_error(wrong / n, radius), abs=1e-9)


@pytest.mark.parametrize("radius", [0.1, 1.0, 2.0, 4.0])
def test_chi_square_is_the_value_of_the_conic_program(radius):
    n, wrong = 12, 4  # the cap is reached from radius 2 on
    losses = np.arange(n) < wrong
    q = cp.Variable(n, nonneg=True)
    problem = cp.Problem(cp.Maximize(q @ losses), [cp.sum(q) == 1, cp.sum_squares(n * q - 1) / n <= radius])
    problem.solve(solver="CLARABEL")
    assert chi_square_error(wrong / n, radius) == pytest.approx(problem.value, abs=1e-6)
    assert (chi_square_error(wrong / n, radius) == 1.0) == (radius >= 2.0)


@pytest.mark.parametrize("formula", [tv_error, chi_square_error])
def test_a_larger_error_or_radius_never_lowers_the_bound(formula):
    errors, radii = np.linspace(0, 1, 401), np.linspace(0, 1, 41)
    table = formula(errors[:, None], radii)
    assert np.all(np.diff(table, axis=0) >= -1e-15)
    assert np.all(np.diff(table, axis=1) >= -1e-15)
    assert np.all(table[:, 0] == errors)


@pytest.mark.parametrize("trials", [1, 7, 60])
def test_exact_limit_is_scipys_and_covers_whatever_the_truth(trials):
    limits = [exact_limit(wrong, trials, confidence=0.9) for wrong in range(trials + 1)]
    expected = [
        stats.binomtest(k, trials, alternative="less").proportion_ci(0.9, method="exact").high
        for k in range(trials + 1)
    ]
    assert limits == pytest.approx(expected)
    for truth in np.linspace(0.01, 0.99, 50):
        covered = stats.binom.pmf(np.arange(trials + 1), trials, truth)[np.array(limits) >= truth].sum()
        assert covered >= 0.9 - 1e-12


@pytest.mark.parametrize("units", [3, 12])
@pytest.mark.parametrize("chances", [(0.5, 0.2, 0.3), (0.9, 0.1, 0.0), (0.0, 0.9, 0.1), (0.97, 0.0, 0.03)])
def test_bounded_limit_covers_in_every_distribution_on_three_values(units, chances):
    truth = chances[1] / 2 + chances[2]
    missed = 0.0
    for halves, ones in itertools.product(range(units + 1), repeat=2):
        zeros = units - halves - ones
        if zeros >= 0 and bounded_limit((halves / 2 + ones) / units, units, confidence=0.8) < truth:
            ways = factorial(units) / (factorial(halves) * factorial(ones) * factorial(zeros))
            missed += ways * np.prod(np.power(chances, (zeros, halves, ones)))
    assert missed <= 0.2


@pytest.mark.parametrize(("mean", "units"), [(0.0, 5), (0.1, 30), (0.5, 200), (1.0, 4)])
def test_less_is_known_of_bounded_variables_than_of_zeros_and_ones(mean, units):
    exact = exact_limit(round(mean * units), units)
    assert exact <= bounded_limit(mean, units) <= min(1.0, exact + 1.2 / np.sqrt(units))


def test_questions_are_the_units():
    errors = np.repeat([1.0, 0.0, 0.0, 0.0], 5)
    found = error_limit(errors, np.repeat(np.arange(4), 5))
    assert found == (0.25, exact_limit(1, 4), 4, "Clopper-Pearson")
    assert found.limit > error_limit(errors).limit
    mixed = error_limit([1, 0, 0, 0, 0, 0], ["a", "a", "b", "b", "b", None])
    assert mixed == (pytest.approx(1 / 6), bounded_limit(1 / 6, 3), 3, "Hoeffding-Bentkus")  # 1/2, 0, 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tv_error(0.2, 1.5), r"radius must lie in \[0, 1\]"),
        (lambda: chi_square_error(-0.1, 1.0), r"error must lie in \[0, 1\]"),
        (lambda: chi_square_error(0.1, float("nan")), r"radius must lie in \[0, inf\)"),
        (lambda: error_limit([]), "at least one test pair"),
        (lambda: error_limit([0.0, 2.0]), r"must hold values in \[0, 1\]"),
        (lambda: exact_limit(3, 2), "got 3 of 2"),
        (lambda: bounded_limit(0.1, 10, confidence=95), r"confidence must lie in \(0, 1\), got 95"),
    ],
)
def test_wrong_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
