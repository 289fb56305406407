"""Can the checker tell truth from near-truth? Planted false, vacuous and unreachable claims, and every true one."""

import os
from dataclasses import replace

import numpy as np
import pytest

from dro_core import KL, ChiSquare, CVaR, TotalVariation, Wasserstein, robust_loss, worst_case
from proofs_check import QUICK, Budget, Claim, Relation, Verdict, check
from proofs_check.claims.inner.inner_problem import WeightedLosses, tv_gap
from proofs_check.claims.minibatch.minibatch import SampledLosses, tv_bias_split
from proofs_check.registry import CLAIMS
from synthetic import plugin_bias

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
SEEDS = range(1, 3), pytest.param((0, *range(3, 20)), marks=pytest.mark.exhaustive)
LIGHT = QUICK if NIGHTLY else Budget(examples=10, restarts=1, evaluations=10, draws=400)


def value(x: WeightedLosses, ambiguity) -> float:
    return float(worst_case(np.array(x.losses), ambiguity, reference=x.reference).value)


def deviation(x: WeightedLosses) -> float:
    return float(np.sqrt(x.reference @ (np.array(x.losses) - x.mean) ** 2))


def planted(lhs, rhs, **changes) -> Claim[WeightedLosses]:
    return replace(tv_gap(), label="planted", lhs=lhs, rhs=rhs, tight=False, verifies=None, mutants=(), **changes)


def chi2_dual(x: WeightedLosses, slope: float) -> float:
    losses, grid = np.array(x.losses), np.linspace(-40, max(x.losses), 20_001)
    excess = np.maximum(losses - grid[:, None], 0)
    return float(np.min(grid + slope * np.sqrt(excess**2 @ x.reference)))


def largest_weight(x: WeightedLosses) -> float:
    """The weight on the first of the largest losses."""
    weights = worst_case(np.array(x.losses), TotalVariation(x.radius), reference=x.reference).weights
    return float(weights[int(np.argmax(x.losses))])


def moved(x: WeightedLosses) -> np.ndarray:
    return np.array(x.losses) + np.arange(len(x.losses)) % 2


def kink(x: WeightedLosses) -> tuple[float, float]:
    """Value at losses moved by 1/64 along the first coordinate, and what the weights at the start predict."""
    losses, step = np.array(x.losses), np.eye(len(x.losses))[0] / 64
    worst = worst_case(losses, CVaR(max(x.radius, 1 / 64)), reference=x.reference)
    after = robust_loss(losses + step, CVaR(max(x.radius, 1 / 64)), reference=x.reference)
    return float(after), float(worst.value + worst.weights @ step)


FALSE = {
    "tv gap, constant 2 % too small": planted(
        lambda x: value(x, TotalVariation(x.radius)) - x.mean, lambda x: 0.98 * x.radius * x.spread
    ),
    "tv closed form without the factor 1 - rho: wrong only for negative losses": planted(
        lambda x: value(x, TotalVariation(x.radius / 2)),
        lambda x: value(x, CVaR(1 - x.radius / 2)) + x.radius / 2 * max(x.losses),
    ),
    "chi2 dual with sqrt(2 rho) for sqrt(1 + 2 rho)": planted(
        lambda x: value(x, ChiSquare(x.radius)), lambda x: chi2_dual(x, np.sqrt(2 * x.radius))
    ),
    "chi2 variance with 1 % of the variance lost": planted(
        lambda x: value(x, ChiSquare(x.radius)) - x.mean, lambda x: np.sqrt(0.99 * 2 * x.radius) * deviation(x)
    ),
    "first of the largest losses gets rho: wrong only at ties": planted(
        lambda x: min(1.0, x.radius + float(x.reference[int(np.argmax(x.losses))])), largest_weight
    ),
    "cvar gap (1 - alpha) range, 2 % too small": planted(
        lambda x: value(x, CVaR(max(x.radius, 1 / 64))) - x.mean,
        lambda x: 0.98 * (1 - max(x.radius, 1 / 64)) * x.spread,
    ),
    "Pinsker with 2.05 for 2": planted(
        lambda x: value(x, KL(2.05 * x.radius**2)), lambda x: value(x, TotalVariation(x.radius))
    ),
    "robust loss 1-Lipschitz in the mean absolute difference": planted(
        lambda x: abs(
            float(robust_loss(moved(x), ChiSquare(x.radius), reference=x.reference)) - value(x, ChiSquare(x.radius))
        ),
        lambda x: float(x.reference @ np.abs(moved(x) - np.array(x.losses))),
    ),
    "gradient instead of subgradient: wrong only at ties": planted(
        lambda x: kink(x)[0], lambda x: kink(x)[1], relation=Relation.EQUAL
    ),
    "value convex in the radius": planted(
        lambda x: value(x, KL(x.radius / 2)), lambda x: (x.mean + value(x, KL(x.radius))) / 2
    ),
    "transport as total variation without the 1/2 of its norm": planted(
        lambda x: value(x, Wasserstein(x.radius, 1 - np.eye(len(x.losses)))),
        lambda x: value(x, TotalVariation(x.radius / 2)),
    ),
    "chi2 and tv balls nested the other way round": planted(
        lambda x: value(x, TotalVariation(x.radius)), lambda x: value(x, ChiSquare(2 * x.radius**2))
    ),
    "max_ratio 4 forgotten": planted(
        lambda x: value(x, TotalVariation(x.radius)), lambda x: value(x, TotalVariation(x.radius, max_ratio=4.0))
    ),
}


@pytest.mark.parametrize("name", FALSE)
def test_planted_false_claims_are_refuted(name):
    report = check(FALSE[name])
    assert report.verdict is Verdict.REFUTED, (report.reason, report.worst)
    assert report.worst.margin > 1e-6


def minibatches(**changes) -> Claim[SampledLosses]:
    return replace(tv_bias_split(), label="planted", mutants=(), verifies=None, **changes)


@pytest.mark.parametrize(
    ("name", "rhs"),
    {
        "bias B / (n + 1)": lambda x: x.spread / (x.n + 1),
        "bias rho B (1 - eps)^(n + 1), the smallest mass as eps": lambda x: (
            x.level * x.spread * (1 - x.reference.min()) ** (x.n + 1)
        ),
        "bias of the maximum without rho": lambda x: x.level**2 * x.spread,
    }.items(),
)
def test_planted_false_bias_bounds_are_refuted(name, rhs):
    claim = minibatches(
        lhs=lambda x: plugin_bias(x.losses, x.reference, x.n, TotalVariation(x.level)),
        rhs=rhs,
        relation=Relation.AT_MOST,
    )
    assert check(claim).verdict is Verdict.REFUTED


def test_a_claim_no_instance_meets_is_vacuous_with_its_count():
    report = check(replace(tv_gap(), assumptions={"never": lambda x: x.radius > 7}), budget=LIGHT)
    assert report.verdict is Verdict.VACUOUS
    assert report.checked == 0
    assert f"{report.rejected} of {report.rejected}" in report.reason


def test_a_trivial_side_is_vacuous_and_a_bound_out_of_reach_inconclusive():
    assert check(planted(lambda x: 0.0, lambda x: x.spread), budget=LIGHT).verdict is Verdict.VACUOUS
    loose = planted(lambda x: value(x, TotalVariation(x.radius)) - x.mean, lambda x: 1.02 * x.radius * x.spread)
    assert check(replace(loose, tight=True)).verdict is Verdict.INCONCLUSIVE
    assert check(loose).verdict is Verdict.UPHELD


TRUE = [claim for claim in CLAIMS if claim.expected is Verdict.UPHELD]


@pytest.mark.parametrize("seeds", SEEDS, ids=["two", "more"])
@pytest.mark.parametrize("claim", TRUE, ids=lambda claim: claim.label)
def test_no_seed_refutes_a_true_claim(claim, seeds):
    claim = claim.with_mutants()
    drawn = replace(claim, instances=replace(claim.instances, corners=()))
    for seed in seeds:
        # Corners are the same for every seed, unless they are simulated.
        once = seed > 0 and claim.instances.strategy is not None and not NIGHTLY
        report = check(drawn if once else claim, budget=LIGHT, seed=seed)
        assert report.verdict is not Verdict.REFUTED, (seed, report.worst)


def test_expected_refutations_come_with_an_exact_check_and_a_way_to_follow_it_by_hand():
    refuted = [claim for claim in CLAIMS if claim.expected is Verdict.REFUTED]
    assert refuted
    for claim in refuted:
        assert claim.violates is not None, claim.label
        assert 1 <= len(claim.by_hand.splitlines()) <= 3, claim.label
        assert claim.mutants, claim.label


def test_every_claim_has_mutants_and_labels_are_unique():
    assert all(claim.mutants for claim in CLAIMS)
    labels = [claim.label for claim in CLAIMS]
    assert len(set(labels)) == len(labels)
