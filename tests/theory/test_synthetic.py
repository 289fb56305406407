import numpy as np
import pytest
from scipy.stats import binom

from dro_core import KL, CVaR, TotalVariation, worst_case
from synthetic import LinearBradleyTerry, plugin_bias, sample_counts


def problem():
    root = np.array([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [-0.3, 0.2, 0.5]])
    return LinearBradleyTerry(np.array([1.0, -2.0, 0.5]), root @ root.T)


# n = 8 is 0.2 * 0.99**8 = 0.18455, which theory.md cuts to .184
@pytest.mark.parametrize(("n", "figure"), [(8, 0.184), (32, 0.145), (128, 0.0556)])
def test_bernoulli_bias_agrees_with_the_theory_and_with_a_formula_by_hand(n, figure):
    eps, radius = 0.01, 0.2
    ones = np.arange(n + 1)
    plugin = np.where(ones > 0, np.minimum(ones / n + radius, 1), 0) @ binom.pmf(ones, n, eps)
    bias = plugin_bias([0.0, 1.0], [1 - eps, eps], n, TotalVariation(radius))
    assert bias == pytest.approx(eps + radius - plugin, abs=1e-12)
    assert bias == pytest.approx(figure, abs=6e-4)


def test_bias_of_cvar_agrees_with_binom_and_three_atoms_with_a_simulation():
    ones = np.arange(41)
    expected = 1 - np.minimum(ones / 40 / 0.25, 1) @ binom.pmf(ones, 40, 0.25)
    assert plugin_bias([0.0, 1.0], [0.75, 0.25], 40, CVaR(0.25)) == pytest.approx(expected, abs=1e-12)

    values, masses, ball = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 0.3, 0.2]), KL(0.3)
    draws = np.random.default_rng(1).choice(values, p=masses, size=(20_000, 6))
    simulated = np.asarray(worst_case(values, ball, reference=masses).value - worst_case(draws, ball).value)
    assert abs(plugin_bias(values, masses, 6, ball) - simulated.mean()) < 4 * simulated.std() / 20_000**0.5


def test_sample_counts_are_all_of_them_and_bad_requests_are_explained():
    counts = sample_counts(5, 4)
    assert len({tuple(row) for row in counts.tolist()}) == 56
    assert (counts >= 0).all()
    assert (counts.sum(axis=1) == 5).all()
    with pytest.raises(ValueError, match="fewer values or a smaller n"):
        sample_counts(1000, 6)
    with pytest.raises(ValueError, match="divide by the sum"):
        plugin_bias([0.0, 1.0], [1.0, 1.0], 3, CVaR(0.5))


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_mean_loss_agrees_with_a_sample(scale):
    parameters = scale * np.array([0.7, -1.0, 1.5])
    losses = problem().losses(parameters, problem().sample(200_000, np.random.default_rng(0)))
    assert problem().mean_loss(parameters) == pytest.approx(losses.mean(), abs=4 * losses.std() / 200_000**0.5 + 1e-12)


def test_gradients_agree_with_differences_and_vanish_in_the_mean_at_the_truth():
    pairs, step = problem().sample(7, np.random.default_rng(3)), 1e-6
    parameters = np.array([0.2, -0.4, 1.0])
    differences = [
        (problem().losses(parameters + step * e, pairs) - problem().losses(parameters - step * e, pairs)) / (2 * step)
        for e in np.eye(3)
    ]
    assert problem().gradients(parameters, pairs) == pytest.approx(np.array(differences).T, abs=1e-8)
    truth = problem().weights
    slopes = [problem().mean_loss(truth + 1e-4 * e) - problem().mean_loss(truth - 1e-4 * e) for e in np.eye(3)]
    assert slopes == pytest.approx([0, 0, 0], abs=1e-11)
    assert problem().mean_loss(truth) < problem().mean_loss(1.1 * truth)


def test_the_same_seed_gives_the_same_pairs_and_a_bad_covariance_is_explained():
    first, second = (problem().sample(9, np.random.default_rng(5)) for _ in range(2))
    assert (first.differences == second.differences).all()
    assert (first.labels == second.labels).all()
    with pytest.raises(ValueError, match="build it as A"):
        LinearBradleyTerry(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_the_share_of_preferred_first_answers_follows_the_sigmoid():
    pairs = LinearBradleyTerry(np.array([2.0]), np.eye(1)).sample(100_000, np.random.default_rng(2))
    positive = pairs.differences[:, 0] > 0
    # E[sigmoid(2|Z|)] by a Riemann sum.
    grid = np.linspace(0, 10, 100_001)
    share = 2 * np.mean(np.exp(-(grid**2) / 2) / (1 + np.exp(-2 * grid))) * 10 / np.sqrt(2 * np.pi)
    assert np.mean((pairs.labels == 1) == positive) == pytest.approx(share, abs=4 * 0.5 / 100_000**0.5)
