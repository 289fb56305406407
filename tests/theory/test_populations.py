"""Population losses against samples, quadrature in two dimensions, scipy and enumeration."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import dblquad, quad
from scipy.optimize import linprog, minimize
from scipy.special import expit

from dro_core import ChiSquare, TotalVariation
from synthetic.pairs.elliptical import SphereBradleyTerry, StudentBradleyTerry
from synthetic.pairs.instances import NAMES, instance
from synthetic.pairs.populations import (
    FinitePopulation,
    HiddenFeatures,
    NoisyLabels,
    linear_population,
    reward_population,
)
from synthetic.pairs.preferences import LinearBradleyTerry, Preferences, fit_counts, fit_preferences

SCALE = np.array([[1.0, 0.5, -0.3], [0.5, 0.89, 0.0], [-0.3, 0.0, 0.4]])
WEIGHTS = np.array([1.0, -2.0, 0.5])
CONTINUOUS = {
    "gaussian": LinearBradleyTerry(WEIGHTS, SCALE),
    "sphere": SphereBradleyTerry(WEIGHTS, 1.5),
    "student": StudentBradleyTerry(WEIGHTS, SCALE, 3.0),
    "noisy": NoisyLabels(SphereBradleyTerry(WEIGHTS, 1.5), 0.2),
    "hidden": HiddenFeatures(LinearBradleyTerry(WEIGHTS, SCALE), (0, 2)),
    "finite": instance("finite-noisy"),
}


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("size", [0.0, 0.3, 3.0])
def test_mean_loss_agrees_with_a_sample(name, size):
    problem = CONTINUOUS[name]
    parameters = size * np.array([0.7, -1.0, 1.5, 0.4])[: problem.dimension]
    losses = problem.losses(parameters, problem.sample(200_000, np.random.default_rng(0)))
    # A t law with 3 degrees has no fourth moment, but its mean has a normal limit.
    assert problem.mean_loss(parameters) == pytest.approx(losses.mean(), abs=4.5 * losses.std() / 200_000**0.5 + 1e-12)


@pytest.mark.parametrize("degrees", [1.5, 3.0, 30.0])
@pytest.mark.parametrize(("true", "fitted"), [(2.0, 0.7), (1.0, -3.0), (1e-3, 1e-3)])
def test_heavy_tails_in_one_dimension_agree_with_scipy(degrees, true, fitted):
    problem = StudentBradleyTerry(np.array([true]), np.eye(1), degrees)
    law = stats.t(degrees)

    def integrand(x):
        return expit(true * x) * np.logaddexp(0, -fitted * x) + expit(-true * x) * np.logaddexp(0, fitted * x)

    halves = (quad(lambda x: law.pdf(x) * integrand(x), *ends, epsabs=1e-11) for ends in ((-np.inf, 0), (0, np.inf)))
    assert problem.mean_loss([fitted]) == pytest.approx(sum(value for value, _ in halves), rel=1e-8)


def test_the_sphere_in_three_dimensions_agrees_with_an_integral_over_angles():
    weights, parameters, radius = np.array([1.0, 0.0, 0.0]), np.array([0.5, 2.0, 0.0]), 2.0

    def integrand(angle, height):
        x = radius * np.array([height, np.sqrt(1 - height**2) * np.cos(angle)])
        h, p = parameters[:2] @ x, expit(weights[0] * x[0])
        return (p * np.logaddexp(0, -h) + (1 - p) * np.logaddexp(0, h)) / (4 * np.pi)

    expected = dblquad(integrand, -1, 1, 0, 2 * np.pi, epsabs=1e-9)[0]
    assert SphereBradleyTerry(weights, radius).mean_loss(parameters) == pytest.approx(expected, abs=1e-8)
    assert SphereBradleyTerry(np.ones(200), 1.0).mean_loss(np.zeros(200)) == pytest.approx(np.log(2))


@pytest.mark.parametrize("problem", [CONTINUOUS["sphere"], CONTINUOUS["student"]], ids=["sphere", "student"])
def test_the_truth_minimises_the_mean_loss(problem):
    slopes = [problem.mean_loss(WEIGHTS + 1e-4 * e) - problem.mean_loss(WEIGHTS - 1e-4 * e) for e in np.eye(3)]
    assert slopes == pytest.approx([0, 0, 0], abs=1e-10)
    assert problem.mean_loss(WEIGHTS) < min(problem.mean_loss(1.1 * WEIGHTS), problem.mean_loss(0.9 * WEIGHTS))


def test_margins_of_hidden_features_agree_with_the_conditional_law_from_the_precision_matrix():
    problem, precision = CONTINUOUS["hidden"], np.linalg.inv(SCALE)
    deviation = precision[1, 1] ** -0.5
    for seen in ([0.0, 0.0], [1.0, -0.5], [-2.0, 1.0]):
        centre = -precision[1, [0, 2]] @ seen / precision[1, 1]
        hidden = stats.norm(centre, deviation)
        first = quad(
            lambda h, law=hidden, x=seen: law.pdf(h) * expit(WEIGHTS @ [x[0], h, x[1]]),
            centre - 9 * deviation, centre + 9 * deviation, epsabs=1e-12,
        )[0]  # fmt: skip
        assert expit(problem.true_margins([seen])) == pytest.approx([first], abs=1e-10)
    assert expit(problem.true_margins([[40.0, -3.0]]))[0] <= 1
    noisy = CONTINUOUS["noisy"]
    assert noisy.true_margins([[1.0, 1.0, 1.0]]) == pytest.approx([-0.5])


def test_a_finite_population_is_the_sum_over_its_atoms_and_its_worst_case_a_linear_program():
    population = instance("finite-curved", seed=3)
    w = np.array([0.3, -0.2, 0.1, 0.5])
    terms = [
        mass * (p * np.log1p(np.exp(-x @ w)) + (1 - p) * np.log1p(np.exp(x @ w)))
        for x, mass, p in zip(population.differences, population.masses, population.first, strict=True)
    ]
    assert population.mean_loss(w) == pytest.approx(sum(terms), rel=1e-13)

    losses, p, n = population.losses(w, population.atoms), population.atom_masses, population.atom_masses.size
    above = np.vstack([np.hstack([np.eye(n), -np.eye(n)]), np.append(np.zeros(n), np.ones(n))[None]])
    solution = linprog(
        np.append(-losses, np.zeros(n)), above, np.append(p, 0.2), np.append(np.ones(n), np.zeros(n))[None], [1.0]
    )
    assert population.worst_case(w, TotalVariation(0.2)).value == pytest.approx(-solution.fun, rel=1e-8)

    risks = np.array(terms) / population.masses
    anywhere = population.by_prompt(TotalVariation(1.0))
    assert population.worst_case(w, anywhere).value == pytest.approx(risks.max(), rel=1e-12)


def test_minimisers_agree_with_scipy():
    population = instance("finite-hidden", seed=1)
    plain = minimize(population.mean_loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    fit = population.minimiser(tolerance=1e-12)
    assert fit.coefficients == pytest.approx(plain.x, abs=1e-5)
    assert fit.value == pytest.approx(plain.fun, abs=1e-10)
    for ball in (TotalVariation(0.1), population.by_prompt(ChiSquare(0.3))):
        robust = population.minimiser(ball, tolerance=1e-12)
        found = minimize(
            lambda w, ball=ball: float(population.worst_case(w, ball).value), np.zeros(3), method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 4000, "maxfev": 4000},
        )  # fmt: skip
        assert robust.value == pytest.approx(found.fun, abs=1e-6)
        assert robust.value <= found.fun + 1e-10


def test_many_fits_at_once_agree_with_one_at_a_time():
    population = instance("finite", seed=2)
    counts = population.sample_counts(3000, np.random.default_rng(0), size=5)
    assert counts.sum(axis=1).tolist() == [3000] * 5
    fits = fit_counts(population.differences, counts[:, :24], counts[:, 24:])
    for w, row in zip(fits, counts, strict=True):
        pairs = Preferences(*(np.repeat(part, row, axis=0) for part in population.atoms))
        single = fit_preferences(pairs, tolerance=1e-12)
        assert w == pytest.approx(single.coefficients, abs=1e-6)
        assert population.gradients(w, pairs).mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-12)
    for x, first, second in (([[1.0]], [3], [0]), ([[1.0, 1.0]], [2], [1])):
        with pytest.raises(ValueError, match="no finite maximum"):
            fit_counts(x, first, second)


def test_noise_hiding_and_masses_change_what_they_say_and_nothing_else():
    population = instance("finite")
    noisy, same = population.with_noise(0.25), NoisyLabels(population, 0.25)
    w = np.array([1.0, -0.4, 0.2, 2.0])
    assert noisy.mean_loss(w) == pytest.approx(same.mean_loss(w), rel=1e-12)
    assert population.seeing([1, 3]).mean_loss(w[[1, 3]]) == pytest.approx(population.mean_loss(w * [0, 1, 0, 1]))
    assert population.true_margins(population.differences) == pytest.approx(
        population.differences @ population.minimiser(tolerance=1e-12).coefficients, abs=1e-4
    )
    doubled = FinitePopulation(np.ones((2, 1)), np.array([0.25, 0.75]), np.array([0.2, 0.6]))
    assert doubled.true_margins([[1.0]]) == pytest.approx([0.0], abs=1e-12)  # 1/4 of 0.2 and 3/4 of 0.6: even odds
    pairs = population.sample(100_000, np.random.default_rng(0))
    share = np.mean((pairs.differences == population.differences[0]).all(axis=1) & (pairs.labels > 0))
    assert share == pytest.approx(population.atom_masses[0], abs=0.003)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SphereBradleyTerry(np.ones(1), 1.0), "use FinitePopulation"),
        (lambda: SphereBradleyTerry(np.ones(2), 0.0), r"radius must lie in \(0, inf\), got 0.0"),
        (lambda: StudentBradleyTerry(np.ones(1), np.eye(1), 1.0), "use LinearBradleyTerry"),
        (lambda: linear_population([[1.0]], [0.9], [1.0]), "divide by it"),
        (lambda: FinitePopulation(np.ones((1, 1)), np.ones(1), np.array([1.2])), "give P"),
        (lambda: FinitePopulation(np.ones((2, 1)), np.ones(1), np.ones(1)), "every prompt one of each"),
        (lambda: instance("finite").true_margins(np.zeros((1, 4))), "those of prompts"),
        (lambda: instance("finite").with_noise(0.6), r"flip must lie in \[0, 1/2\], got 0.6"),
        (lambda: HiddenFeatures(CONTINUOUS["gaussian"], (0, 3)), r"indices in \[0, 2\]"),
        (lambda: reward_population(np.zeros((1, 2)), np.zeros((1, 2)), [1.0]), "both answers"),
        (lambda: instance("sphere-nosy"), "did you mean sphere-noisy"),
        (lambda: instance("zzz"), "mode-choice"),
    ],
)
def test_mistakes_are_explained(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", NAMES)
def test_named_instances_are_the_same_for_the_same_seed(name):
    first, again, other = instance(name, seed=4), instance(name, seed=4), instance(name, seed=5)
    if name == "mode-choice":
        assert first.pairs.differences.tolist() == other.pairs.differences.tolist()
        return
    problems = [part.train if name == "group-shift" else part for part in (first, again, other)]
    w = np.linspace(-1, 1, problems[0].dimension)
    losses = [problem.mean_loss(w) for problem in problems]
    assert losses[0] == losses[1] != losses[2]
    draws = [problem.sample(50, np.random.default_rng(0)) for problem in problems[:2]]
    assert (draws[0].differences == draws[1].differences).all()
    assert problems[0].gradients(w, draws[0]).shape == (50, problems[0].dimension)
