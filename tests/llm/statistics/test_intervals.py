"""Intervals and tests against scipy, hand calculation and simulation."""

from itertools import product
from math import comb, inf, isnan, nan

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS

from llm.statistics.intervals import (
    Interval,
    accuracy_interval,
    cluster_count,
    holm,
    independent_mean,
    mcnemar_p,
    paired_difference,
    paired_p,
)
from llm.statistics.sign_flips import sign_flip_p


@pytest.mark.parametrize(("right", "pairs"), [(0, 2), (1, 3), (7, 10), (10, 10), (150, 215), (3168, 3169)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_independent_pairs_give_scipys_wilson_interval(right, pairs, level):
    expected = stats.binomtest(right, pairs).proportion_ci(level, method="wilson")
    correct = np.arange(pairs) < right
    assert accuracy_interval(correct, level=level) == pytest.approx((right / pairs, *expected), abs=1e-12)
    assert accuracy_interval(correct, [None] * pairs, level=level) == accuracy_interval(correct, level=level)


def test_clustered_interval_is_the_t_interval_of_question_means_when_questions_are_equal_in_size():
    # Equal sizes make the regression the textbook interval for the mean of G independent question means.
    means = np.random.default_rng(0).integers(0, 5, 30) / 4
    correct = np.concatenate([np.arange(4) < 4 * mean for mean in means])
    questions = np.repeat(np.arange(30), 4)
    low, high = stats.t.interval(0.95, 29, means.mean(), stats.sem(means))
    assert accuracy_interval(correct, questions) == pytest.approx((means.mean(), low, high), abs=1e-12)


def test_clustered_width_agrees_with_a_bootstrap_over_questions():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 12, 80)
    questions = np.repeat(np.arange(80), sizes)
    correct = rng.random(len(questions)) < rng.beta(2, 1, 80)[questions]
    right = np.bincount(questions, weights=correct)
    drawn = rng.integers(0, 80, (4000, 80))
    spread = np.std(right[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    interval = accuracy_interval(correct, questions)
    width = (interval.high - interval.low) / (2 * stats.t.ppf(0.975, 79))
    assert width == pytest.approx(spread, rel=0.06)


def test_clustered_interval_covers_where_wilson_does_not():
    rng = np.random.default_rng(2)
    clustered = naive = 0
    for _ in range(400):
        sizes = rng.integers(2, 10, 40)
        questions = np.repeat(np.arange(40), sizes)
        correct = rng.random(len(questions)) < rng.beta(2.8, 1.2, 40)[questions]
        clustered += _covers(accuracy_interval(correct, questions), 0.7)
        naive += _covers(accuracy_interval(correct), 0.7)
    assert clustered >= 0.91 * 400  # 95 % nominal; 93 % in 1500 draws
    assert naive <= 0.88 * 400


def test_repeating_every_pair_of_a_question_adds_no_certainty():
    rng = np.random.default_rng(3)
    correct, questions = rng.random(60) < 0.7, np.arange(60) % 25
    thrice = accuracy_interval(np.tile(correct, 3), np.tile(questions, 3))
    assert thrice == pytest.approx(accuracy_interval(correct, questions), abs=1e-12)


def test_without_variance_between_questions_wilson_counts_questions():
    interval = accuracy_interval(np.ones(40), np.repeat(np.arange(8), 5))
    assert interval == pytest.approx((1.0, *stats.binomtest(8, 8).proportion_ci(method="wilson")))
    assert interval.low < accuracy_interval(np.ones(40)).low


def test_limits_stay_inside_the_unit_interval():
    correct = np.ones(12)
    correct[0] = 0
    interval = accuracy_interval(correct, np.repeat(np.arange(4), 3))
    assert interval.high == 1.0
    assert 0.0 <= interval.low < interval.mean


@pytest.mark.parametrize("clusters", [None, ["q"]])
def test_one_pair_has_a_mean_and_no_limits(clusters):
    for interval in (accuracy_interval([1], clusters), paired_difference([1], [0], clusters)):
        assert interval.mean == 1.0
        assert isnan(interval.low)
        assert isnan(interval.high)
    assert isnan(paired_p([1], [0], clusters))


def test_one_question_has_no_limits_and_no_pairs_have_nothing():
    assert isnan(accuracy_interval([1, 0, 1], ["q"] * 3).low)
    assert all(map(isnan, accuracy_interval([])))
    assert all(map(isnan, paired_difference([], [])))
    assert isnan(mcnemar_p([], []))


def test_paired_difference_is_scipys_paired_t_test():
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 3, (2, 200)) / 2  # averages over two seeds
    reference = stats.ttest_rel(a, b)
    assert paired_difference(a, b)[1:] == pytest.approx(tuple(reference.confidence_interval()), abs=1e-12)
    assert paired_p(a, b) == pytest.approx(reference.pvalue, rel=1e-9)


def test_clustered_difference_uses_questions_as_units():
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 120))  # all questions change, which is enough of them for t to be the only test
    questions = np.repeat(np.arange(30), 4)
    means = (a - b).reshape(30, 4).mean(axis=1)
    reference = stats.ttest_1samp(means, 0.0)
    assert paired_difference(a, b, questions)[1:] == pytest.approx(tuple(reference.confidence_interval()))
    assert paired_p(a, b, questions) == pytest.approx(reference.pvalue)


def test_unequal_questions_give_statsmodels_cluster_robust_regression():
    rng = np.random.default_rng(8)
    for _ in range(20):
        questions = rng.integers(0, rng.integers(40, 90), 120)  # 25 or more, so that t is the only test
        a, b = rng.random((2, 120))
        fit = OLS(a - b, np.ones(120)).fit(cov_type="cluster", cov_kwds={"groups": questions}, use_t=True)
        assert paired_difference(a, b, questions, level=0.9)[1:] == pytest.approx(tuple(fit.conf_int(0.1)[0]))
        assert paired_p(a, b, questions) == pytest.approx(fit.pvalues[0])
        assert paired_p(a, b, [f"q{q}" for q in questions]) == pytest.approx(paired_p(a, b, questions), rel=1e-12)


def test_interval_excludes_zero_exactly_where_p_is_small():
    rng = np.random.default_rng(6)
    for _ in range(60):
        a, b = rng.random(25) < rng.uniform(0.4, 0.9), rng.random(25) < 0.5
        questions = rng.integers(0, 9, 25)
        interval = paired_difference(a, b, questions)
        assert (paired_p(a, b, questions) < 0.05) == (interval.low > 0 or interval.high < 0)


@pytest.mark.parametrize("changed", range(1, 16))
@pytest.mark.parametrize("pairs", [100, 1000])
def test_few_changed_pairs_count_as_much_as_an_exact_test_lets_them(changed, pairs):
    """All changes in one direction are the strongest evidence that they can be: 2 / 2^k, whatever t says."""
    a = np.r_[np.ones(changed), np.zeros(pairs - changed)]
    for better, worse in ((a, np.zeros(pairs)), (np.zeros(pairs), a)):
        interval, p = paired_difference(better, worse), paired_p(better, worse)
        assert p >= mcnemar_p(better, worse) == min(1.0, 2 / 2**changed)
        assert (interval.low > 0 or interval.high < 0) == (p < 0.05) == (changed >= 6)


def test_random_signs_are_those_of_every_enumeration():
    """Counted against all 2^k signs, one by one, for sums of unlike size; equal sizes give McNemar's test."""
    rng = np.random.default_rng(12)
    for count in (1, 2, 5, 9):
        values = rng.normal(0.5, 1.0, count)
        sums = [np.dot(signs, values) for signs in product((-1, 1), repeat=count)]
        assert sign_flip_p([*values, 0.0]) == pytest.approx(np.mean(np.abs(sums) >= abs(values.sum()) - 1e-9))
    for only_a, only_b in ((4, 0), (7, 1), (12, 12), (17, 7)):
        assert sign_flip_p([1.0] * only_a + [-1.0] * only_b) == pytest.approx(mcnemar_p(*_discordant(only_a, only_b)))


def test_equal_models_are_seldom_told_apart_by_few_changes():
    """The share of false findings stays below its level where a handful of a hundred pairs change sides."""
    rng = np.random.default_rng(13)
    found = 0
    for _ in range(600):
        change = np.where(rng.random(100) < 0.05, rng.choice([-1.0, 1.0], 100), 0.0)
        found += paired_p(np.maximum(change, 0), np.maximum(-change, 0)) < 0.05
    assert found <= 0.05 * 600


@pytest.mark.parametrize("pairs", [2, 10, 500])
def test_models_that_never_disagree_leave_room_for_unseen_disagreement(pairs):
    interval = paired_difference(np.ones(pairs), np.ones(pairs))
    unseen = stats.binomtest(0, pairs).proportion_ci(method="wilson").high
    assert interval == pytest.approx((0.0, -unseen, unseen))
    assert paired_p(np.ones(pairs), np.ones(pairs)) == 1.0


def test_models_that_always_disagree_get_limits_inside_the_range():
    interval = paired_difference(np.ones(6), np.zeros(6))
    assert interval.high == pytest.approx(1.0)
    assert 0.0 < interval.low < 1.0
    assert paired_p(np.ones(6), np.zeros(6)) == pytest.approx(2 * 0.5**6)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 9), (12, 12), (24, 0)])
def test_mcnemar_is_a_binomial_test_while_few_pairs_differ(only_a, only_b):
    a, b = _discordant(only_a, only_b)
    total = only_a + only_b
    tail = sum(comb(total, k) for k in range(min(only_a, only_b) + 1)) / 2**total
    assert mcnemar_p(a, b) == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize(("only_a", "only_b"), [(25, 0), (20, 30), (60, 41)])
def test_mcnemar_is_corrected_chi_square_where_many_differ(only_a, only_b):
    a, b = _discordant(only_a, only_b)
    statistic = (abs(only_a - only_b) - 1) ** 2 / (only_a + only_b)
    assert mcnemar_p(a, b) == pytest.approx(stats.chi2.sf(statistic, 1))


def test_mcnemar_refuses_averages_over_seeds():
    with pytest.raises(ValueError, match="Use paired_p"):
        mcnemar_p([1 / 3, 1.0], [0.0, 1.0])


def test_mean_of_independent_intervals_covers():
    rng = np.random.default_rng(7)
    sizes, truth, covered = (40, 200, 800), (0.9, 0.6, 0.7), 0
    for _ in range(500):
        intervals = [accuracy_interval(rng.random(n) < p) for n, p in zip(sizes, truth, strict=True)]
        covered += _covers(independent_mean(intervals), np.mean(truth))
    assert 0.92 * 500 <= covered <= 0.985 * 500
    assert isnan(independent_mean([Interval(0.5, 0.4, 0.6), Interval(1.0, nan, nan)]).low)
    assert all(map(isnan, independent_mean([])))


def test_holm_by_hand():
    # Sorted: .001 x 4, .01 x 3, .02 x 2, .04 x 1, then the running maximum.
    assert holm([0.02, nan, 0.001, 0.04, 0.01])[2:] == pytest.approx([0.004, 0.04, 0.03])
    assert holm([0.02, nan, 0.001, 0.04, 0.01])[0] == pytest.approx(0.04)
    assert isnan(holm([nan])[0])
    assert holm([]) == []


def test_labels_name_clusters_and_none_stands_alone():
    assert cluster_count([None, "a", None, "a", 0], 5) == 4
    assert cluster_count(np.array([3, 3, 1]), 3) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy_interval([0.5, 1.5]), r"correct must hold values in \[0, 1\]"),
        (lambda: accuracy_interval([0.5, nan]), r"correct must hold values in \[0, 1\]"),
        (lambda: accuracy_interval([[1, 0]]), "one-dimensional"),
        (lambda: accuracy_interval([1, 0], ["q"]), "1 labels for 2 pairs"),
        (lambda: accuracy_interval([1, 0], level=95), r"must lie in \(0, 1\), got 95"),
        (lambda: paired_difference([1], [1, 0]), "correct_a has 1, correct_b 2"),
        (lambda: paired_difference([1, -inf], [1, 0]), "correct_a must hold"),
    ],
)
def test_wrong_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _covers(interval, truth):
    return interval.low <= truth <= interval.high


def _discordant(only_a, only_b):
    a = np.repeat([1, 0, 1, 0], [only_a, only_b, 5, 3])
    b = np.repeat([0, 1, 1, 0], [only_a, only_b, 5, 3])
    return a, b
