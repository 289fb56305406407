"""The classifier for scikit-learn: its conventions, the fit inside it, and what it does without the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.utils.estimator_checks import parametrize_with_checks

from dro_core import KL
from dro_core.learn.classifier import RobustPreferenceClassifier
from dro_core.learn.linear import fit_linear

from .linear_problems import instance


@pytest.mark.filterwarnings("ignore:the fit is the constant")  # scikit-learn's labels are random
@parametrize_with_checks([RobustPreferenceClassifier(), RobustPreferenceClassifier("erm", penalty=0.1)])
def test_is_a_scikit_learn_classifier(estimator, check) -> None:
    check(estimator)


def test_the_classifier_is_the_fit() -> None:
    features, labels, p = instance(10)
    answers = np.where(labels, "good", "bad")
    model = RobustPreferenceClassifier(KL(0.2), penalty=0.05).fit(features, answers, sample_weight=7 * p)
    fit = fit_linear(features, labels, KL(0.2), penalty=0.05, reference=p)
    assert np.allclose(model.coef_[0], fit.coefficients, atol=1e-9)
    assert model.classes_.tolist() == ["bad", "good"]
    odds = features @ fit.coefficients + fit.intercept
    assert np.allclose(model.decision_function(features), odds)
    assert np.allclose(model.predict_proba(features), np.stack([expit(-odds), expit(odds)], axis=1))
    assert np.array_equal(model.predict(features), np.where(odds > 0, "good", "bad"))
    assert model.score(features, answers) == np.mean((odds > 0) == labels)
    assert model.gap_ <= 1e-9 * model.value_
    assert model.weights_ == pytest.approx(fit.weights, abs=1e-9)


WITHOUT_SCIKIT_LEARN = """
import sys
import dro_core.learn.linear, dro_core.learn.optimise
assert not {"sklearn", "cvxpy", "torch"} & set(sys.modules), sorted(sys.modules)
sys.modules["sklearn.base"] = None
try:
    import dro_core.learn.classifier
except ImportError as error:
    assert "robust-rlhf[learn]" in str(error), error
else:
    raise AssertionError
"""


def test_scikit_learn_is_optional() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIKIT_LEARN], capture_output=True, text=True, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr


def test_a_collapsed_classifier_warns_whatever_the_set_and_no_other_does():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 3))
    labels = features[:, 0] + 0.5 * rng.normal(size=120) > 0
    for spec in ("cvar:0.1", "tv:0.9", "chi2:5", "kl:3"):
        with pytest.warns(UserWarning, match=rf"the fit is the constant.*{spec}.*smaller set"):
            assert not RobustPreferenceClassifier(spec).fit(features, labels).coef_.round(6).any()
    for spec in ("erm", "tv:0.1", "cvar:0.6"):  # warnings are errors here
        assert RobustPreferenceClassifier(spec, penalty=10.0).fit(features, labels).score(features, labels) > 0.7
    assert (
        not RobustPreferenceClassifier("erm").fit(np.ones((4, 1)), [0, 1, 0, 1]).collapsed_
    )  # nothing to collapse from


@pytest.mark.parametrize("spec", ["tv:{}", "cvar:{}", "chi2:{}", "kl:{}", "burg:{}", "tv:{},by=half"])
@pytest.mark.parametrize("intercept", [False, True])
def test_the_size_that_a_warning_names_is_where_the_fit_collapses(spec: str, *, intercept: bool) -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(60, 2)), np.repeat([True, False], 30)
    features[labels, 0] += 0.3
    groups = {"half": rng.integers(12, size=60).tolist()}

    def fitted(size: float) -> RobustPreferenceClassifier:
        model = RobustPreferenceClassifier(spec.format(size), penalty=0.0, fit_intercept=intercept)
        return model.fit(features, labels, groups=groups)

    with pytest.warns(UserWarning, match="from size") as told:
        assert fitted(0.05 if "cvar" in spec else 0.95).collapsed_
    size = float(str(told[0].message).split("from size ")[1].split()[0])
    smaller = size + 0.02 * (1 - size) if "cvar" in spec else 0.97 * size
    assert not fitted(smaller).collapsed_


def test_a_set_whose_radius_is_not_known_is_only_called_too_large() -> None:
    rng = np.random.default_rng(1)
    with pytest.warns(UserWarning, match="take a smaller set$"):
        assert RobustPreferenceClassifier("hellinger:0.9").fit(rng.normal(size=(60, 2)), np.arange(60) % 2).collapsed_
