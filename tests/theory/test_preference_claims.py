"""The preference claims get their verdicts, and the numbers behind them agree with other computations."""

from itertools import product
from math import exp, log

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binom

from dro_core import TotalVariation
from proofs_check import Evidence, Verdict
from proofs_check.claims.preferences.asymptotics import Simulation, bt_mle_coverage, bt_mle_slope
from proofs_check.claims.preferences.preferences import (
    Design,
    bt_mle_rate,
    constrained_fits,
    dpo_identity,
    expected_error,
)
from proofs_check.claims.preferences.robust_shift import robust_shift_gain, robust_shift_parity
from proofs_check.claims.preferences.shift_counterexamples import (
    Coin,
    SampledPrompts,
    exceeds_log_two,
    expected_worst_case,
    plain_wins,
    robust_shift_labels,
    robust_shift_sample,
)

CLAIMS = {
    claim.label: (claim, evidence)
    for claim, evidence in (
        (dpo_identity(), Evidence.SEARCHED),
        (bt_mle_rate(), Evidence.SEARCHED),
        (bt_mle_slope(), Evidence.STATISTICAL),
        (bt_mle_coverage(), Evidence.STATISTICAL),
        (robust_shift_gain(), Evidence.SEARCHED),
        (robust_shift_parity(), Evidence.SEARCHED),
        (robust_shift_labels(), Evidence.CERTIFIED),
        (robust_shift_sample(), Evidence.CERTIFIED),
    )
}


@pytest.mark.parametrize("label", CLAIMS)
def test_claims_get_their_verdict_and_every_mutant_is_refuted(label, searched):
    claim, evidence = CLAIMS[label]
    report = searched(claim).report
    assert (report.verdict, report.evidence) == (claim.expected, evidence), report.reason
    assert report.controls
    assert set(report.controls.values()) == {Verdict.REFUTED}


def test_the_expected_error_agrees_with_a_loop_over_all_labels_and_a_general_optimiser():
    design = Design((1.0, 0.0, 0.5, 1.0, -0.5, 0.75), (1.0, -0.5), 2, 1.5)
    rows, truth = design.rows, np.array(design.weights)
    total = 0.0
    for wins in product(range(3), repeat=3):
        w = constrained_fit(rows, np.array(wins), 2, 1.5)
        chance = np.prod(binom.pmf(wins, 2, expit(rows @ truth)))
        total += chance * (w - truth) @ design.covariance @ (w - truth)
    assert expected_error(design) == pytest.approx(total, abs=1e-6)


def loss_of(rows, wins, repeats):
    return lambda w: wins @ np.logaddexp(0, -rows @ w) + (repeats - wins) @ np.logaddexp(0, rows @ w)


def constrained_fit(rows, wins, repeats, bound):
    ball = {"type": "ineq", "fun": lambda w: bound**2 - w @ w, "jac": lambda w: -2 * w}
    loss = loss_of(rows, wins, repeats)
    return minimize(loss, np.zeros(2), method="SLSQP", constraints=[ball], options={"ftol": 1e-14}).x


def test_prompts_at_right_angles_are_problems_of_one_number_each():
    design = Design((1.0, 0.75), (0.25, -0.5), 3, 0.75, "axes")
    rows, truth = design.rows, np.array(design.weights)
    total = 0.0
    for wins in product(range(4), repeat=2):
        loss = loss_of(rows, np.array(wins), 3)
        w = minimize(loss, np.zeros(2), bounds=[(-0.75, 0.75)] * 2, options={"ftol": 1e-15, "gtol": 1e-10}).x
        chance = np.prod(binom.pmf(wins, 3, expit(rows @ truth)))
        total += chance * (w - truth) @ design.covariance @ (w - truth)
    assert expected_error(design) == pytest.approx(total, abs=1e-6)


def test_one_prompt_needs_no_solver():
    fits = constrained_fits(np.array([[0.75]]), np.arange(7)[:, None] / 6, 1.0, 1.0)[:, 0]
    chances = binom.pmf(np.arange(7), 6, expit(0.75 * 0.5))
    error = expected_error(Design((0.75,), (0.5,), 6, 1.0))
    assert error == pytest.approx(chances @ (0.75 * (fits - 0.5)) ** 2, abs=1e-12)


def test_constrained_fits_meet_their_optimality_condition():
    rng = np.random.default_rng(0)
    rows, wins = rng.standard_normal((5, 3)), rng.integers(0, 9, (50, 5)) / 40
    fits = constrained_fits(rows, wins, 1 / 5, 0.8)
    gradients = (expit(fits @ rows.T) / 5 - wins) @ rows
    # At the minimum over a ball the gradient is -lambda w: <g, w> + bound ||g|| = 0, and 0 inside.
    residual = (gradients * fits).sum(axis=1) + 0.8 * np.linalg.norm(gradients, axis=1)
    assert np.linalg.norm(fits, axis=1).max() <= 0.8 + 1e-12
    assert residual == pytest.approx(np.zeros(50), abs=1e-12)


def test_one_prompt_learns_at_the_rate_of_the_normal_limit():
    # d = 1: n E error^2 -> 1/(p (1 - p)) for x = 1; far from that at small n because of the ball.
    error = expected_error(Design((1.0,), (1.0,), 20_000, 3.0))
    assert 20_000 * error == pytest.approx(1 / (expit(1) * expit(-1)), rel=2e-3)


def test_simulated_slopes_are_reproducible_and_their_seed_matters():
    claim = bt_mle_slope()
    first, again, other = (claim.lhs(Simulation(200, seed)) for seed in (1, 1, 2))
    assert first.value.tolist() == again.value.tolist() != other.value.tolist()
    assert (first.low <= first.value).all()
    assert (first.value <= first.high).all()
    assert first.value[0] == pytest.approx(-0.5, abs=0.03)


def test_the_label_refutation_follows_by_hand():
    assert 2**20 == 1_048_576 > 3**11 == 177_147
    plain = (11 * log(4 / 3) + 9 * log(4)) / 20
    robust = -(0.55 * log(0.55) + 0.45 * log(0.45))
    claim, coin = robust_shift_labels(), Coin(15, 5, 4)
    assert claim.rhs(coin) == pytest.approx(plain, abs=1e-6)
    assert claim.lhs(coin) == pytest.approx(robust, abs=1e-8)
    fit = coin.population.minimiser(TotalVariation(0.2), tolerance=1e-12)
    assert fit.coefficients[0] == pytest.approx(log(11 / 9), abs=1e-4)
    assert exceeds_log_two(coin)
    assert not exceeds_log_two(Coin(15, 5, 1))  # the gain is real, but not proved by w = 0
    flat = coin.population.minimiser(TotalVariation(0.3), tolerance=1e-12)
    assert flat.value == pytest.approx(log(2), abs=1e-9)


def test_the_sample_refutation_follows_by_hand():
    t = max(np.roots([1, 0, -1, -2]).real)
    c, p, q = log(t), 8 / 9, 32 / 33

    def worst(w):
        return max(
            p * np.log1p(exp(-w)) + (1 - p) * np.log1p(exp(w)),
            q * np.log1p(exp(-2 * w)) + (1 - q) * np.log1p(exp(2 * w)),
        )

    loss = (p * (1 - q) * (log(2) - worst(-c)) + (1 - p) * q * (log(2) - worst(c))) / 2
    x = SampledPrompts(8, 32, 2, 0.5, 4.0)
    difference = expected_worst_case(x, robust=True) - expected_worst_case(x, robust=False)
    assert difference == pytest.approx(loss, abs=1e-9)
    assert plain_wins(x)


@pytest.mark.parametrize("near", [2, 3, 5, 8, 16])
@pytest.mark.parametrize("far", [2, 8, 40, 300])
def test_the_exact_check_never_contradicts_the_enumeration(near, far):
    x = SampledPrompts(near, far, 2, 0.5, 4.0)
    difference = expected_worst_case(x, robust=True) - expected_worst_case(x, robust=False)
    assert plain_wins(x) == (difference > 0)
    assert not plain_wins(SampledPrompts(near, far, 3, 0.5, 4.0))


def test_the_population_gains_where_the_sample_loses():
    x = SampledPrompts(8, 32, 2, 0.5, 4.0)
    plain = x.population.worst_case(x.population.minimiser(tolerance=1e-12).coefficients, x.ball).value
    assert float(plain) > x.population.minimiser(x.ball, tolerance=1e-12).value + 1e-4
