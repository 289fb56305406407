from dataclasses import replace

import numpy as np
import pytest

from proofs_check import Budget, Claim, Evidence, Verdict, check, mutant, shrunk
from proofs_check.claims.inner.inner_problem import WeightedLosses, ball_nesting, chi2_variance, tv_gap
from proofs_check.claims.minibatch.minibatch import SampledLosses, exceeds_root_n, tv_bias_root_n, tv_bias_split
from proofs_check.registry import CLAIMS
from proofs_check.search import NO_CONTROL

SMALL = Budget(examples=30, restarts=1, evaluations=20)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.label)
def test_every_claim_gets_its_expected_verdict_and_its_mutants_are_refuted(claim, searched):
    report = searched(claim).report
    assert report.verdict is claim.expected, report.reason
    assert report.worst is not None
    assert report.controls
    assert set(report.controls.values()) == {Verdict.REFUTED}
    if claim.tight:
        assert 0.99 <= report.tightness <= 1 + 1e-9


def test_every_claim_carries_its_theorem_in_full_and_no_mutant_does():
    """By its own words alone a reader can check it: a problem or a guarantee, and where it comes from."""
    theorems = [claim.theorem for claim in CLAIMS]
    assert len(set(theorems)) == len(CLAIMS)
    for claim, theorem in zip(CLAIMS, theorems, strict=True):
        assert "Source:" in theorem, claim.label
        assert not any(false.theorem for false in claim.mutants)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 5))])
@pytest.mark.parametrize("build", [tv_gap, chi2_variance, tv_bias_split])
def test_no_seed_refutes_a_true_claim(build, seed):
    report = check(build().with_mutants(), seed=seed)
    assert report.verdict is Verdict.UPHELD or report.reason == NO_CONTROL, report.reason


def test_the_root_n_refutation_is_exact_and_follows_by_hand():
    report = check(tv_bias_root_n())
    assert report.evidence is Evidence.CERTIFIED
    assert report.worst.instance == SampledLosses((0.0, 1.0), (1023.0, 1.0), 0.5, 64)
    assert report.worst.lhs == pytest.approx(0.5 * (1023 / 1024) ** 64, abs=1e-12)
    assert report.worst.rhs == 3 / 8


def test_exact_arithmetic_overrules_floating_point():
    assert not exceeds_root_n(SampledLosses((0.0, 1.0), (1023.0, 1.0), 0.5, 16))
    lying = replace(tv_bias_root_n(), rhs=lambda x: 0.0, violates=lambda x: False)
    report = check(lying)
    assert (report.verdict, report.evidence) == (Verdict.INCONCLUSIVE, Evidence.SEARCHED)
    assert "exact" in report.reason


def planted(**changes) -> Claim[WeightedLosses]:
    return replace(tv_gap(), mutants=(), **changes)


@pytest.mark.parametrize("stage", ["draws", "optimiser"])
def test_draws_and_optimiser_find_what_the_corners_do_not(stage):
    claim = ball_nesting()
    budget = Budget(examples=300, restarts=0, evaluations=0)
    if stage == "optimiser":  # one corner that satisfies the false claim, next to the violation
        corner = WeightedLosses((0.0, 1.0), (1.0, 1.25), 0.25)
        claim = replace(claim, instances=replace(claim.instances, corners=(corner,)))
        assert check(shrunk(claim, 0.995), budget=Budget(1, 0, 0, moves=0)).verdict is not Verdict.REFUTED
        budget = Budget(examples=1, restarts=1, evaluations=100, moves=0)
        claim = shrunk(claim, 0.995)
    else:
        claim = mutant(planted(), "half the spread", rhs=lambda x: (0.0, x.radius * x.spread / 2))
        claim = replace(claim, instances=replace(claim.instances, corners=()))
    report = check(claim, budget=budget)
    assert report.verdict is Verdict.REFUTED
    assert report.worst.margin > 1e-4


def test_claims_that_say_nothing_are_vacuous():
    impossible = check(planted(assumptions={"never": lambda x: x.radius > 7}), budget=SMALL)
    assert impossible.verdict is Verdict.VACUOUS
    assert impossible.checked == 0
    assert f"{impossible.rejected} of {impossible.rejected}" in impossible.reason
    for sides in (
        {"rhs": lambda x: (np.inf, np.inf)},
        {"lhs": lambda x: (0.0, 0.0), "rhs": lambda x: (0.0, 1.0)},
    ):
        assert check(planted(**sides), budget=SMALL).verdict is Verdict.VACUOUS


def test_claims_out_of_reach_are_inconclusive_and_say_why():
    loose = check(planted(rhs=lambda x: (0.0, 2 * x.radius * x.spread)), budget=SMALL)
    assert (loose.verdict, loose.tightness) == (Verdict.INCONCLUSIVE, pytest.approx(0.5))
    broken = check(planted(rhs=lambda x: (0.0, np.nan)), budget=SMALL)
    assert (broken.verdict, "not a number" in broken.reason) == (Verdict.INCONCLUSIVE, True)
    true = mutant(tv_gap(), "the claim itself")
    powerless = check(tv_gap().with_mutants(true), budget=SMALL)
    assert powerless.verdict is Verdict.INCONCLUSIVE
    assert "tv-gap/the claim itself" in powerless.reason
    assert "may be true" not in powerless.reason


def test_a_shrunk_bound_that_may_be_true_is_told_from_a_search_that_sees_nothing():
    """Twice the bound is a true claim and loose: its mutant at 0.99 is true, the one at 0.4 is false."""
    loose = planted(tight=False, lhs=lambda x: x.radius * x.spread, rhs=lambda x: 2 * x.radius * x.spread)
    mild = check(loose.with_mutants(shrunk(loose)), budget=SMALL)
    assert mild.verdict is Verdict.INCONCLUSIVE
    assert "tv-gap/bound times 0.99 may be true, for the tightness is 0.5" in mild.reason
    assert check(loose.with_mutants(shrunk(loose, 0.4)), budget=SMALL).verdict is Verdict.UPHELD


def test_a_claim_without_false_versions_is_upheld_by_a_proof_or_by_all_cases_alone():
    """Of a search that was given nothing to refute nobody knows what it would have seen."""
    claim = planted()
    searched, certified = check(replace(claim, verifies=None), budget=SMALL), check(claim, budget=SMALL)
    assert {report.verdict for report in (searched, certified)} == {Verdict.INCONCLUSIVE}
    assert {report.reason for report in (searched, certified)} == {NO_CONTROL}
    proved = next(claim for claim in CLAIMS if claim.label == "tv-gap")
    assert check(proved.with_mutants(), budget=SMALL).evidence is Evidence.PROVED
    every = replace(claim.instances, strategy=None, complete=True)
    assert check(replace(claim, instances=every), budget=SMALL).verdict is Verdict.UPHELD
