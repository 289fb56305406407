"""The classifier among scikit-learn's tools: groups by metadata routing, numbers of the set in a search, sparse X."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dro_core import CVaR, Grouped, KLPenalty, TotalVariation, Trimmed
from dro_core.learn.classifier import RobustPreferenceClassifier
from dro_core.learn.linear import fit_linear

N = 90


@pytest.fixture
def routed() -> Iterator[None]:
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    features, source = rng.normal(size=(N, 3)), np.array(["a", "b", "c"])[rng.integers(0, 3, N)]
    return features, features[:, 0] + 0.5 * (source == "b") + 0.3 * rng.normal(size=N) > 0, source


@pytest.mark.parametrize("ambiguity", ["tv:0.2,by=source", Grouped(TotalVariation(0.2), "source")], ids=str)
def test_groups_bind_the_column_of_the_set(ambiguity: Any) -> None:
    features, labels, source = problem()
    expected = fit_linear(features, labels, Grouped(TotalVariation(0.2), source), penalty=0.01)
    plain = fit_linear(features, labels, TotalVariation(0.2), penalty=0.01)
    for groups in (source, source.tolist(), {"source": source}):
        model = RobustPreferenceClassifier(ambiguity, penalty=0.01).fit(features, labels, groups=groups)
        np.testing.assert_allclose(model.coef_[0], expected.coefficients, atol=1e-9)
    assert np.abs(expected.coefficients - plain.coefficients).max() > 1e-3
    assert model.ambiguity is ambiguity  # a fit changes no parameter


def test_a_bound_set_is_bound_anew_and_other_sets_do_not_look() -> None:
    features, labels, source = problem()
    some, rest = np.arange(60), np.arange(60, N)
    bound = RobustPreferenceClassifier(Grouped(CVaR(0.8), source), penalty=0.1)
    expected = fit_linear(features[some], labels[some], Grouped(CVaR(0.8), source[some]), penalty=0.1)
    np.testing.assert_allclose(
        bound.fit(features[some], labels[some], groups=source[some]).coef_[0], expected.coefficients, atol=1e-9
    )
    bound.fit(features, labels)  # the rows it was bound to
    with pytest.raises(ValueError, match=r"needs the groups of these 30 rows: give fit\(X, y, groups=labels\)"):
        bound.fit(features[rest], labels[rest])
    one, other = (
        RobustPreferenceClassifier("cvar:0.8").fit(features, labels, groups=groups).coef_ for groups in (None, source)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("routed")
@pytest.mark.parametrize("ambiguity", ["tv:0.2,by=source", "bound"])
def test_cross_validation_routes_the_groups(ambiguity: Any) -> None:
    features, labels, source = problem()
    given = Grouped(TotalVariation(0.2), source) if ambiguity == "bound" else ambiguity
    model = RobustPreferenceClassifier(given, penalty=0.01).set_fit_request(groups=True)
    scores = cross_val_score(
        make_pipeline(StandardScaler(), model), features, labels, cv=KFold(3), params={"groups": source}
    )
    expected = []
    for train, test in KFold(3).split(features):
        scale = StandardScaler().fit(features[train])
        fit = fit_linear(
            scale.transform(features[train]), labels[train], Grouped(TotalVariation(0.2), source[train]), penalty=0.01
        )
        expected.append(
            np.mean((scale.transform(features[test]) @ fit.coefficients + fit.intercept > 0) == labels[test])
        )
    assert scores.tolist() == expected


def test_a_search_goes_over_numbers_of_the_set() -> None:
    features, labels, _ = problem()
    grid = {"ambiguity__radius": [np.float64(0.05), 0.15], "penalty": [0.1]}
    for ambiguity in ("tv:0.2", TotalVariation(0.2)):
        search = GridSearchCV(RobustPreferenceClassifier(ambiguity), grid, cv=KFold(3)).fit(features, labels)
        assert [tried["ambiguity__radius"] for tried in search.cv_results_["params"]] == [0.05, 0.15]
        radius = search.best_params_["ambiguity__radius"]
        best = search.best_estimator_.ambiguity
        assert best == (f"tv:{radius}" if isinstance(ambiguity, str) else TotalVariation(radius))
        expected = fit_linear(features, labels, TotalVariation(radius), penalty=0.1)
        np.testing.assert_allclose(search.best_estimator_.coef_[0], expected.coefficients, atol=1e-9)


def test_numbers_are_found_inside_groups_trimmings_and_sums() -> None:
    model = RobustPreferenceClassifier(Trimmed(Grouped(CVaR(0.5) + KLPenalty(1.0), "source"), 0.1))
    names = model.get_params()
    assert (names["ambiguity__alpha"], names["ambiguity__temperature"], names["ambiguity__fraction"]) == (0.5, 1.0, 0.1)
    model.set_params(ambiguity__alpha=0.25, ambiguity__temperature=2, ambiguity__fraction=0.2, penalty=0.5)
    assert model.ambiguity == Trimmed(Grouped(CVaR(0.25) + KLPenalty(2.0), "source"), 0.2)
    assert clone(model).get_params()["ambiguity__alpha"] == 0.25
    assert model.set_params(ambiguity="kl:0.3", ambiguity__radius=np.array(0.5)).ambiguity == "kl:0.5"


@pytest.mark.parametrize(
    ("ambiguity", "name", "message"),
    [
        ("tv:0.2", "ambiguity__alpha", "ambiguity 'tv:0.2' has no number 'alpha'; the parameters are: "),
        ("erm", "ambiguity__radius", "the parameters are: none"),
        ("tv:0.2", "ambiguity__radius", r"`TotalVariation\.radius`.*got 7"),
        ("tv:0.2", "radius", "Invalid parameter 'radius'"),
        ("total:1", "ambiguity__radius", "unknown ambiguity 'total:1'"),
    ],
)
def test_a_bad_number_is_explained(ambiguity: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RobustPreferenceClassifier(ambiguity).set_params(**{name: 7})


@pytest.mark.parametrize(
    ("ambiguity", "groups", "message"),
    [
        ("tv:0.2,by=source", None, "needs the groups of these 90 rows"),
        ("tv:0.2,by=source", ["a"] * 7, "groups has 7 labels for 90 rows"),
        ("tv:0.2,by=source", {"kind": ["a"] * N}, "names the column 'source'; the columns are: kind"),
        (Grouped(Grouped(TotalVariation(0.2), "a"), "b"), ["a"] * N, "two groupings; give groups as a mapping"),
        ("tv:0.2,by=source", [["a", "b"]] * 89 + [["a"]], "one label per scenario"),
    ],
    ids=str,
)
def test_bad_groups_are_explained(ambiguity: Any, groups: Any, message: str) -> None:
    features, labels, _ = problem()
    with pytest.raises(ValueError, match=message):
        RobustPreferenceClassifier(ambiguity).fit(features, labels, groups=groups)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_array, sp.coo_array], ids=lambda kind: kind.__name__)
def test_sparse_features_are_the_same_features(kind: Any) -> None:
    features, labels, _ = problem()
    features = np.where(np.abs(features) > 0.7, features, 0.0)
    dense, sparse = (
        RobustPreferenceClassifier("tv:0.05", penalty=0.01).fit(given, labels) for given in (features, kind(features))
    )
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=0, atol=1e-12)  # one more rounding in the order of sums
    np.testing.assert_allclose(sparse.predict_proba(kind(features)), dense.predict_proba(features), atol=1e-15)
