"""The minibatch claims: their verdicts, and their parts against sums and integrals that they do not share."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import beta

from dro_core import CVaR, TotalVariation, effective_sample_size, worst_case
from dro_core.sampling.estimators import multilevel_cost, multilevel_estimate
from proofs_check import Evidence, Verdict, check
from proofs_check.claims.minibatch.bias_bounds import CappedLosses, bias_layers, tv_capped_bias
from proofs_check.claims.minibatch.chi2_bias import chi2_bias, chi2_penalty_bias, exact_chi2_penalty
from proofs_check.claims.minibatch.minibatch import (
    cvar_bias,
    cvar_bias_sharp,
    exceeds_root_n,
    plugin_underestimates,
    plugin_underestimates_divergences,
    tv_bias_root_n,
    tv_bias_split,
)
from proofs_check.claims.minibatch.minibatch_gradients import (
    SampledGradients,
    cvar_gradient_variance,
    plugin_gradient,
    tv_gradient_variance_floor,
)
from proofs_check.claims.minibatch.multilevel import Levels, mlmc_unbiased, multilevel_mean
from proofs_check.claims.minibatch.quantiles import (
    QuantileLosses,
    exact_order_statistic_means,
    icdf_bias,
    order_statistic_means,
    tail_mean,
)
from proofs_check.claims.minibatch.sampled import SampledLosses, cvar_value, exact_bias, exact_plugin, tv_value
from proofs_check.proofs import PROOFS

CERTIFIED = (
    plugin_underestimates,
    cvar_bias,
    cvar_bias_sharp,
    tv_bias_split,
    tv_capped_bias,
    bias_layers,
    chi2_penalty_bias,
    icdf_bias,
    tv_gradient_variance_floor,
)
SEARCHED = (plugin_underestimates_divergences, chi2_bias, cvar_gradient_variance, mlmc_unbiased)


@pytest.mark.parametrize("build", [*CERTIFIED, *SEARCHED], ids=lambda build: build.__name__)
def test_upheld_with_every_mutant_refuted(build, searched):
    claim = build()
    report = searched(claim).report
    assert report.verdict is Verdict.UPHELD, report.reason
    exact = Evidence.PROVED if claim.label in PROOFS else Evidence.CERTIFIED
    assert report.evidence is (exact if build in CERTIFIED else Evidence.SEARCHED)
    assert len(report.controls) >= 2


@pytest.mark.parametrize("build", [plugin_underestimates, cvar_bias_sharp, tv_bias_split, tv_capped_bias, bias_layers])
def test_the_exact_check_sees_a_wrong_set(build, monkeypatch):
    def by_support(losses, p):  # a minibatch that holds every loss comes out largest, or smallest
        return max(losses) if all(p) is not (build is plugin_underestimates) else min(losses)

    for module in ("minibatch", "bias_bounds"):
        for name in ("tv_value", "cvar_value"):
            monkeypatch.setattr(f"proofs_check.claims.minibatch.{module}.{name}", lambda *_: by_support, raising=False)
    claim = build()
    x = (0.0, 1.0, 3.0), (1.0, 2.0, 4.0), 0.25, 5
    assert not claim.verifies(CappedLosses(*x, 3.0) if build in (tv_capped_bias, bias_layers) else SampledLosses(*x))


def test_rational_means_agree_with_every_ordered_sample():
    x = SampledLosses((0.0, 1.5, -2.0), (1.0, 2.0, 5.0), 0.375, 4)
    samples = np.array(list(product(range(3), repeat=4)))
    chances = np.prod(x.reference[samples], axis=1)
    losses = np.array(x.losses)
    for value, ball in ((tv_value(0.375), TotalVariation(0.375)), (cvar_value(0.375), CVaR(0.375))):
        mean = chances @ worst_case(losses[samples], ball).value
        assert float(exact_plugin(x, 4, value)) == pytest.approx(mean, abs=1e-14)
        population = worst_case(losses, ball, reference=x.reference).value
        assert float(exact_bias(x, value)) == pytest.approx(population - mean, abs=1e-14)


def test_the_witness_against_root_n_follows_by_hand():
    claim = tv_bias_root_n()
    report = check(claim)
    assert (report.verdict, report.evidence) == (Verdict.REFUTED, Evidence.CERTIFIED)
    witness = report.worst.instance
    eps, rho, n = Fraction(1, 1024), Fraction(1, 2), 64
    assert witness == SampledLosses((0.0, 1.0), (1023.0, 1.0), 0.5, 64)
    assert len(claim.by_hand.splitlines()) == 3
    some = 1 - (1 - eps) ** n
    assert some <= n * eps == Fraction(1, 16)
    assert eps + rho - some > Fraction(7, 16) > Fraction(6, 16) == 3 * Fraction(1, 8)
    assert not exceeds_root_n(SampledLosses((0.0, 1.0), (1023.0, 1.0), 0.5, 16))


def test_the_exact_chi_square_penalty_is_the_minimum_of_its_dual():
    losses, masses, strength = np.array([0.0, 1.0, 4.0, 4.5]), np.array([0.0, 0.5, 0.25, 0.25]), 0.75
    exact = exact_chi2_penalty([Fraction(v) for v in losses], [Fraction(m) for m in masses], Fraction(strength))
    dual = minimize_scalar(
        lambda eta: masses @ np.maximum(losses - eta, 0) ** 2 / (2 * strength) + strength / 2 + eta,
        bounds=(-5, 5), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert float(exact) == pytest.approx(dual.fun, abs=1e-9)


def test_order_statistics_and_tails_of_piecewise_linear_quantiles_agree_with_quadrature():
    x = QuantileLosses((2.0, 0.5, 0.0, 1.0), 0.3, 6)

    def quantile(u):
        return np.interp(u, np.linspace(0, 1, 5), np.concatenate([[0], np.cumsum(x.slopes)]) / 4)

    breaks = (0.25, 0.5, 0.75)
    means = [quad(lambda u, i=i: quantile(u) * beta.pdf(u, i, 7 - i), 0, 1, points=breaks)[0] for i in range(1, 7)]
    assert order_statistic_means(x) == pytest.approx(means, abs=1e-10)
    assert [float(m) for m in exact_order_statistic_means(x)] == pytest.approx(means, abs=1e-10)
    tail = quad(quantile, 0.7, 1, points=(0.75,))[0] / 0.3
    assert tail_mean(x.slopes, 0.3) == pytest.approx(tail, abs=1e-12)


def test_the_gradient_variance_agrees_with_every_ordered_sample_and_comes_close_to_four():
    x = SampledGradients((1.0, 0.0, 1.0), (1.0, 2.0, 1.0), 0.4, 5, (-1.0, 0.5, 2.0))
    samples = np.array(list(product(range(3), repeat=5)))
    chances = np.prod(x.reference[samples], axis=1)
    # Enumeration by counts shares ties in proportion, so it averages the gradients of equal losses: as here.
    weights = worst_case(np.array(x.losses)[samples], CVaR(0.4)).weights
    gradients = np.sum(weights * np.array(x.gradients)[samples], axis=1)
    mean = chances @ gradients
    assert plugin_gradient(x, 5, CVaR(0.4)) == pytest.approx((mean, chances @ (gradients - mean) ** 2), abs=1e-13)
    rare = SampledGradients((0.0, 1.0), (964.0, 60.0), 1 / 16, 65536, (-1.0, 1.0))
    assert 3.4 < plugin_gradient(rare, 65536, CVaR(1 / 16))[1] * 65536 / 16 < 4


@pytest.mark.parametrize(("n", "radius"), [(7, 0.3), (8, 0.25), (10, 0.5)])
def test_the_variance_floor_is_the_variance_over_all_signs(n, radius):
    weights = worst_case(np.random.default_rng(n).normal(size=n), TotalVariation(radius)).weights
    signed = np.array(list(product((-1.0, 1.0), repeat=n))) @ weights
    rest = np.ceil(radius * n) - radius * n
    formula = radius**2 + (1 + radius) / n - rest * (1 - rest) / n**2
    assert signed.var() == pytest.approx(formula, abs=1e-12)
    assert effective_sample_size(weights) < 1 / radius**2


def test_multilevel_means_agree_with_a_simulation_and_with_its_cost():
    x = Levels((0.0, 1.0), (3.0, 1.0), 0.25, 2, (-1.0, 1.0), 2)
    rng = np.random.default_rng(6)

    def sample(rng, size):
        drawn = rng.choice(2, p=x.reference, size=size)
        return np.array(x.losses)[drawn], np.array(x.gradients)[drawn][:, None]

    estimates = [multilevel_estimate(sample, CVaR(0.25), rng, n_min=2, n_max=8) for _ in range(4000)]
    rows = np.array([[e.value, e.gradient[0], e.draws] for e in estimates], float)
    error = 4 * rows.std(axis=0) / len(rows) ** 0.5
    assert (np.abs(multilevel_mean(x, CVaR(0.25)) - rows.mean(axis=0)) < error).all()
    assert multilevel_mean(x, CVaR(0.25))[2] == pytest.approx(multilevel_cost(2, 8)) == pytest.approx(6.0)
