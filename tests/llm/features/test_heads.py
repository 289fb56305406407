"""Heads judged out of fold, against scikit-learn, and pairs with nothing to learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from llm.features.heads import PENALTIES, fitted_head, out_of_fold


def pairs(n=400, d=6, signal=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) + signal) * 10.0 ** rng.uniform(-2, 2, d)


def test_a_head_is_the_best_of_scikit_learns_by_held_out_log_loss():
    x, judged_on = pairs(signal=0.2), np.arange(0, 400, 5)
    scaled = x / np.sqrt(np.mean(x**2))
    others = np.setdiff1d(np.arange(400), judged_on)

    def fitted(rows, penalty):
        both, labels = np.concatenate([scaled[rows], -scaled[rows]]), np.repeat([1, 0], len(rows))
        head = LogisticRegression(C=1 / (2 * len(rows) * penalty), fit_intercept=False, tol=1e-10, max_iter=10_000)
        return head.fit(both, labels).coef_[0]

    losses = [np.log1p(np.exp(-scaled[judged_on] @ fitted(others, penalty))).mean() for penalty in PENALTIES]
    best = fitted(np.arange(400), PENALTIES[np.argmin(losses)]) / np.sqrt(np.mean(x**2))
    np.testing.assert_allclose(fitted_head(x, judged_on), best, rtol=2e-3)


def test_a_pair_is_judged_by_heads_that_saw_nothing_of_its_cluster():
    """Labels say nothing, and every pair stands there ten times: a head that saw a copy would know it."""
    rng = np.random.default_rng(1)
    once = rng.standard_normal((40, 60))
    x, clusters = np.repeat(once, 10, axis=0), np.repeat(np.arange(40), 10)
    honest = (out_of_fold(x, clusters) > 0).mean()
    torn = (out_of_fold(x, np.arange(400)) > 0).mean()
    assert torn > 0.95
    assert honest < 0.75


def test_turning_pairs_around_turns_their_margins_around():
    x, turned = pairs(), np.where(np.random.default_rng(2).random(400) < 0.5, -1.0, 1.0)
    clusters = np.arange(400)
    alone = out_of_fold(x, clusters)
    assert (alone > 0).mean() > 0.8
    others = x.copy()
    others[clusters % 2 == 0] *= turned[clusters % 2 == 0, None]
    assert np.any(out_of_fold(others, clusters) != alone)
    np.testing.assert_allclose(out_of_fold(-x, clusters), alone, rtol=1e-6)  # <-w, -x> = <w, x>


def test_features_that_are_all_equal_have_margins_of_zero():
    assert not out_of_fold(np.zeros((40, 3)), np.arange(40)).any()


@pytest.mark.parametrize(("clusters", "folds"), [(9, 5), (3, 2), (40, 1)])
def test_too_few_prompts_get_a_sentence(clusters, folds):
    with pytest.raises(ValueError, match="different prompts, got"):
        out_of_fold(pairs(40), np.arange(40) % clusters, folds=folds)
