"""The exact biases against sums by hand, brute force over samples, quadrature and simulation."""

import re
from itertools import combinations, product
from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import binom, norm

from dro_core import KL, CVaR, TotalVariation, bias_bound, worst_case
from synthetic import LinearBradleyTerry, plugin_bias, plugin_value
from synthetic.biases.bias import sample_chances, sample_counts
from synthetic.biases.without_enumeration import Layers, atoms, bradley_terry, expected_fill

SETS = (CVaR(0.3), CVaR(1.0), TotalVariation(0.25), TotalVariation(0.25, max_ratio=3), TotalVariation(0.6, max_ratio=2))


def bernoulli(eps):
    return Layers(0.0, np.ones(1), np.array([eps]))


@pytest.mark.parametrize("ambiguity", [*SETS, KL(0.2)], ids=str)
def test_enumeration_agrees_with_every_ordered_sample(ambiguity):
    values, p, n = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 0.3, 0.2]), 4
    samples = np.array(list(product(range(3), repeat=n)))
    expected = np.prod(p[samples], axis=1) @ worst_case(values[samples], ambiguity).value
    assert plugin_value(values, p, n, ambiguity) == pytest.approx(expected, abs=1e-13)


def test_chances_of_counts_are_multinomial():
    counts = sample_counts(5, 2)
    expected = [comb(5, k) * 0.3**k * 0.7 ** (5 - k) for k in range(6)]
    assert sample_chances(counts, [0.3, 0.7]) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("ambiguity", SETS, ids=str)
def test_layers_agree_with_enumeration(ambiguity):
    rng = np.random.default_rng(4)
    for n, k in ((1, 3), (5, 4), (9, 3), (40, 2)):
        values, p = rng.normal(size=k), rng.dirichlet(np.ones(k))
        assert atoms(values, p).bias(n, ambiguity) == pytest.approx(plugin_bias(values, p, n, ambiguity), abs=1e-12)
        assert atoms(values, p).mean == pytest.approx(values @ p)


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.5), (7, 0.3), (100, 0.29), (64, 1 / 64), (5, 1.0), (12, 0.0)])
def test_expected_fill_is_the_binomial_sum(n, alpha):
    for p in (0.001, 0.2, 0.5, 0.97):
        drawn = np.arange(n + 1)
        filled = np.minimum(drawn / (alpha * n), 1) if alpha else drawn > 0
        assert expected_fill(p, n, alpha) == pytest.approx(filled @ binom.pmf(drawn, n, p), abs=1e-13)


def test_total_variation_loses_its_radius_at_every_n_and_follows_the_formula_of_the_proof():
    for n in (1, 64, 4096):
        biases = [bernoulli(eps).bias(n, TotalVariation(0.2)) for eps in np.geomspace(1e-9, 0.999, 300)]
        assert 0.1999 < max(biases) <= 0.2 + 1e-12
    eps, n, rho = 0.01, 50, 0.2
    ones = np.arange(n + 1)
    overflow = np.maximum(ones / n + rho - 1, 0) @ binom.pmf(ones, n, eps)
    assert bernoulli(eps).bias(n, TotalVariation(rho)) == pytest.approx(rho * (1 - eps) ** n + overflow, abs=1e-13)


@pytest.mark.parametrize("alpha", [0.1, 0.266, 0.7])
def test_the_largest_cvar_bias_is_where_the_bound_says(alpha):
    biases = [bernoulli(eps).bias(64, CVaR(alpha)) for eps in np.linspace(0, 1, 2001)]
    assert max(biases) <= bias_bound(CVaR(alpha), 64, 1.0) + 1e-12
    assert bernoulli(alpha).bias(64, CVaR(alpha)) == pytest.approx(bias_bound(CVaR(alpha), 64, 1.0), rel=1e-10)


@pytest.mark.parametrize(
    ("replace", "formula"), [(False, lambda n, m: 1 - m / n), (True, lambda n, m: (1 - 1 / n) ** m)]
)
def test_the_bias_on_a_finite_training_set(replace, formula):
    size, n, rho = 7, 3, 0.4  # one loss of 1 among 7
    losses = np.eye(1, size)[0]
    draw = product(range(size), repeat=n) if replace else combinations(range(size), n)
    batches = losses[np.array(list(draw))]
    bias = worst_case(losses, TotalVariation(rho)).value - worst_case(batches, TotalVariation(rho)).value.mean()
    overflow = max(0.0, 2 / n + rho - 1) * 3 * 6 / size**n if replace else 0.0  # two of the three draws
    overflow += rho / size**n if replace else 0.0  # all three
    assert bias == pytest.approx(rho * formula(size, n) + overflow, abs=1e-12)


@pytest.mark.parametrize("trained", [False, True])
def test_bradley_terry_layers_agree_with_quadrature_and_simulation(trained):
    law, deviation = bradley_terry(1.5, trained=trained), 1.5

    def density(h):
        return norm.pdf(h, scale=deviation) * (2 / (1 + np.exp(-h)) if trained else 1)

    mean = quad(lambda h: density(h) * np.logaddexp(0, -h), -18, 18, epsabs=1e-11)[0]
    assert law.mean == pytest.approx(mean, abs=1e-7)
    # CVaR by its dual at the best threshold, and the mean maximum of 16 by the distribution function.
    hard = brentq(lambda h: quad(density, -18, -h, epsabs=1e-12)[0] - 0.2, -5, 5)
    tail = quad(lambda h: density(-h) * (np.logaddexp(0, h) - np.logaddexp(0, hard)), hard, 18, epsabs=1e-11)[0]
    assert law.value(CVaR(0.2)) == pytest.approx(np.logaddexp(0, hard) + tail / 0.2, abs=1e-5)
    rng = np.random.default_rng(8)
    margins = deviation * rng.standard_normal((100_000, 16))
    if trained:
        margins *= np.where(rng.random(margins.shape) < 1 / (1 + np.exp(-margins)), 1, -1)
    for ambiguity in (TotalVariation(0.2), TotalVariation(0.2, max_ratio=4), CVaR(0.2)):
        simulated = np.asarray(worst_case(np.logaddexp(0, -margins), ambiguity).value)
        assert law.plugin_value(16, ambiguity) == pytest.approx(simulated.mean(), abs=4 * simulated.std() / 1e5**0.5)


def test_true_reward_layers_have_the_mean_loss_of_the_linear_problem():
    problem = LinearBradleyTerry(np.array([1.5]), np.eye(1))
    assert bradley_terry(1.5, trained=True).mean == pytest.approx(problem.mean_loss(problem.weights), abs=1e-6)
    assert bradley_terry(1.5, trained=False).mean > problem.mean_loss(problem.weights)


def test_what_cannot_be_stacked_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match="enumerate with plugin_bias"):
        bernoulli(0.1).bias(8, KL(0.1))
    for deviation, points in ((0.0, 11), (1.0, 10)):
        with pytest.raises(ValueError, match="points odd"):
            bradley_terry(deviation, trained=True, points=points)


def test_the_page_of_the_study_shows_these_numbers():
    page = (Path(__file__).parents[2] / "docs/results/tv-bias.md").read_text()
    tables = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", page, re.DOTALL))
    rows = {name: [re.split(r" *\| *", line)[1:-1] for line in text.split("\n")] for name, text in tables.items()}
    sizes, rho = (8, 32, 128, 512, 2048), 0.2
    for eps, *biases in rows["bernoulli"][2:8]:
        for n, bias in zip(sizes, biases, strict=True):
            ones, p = np.arange(n + 1), float(eps)
            plugin = np.where(ones > 0, np.minimum(ones / n + rho, 1), 0) @ binom.pmf(ones, n, p)
            assert float(bias) == pytest.approx(min(p + rho, 1) - plugin, abs=5.1e-5)
    repairs = {row[0]: row for row in rows["repairs"]}
    assert float(repairs["CVaR"][5]) == pytest.approx(bias_bound(CVaR(0.266), 64, 1.0), abs=5.1e-4)
    weights = worst_case(np.arange(64.0), TotalVariation(rho)).weights
    assert float(repairs["plain TV"][2]) == pytest.approx(64 * weights.max(), abs=0.051)
    # With a cap of 1 + n rho nothing changes on a batch.
    capped = worst_case(np.arange(64.0), TotalVariation(rho, max_ratio=1 + 64 * rho)).weights
    assert np.asarray(capped) == pytest.approx(np.asarray(weights), abs=1e-15)
