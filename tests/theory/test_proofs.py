"""Proofs for whole families: that they prove their claims and nothing false, and that their reductions are right."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from dro_core import KL, ChiSquare, ChiSquarePenalty, CVaR, TotalVariation, worst_case
from proofs_check import Budget, Evidence, Verdict, check, verifier
from proofs_check.claim import Formula
from proofs_check.claims.minibatch.minibatch_gradients import DistinctLosses
from proofs_check.claims.minibatch.quantiles import QuantileLosses
from proofs_check.proof import Box, Proof, Unproved, as_stored, cut_boxes, prove, reject_other_claims
from proofs_check.registry import CLAIMS
from synthetic import plugin_bias, plugin_value

PROVED = {claim.label: claim for claim in CLAIMS if claim.proof is not None}
# A constant that is 1 % too small, in the formula of the proof; of claims that are not tight, by what is missed.
SMALLER = {
    "tv-gap": ("bound", "lambda r: 99 / 100 * r"),
    "ball-nesting": ("c", "202 / 100"),  # balls that are 1 % larger
    "kl-penalty-gap": ("quarter", "99 / 400"),
    "plugin-underestimates": ("grows", ("v(k / (n + 1)) -", "99 / 100 * v(k / (n + 1)) -")),
    "cvar-bias": ("slack", ("bound", "bound / 10")),  # .3 for 3, as the mutant has .35
    "cvar-bias-sharp": ("bound", "99 / 100 * missing(level)"),
    "chi2-penalty-bias": ("told", ("(1 - 1 / n)", "99 / 100 * (1 - 1 / n)")),
    "icdf-bias": ("bound", "99 / 100 / (n + 1)"),
    "tv-bias-split": ("split", ("+ level", "+ 99 / 100 * level")),
    "tv-capped-bias": ("slack", ("bound", "99 / 100 * bound")),
    "tv-floor-bias": ("most", "99 / 100"),
    "tv-gradient-variance-floor": ("square", ("r**2", "99 / 100 * r**2")),
    "grpo-std-is-no-worst-case": ("factors", ("1 - p", "99 / 100 - p")),
    "difficulty-filter-is-no-worst-case": ("factors", ("1 - p", "99 / 100 - p")),
    "group-weights": ("mixed", ("(size - 1)", "99 / 100 * (size - 1)")),
}
MUTANTS = [(claim, false) for claim in PROVED.values() for false in claim.mutants]


def test_the_table_of_smaller_bounds_is_complete():
    assert set(SMALLER) == set(PROVED)


@pytest.mark.parametrize("label", PROVED)
def test_every_proof_goes_through_and_says_why_and_for_what(label):
    claim = PROVED[label]
    stored = prove(claim)
    assert stored["boxes"]
    assert all(verifier.covered(stored, box, cuts) for box, cuts in stored["boxes"][::7])
    assert len(claim.proof.reduction) > 200
    assert len(claim.proof.family) > 20


@pytest.mark.parametrize("label", PROVED)
def test_no_bound_that_is_one_per_cent_smaller_is_proved(label):
    name, change = SMALLER[label]
    formula = PROVED[label].proof.formula
    old = formula.where[name]
    new = change if isinstance(change, str) else old.replace(*change)
    assert new != old
    smaller = replace(PROVED[label].proof, formula=replace(formula, where={**formula.where, name: new}))
    with pytest.raises(Unproved, match="the formula is not true on"):
        cut_boxes(smaller)


@pytest.mark.parametrize(("claim", "false"), MUTANTS, ids=lambda one: one.label)
def test_no_mutant_is_proved_by_the_proof_of_its_claim(claim, false):
    assert false.proof is None
    reject_other_claims(claim, claim.proof)
    with pytest.raises(Unproved, match="the formula says"):
        prove(replace(false, proof=claim.proof))


QUICK = Budget(examples=3, restarts=0, evaluations=0)


def test_a_proof_makes_the_evidence_proved_for_its_family_alone():
    claim = PROVED["tv-gap"]
    report = check(claim, budget=QUICK)
    assert (report.verdict, report.evidence, report.family) == (Verdict.UPHELD, Evidence.PROVED, claim.proof.family)
    assert report.to_json()["evidence"] == "proved"
    assert "The search was certified" in report.reason
    without = check(replace(claim, proof=None), budget=QUICK)
    assert (without.verdict, without.evidence, without.family) == (Verdict.UPHELD, Evidence.CERTIFIED, "")


def test_a_proof_that_fails_is_told_and_none_is_asked_of_what_is_refuted():
    claim = PROVED["tv-gap"]
    broken = replace(claim.proof, formula=replace(claim.proof.formula, holds="min(slacks) > 0"))
    report = check(replace(claim, proof=broken), budget=QUICK)
    assert (report.verdict, report.evidence, report.family) == (Verdict.INCONCLUSIVE, Evidence.CERTIFIED, "")
    assert "The proof does not go through: the formula is not true on" in report.reason
    refuted = check(replace(claim.mutants[0], proof=claim.proof), budget=QUICK)
    assert (refuted.verdict, refuted.family) == (Verdict.REFUTED, "")
    elsewhere = replace(claim.proof, extreme=lambda x: replace(claim.proof.extreme(x), radius=2.0))
    with pytest.raises(Unproved, match="does not meet the assumptions of tv-gap"):
        prove(replace(claim, proof=elsewhere))
    with pytest.raises(Unproved, match="carries no proof"):
        prove(replace(claim, proof=None))


def root_of_two(holds: str, **options) -> Proof:
    """A proof about x in [0, 2] that does not exist before the range is cut."""
    where = {"y": "bounded(item(x, 0), item(x, 1))"}
    box = Box({}, {"x": (0, 2)}, **options)
    return Proof("numbers from 0 to 2", Formula(holds, where), lambda: [box], "[0]", lambda x: x)


def test_ranges_are_cut_until_the_formula_is_true_on_every_part():
    """Intervals forget that both factors are one number: y (2 - y) > -1/8 is open on all of [0, 2]."""
    cuts = cut_boxes(root_of_two("y * (y - 2) > -5 / 4"))["boxes"][0][1]
    assert cuts[:2] == ["x", 1]
    assert cuts[2]
    with pytest.raises(Unproved):
        cut_boxes(root_of_two("y * (y - 2) > -1"))  # touched at y = 1, where no interval decides it
    kinked = cut_boxes(root_of_two("y * (y - 2) > -5 / 4", kinks={"x": (Fraction(2, 3),)}))["boxes"][0][1]
    assert kinked[:2] == ["x", "2/3"]


@pytest.mark.parametrize("seed", range(20))
def test_bernstein_coefficients_bound_polynomials_on_ranges_and_meet_them_at_points(seed):
    rng = np.random.default_rng(seed)
    c = [Fraction(int(k), 8) for k in rng.integers(-9, 10, seed % 7 + 1)]
    low, high = sorted(Fraction(int(k), 16) for k in rng.integers(0, 17, 2))
    least = verifier.bernstein(c, [low, high])
    n = len(c) - 1
    at = np.linspace(float(low), float(high), 101)
    chances = np.array(
        [np.prod([(n - i) / (i + 1) for i in range(k)]) * at**k * (1 - at) ** (n - k) for k in range(n + 1)]
    )
    values = np.array(c, float) @ chances
    assert float(least) <= values.min() + 1e-12
    assert float(verifier.bernstein(c, [low, low])) == pytest.approx(values[0], abs=1e-12)
    if n <= 1:
        assert float(least) == pytest.approx(values.min(), abs=1e-12)
    for ends in ([high + 1, low], [Fraction(-1, 8), high], [low, Fraction(9, 8)]):
        with pytest.raises(verifier.Refused):
            verifier.bernstein(c, ends)


def sampled(seed: int):
    """Losses in [0, 1] that reach both, with some ties, masses that sum to 1, a level and a number of draws."""
    rng = np.random.default_rng(seed)
    atoms = int(rng.integers(2, 5))
    losses = rng.integers(0, 5, atoms) / 4
    losses[:2] = 0, 1
    return rng, losses, rng.dirichlet(np.ones(atoms)), float(rng.uniform(0.05, 0.95)), int(rng.integers(1, 6))


@pytest.mark.parametrize("seed", range(12))
def test_no_losses_have_a_larger_bias_than_the_worst_of_their_layers(seed):
    """Enumerated by `plugin_bias` for the losses and for each layer; and layers have the value of their lines."""
    _, losses, p, level, n = sampled(seed)
    cap = 1 + level / (1 - level) + seed % 3
    sets = {
        CVaR(level): lambda t: min(1, t / level),
        TotalVariation(level): lambda t: min(1, t + level),
        TotalVariation(level, max_ratio=cap): lambda t: min(1, t + level, cap * t),
    }
    steps = sorted(set(losses.tolist()))[:-1]
    for ball, value in sets.items():
        layers = [plugin_bias((losses > step).astype(float), p, n, ball) for step in steps]
        bias = plugin_bias(losses, p, n, ball)
        heights = np.diff(sorted(set(losses.tolist())))
        assert bias == pytest.approx(heights @ layers, abs=1e-9)
        assert -1e-9 <= bias <= max(layers) + 1e-9
        for step in steps:
            above = float(p @ (losses > step))
            assert worst_case((losses > step).astype(float), ball, reference=p).value == pytest.approx(value(above))


@pytest.mark.parametrize("seed", range(6))
def test_layers_have_the_slack_that_the_formulas_say_between_the_points_compared(seed):
    """At random chances and levels that no box has: the formula of cvar-bias-sharp is right there too."""
    rng, _, _, level, n = sampled(seed)
    level, eps = Fraction(level).limit_denominator(97), Fraction(float(rng.uniform())).limit_denominator(89)
    formula = as_stored(PROVED["cvar-bias-sharp"].proof) | {"holds": "slack"}
    told = verifier.holds(formula, {"n": n, "level": str(level), "eps": [str(eps), str(eps)]}, None)
    losses, p = [0.0, 1.0], [1 - float(eps), float(eps)]
    largest = plugin_bias(losses, [1 - float(level), float(level)], n, CVaR(float(level)))
    assert float(told) == pytest.approx(largest - plugin_bias(losses, p, n, CVaR(float(level))), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_two_atoms_are_the_worst_for_the_nesting_of_balls(seed):
    rng, losses, p, _, _ = sampled(seed)
    radius = float(rng.uniform(0.05, 0.5))
    for ball in (ChiSquare(2 * radius**2), KL(2 * radius**2)):
        q = worst_case(losses + rng.normal(size=len(p)), ball, reference=p).weights
        up = q > p
        a, b = q[up].sum(), p[up].sum()
        assert np.abs(q - p).sum() / 2 == pytest.approx(a - b, abs=1e-9)
        entropy = sum(x * np.log(x / y) for x, y in ((a, b), (1 - a, 1 - b)) if x > 0)
        assert 2 * (a - b) ** 2 <= entropy + 1e-12
        whole = (p * (q / p - 1) ** 2).sum() / 2, sum(x * np.log(x / y) for x, y in zip(q, p, strict=True) if x > 0)
        assert (a - b) ** 2 / (2 * b * (1 - b)) <= whole[0] + 1e-9
        assert entropy <= whole[1] + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_the_second_derivative_of_hoeffding_is_a_variance_of_losses_in_the_unit_interval(seed):
    rng, losses, p, _, _ = sampled(seed)
    s, h = float(rng.uniform(0.1, 4)), 1e-3

    def g(s: float) -> float:
        return float(np.log(p @ np.exp(s * losses)) - s * (p @ losses))

    tilted = p * np.exp(s * losses) / (p @ np.exp(s * losses))
    mean = float(tilted @ losses)
    variance = float(tilted @ (losses - mean) ** 2)
    assert (g(s + h) - 2 * g(s) + g(s - h)) / h**2 == pytest.approx(variance, abs=1e-5)
    assert variance <= mean * (1 - mean) + 1e-12
    assert g(s) <= s**2 / 8


@pytest.mark.parametrize("seed", range(6))
def test_samples_see_a_variance_that_is_short_by_one_nth_and_linear_quantiles_the_largest_bias(seed):
    rng, losses, p, level, n = sampled(seed)
    variance = float(p @ losses**2 - (p @ losses) ** 2)
    strength = 1 + float(rng.uniform(0, 3))
    means = plugin_value(losses, p, n, ChiSquarePenalty(strength)) - float(p @ losses)
    assert means == pytest.approx((1 - 1 / n) * variance / (2 * strength), abs=1e-9)
    claim = PROVED["icdf-bias"]
    slopes = tuple(rng.uniform(0, 1, 3).tolist())
    some, uniform = (claim.lhs(QuantileLosses(one, level, n)) for one in (slopes, (1.0,)))
    assert np.all(some <= max(slopes) * uniform + 1e-9)


@pytest.mark.parametrize("radius", [0.0625, 0.3, 0.55, 0.8])
def test_the_weights_of_total_variation_are_linear_in_the_radius_between_multiples_of_one_nth(radius):
    formula = as_stored(PROVED["tv-gradient-variance-floor"].proof)
    level = str(Fraction(radius))
    q = verifier.holds(formula | {"holds": f"q({level})"}, {"n": 6, "level": [level, level]}, None)
    found = worst_case(np.arange(6.0), TotalVariation(radius)).weights
    np.testing.assert_allclose([float(x) for x in q], found, atol=1e-12)
    assert DistinctLosses(6, radius).n == len(q)
