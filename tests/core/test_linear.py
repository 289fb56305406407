"""The linear robust fit against conic models, scikit-learn, statsmodels and its own certificate."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import entr, expit
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    Grouped,
    KLPenalty,
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
    worst_case,
)
from dro_core.learn import linear as linear_module
from dro_core.learn.classifier import RobustPreferenceClassifier
from dro_core.learn.linear import LinearFit, fit_linear, fit_pairs

from . import tolerances as tol
from .registry import FAMILIES

N = 24
GROUPS = np.arange(N) % 4
COST = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) / 4.0


def instance(seed: int, n: int = N, d: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels 0 and 1 that they predict with some noise, and a reference that is not uniform."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d))
    labels = (rng.random(n) < expit(6 * features[:, 0] - 3 * features[:, 1] + 1)).astype(int)
    labels[:2] = [0, 1]
    return features, labels, rng.dirichlet(np.full(n, 5.0))


def mean_excess(p: np.ndarray, losses: cp.Expression, threshold: cp.Variable) -> cp.Expression:
    return cp.sum(cp.multiply(p, cp.pos(losses - threshold)))


def cvar(p: np.ndarray, losses: cp.Expression, alpha: float) -> cp.Expression:
    threshold = cp.Variable()
    return threshold + mean_excess(p, losses, threshold) / alpha


def conic_value(
    ambiguity: AmbiguitySet | None, p: np.ndarray, losses: cp.Expression
) -> tuple[cp.Expression, list[cp.Constraint]]:
    """The worst case by conic duality: from the formulas of theory.md, not from the code under test."""
    n = len(p)
    match ambiguity:
        case None:
            return p @ losses, []
        case TotalVariation(radius, None):
            top = cp.Variable()
            rest = (1 - radius) * cvar(p, losses, 1 - radius) if radius < 1 else 0
            return radius * top + rest, [losses <= top]
        case TotalVariation(radius, ratio):
            low, price = cp.Variable(), cp.Variable(nonneg=True)
            raised = cp.sum(cp.multiply(p, cp.maximum(losses, low)))
            return radius * price + raised + (ratio - 1) * mean_excess(p, losses, low + price), []
        case CVaR(alpha):
            return cvar(p, losses, alpha), []
        case Spectral(spectrum):
            falling, k = [*reversed(spectrum), 0.0], len(spectrum)
            shares = [(j * (falling[j - 1] - falling[j]), j / k) for j in range(1, k + 1)]
            return sum(share * cvar(p, losses, alpha) for share, alpha in shares if share > 0), []
        case ChiSquare(radius):
            eta = cp.Variable()
            scaled = cp.multiply(np.sqrt(p), cp.pos(losses - eta))
            return eta + np.sqrt(1 + 2 * radius) * cp.norm(scaled), []
        case KL(radius):
            # t radius + t log E exp(l/t) <= s: E t exp((l - u)/t) <= t, s = t radius + u.
            t, u, parts, above = cp.Variable(nonneg=True), cp.Variable(), cp.Variable(n), cp.Variable(n)
            cone = cp.ExpCone(above - u, t * np.ones(n), parts)
            return t * radius + u, [cone, p @ parts <= t, losses <= above]
        case CressieRead(order, radius):
            # t radius + eta + E [u^a / t^(a-1) - t] / order, u = (t + (order - 1)(l - eta))_+, a = order / (order - 1).
            t, eta, power = cp.Variable(nonneg=True), cp.Variable(), order / (order - 1)
            u, parts = cp.Variable(n, nonneg=True), cp.Variable(n)
            cone = cp.PowCone3D(parts, t * np.ones(n), u, 1 / power)
            value = t * radius + eta + (p @ parts - t) / order
            return value, [cone, u >= t + (order - 1) * (losses - eta)]
        case KLPenalty(temperature):
            return temperature * cp.log_sum_exp(losses / temperature + np.log(p)), []
        case ChiSquarePenalty(strength):
            eta = cp.Variable()
            scaled = cp.multiply(np.sqrt(p), cp.pos(losses - eta))
            return eta + strength / 2 + cp.sum_squares(scaled) / (2 * strength), []
        case Wasserstein(radius, cost):
            price, reached = cp.Variable(nonneg=True), cp.Variable(n)
            return radius * price + p @ reached, [reached[i] >= losses - price * cost[i] for i in range(n)]
        case Grouped(inner, groups):
            masses = np.bincount(groups, p)
            within = np.equal.outer(np.arange(len(masses)), groups) * p / masses[:, None]
            return conic_value(inner, masses, within @ losses)
    raise AssertionError(ambiguity)


def conic_fit(
    signed: np.ndarray, signs: np.ndarray | None, ambiguity: AmbiguitySet | None, p: np.ndarray, penalty: float
) -> tuple[float, np.ndarray]:
    w, b = cp.Variable(signed.shape[1]), cp.Variable()
    losses = cp.logistic(-signed @ w - (0 if signs is None else cp.multiply(signs, b)))
    value, constraints = conic_value(ambiguity, p, losses)
    problem = cp.Problem(cp.Minimize(value + penalty / 2 * cp.sum_squares(w)), constraints)
    return float(problem.solve(solver=cp.CLARABEL)), np.asarray(w.value)


SETS: list[AmbiguitySet | None] = [
    None,
    TotalVariation(0.05),
    TotalVariation(0.2),
    TotalVariation(1.0),
    TotalVariation(0.2, max_ratio=2.5),
    TotalVariation(0.6, max_ratio=2.0),
    CVaR(0.3),
    CVaR(0.9),
    Spectral((0.1, 0.2, 0.3, 0.4)),
    Spectral((0.0, 0.0, 0.5, 0.5)),
    ChiSquare(0.02),
    ChiSquare(0.5),
    ChiSquare(0.2),
    KL(0.02),
    KL(0.3),
    CressieRead(3.0, 0.1),
    CressieRead(1.5, 0.1),
    KLPenalty(0.4),
    ChiSquarePenalty(0.3),
    Grouped(TotalVariation(0.3), GROUPS),
    Grouped(CVaR(0.4), GROUPS),
    Grouped(KL(0.1), GROUPS),
    Wasserstein(0.3, COST),
]


@pytest.mark.parametrize("ambiguity", SETS, ids=str)
@pytest.mark.parametrize("intercept", [True, False])
def test_agrees_with_a_conic_model(ambiguity: AmbiguitySet | None, intercept: bool) -> None:  # noqa: FBT001
    features, labels, p = instance(1)
    signs = 2.0 * labels - 1
    fit = fit_linear(features, labels, ambiguity, penalty=0.02, fit_intercept=intercept, reference=p)
    value, coefficients = conic_fit(signs[:, None] * features, signs if intercept else None, ambiguity, p, 0.02)
    assert fit.value == pytest.approx(value, abs=tol.CONIC)
    # Both lie within sqrt(2 gap / penalty) of the best; the conic solver's gap is the larger one.
    assert np.linalg.norm(fit.coefficients - coefficients) <= np.sqrt(2 * tol.CONIC / 0.02)
    assert fit.intercept == 0 or intercept
    check_certificate(fit, features, labels, ambiguity, p, 0.02, intercept=intercept)


def check_certificate(
    fit: LinearFit,
    features: np.ndarray,
    labels: np.ndarray,
    ambiguity: AmbiguitySet | None,
    p: np.ndarray,
    penalty: float,
    *,
    intercept: bool = True,
) -> None:
    """The weights are in the set, against them alone nothing does better than the bound, and the value is attained."""
    q, signs = fit.weights, 2.0 * labels - 1
    losses = np.logaddexp(0, -signs * (features @ fit.coefficients + fit.intercept))
    worst = p @ losses if ambiguity is None else float(worst_case(losses, ambiguity, reference=p).value)
    assert fit.value == pytest.approx(worst + penalty / 2 * fit.coefficients @ fit.coefficients, abs=1e-12)
    assert -1e-12 <= fit.gap <= max(1e-9 * fit.value, 1e-12)
    assert abs(q.sum() - 1) <= 1e-9
    assert q.min() >= 0
    assert violation(ambiguity, q, p, losses) <= 1e-9
    # Any slopes a in [0, 1] bound the weighted regression from below; those of the fit show that the weights
    # support it. The intercept's condition sum q a y = 0 then holds up to the gap, and scaling meets it.
    slopes = expit(-signs * (features @ fit.coefficients + fit.intercept))
    if intercept:
        sides = [float((q * slopes)[signs == side].sum()) for side in (1, -1)]
        slopes = slopes * np.where(signs == 1, min(1, sides[1] / sides[0]), min(1, sides[0] / sides[1]))
    pull = (q * slopes * signs) @ features
    bound = q @ (entr(slopes) + entr(1 - slopes)) - pull @ pull / (2 * penalty) - charge(ambiguity, q, p)
    assert bound <= fit.value + 1e-12
    assert bound >= fit.value - 1e-3 * fit.value


def violation(ambiguity: AmbiguitySet | None, q: np.ndarray, p: np.ndarray, losses: np.ndarray) -> float:
    if ambiguity is None:
        return float(np.abs(q - p).max())
    if isinstance(ambiguity, Spectral | Wasserstein | CressieRead | Grouped):
        kinds = {Spectral: "spectral", Wasserstein: "wasserstein", CressieRead: "cressie_read", Grouped: "grouped"}
        name = kinds[type(ambiguity)]
    else:
        name = ambiguity.spec
    return next(family for family in FAMILIES if family.name == name).violation(ambiguity, q, p, losses)


def charge(ambiguity: AmbiguitySet | None, q: np.ndarray, p: np.ndarray) -> float:
    if isinstance(ambiguity, KLPenalty):
        return ambiguity.temperature * float(np.sum(q * np.log(q / p)))
    if isinstance(ambiguity, ChiSquarePenalty):
        return ambiguity.strength / 2 * float(np.sum(p * (q / p - 1) ** 2))
    return 0.0


RADII = st.sampled_from([0.0, 1e-9, 1e-4, 0.03, 0.3, 0.9])
DRAWN = st.one_of(
    st.none(),
    RADII.map(TotalVariation),
    st.builds(TotalVariation, RADII, st.sampled_from([1.0, 1.5, 4.0])),
    st.sampled_from([1e-3, 0.2, 0.7, 0.999999, 1.0]).map(CVaR),
    RADII.map(ChiSquare),
    RADII.map(lambda radius: ChiSquare(30 * radius)),
    RADII.map(lambda radius: KL(4 * radius)),
    st.builds(CressieRead, st.sampled_from([0.5, 1.5, 3.0]), RADII),
    st.sampled_from([1e-4, 0.1, 3.0, np.inf]).map(KLPenalty),
    st.sampled_from([1e-4, 0.1, 3.0, np.inf]).map(ChiSquarePenalty),
)


@given(DRAWN, st.integers(0, 10**6), st.sampled_from([1e-5, 1e-2, 1.0]), st.booleans())
def test_every_problem_is_certified(
    ambiguity: AmbiguitySet | None,
    seed: int,
    penalty: float,
    intercept: bool,  # noqa: FBT001
) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 60)), int(rng.integers(1, 8))
    features = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-1, 1, d) + rng.integers(0, 3)
    if seed % 3 == 0:
        features = np.round(features)
    labels = (rng.random(n) < expit(features @ rng.standard_normal(d))).astype(int)
    labels[:2] = [0, 1]
    p = rng.dirichlet(np.ones(n)) if seed % 2 else np.full(n, 1 / n)
    fit = fit_linear(features, labels, ambiguity, penalty=penalty, fit_intercept=intercept, reference=p)
    assert -1e-11 <= fit.gap <= max(1e-9 * fit.value, 1e-12)
    # Nothing a random search finds is better than the bound.
    signs = 2.0 * labels - 1
    for _ in range(20):
        w, b = fit.coefficients + rng.standard_normal(d) * 0.1, fit.intercept + rng.standard_normal() * 0.1 * intercept
        losses = np.logaddexp(0, -signs * (features @ w + b))
        worst = p @ losses if ambiguity is None else float(worst_case(losses, ambiguity, reference=p).value)
        assert worst + penalty / 2 * w @ w >= fit.value - fit.gap - 1e-12


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


@pytest.mark.parametrize("ambiguity", [None, TotalVariation(0.2), KL(0.1)], ids=str)
def test_more_features_than_examples(ambiguity: AmbiguitySet | None) -> None:
    rng = np.random.default_rng(7)
    features, labels = rng.standard_normal((15, 400)), np.arange(15) % 2
    fit = fit_linear(features, labels, ambiguity, penalty=1.0)
    value, coefficients = conic_fit(
        (2.0 * labels - 1)[:, None] * features, 2.0 * labels - 1, ambiguity, np.full(15, 1 / 15), 1.0
    )
    assert fit.value == pytest.approx(value, abs=tol.CONIC)
    assert np.linalg.norm(fit.coefficients - coefficients) <= np.sqrt(2 * tol.CONIC)


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


def test_a_gap_that_stays_open_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "_ROUNDS", 1)
    features, labels, p = instance(1)
    with pytest.warns(RuntimeWarning, match=r"the gap is .*standardise the features or raise the penalty"):
        fit = fit_linear(features, labels, Wasserstein(0.3, COST), penalty=0.02, reference=p)
    assert fit.gap > 1e-3


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
    with pytest.raises(TypeError, match="features must hold real numbers"):
        fit_linear(X.astype(str), Y)


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
    RobustPreferenceClassifier("erm").fit(np.ones((4, 1)), [0, 1, 0, 1])  # nothing to collapse from
