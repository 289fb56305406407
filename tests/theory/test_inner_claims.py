"""The claims of the inner problem: verdicts, and their right sides against what they did not calculate themselves."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from dro_core import CVaR, TotalVariation, worst_case
from proofs_check import Budget, Evidence, Relation, Verdict, check
from proofs_check.claims.inner import duality as dual
from proofs_check.claims.inner import inner_problem as inner
from proofs_check.claims.inner import sensitivity as slope
from proofs_check.claims.inner import transport as move
from proofs_check.claims.inner.divergence_duality import chi2_dual, kl_dual
from proofs_check.evaluation import evaluate
from proofs_check.proofs import PROOFS
from proofs_check.registry import CLAIMS as REGISTERED

CERTIFIED = [
    *(inner.tv_gap, inner.ball_nesting, inner.radius_concave, move.wasserstein_is_tv),
    *(dual.tv_closed_form, dual.tv_dual, dual.cvar_dual, chi2_dual, kl_dual),
]
SEARCHED = [
    *(inner.chi2_variance, slope.danskin, slope.danskin_gradient, slope.robust_convexity, move.wasserstein_logistic),
]
CLAIMS = [*((build, Evidence.CERTIFIED) for build in CERTIFIED), *((build, Evidence.SEARCHED) for build in SEARCHED)]


@pytest.mark.parametrize(
    ("build", "evidence"), CLAIMS, ids=lambda part: getattr(part, "__name__", part.__class__.__name__)
)
def test_upheld_with_its_evidence_in_time(build, evidence, searched):
    claim = build()
    report, seconds = searched(claim)
    assert seconds < 8  # four seconds on an idle core
    expected = Evidence.PROVED if claim.label in PROOFS else evidence
    assert (report.verdict, report.evidence) == (Verdict.UPHELD, expected), report.reason
    assert len(report.controls) >= 2
    assert claim.theorem == inspect.getdoc(build)
    for instance in claim.curve.instances if claim.curve else ():
        witness = evaluate(claim, instance)
        assert claim.admits(instance)
        assert witness.margin <= 1e-9, witness


@pytest.mark.parametrize("build", [dual.tv_closed_form, dual.tv_dual, move.wasserstein_is_tv, inner.ball_nesting])
def test_a_wrong_solver_is_found_out(build, monkeypatch):
    def wrong(losses, ambiguity, *, reference):
        if isinstance(ambiguity, TotalVariation):
            ambiguity = replace(ambiguity, radius=0.98 * ambiguity.radius)
        return worst_case(losses, ambiguity, reference=reference)

    monkeypatch.setattr(inner, "worst_case", wrong)
    assert check(build().with_mutants()).verdict is Verdict.REFUTED


WEIGHTED = [claim for claim in REGISTERED if issubclass(claim.instances.kind, inner.Atoms)]


@pytest.mark.parametrize("claim", WEIGHTED, ids=lambda claim: claim.label)
def test_what_is_false_only_where_a_loss_has_no_mass_is_refuted_by_the_search_alone(claim):
    """At radius 1 total variation is the largest loss: of those that have mass, not of all."""

    def worst(x):
        return float(worst_case(np.array(x.losses), TotalVariation(1.0), reference=x.reference).value)

    false = replace(
        claim,
        lhs=lambda x: max(x.losses),
        rhs=worst,
        scale=lambda x: x.spread,
        relation=Relation.AT_MOST,
        instances=replace(claim.instances, corners=()),
        **dict.fromkeys(("verifies", "violates", "formula", "proof", "curve")),
        mutants=(),
        effort=1.0,
    )
    positive = {**claim.assumptions, "every loss has mass": lambda x: min(x.masses) > 0}
    true, budget = replace(false, assumptions=positive), Budget(examples=100, restarts=0, evaluations=0, moves=100)
    assert check(true, budget=budget).verdict is not Verdict.REFUTED
    report = check(false, budget=budget)
    if claim.label == "wasserstein-is-tv":  # which says so itself
        assert report.verdict is not Verdict.REFUTED
    else:
        assert report.verdict is Verdict.REFUTED
        assert 0.0 in report.simplest.instance.masses


def other_where_no_mass_is(x, losses):
    return tuple(loss if mass else 5.0 - loss for loss, mass in zip(losses, x.masses, strict=True))


@pytest.mark.parametrize("claim", WEIGHTED, ids=lambda claim: claim.label)
def test_a_loss_without_mass_changes_neither_side(claim, monkeypatch):
    """Of no set but transport, which may fill it."""
    sets = slope._sets
    monkeypatch.setattr(slope, "_sets", lambda x: [ball for ball in sets(x) if not isinstance(ball, slope.Wasserstein)])
    hidden = [x for x in claim.instances.corners if 0.0 in x.masses and claim.admits(x)]
    assert bool(hidden) is (claim.label != "wasserstein-is-tv")
    for x in hidden:
        names = [name for name in ("losses", "others") if hasattr(x, name)]
        changed = replace(x, **{name: other_where_no_mass_is(x, getattr(x, name)) for name in names})
        for side in (claim.lhs, claim.rhs):
            assert side(changed) == pytest.approx(side(x), abs=1e-9)


@pytest.mark.parametrize("build", CERTIFIED, ids=lambda build: build.__name__)
def test_without_exact_confirmation_nothing_is_upheld(build):
    claim = replace(build(), verifies=lambda x: False, mutants=())
    assert check(claim, budget=Budget(examples=1, restarts=0, evaluations=0)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("module", [inner, dual])
def test_the_exact_checks_notice_a_wrong_exact_value(module, monkeypatch):
    exact, x = module.exact_tv, dual.CappedLosses((0.0, 1.0, 3.0), (1.0, 2.0, 1.0), 0.25, 2.0)
    claims = [inner.tv_gap()] if module is inner else [dual.tv_closed_form(), dual.tv_dual()]
    assert all(claim.verifies(x) for claim in claims)
    monkeypatch.setattr(module, "exact_tv", lambda *a, **k: exact(*a, **k) + 2)
    assert not any(claim.verifies(x) for claim in claims)


def test_the_dual_of_total_variation_needs_no_upper_limit_on_eta():
    losses, p, radius = np.array([0.0, 1.0, 3.0]), np.array([0.25, 0.5, 0.25]), 0.25
    eta = np.linspace(-5, 30, 35_001)[:, None]
    objective = radius * (3 - eta[:, 0]) + eta[:, 0] + np.maximum(losses - eta, 0) @ p
    assert objective.min() == pytest.approx(
        float(worst_case(losses, TotalVariation(radius), reference=p).value), abs=1e-9
    )
    assert np.all(np.diff(objective[eta[:, 0] > 3]) > 0)


def test_remainder_constants_are_right_and_sharp():
    """Chi-square by hand (two atoms); KL where the tilted losses are half and half at both ends of d."""
    claim = slope.danskin_gradient()
    hand = evaluate(claim, slope.TwoLosses((0.0, 1.0), (1.0, 1.0), 0.125, (1.0, 0.0), 0.5))
    assert hand.margin <= 1e-12
    by_hand = claim.rhs(slope.TwoLosses((0.0, 1.0), (1.0, 1.0), 0.125, (1.0, 0.0), 0.5))[1]
    assert by_hand == pytest.approx(0.75, abs=1e-12)  # 3/4 - 1/2 + 1/2, which is reached
    flat = claim.instances.corners[-1]
    reached, bound = claim.lhs(flat)[0], claim.rhs(flat)[0]
    tangent = slope._tangent(flat, slope.KL(flat.radius), flat.second - flat.first, 0.0)
    assert 0.95 < (reached - tangent) / (bound - tangent) <= 1


def test_the_gradient_agrees_with_finite_differences():
    rng = np.random.default_rng(0)
    losses, d, step = rng.normal(size=6), rng.normal(size=6), 1e-5
    x = slope.TwoLosses(tuple(losses), (1.0,) * 6, 0.25, tuple(losses + d), 0.5)
    up, here, down = (slope._values(x, losses + k * step * d)[:, 0] for k in (1, 0, -1))
    tangent = slope.danskin().lhs(x)[::2] - here  # every other one is for the convex losses
    assert (up - down) / (2 * step) == pytest.approx(tangent, abs=1e-7)


def test_trimming_is_not_convex_by_hand():
    values = [slope._value(x, ball, losses) for x, ball, losses in _trimmed_halves()]
    assert values == pytest.approx([0.5, 0.0, 0.0], abs=1e-12)


def _trimmed_halves():
    x = slope.TwoLosses((0.0, 1.0), (1.0, 1.0), 0.0, (1.0, 0.0), 0.5)
    ball = slope.Trimmed(CVaR(1.0), 0.5)
    return [(x, ball, losses) for losses in (x.between, x.first, x.second)]


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_the_logistic_worst_case_agrees_with_a_transport_program(norm):
    """Points of one label and ways of length 1 and 8: the whole plan as a linear program."""
    x = move.LabelledPoints(((0.5, 0.0), (-1.0, 2.0)), (1, 1), (1.0, -0.5), 0.75, norm)
    order = {"1": 1, "2": 2, "inf": np.inf}[norm]
    unit = {"1": (1.0, 0.0), "2": np.array([2.0, -1.0]) / np.sqrt(5), "inf": (1.0, -1.0)}[norm]
    places = np.concatenate([np.array(x.points) - way * np.array(unit) for way in (0.0, 1.0, 8.0)])
    losses = np.log1p(np.exp(-places @ np.array(x.weights)))
    cost = np.array([[np.linalg.norm(a - b, ord=order) for b in places] for a in places[:2]])
    plan = linprog(-np.tile(losses, 2), cost.reshape(1, -1), [0.75], np.kron(np.eye(2), np.ones(6)), [0.5, 0.5])
    assert move._worst_transport(x, ways=(1.0, 8.0)) == pytest.approx(-plan.fun, abs=1e-9)


def test_far_transport_reaches_the_penalty_to_its_stated_shortfall():
    x = move.LabelledPoints(((0.0, 0.0),), (1,), (1.0, 0.0), 1.0, "2")
    value, target = move.wasserstein_logistic().lhs(x)
    assert target == pytest.approx(np.log(2) + 1)
    assert value == pytest.approx(target - np.log(2) / 4096, abs=1e-9)
