"""The linear robust fit against conic models and its own certificate."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import entr, expit

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
    Wasserstein,
    worst_case,
)
from dro_core.learn import linear as linear_module
from dro_core.learn.linear import LinearFit, fit_linear

from . import tolerances as tol
from .linear_problems import COST, GROUPS, instance
from .registry import FAMILIES


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


def test_a_gap_that_stays_open_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "_ROUNDS", 1)
    features, labels, p = instance(1)
    with pytest.warns(RuntimeWarning, match=r"the gap is .*standardise the features or raise the penalty"):
        fit = fit_linear(features, labels, Wasserstein(0.3, COST), penalty=0.02, reference=p)
    assert fit.gap > 1e-3
