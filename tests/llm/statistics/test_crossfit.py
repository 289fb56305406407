"""Cross-fitted probabilities of labels: against scipy's optimiser, and blind to the labels they are of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from llm.statistics import crossfit as module
from llm.statistics.crossfit import crossfit, deal, principal

FOLDS, SEED = 4, 3


@pytest.fixture(scope="module")
def problem():
    """Feature differences with labels drawn from a Bradley-Terry model, two or three pairs to a prompt."""
    rng = np.random.default_rng(0)
    rows, head = rng.normal(size=(900, 12)) * np.linspace(0.2, 2, 12), rng.normal(size=12) / 3
    prompts = np.sort(rng.integers(380, size=900))
    truth = expit(rows @ head)
    signs = np.where(rng.random(900) < truth, 1.0, -1.0)
    return signs[:, None] * rows, prompts, np.where(signs > 0, truth, 1 - truth)


def test_probabilities_are_calibrated_and_near_the_truth(problem):
    rows, prompts, truth = problem
    found = crossfit(rows, prompts, folds=FOLDS, seed=SEED)
    assert np.corrcoef(found, truth)[0, 1] > 0.93
    assert -np.log(found).mean() == pytest.approx(-np.log(truth).mean(), abs=0.02)
    sure = np.maximum(found, 1 - found)
    for part in np.array_split(np.argsort(sure), 3):  # what is said to be right in so many cases is
        assert np.mean(found[part] > 0.5) == pytest.approx(sure[part].mean(), abs=3 * 0.5 / np.sqrt(len(part)))


def test_no_label_of_its_fold_reaches_a_probability(problem):
    """Exchanging the answers of all pairs of a fold only turns the probabilities of these pairs round."""
    rows, prompts, _ = problem
    found, fold = crossfit(rows, prompts, folds=FOLDS, seed=SEED), deal(prompts, FOLDS, seed=SEED)
    turned = crossfit(np.where(fold == 1, -1, 1)[:, None] * rows, prompts, folds=FOLDS, seed=SEED)
    np.testing.assert_allclose(turned[fold == 1], 1 - found[fold == 1], atol=1e-9)
    assert np.abs(turned[fold != 1] - found[fold != 1]).max() > 1e-2  # they learned from these labels


def test_folds_hold_whole_clusters_and_are_of_one_size():
    rng = np.random.default_rng(1)
    clusters = rng.integers(60, size=500) ** 2
    fold = deal(clusters, 7, seed=0)
    assert all(len(set(fold[clusters == name])) == 1 for name in clusters)
    sizes = np.bincount(fold, minlength=7)
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= np.bincount(clusters).max()
    assert sorted(deal(np.arange(5), 5, seed=0)) == list(range(5))
    assert (deal(clusters, 7, seed=0) != deal(clusters, 7, seed=1)).any()


def test_heads_and_scale_are_those_of_an_optimiser(problem):
    rows = principal(problem[0])
    assert (rows**2).sum(1).mean() == pytest.approx(1)
    mass = np.random.default_rng(2).uniform(0.5, 2, len(rows))
    path = module._path(rows, mass, np.arange(len(rows)) % 2 == 0)
    kept, share = rows[::2], mass[::2] / mass[::2].sum()
    for penalty, head in zip(module._PENALTIES, path, strict=True):

        def value(w, penalty=penalty):
            return -share @ log_expit(kept @ w) + penalty / 2 * w @ w

        best = minimize(value, np.zeros(rows.shape[1]), method="BFGS", options={"gtol": 1e-9})
        assert value(head) <= best.fun + 1e-9
    margins = rows @ path[3]
    right = (len(rows) + 1) / (len(rows) + 2)
    found = module._scale(margins, mass)

    def loss(scale):
        return -mass @ (right * log_expit(scale * margins) + (1 - right) * log_expit(-scale * margins))

    assert loss(found) <= min(loss(found * (1 + step)) for step in (-1e-3, 1e-3))


def test_a_pair_that_counts_twice_is_two_pairs(problem):
    rows, prompts, _ = problem
    rows, prompts = rows[:300], prompts[:300]
    masses = 1.0 + (prompts % 2)
    twice = np.repeat(np.arange(300), masses.astype(int))
    fold = deal(prompts, FOLDS, seed=SEED)
    with pytest.MonkeyPatch.context() as patch:  # the same folds, however many pairs a prompt has
        patch.setattr(module, "deal", lambda clusters, *_, **__: fold[np.searchsorted(prompts, clusters)])
        patch.setattr(module, "principal", lambda x: x / 4)
        weighted = crossfit(rows, prompts, folds=FOLDS, masses=masses, seed=SEED)
        often = crossfit(rows[twice], prompts[twice], folds=FOLDS, seed=SEED)
    np.testing.assert_allclose(often[np.unique(twice, return_index=True)[1]], weighted, atol=2e-3)


@pytest.mark.parametrize(
    ("rows", "low", "high"),
    [
        (np.abs(np.random.default_rng(0).normal(size=(60, 3))) + 0.1, 0.6, 1.0),  # separable
        (np.zeros((60, 3)), 0.5, 0.5),  # features that are all equal
        (np.ones((60, 1)), 0.8, 1.0),
        (np.random.default_rng(0).normal(size=(60, 400)), 0.0, 1.0),  # more features than pairs
    ],
    ids=["separable", "constant", "one", "wide"],
)
def test_data_that_decide_all_or_nothing(rows, low, high):
    found = crossfit(rows, np.arange(60), folds=3)
    assert np.isfinite(found).all()
    assert ((found >= low) & (found <= high)).all()
