"""The claims about verifiable rewards: their verdicts, and their parts against programs and sums they do not share."""

from dataclasses import replace
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import minimize

from proofs_check import Evidence, Verdict
from proofs_check.claims.verifiable import comonotone, groups, penalties, published, sampling, utilities, waste
from proofs_check.claims.verifiable.comonotone import antitone_is_worst_case, worst_case_is_antitone
from proofs_check.claims.verifiable.groups import (
    Group,
    group_weights,
    group_weights_underestimate,
    maxrl_groups,
)
from proofs_check.claims.verifiable.offsets import Rewarded, easy_prompts_compare, regrets_compare
from proofs_check.claims.verifiable.penalties import Tangent, utility_is_a_penalty
from proofs_check.claims.verifiable.published import (
    Histogram,
    Mixture,
    curverl_log_concave,
    difficulty_filter_is_no_worst_case,
    grpo_std_is_no_worst_case,
    riskpo_is_spectral,
)
from proofs_check.claims.verifiable.rates import Rates, Weighted, is_worst, shares
from proofs_check.claims.verifiable.sampling import (
    Sampled,
    sampled_rates_flatten,
    sampled_rates_flatten_any,
    split_rates,
)
from proofs_check.claims.verifiable.utilities import (
    BestOf,
    RiskSeeking,
    maxrl_limit,
    pass_at_k_is_robust,
    risk_seeking_is_robust,
)
from proofs_check.claims.verifiable.waste import Step, smooth_sets_waste_less, tv_drains_from_the_top
from proofs_check.claims.verifiable.witnesses import (
    WITNESSES,
    Published,
    published_weights_are_robust,
    weighs_easy_more,
    weight_bounds,
)
from proofs_check.proofs import PROOFS

UPHELD = (
    antitone_is_worst_case,
    worst_case_is_antitone,
    risk_seeking_is_robust,
    maxrl_limit,
    pass_at_k_is_robust,
    utility_is_a_penalty,
    grpo_std_is_no_worst_case,
    difficulty_filter_is_no_worst_case,
    curverl_log_concave,
    riskpo_is_spectral,
    group_weights,
    group_weights_underestimate,
    sampled_rates_flatten,
    split_rates,
    tv_drains_from_the_top,
    regrets_compare,
)
REFUTED = (
    published_weights_are_robust,
    maxrl_groups,
    sampled_rates_flatten_any,
    smooth_sets_waste_less,
    easy_prompts_compare,
)


@pytest.mark.parametrize("build", [*UPHELD, *REFUTED], ids=lambda build: build.__name__)
def test_verdict_certified_with_every_mutant_refuted(build, searched):
    claim = build()
    report = searched(claim).report
    assert report.verdict is (Verdict.REFUTED if build in REFUTED else Verdict.UPHELD), report.reason
    assert report.evidence is (Evidence.PROVED if claim.label in PROOFS else Evidence.CERTIFIED)
    assert len(claim.mutants) >= 2
    assert set(report.controls.values()) == {Verdict.REFUTED}


@pytest.mark.parametrize("build", REFUTED, ids=lambda build: build.__name__)
def test_every_witness_of_a_refuted_claim_is_one_by_itself(build):
    claim = build()
    if build is maxrl_groups:  # of its two estimates one is there to show the other
        claim = replace(claim, instances=replace(claim.instances, corners=claim.instances.corners[:1]))
    for instance in claim.instances.corners:
        assert claim.admits(instance)
        assert claim.violates(instance), instance


def test_weights_that_rise_fall_short_by_their_swap():
    x = Weighted((5, 9), 10, (3, 5))
    claim = worst_case_is_antitone()
    assert claim.lhs(x) == pytest.approx(1 / 10)
    assert claim.rhs(x) == pytest.approx(7 / 20 - 1 / 4)


# Utilities


@pytest.mark.parametrize("quarters", [1, 4, 30])
def test_risk_seeking_weights_are_derivatives_of_the_certain_equivalent(quarters):
    """1/beta log E exp(beta r), r in {0, 1}, differentiated numerically; its weights best against the ball's border."""
    x = RiskSeeking((1, 5, 12), 16, quarters)
    beta, p, h = np.log1p(quarters / 4), np.array([1, 5, 12]) / 16, 1e-6

    def value(rate):
        return np.log(1 - rate + rate * np.exp(beta)) / beta

    slopes = (value(p + h) - value(p - h)) / (2 * h)
    claim = risk_seeking_is_robust()
    assert claim.lhs(x)[:3] == pytest.approx(slopes / slopes.sum(), abs=1e-8)
    q = claim.lhs(x)[:3]
    radius = -np.mean(np.log(3 * q))
    found = minimize(
        lambda w: w @ p,
        np.full(3, 1 / 3),
        constraints=[
            {"type": "eq", "fun": lambda w: w.sum() - 1},
            {"type": "ineq", "fun": lambda w: radius + np.mean(np.log(np.maximum(3 * w, 1e-12)))},
        ],
        bounds=[(1e-6, 1)] * 3,
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    assert found.fun == pytest.approx(q @ p, abs=1e-6)


def test_the_examples_of_the_utilities():
    x = RiskSeeking((0, 1), 1, 4)
    assert risk_seeking_is_robust().lhs(x)[:2] == pytest.approx([2 / 3, 1 / 3])
    assert pass_at_k_is_robust().lhs(BestOf((0, 1), 2, 2)) == pytest.approx([2 / 3, 1 / 3])
    sides = maxrl_limit().lhs(RiskSeeking((1, 4), 4, 16)), maxrl_limit().rhs(RiskSeeking((1, 4), 4, 16))
    assert sides[0] == pytest.approx([1 / 2, 1 / 8, 5 / 7, 2 / 7])
    assert sides[1] == pytest.approx([5 / 7, 2 / 7, 32 / 25, 8 / 25])
    assert utility_is_a_penalty().rhs(Tangent("maxrl", 1, 4, 2, 4)) == pytest.approx(-1 / 2)


@pytest.mark.parametrize("kind", ["pass_at_k", "rs", "maxrl"])
def test_utilities_are_the_least_of_their_priced_weights(kind):
    """min over a grid of weights of w p - U_*(w), U_* by a grid of rates."""
    utility = {"pass_at_k": lambda p: 1 - (1 - p) ** 3, "rs": lambda p: np.log1p(3 * p), "maxrl": np.log}[kind]
    rates, weights = np.linspace(0.02, 1, 2000), np.linspace(0.01, 12, 4000)
    conjugate = np.min(weights[:, None] * rates - utility(rates), axis=1)
    for p in (0.25, 0.75):
        assert np.min(weights * p - conjugate) == pytest.approx(utility(p), abs=1e-4)
        x = Tangent(kind, 3, int(4 * p), 4, 4)
        assert utility_is_a_penalty().rhs(x) >= utility_is_a_penalty().lhs(x) == pytest.approx(utility(1.0))


# Published weights


def test_which_batches_pass_by_trying_every_permutation():
    rng = np.random.default_rng(0)
    std, medium = grpo_std_is_no_worst_case(), difficulty_filter_is_no_worst_case()
    for _ in range(60):
        parts = tuple(int(k) for k in rng.integers(1, 16, rng.integers(2, 5)))
        x, p = Rates(parts, 16), np.array(parts) / 16
        for claim, weights in ((std, (p * (1 - p)) ** -0.5), (medium, p * (1 - p))):
            best = max(np.dot(order, 1 - p) for order in permutations(weights))
            assert claim.rhs(x) == claim.lhs(x) == float(best <= weights @ (1 - p) + 1e-12)


def test_curverl_and_riskpo_as_their_code_has_them():
    """CurveRL: mass over cumulative mass; RiskPO: the derivative of its advantage in the score of a bundle."""
    x = Histogram((1, 1, 4))
    mass = np.array(x.counts) / 6
    assert is_worst(mass / np.cumsum(mass), 1 - np.arange(1, 4) / 4) == 0 == curverl_log_concave().rhs(x)
    assert curverl_log_concave().rhs(Histogram((4, 1, 1))) == 1

    y = Mixture(2, 6, 2, 6)  # alpha = .2, beta = .8, w = 1.5, of ten bundles
    scores, low, high, h = np.arange(10.0), 1.5, 7.5, 1e-3

    def advantage(score):
        between = np.maximum(score - low, 0) - np.maximum(score - high, 0) + low - high
        return (1.5 * -np.maximum(low - score, 0) / 0.2 + between / 0.6) / 2.5

    slopes = (advantage(scores + h) - advantage(scores - h)) / (2 * h)
    assert np.array(y.weights, float) / float(sum(y.weights)) == pytest.approx(slopes / slopes.sum())


def test_witnesses_weigh_what_the_formulas_say():
    formulas = {
        "grpo_std": lambda p: (p * (1 - p)) ** -0.5,
        "difficulty_filter": lambda p: p * (1 - p),
        "dgpo": lambda p: np.exp(-p / 2) / (2 * p * (1 - p)),
    }
    for x in WITNESSES:
        if x.rule in formulas:
            low, high = np.array(weight_bounds(x), float).T
            assert low == pytest.approx(formulas[x.rule](np.array(x.parts) / x.whole), rel=1e-14)
            assert high == pytest.approx(low, rel=1e-14)
    assert {x.rule for x in WITNESSES} == {*formulas, "curverl", "gdro"}
    for parts in ((1, 4), (4, 1), (4, 4)):
        assert not weighs_easy_more(Published(parts, 8, "grpo_std"))
    assert weighs_easy_more(Published((7, 4), 8, "dgpo"))
    assert not weighs_easy_more(Published((4, 6), 8, "difficulty_filter"))
    assert not weighs_easy_more(Published((1, 4), 8, "gdro", (1, 1)))


# The exact checks see what is wrong

WRONG = [
    (
        antitone_is_worst_case,
        comonotone,
        "exact_hull_value",
        lambda q, losses: Fraction(1),
        Weighted((0, 1), 2, (2, 1)),
    ),
    (antitone_is_worst_case, comonotone, "divergence_ball", lambda q, losses: None, Weighted((0, 1), 2, (2, 1))),
    (worst_case_is_antitone, comonotone, "largest_swap", lambda p, q: Fraction(1, 2), Weighted((0, 1), 2, (1, 2))),
    (risk_seeking_is_robust, utilities, "_seeking_shares", lambda x: shares([2, 1]), RiskSeeking((1, 3), 4, 4)),
    (pass_at_k_is_robust, utilities, "_best_shares", lambda x: shares([4, 1]), BestOf((0, 1), 2, 2)),
    (maxrl_limit, utilities, "_seeking_shares", lambda x: shares([9, 1]), RiskSeeking((1, 4), 4, 16)),
    (grpo_std_is_no_worst_case, published, "rises", lambda p, w: False, Rates((4, 7), 8)),
    (difficulty_filter_is_no_worst_case, published, "rises", lambda p, w: True, Rates((4, 7), 8)),
    (curverl_log_concave, published, "_hazards", lambda x: [Fraction(1)] * 3, Histogram((1, 1, 4))),
    (riskpo_is_spectral, published, "rises", lambda p, w: True, Mixture(2, 6, 2, 6)),
    (group_weights, groups, "mixed_mean", lambda f, p, size: {Fraction(1): Fraction(1)}, Group("rs", 2, 4, 1, 4)),
    (group_weights_underestimate, groups, "_exact_limit", lambda x: Fraction(1), Group("maxrl", 1, 4, 1, 4)),
    (sampled_rates_flatten, sampling, "_mixed", lambda x, p: 1 / p**2, Sampled("maxrl", 1, 4, 3, 6, 12)),
    (split_rates, sampling, "sampled_mean", lambda f, p, size: f(p) / 2, Sampled("rs", 4, 4, 3, 6, 12)),
    (tv_drains_from_the_top, waste, "exact_tv", lambda losses, p, radius: Fraction(1, 3), Step((0, 2, 4), 4, 8)),
    (
        regrets_compare,
        Rewarded,
        "regrets",
        lambda x, moved=False: x.values(moved=moved),
        Rewarded(((1,),), ((1,),), (1,), 1),
    ),
    (utility_is_a_penalty, penalties, "_slope", lambda x, p: Fraction(9), Tangent("pass_at_k", 3, 3, 1, 4)),
]


@pytest.mark.parametrize(
    ("build", "module", "name", "wrong", "x"), WRONG, ids=lambda part: getattr(part, "__name__", "")
)
def test_the_exact_check_sees_a_wrong_part(build, module, name, wrong, x, monkeypatch):
    claim = build()
    assert claim.admits(x)
    assert claim.verifies(x)
    monkeypatch.setattr(module, name, wrong)
    assert not claim.verifies(x)
