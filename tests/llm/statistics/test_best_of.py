"""Best-of-n against enumerated subsets, enumerated draws and exact divergences."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import comb, log

import numpy as np
import pytest
from scipy import stats

from llm.statistics.best_of import best_of, kl_bound, selection_weights
from llm.statistics.intervals import mean_interval


def enumerated(proxy, gold, n):
    """Mean over all subsets of n; in each, over the answers that share the highest proxy reward."""
    kept = []
    for subset in combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in subset)
        best = [i for i in subset if proxy[i] == top]
        kept.append((top, np.mean([gold[i] for i in best])))
    return np.mean(kept, axis=0)


@pytest.mark.parametrize("levels", [0, 3, 1])
def test_estimates_are_means_over_all_subsets(levels):
    """Without ties, with many, and with nothing but ties; gold goes against proxy here and there."""
    rng = np.random.default_rng(levels)
    proxy = rng.integers(levels, size=(3, 8)).astype(float) if levels else rng.normal(size=(3, 8))
    gold = rng.normal(size=(3, 8)) - 0.5 * proxy**2
    found = best_of(proxy, gold, sizes=range(1, 9))
    for row in range(3):
        expected = np.array([enumerated(proxy[row], gold[row], n) for n in range(1, 9)])
        np.testing.assert_allclose(found.proxy[row], expected[:, 0], rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(found.gold[row], expected[:, 1], rtol=1e-13, atol=1e-13)


def test_weights_are_those_of_exact_binomials_for_a_thousand_samples():
    sizes = [1, 2, 31, 500, 999, 1000]
    found = selection_weights(1000, sizes)
    for row, n in zip(found, sizes, strict=True):
        exact = [float(Fraction(comb(k - 1, n - 1), comb(1000, n))) for k in range(1, 1001)]
        np.testing.assert_allclose(row, exact, rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(selection_weights(1000, range(1, 1001)).sum(axis=1), 1, rtol=1e-12)


def test_estimates_have_no_bias():
    """The mean over every possible sample of three answers is the expectation over two draws, enumerated too."""
    probabilities, proxy, gold = np.array([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 1.0]), np.array([2.0, -1.0, 3.0])
    expected = 0.0
    for draw in product(range(3), repeat=2):
        best = [i for i in draw if proxy[i] == max(proxy[list(draw)])]
        expected += np.prod(probabilities[list(draw)]) * np.mean(gold[best])
    samples = np.array(list(product(range(3), repeat=3)))
    estimates = best_of(proxy[samples], gold[samples], sizes=[2]).gold[:, 0]
    assert np.prod(probabilities[samples], axis=1) @ estimates == pytest.approx(expected, rel=1e-13)


def test_one_answer_is_the_policy_and_all_answers_the_best():
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(2, 5, 37))
    found = best_of(proxy, gold)
    assert found.sizes.tolist() == [1, 2, 4, 8, 16, 32, 37]
    np.testing.assert_allclose(found.gold[:, 0], gold.mean(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(found.gold[:, -1], gold[np.arange(5), proxy.argmax(axis=1)])
    assert (np.diff(found.proxy, axis=1) > 0).all()


def enumerated_draws(probabilities, rewards, n):
    chosen = np.zeros(len(rewards))
    for draw in product(range(len(rewards)), repeat=n):
        best = [i for i in draw if rewards[i] == max(rewards[j] for j in draw)]
        for i in best:
            chosen[i] += np.prod([probabilities[j] for j in draw]) / len(best)
    return chosen


@pytest.mark.parametrize("rewards", [[0.0, 1.0, 2.0, 3.0], [3.0, 1.0, 1.0, -2.0], [1.0, 1.0, 1.0, 1.0]])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_divergence_of_all_draws_stays_below_the_bound(rewards, n):
    probabilities = np.array([0.4, 0.3, 0.2, 0.1])
    exact = stats.entropy(enumerated_draws(probabilities, rewards, n), probabilities)
    assert exact <= kl_bound([n])[0] + 1e-14


@pytest.mark.parametrize("n", [2, 10, 100])
def test_the_bound_is_met_where_no_answer_has_a_probability_of_its_own(n):
    """Of m equally likely answers the i-th best wins with probability (i/m)^n - ((i-1)/m)^n."""
    wins = np.diff(np.linspace(0, 1, 200_001) ** n)
    exact = stats.entropy(wins, np.full(len(wins), 1 / len(wins)))
    assert exact == pytest.approx(kl_bound([n])[0], abs=n / len(wins))


def test_points_have_intervals_over_prompts():
    rng = np.random.default_rng(1)
    found = best_of(*rng.normal(size=(2, 12, 6)), sizes=[1, 4])
    low, high = stats.t.interval(0.9, 11, found.gold[:, 1].mean(), stats.sem(found.gold[:, 1]))
    point = found.points(level=0.9)[1]
    assert (point.n, point.kl_bound) == (4, pytest.approx(log(4) - 0.75))
    assert point.gold == pytest.approx((found.gold[:, 1].mean(), low, high), rel=1e-12)
    twice = best_of(np.repeat(found.proxy, 2, axis=0), np.repeat(found.gold, 2, axis=0), sizes=[1])
    asked = np.repeat(np.arange(12), 2)
    once = mean_interval(twice.gold[::2, 0])
    assert twice.points(asked)[0].gold == pytest.approx(once, rel=1e-9)  # copies of a prompt tell nothing new
    assert twice.points()[0].gold.low > once.low + 0.01


def test_mean_interval_where_there_is_little_to_go_by():
    assert np.isnan(mean_interval([2.0]).low)
    assert np.isnan(mean_interval([2.0, 3.0], ["q", "q"]).low)
    assert mean_interval([-700.0, -700.0, -700.0]) == (-700.0, -700.0, -700.0)
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, np.nan])


@pytest.mark.parametrize(
    ("proxy", "gold", "sizes", "said"),
    [
        ([[1.0, 2.0]], [[1.0]], None, "the same answers"),
        ([1.0, 2.0], [1.0, 2.0], None, "answers per prompt"),
        ([[1.0, np.nan]], [[1.0, 1.0]], None, "proxy has rewards that are nan or infinite, first for prompt 0"),
        ([[1.0], [2.0]], [[1.0], [np.inf]], None, "first for prompt 1"),
        ([[1.0, 2.0]], [[1.0, 2.0]], [3], r"1 \.\.\. 2"),
        ([[1.0, 2.0]], [[1.0, 2.0]], [0], r"1 \.\.\. 2"),
        ([[1.0, 2.0]], [[1.0, 2.0]], [], r"1 \.\.\. 2"),
    ],
)
def test_wrong_input_gets_one_sentence(proxy, gold, sizes, said):
    with pytest.raises(ValueError, match=said):
        best_of(proxy, gold, sizes=sizes)
