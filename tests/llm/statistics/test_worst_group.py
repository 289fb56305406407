"""The worst group against paired tests, and against simulations in which the truth is known."""

import numpy as np
import pytest
from scipy import stats

from llm.statistics.intervals import independent_mean, paired_difference, paired_p
from llm.statistics.worst_group import Groups, average_difference, worst_accuracy, worst_difference


def groups_of(sizes, questions=None):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    questions = np.arange(len(codes)) if questions is None else questions
    return Groups([f"g{k}" for k in range(len(sizes))], codes, questions)


@pytest.mark.parametrize("changed", [4, 60])
def test_one_group_is_the_paired_difference(changed):
    rng = np.random.default_rng(0)
    questions = rng.integers(0, 60, 90)
    a = rng.integers(0, 2, 90).astype(float)
    a[:4] = 1.0
    b = np.where(np.arange(90) < changed, np.r_[np.zeros(4), rng.integers(0, 2, 86)], a)
    found = worst_difference(groups_of([90], questions), a, b, level=0.9)
    assert found.interval == pytest.approx(paired_difference(a, b, questions, level=0.9))
    assert found.p == pytest.approx(paired_p(a, b, questions))
    assert average_difference(groups_of([90], questions), a, b).interval == pytest.approx(
        paired_difference(a, b, questions)
    )


def test_average_over_suites_is_the_mean_of_independent_intervals():
    rng = np.random.default_rng(1)
    sizes = (300, 500, 800)
    a, b = (rng.random((2, sum(sizes))) < 0.7).astype(float)
    parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    expected = independent_mean([paired_difference(a[rows], b[rows]) for rows in parts])
    assert average_difference(groups_of(sizes), a, b).interval == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("truth_b", [(0.6, 0.6, 0.6, 0.6), (0.55, 0.7, 0.8, 0.9)])
def test_equal_worst_groups_are_rarely_called_different(truth_b):
    """The naive test, on the group where b looks worst, is wrong several times as often as it says."""
    rng = np.random.default_rng(2)
    truth_a, sizes = (min(truth_b),) * 4, (60,) * 4
    groups = groups_of(sizes)
    missed = naive = covered = 0
    for _ in range(400):
        a, b = (rng.random(240) < np.repeat(truth, 60) for truth in (truth_a, truth_b))
        found = worst_difference(groups, a, b, level=0.9)
        missed += not found.interval.low <= 0 <= found.interval.high
        assert (found.p < 0.1) == (found.interval.low > 0 or found.interval.high < 0)
        rows = groups.codes == np.argmin(groups.means(b))
        naive += paired_difference(a[rows], b[rows], level=0.9).low > 0
        interval = worst_accuracy(groups, a, level=0.9)
        covered += interval.low <= min(truth_a) <= interval.high
    assert missed <= 0.1 * 400
    assert covered >= 0.88 * 400
    if len(set(truth_b)) == 1:
        assert naive >= 0.15 * 400  # 5 % nominal


@pytest.mark.parametrize(("count", "size", "share"), [(2, 20, 0.2), (3, 20, 0.15), (4, 60, 0.05)])
def test_few_changes_of_random_signs_are_rarely_called_different(count, size, share):
    """Where one group would have an exact test, t-limits over several are sure less often than they may be."""
    rng, groups = np.random.default_rng(7), groups_of((size,) * count)
    different = 0
    for _ in range(200):
        one = rng.random(count * size) < 0.7
        other = one ^ (rng.random(one.shape) < share)
        signs = rng.random(one.shape) < 0.5
        different += worst_difference(groups, np.where(signs, one, other), np.where(signs, other, one)).p < 0.05
    assert different <= 0.03 * 200


def test_a_clearly_better_worst_group_is_found_in_another_group():
    rng = np.random.default_rng(3)
    groups = groups_of((500, 500, 500))
    a = rng.random(1500) < np.repeat((0.9, 0.75, 0.8), 500)
    b = rng.random(1500) < np.repeat((0.55, 0.95, 0.95), 500)
    found = worst_difference(groups, a, b)
    assert 0 < found.interval.low < 0.2 < found.interval.high
    assert found.p < 0.001
    exchanged = worst_difference(groups, b, a)
    assert exchanged.interval[1:] == pytest.approx((-found.interval.high, -found.interval.low))
    assert exchanged.p == pytest.approx(found.p)


def test_repeating_every_pair_of_a_question_adds_no_certainty():
    rng = np.random.default_rng(4)
    codes, questions = np.repeat([0, 1], 40), np.repeat(np.arange(20), 4)
    a, b = rng.random((2, 80))
    once = worst_difference(Groups(["x", "y"], codes, questions), a, b)
    twice = worst_difference(Groups(["x", "y"], np.tile(codes, 2), np.tile(questions, 2)), np.tile(a, 2), np.tile(b, 2))
    assert twice.interval == pytest.approx(once.interval)


def test_a_group_without_errors_is_not_certain():
    found = worst_difference(groups_of((10, 10)), np.ones(20), np.ones(20))
    reach = stats.t.ppf(1 - 0.025 / 2, 9) * np.sqrt(2 * (1 / 12) * (11 / 12) / 10)
    assert found.interval == pytest.approx((0.0, -reach, reach))
    assert found.p == 1.0
    assert worst_accuracy(groups_of((10,)), np.ones(10)).low < 0.85


@pytest.mark.parametrize("sizes", [(5, 1), ()])
def test_groups_of_one_question_are_refused(sizes):
    with pytest.raises(ValueError, match="at least two questions"):
        groups_of(sizes)
