"""Known answers of the linear robust fit, by scikit-learn, statsmodels and identities, and what it refuses."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    BurgPenalty,
    ChiSquare,
    ChiSquarePenalty,
    CressieReadPenalty,
    CVaR,
    Grouped,
    KLPenalty,
    Spectral,
    TotalVariation,
    Trimmed,
    worst_case,
)
from dro_core.learn.classifier import RobustPreferenceClassifier
from dro_core.learn.linear import LinearFit, fit_linear, fit_pairs

from .linear_problems import GROUPS, N, instance


def test_without_a_set_it_is_logistic_regression() -> None:
    features, labels, p = instance(2, n=300)
    theirs = LogisticRegression(C=1 / 0.02, tol=1e-10, max_iter=10_000).fit(features, labels, sample_weight=p)
    ours = fit_linear(features, labels, penalty=0.02, reference=p)
    assert np.allclose(ours.coefficients, theirs.coef_[0], atol=1e-6)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=1e-6)


def test_without_a_penalty_it_is_maximum_likelihood() -> None:
    features, labels, _ = instance(3, n=300)
    theirs = sm.Logit(labels, sm.add_constant(features)).fit(disp=0, tol=1e-12)
    ours = fit_linear(features, labels, penalty=0)
    assert np.allclose([ours.intercept, *ours.coefficients], theirs.params, atol=1e-7)
    assert ours.value == pytest.approx(-theirs.llf / 300, abs=1e-12)
    assert ours.gap <= 1e-9 * ours.value
    robust = fit_linear(features, labels, CVaR(0.7), penalty=0)
    assert robust.gap <= 1e-9 * robust.value
    assert robust.value > ours.value


def test_weights_are_copies_and_zero_weight_is_absence() -> None:
    features, labels, _ = instance(4)
    counts = np.random.default_rng(0).integers(0, 4, N)
    counts[:2] = 2
    fit = partial(fit_linear, ambiguity=TotalVariation(0.2, max_ratio=3), penalty=0.01)
    weighted = fit(features, labels, reference=counts / counts.sum())
    copied = fit(np.repeat(features, counts, axis=0), np.repeat(labels, counts))
    assert np.allclose(weighted.coefficients, copied.coefficients, atol=1e-8)
    assert weighted.value == pytest.approx(copied.value, abs=1e-10)
    assert np.all(weighted.weights[counts == 0] == 0)


def test_zero_weight_leaves_a_groups_other_examples_alone() -> None:
    features, labels, p = instance(5)
    p[3:6] = 0
    p /= p.sum()
    kept = p > 0
    fit = fit_linear(features, labels, Grouped(CVaR(0.5), GROUPS), penalty=0.01, reference=p)
    alone = fit_linear(features[kept], labels[kept], Grouped(CVaR(0.5), GROUPS[kept]), penalty=0.01, reference=p[kept])
    assert np.allclose(fit.coefficients, alone.coefficients, atol=1e-8)


SMOOTH = [
    Burg(0.1),
    BurgPenalty(0.4),
    CressieReadPenalty(1.5, 0.4),
    CressieReadPenalty(0.5, 0.4),
    CVaR(0.6) + KLPenalty(0.2),
    CVaR(0.6) + ChiSquarePenalty(0.2),
    TotalVariation(0.2) + KLPenalty(0.3),
    Spectral((0.1, 0.3, 0.6)) + ChiSquarePenalty(0.5),
    KL(0.05) + KLPenalty(0.2),
    CVaR(0),
]


@pytest.mark.parametrize("ambiguity", SMOOTH, ids=str)
def test_no_descent_finds_anything_better(ambiguity: AmbiguitySet) -> None:
    """Quasi-Newton steps on the worst case itself: smooth for all but the maximum, where they end above."""
    features, labels, p = instance(3, n=40)
    signs = 2.0 * labels - 1
    fit = fit_linear(features, labels, ambiguity, penalty=0.05, fit_intercept=False, reference=p, tolerance=1e-7)

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (features @ w)
        worst = worst_case(np.logaddexp(0, -margins), ambiguity, reference=p)
        slopes = -worst.weights * signs * expit(-margins)
        return float(worst.value) + 0.025 * w @ w, features.T @ slopes + 0.05 * w

    found = minimize(objective, np.zeros(features.shape[1]), jac=True, options={"gtol": 1e-9})
    assert fit.gap <= 1e-6 * fit.value
    assert fit.value == pytest.approx(objective(fit.coefficients)[0], abs=1e-10)
    assert fit.value <= found.fun + 1e-7
    if ambiguity != CVaR(0):
        assert fit.value == pytest.approx(found.fun, abs=2e-6)


def test_pairs_are_differences_without_an_intercept() -> None:
    rng = np.random.default_rng(6)
    chosen, rejected = rng.standard_normal((2, 40, 4))
    chosen[:, 0] += 1
    pairs = fit_pairs(chosen, rejected, KL(0.1), penalty=0.01)
    first = rng.random(40) < 0.5
    differences = np.where(first[:, None], chosen - rejected, rejected - chosen)
    either_way = fit_linear(differences, first, KL(0.1), penalty=0.01, fit_intercept=False)
    assert np.allclose(pairs.coefficients, either_way.coefficients, atol=1e-8)
    assert pairs.intercept == 0
    assert pairs.coefficients[0] > 0.1


def test_a_large_set_on_noisy_labels_has_the_trivial_answer() -> None:
    """If some q in the set makes the labels unpredictable, no parameters do better than w = 0 against it."""
    rng = np.random.default_rng(8)
    features, labels = rng.standard_normal((200, 3)), np.arange(200) % 2
    features[:, 0] += 0.3 * labels
    fit = fit_linear(features, labels, TotalVariation(0.3), penalty=1e-3)
    assert fit.value == pytest.approx(np.log(2), abs=1e-9)
    assert np.linalg.norm(fit.coefficients) <= np.sqrt(2 * fit.gap / 1e-3) + 1e-12
    signs = 2.0 * labels - 1
    assert np.abs((fit.weights * signs) @ features).max() <= 1e-3  # the certificate: no direction is predictive


def test_the_minority_of_a_mixture_gains() -> None:
    """Nine in ten pairs follow one reward, one in ten another: robustness trades mean loss for the worst group's."""
    rng = np.random.default_rng(9)
    rewards, group = np.array([[3.0, 0.0, 1.0], [-1.0, 3.0, 1.0]]), (np.arange(2000) % 10 == 0).astype(int)
    differences = rng.standard_normal((2000, 3))
    first = rng.random(2000) < expit(np.sum(differences * rewards[group], axis=1))

    def group_losses(fit: LinearFit) -> np.ndarray:
        losses = np.logaddexp(0, -(2.0 * first - 1) * (differences @ fit.coefficients))
        return np.bincount(group, losses) / np.bincount(group)

    def fitted(ambiguity: AmbiguitySet | None) -> np.ndarray:
        return group_losses(fit_linear(differences, first, ambiguity, fit_intercept=False))

    plain = fitted(None)
    for ambiguity in (Grouped(TotalVariation(1.0), group), KL(0.1), ChiSquare(0.1), TotalVariation(0.03)):
        robust = fitted(ambiguity)
        assert robust.max() < plain.max() - 0.01
        assert robust.mean() != plain.mean()
        assert robust @ [0.9, 0.1] > plain @ [0.9, 0.1]


X, Y, _ = instance(1)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: fit_linear(X[0], Y), r"features must have shape \(n, d\).*got \(3,\)"),
        (lambda: fit_linear(X[:0], Y[:0]), r"features must have shape"),
        (lambda: fit_linear(np.where(X > 2, np.nan, X), Y), r"features must be finite, got nan in row \d+, column \d"),
        (lambda: fit_linear(X, Y[:-1]), r"labels must have shape \(24,\).*got \(23,\)"),
        (lambda: fit_linear(X, Y + 1), r"labels must be booleans, 0 and 1, or -1 and 1, got 1, 2"),
        (lambda: fit_linear(X, np.where(Y, "yes", "no")), r"got 'no', 'yes'; RobustPreferenceClassifier takes any"),
        (lambda: fit_linear(X, np.ones(N)), r"two classes.*got only \+1; for pairs .* use fit_pairs"),
        (lambda: fit_linear(X, Y, reference=Y / Y.sum()), r"two classes with positive reference mass"),
        (lambda: fit_linear(X, Y, reference=np.ones(N)), r"reference must be nonnegative and sum to 1"),
        (lambda: fit_linear(X, Y, reference=np.ones(3) / 3), r"reference must have shape \(24,\)"),
        (lambda: fit_linear(X, Y, penalty=-1.0), r"`penalty`.*\[0, inf\), got -1\.0\. Start from 1e-3"),
        (lambda: fit_linear(X, Y, tolerance=0.0), r"`tolerance`.*\(0, 1\), got 0\.0"),
        (lambda: fit_linear(X, Y, Trimmed(CVaR(0.5), 0.1)), r"is not convex.*fit with its inner set"),
        (lambda: fit_linear(X, Y, Grouped(CVaR(0.5), GROUPS[:-1])), r"23 labels, the losses have 24"),
        (lambda: fit_linear(X, Y, Grouped(CVaR(0.5), "source")), r"give them with `bind"),
        (lambda: fit_linear(X, X[:, 0] > 0, penalty=0), r"classes can be separated.*penalty > 0"),
        (lambda: fit_linear(X, X[:, 0] > 0, CVaR(0.4), penalty=0), r"classes can be separated.*penalty > 0"),
        (lambda: fit_pairs(X, X[:-1]), r"chosen and rejected must have one shape, got \(24, 3\) and \(23, 3\)"),
        (lambda: RobustPreferenceClassifier("tvv:0.2").fit(X, Y), r"unknown ambiguity 'tvv:0\.2'"),
        (lambda: RobustPreferenceClassifier("balanced:by=source").fit(X, Y), "no set: .* sample_weight=1 / sizes"),
        (lambda: RobustPreferenceClassifier().fit(X, GROUPS), r"Only binary.*OneVsRestClassifier"),
        (lambda: RobustPreferenceClassifier().fit(X, Y, sample_weight=np.zeros(N)), r"all zero|at least one non-zero"),
    ],
)
def test_bad_input_is_explained(attempt, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attempt()


def test_text_is_no_set_and_text_no_feature() -> None:
    with pytest.raises(TypeError, match=r"ambiguity must be a set.*got 'cvar:0\.3'; parse_ambiguity reads text"):
        fit_linear(X, Y, "cvar:0.3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"ambiguity must be a set.*its text 'tv:0\.2'.*got 0\.2"):
        RobustPreferenceClassifier(0.2).fit(X, Y)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="features must hold real numbers"):
        fit_linear(X.astype(str), Y)
