"""Claims about what minibatches, groups, noisy labels and weighted policies do, held against other computations."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from math import log, sqrt

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import binom, multinomial

from dro_core import ChiSquare, CVaR, KLPenalty, Spectral, TotalVariation, minibatch, radius_from_confidence, worst_case
from proofs_check import Evidence, Verdict
from proofs_check.claims.convergence import robust_mdp
from proofs_check.claims.convergence.parameter_rate import Located, exact_minimiser
from proofs_check.claims.convergence.robust_mdp import Model, contamination_discount, robust_bellman_contracts
from proofs_check.claims.convergence.unbiased import batch_spectrum
from proofs_check.claims.convergence.weighted_policies import Clipped, Sampled, plugin_policy_weights, ppo_a_is_b
from proofs_check.claims.minibatch import coverage, partitions, spectral
from proofs_check.claims.minibatch.bias_bounds import CappedLosses
from proofs_check.claims.minibatch.coverage import Known, radius_covers, radius_covers_chi_square, seen_whole
from proofs_check.claims.minibatch.partitions import Coins, Cut, grouped_underestimates, microbatch_understates_exactly
from proofs_check.claims.minibatch.sampled import tv_value
from proofs_check.claims.minibatch.spectral import (
    Batch,
    TwoSizes,
    batch_size_is_a_radius,
    exact_rank_weights,
    minibatch_is_spectral,
    minibatch_of_a_batch,
)
from proofs_check.claims.preferences import limits, noisy_labels, tempered, zero_one
from proofs_check.claims.preferences.limits import Covered, Separable, coverage_caps_the_radius, separable_margin
from proofs_check.claims.preferences.noisy_labels import (
    Flipped,
    Preferred,
    cdpo_margin,
    noise_eats_radius,
    rdpo_unbiased,
)
from proofs_check.claims.preferences.tempered import Tempered, drdpo_is_optimistic, kldpo_hidden_rate
from proofs_check.claims.preferences.zero_one import Errors, zero_one_invariance
from proofs_check.registry import CLAIMS

CERTIFIED = {
    "minibatch-is-spectral", "minibatch-of-a-batch", "batch-size-is-a-radius", "microbatch-understates-exactly",
    "radius-covers", "zero-one-invariance", "coverage-caps-the-radius", "noise-eats-radius", "rdpo-unbiased",
    "cdpo-margin", "kldpo-hidden-rate", "drdpo-is-optimistic", "ppo-a-is-b", "robust-bellman", "contamination-discount",
    "robust-parameter-rate",
}  # fmt: skip
SEARCHED = {
    "microbatch-understates", "separable-margin", "npg-slower", "value-iteration-bracket", "sgd-unbiased",
    "excess-bounds", "effective-sample-size-bounds", "accelerated-gradient", "group-dro-online",
}  # fmt: skip
REFUTED = {
    "microbatch-understates-groups", "grouped-underestimates", "radius-covers-chi-square", "zero-one-invariance-groups",
    "rdpo-robust-unbiased", "ppo-a-is-b-whitened", "plugin-policy-weights", "robust-parameter-rate-quarter",
}  # fmt: skip


@pytest.mark.parametrize("label", sorted(CERTIFIED | SEARCHED | REFUTED))
def test_verdict_and_evidence(label, searched):
    claim = next(claim for claim in CLAIMS if claim.label == label)
    report = searched(claim).report
    assert report.verdict is (Verdict.REFUTED if label in REFUTED else Verdict.UPHELD), report.reason
    assert report.evidence is (Evidence.SEARCHED if label in SEARCHED else Evidence.CERTIFIED)
    assert not claim.by_hand or len(claim.by_hand.splitlines()) == 3


# What minibatches optimise


def test_the_density_of_a_minibatch_is_the_mean_of_order_statistics():
    """Uniform losses: the integral of u phi_n(u) against the mean of sorted uniform draws i/(n + 1)."""
    q = [float(w) for w in exact_rank_weights(tv_value(0.25), 5)]
    assert q == pytest.approx(worst_case(np.arange(5.0), TotalVariation(0.25)).weights)

    def density(u):
        return sum(5 * w * [1, 4, 6, 4, 1][i] * u**i * (1 - u) ** (4 - i) for i, w in enumerate(q))

    mean = quad(lambda u: u * density(u), 0, 1)[0]
    assert mean == pytest.approx(sum(w * (i + 1) / 6 for i, w in enumerate(q)))
    slopes = np.diff([density(u) for u in np.linspace(0, 1, 101)])
    assert (slopes >= -1e-12).all()
    assert density(1.0) == pytest.approx(1 + 5 * 0.25)


def test_equal_masses_turn_the_density_into_a_spectrum():
    """The spectrum on m equal losses is the mean minibatch worst case, by drawing every minibatch."""
    losses = np.array([0.0, 1.0, 4.0])
    drawn = losses[np.array(list(product(range(3), repeat=4)))]
    mean = float(worst_case(drawn, TotalVariation(0.375)).value.mean())
    assert float(worst_case(losses, Spectral(batch_spectrum(0.375, 4, 3))).value) == pytest.approx(mean, abs=1e-13)


def test_batches_prefer_what_their_size_lets_them_see():
    x, claim = TwoSizes(2, 4, 64, 8), batch_size_is_a_radius()
    values = []
    for n in (x.n, x.more):
        seen = np.arange(n + 1) / n  # of ones in the batch; half of the mass moves to one of them, if there is one
        worst = np.where(seen > 0, np.minimum(1.0, seen + 0.5), 0.0)
        values.append(binom.pmf(np.arange(n + 1), n, 1 / 32) @ worst)
    assert claim.rhs(x) == pytest.approx(values[1] - values[0], abs=1e-12)
    assert values[1] - values[0] > 0.5 * ((31 / 32) ** 4 - (31 / 32) ** 64) > 0.3
    assert claim.verifies(x)


def test_a_batch_trains_the_objective_of_small_ones():
    losses = np.random.default_rng(0).normal(size=9)
    mean = np.mean([worst_case(np.array(c), CVaR(0.5)).value for c in combinations(losses, 3)])
    assert float(worst_case(losses, minibatch(CVaR(0.5), 3)).value) == pytest.approx(mean, abs=1e-13)


def test_group_means_of_few_draws_are_overestimated():
    rng = np.random.default_rng(1)
    groups, coins = rng.integers(0, 2, (40_000, 2)), rng.integers(0, 2, (40_000, 2))
    both = groups[:, 0] != groups[:, 1]
    values = np.where(both, 0.25 * coins.min(1) + 0.75 * coins.max(1), coins.mean(1))
    claim = grouped_underestimates()
    assert claim.lhs(Coins((1, 1), (8, 8), 2, 4)) == 9 / 16 == pytest.approx(values.mean(), abs=0.01)


# Radii


def test_coverage_is_a_sum_of_multinomial_chances():
    x = Known((1, 2, 1), 9, 4)
    radius = radius_from_confidence(TotalVariation, 9, 1 / 4, atoms=3)
    counts = np.array([c for c in product(range(10), repeat=3) if sum(c) == 9])
    near = np.abs(counts / 9 - [0.25, 0.5, 0.25]).sum(axis=1) / 2 <= radius
    assert radius_covers().rhs(x) == pytest.approx(multinomial.pmf(counts, 9, [0.25, 0.5, 0.25])[near].sum(), abs=1e-12)
    assert float(coverage.exact_radius(x)) == pytest.approx(radius, abs=1e-14)


def test_chi_square_covers_no_more_than_what_is_seen():
    assert seen_whole(Known((1, 1), 4, 20)) == Fraction(7, 8)
    claim, n = radius_covers_chi_square(), 40
    assert claim.rhs(Known((1, 9), 20, 20)) <= float(seen_whole(Known((1, 9), 20, 20))) < 0.95
    radius = radius_from_confidence(ChiSquare, n, 0.05, atoms=2)
    k = np.arange(1, n)
    inside = ((0.5 - k / n) ** 2 / (k / n) + (0.5 - k / n) ** 2 / (1 - k / n)) / 2 <= radius
    chances = multinomial.pmf(np.stack([k, n - k], axis=1), n, [0.5, 0.5])
    assert claim.rhs(Known((1, 1), n, 20)) == pytest.approx(chances[inside].sum(), abs=1e-12)


# Preferences


def test_margins_are_minimisers():
    def softplus(h):
        return np.logaddexp(0.0, h)

    x = Preferred(240, 32, 24)
    win = float(x.noisy)
    smoothed = minimize_scalar(lambda h: win * softplus(-h) + (1 - win) * softplus(h), bounds=(-9, 9), method="bounded")
    assert 1 / (1 + np.exp(-smoothed.x)) == pytest.approx(cdpo_margin().rhs(x), abs=1e-5)
    q = win - 24 / 256
    robust = minimize_scalar(
        lambda h: max(w * softplus(-h) + (1 - w) * softplus(h) for w in (q, win, min(1, win + 24 / 256))),
        bounds=(-9, 9), method="bounded",
    )  # fmt: skip
    assert 1 / (1 + np.exp(-robust.x)) == pytest.approx(noise_eats_radius().rhs(x), abs=1e-5)
    assert noise_eats_radius().rhs(Preferred(256, 32, 96)) == 0.5


def test_the_margin_of_the_fit_approaches_the_largest():
    """Against a solver that knows nothing of angles."""
    x = Separable((4, 0, 0, 4), (999, 1), 8.0, 4)
    rows, p = x.rows, x.reference

    def loss(w):
        return log(float(worst_case(np.logaddexp(0.0, -(rows @ w)), TotalVariation(0.25), reference=p).value))

    ball = {"type": "ineq", "fun": lambda w: 64 - w @ w}
    found = minimize(loss, np.array([5.0, 5.0]), constraints=[ball], method="SLSQP", options={"maxiter": 300})
    claim = separable_margin()
    assert claim.rhs(x) == pytest.approx((rows @ found.x).min(), abs=0.05)
    assert claim.lhs(replace(x, norm=32.0)) == pytest.approx(32 / sqrt(2) - log(1000), abs=0.01)


def test_tempered_losses_are_a_penalty_and_its_opposite():
    x = Tempered((0, 3, 8, -5), 6)
    weights = np.exp((x.losses - x.losses.mean()) / 0.75)
    worst = worst_case(x.losses, KLPenalty(0.75))
    assert weights / weights.sum() == pytest.approx(worst.weights)
    assert kldpo_hidden_rate().lhs(x)[1] == pytest.approx(weights.mean())
    assert drdpo_is_optimistic().lhs(x)[1] == pytest.approx(-0.75 * log(np.mean(np.exp(-x.losses / 0.75))))


def test_a_capped_mean_is_a_minimiser():
    """Of the worst case over every q in the set: two masses, so an interval."""
    for share in (0.0, 1 / 16, 1 / 4, 0.4, 0.9):
        ends = max(share - 0.25, 1 - 1.5 * (1 - share), 0.0), min(share + 0.25, 1.5 * share, 1.0)
        found = minimize_scalar(
            lambda t, ends=ends: max(w * (t - 1) ** 2 + (1 - w) * t**2 for w in ends), bounds=(0, 1), method="bounded"
        )
        exact = exact_minimiser(Located(16, 1, 4, 24), Fraction(share))
        assert float(exact) == pytest.approx(found.x, abs=1e-5)


def test_a_hidden_direction():
    """One-hot prompts: the smallest eigenvalue of a worst covariance is what is left of the rarest one."""
    x = Covered((1, 0, 0, 1), (1, 0), (1, 1), 4)
    claim = coverage_caps_the_radius()
    assert claim.lhs(x)[0] == pytest.approx(0.25) == pytest.approx(claim.rhs(x)[1])


# Policies and decision processes


def test_the_surrogate_is_homogeneous_for_weights_that_are_not_negative():
    claim = ppo_a_is_b()
    assert not claim.verifies(Clipped((24,), (8,), (-2,), 4))
    assert not claim.admits(Clipped((24,), (8,), (-2,), 4))
    assert claim.rhs(Clipped((24,), (8,), (2,), 4))[0] == -2.5


def test_sampled_weights_agree_with_a_simulation():
    rng, n = np.random.default_rng(2), 200_000
    right = rng.binomial(2, [0.25, 0.75], (n, 2)) / 2
    gradients = right * (1 - np.array([0.25, 0.75]))
    first, second = right.T
    q = np.where(first < second, 0.75, np.where(first > second, 0.25, 0.5))
    mean = (q * gradients[:, 0] + (1 - q) * gradients[:, 1]).mean()
    assert plugin_policy_weights().lhs(Sampled((4, 12), 2, 4)) == pytest.approx(mean, abs=0.003)


def test_a_contaminated_chain_by_its_adversary():
    """One action: every policy of the adversary, who sends eps of the mass to one state, is tried."""
    x = Model((8, 8, 0, 0), (1, 1, 1, 1, 2, 1, 2, 1), (0, 0), (0, 0), 8, 4)
    p, rewards = x.transitions[:, 0], x.reward_table[:, 0]
    worst = np.full(2, np.inf)
    for targets in product(range(2), repeat=2):
        moved = 0.75 * p + 0.25 * np.eye(2)[list(targets)]
        worst = np.minimum(worst, np.linalg.solve(np.eye(2) - 0.5 * moved, rewards))
    assert contamination_discount().rhs(x) == pytest.approx(worst)


# The exact checks see what is wrong

half = Fraction(1, 2)
MODEL = Model((8, 0), (1, 1), (3,), (4,), 8, 4)
CAPPED, COVERED = CappedLosses((0.0, 1.0), (3.0, 1.0), 0.25, 2, 4.0), Covered((1, 0, 0, 1), (1, 0), (1, 1), 4)
WRONG = [
    (minibatch_is_spectral, spectral, "exact_rank_weights", lambda v, n: [half, half], CAPPED),
    (minibatch_of_a_batch, spectral, "exact_rank_weights", lambda v, n: [half, half], Batch((0, 1, 2), 2, 8)),
    (batch_size_is_a_radius, spectral, "exact_plugin", lambda x, n, v: half, TwoSizes(32, 1, 2, 8)),
    (microbatch_understates_exactly, partitions, "exact_tv", lambda v, p, r: half / len(v), Cut((0, 1), (0, 1), 8)),
    (radius_covers, coverage, "exact_radius", lambda x: Fraction(0), Known((1, 1), 8, 20)),
    (zero_one_invariance, zero_one, "exact_cvar", lambda v, p, r: half, Errors((3, 1), (0, 1), (1, 0), 16)),
    (coverage_caps_the_radius, limits, "exact_tv", lambda v, p, r: Fraction(-9), COVERED),
    (rdpo_unbiased, noisy_labels, "_unbiased", lambda x, a, b: Fraction(a, 8), Flipped(1, 3, 16)),
    (cdpo_margin, Preferred, "noisy", half, Preferred(256, 64)),
    (noise_eats_radius, noisy_labels, "exact_tv", lambda v, p, r: Fraction(0), Preferred(256, 32, 32)),
    (kldpo_hidden_rate, tempered, "exp_bounds", lambda x: (half, half), Tempered((0, 8), 8)),
    (drdpo_is_optimistic, tempered, "log_bounds", lambda x: (half, half), Tempered((0, 8), 8)),
    (contamination_discount, robust_mdp, "plain_values", lambda x: [Fraction(1)], MODEL),
    (robust_bellman_contracts, robust_mdp, "GAP", Fraction(-1), MODEL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "module", "name", "wrong", "x"), WRONG, ids=lambda part: getattr(part, "__name__", "")
)
def test_the_exact_check_sees_a_wrong_part(build, module, name, wrong, x, monkeypatch):
    claim = build()
    assert claim.admits(x)
    assert claim.verifies(x)
    monkeypatch.setattr(module, name, wrong, raising=False)
    assert not claim.verifies(x)
