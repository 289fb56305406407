import itertools

import numpy as np
import pytest

from dro_core import KL, CVaR, TotalVariation
from synthetic.bandits.mdp import KLRegulariser, garnet, prompts
from synthetic.bandits.natural_gradient import natural_policy_gradient, worst_value
from synthetic.bandits.policies import LogLinearPolicy, TabularPolicy, fisher, policy_gradient, policy_values

RNG = np.random.default_rng(4)
BANDIT = prompts(RNG.random((4, 3)), [0.4, 0.3, 0.2, 0.1])
POLICY = LogLinearPolicy(RNG.normal(size=(4, 3, 2)))
BALL = TotalVariation(0.25)


def by_enumeration(values, start, radius):
    """Smallest <q, V> over the total-variation ball: drain the best prompts in every order, keep the smallest."""
    worst = np.inf
    for order in itertools.permutations(range(len(values))):
        q, left = np.array(start), radius
        for x in order[:-1]:
            moved = min(q[x], left)
            q[x], q[order[-1]], left = q[x] - moved, q[order[-1]] + moved, left - moved
        worst = min(worst, q @ values)
    return worst


def test_every_step_follows_the_algorithm_as_printed():
    run = natural_policy_gradient(BANDIT, POLICY, steps=6, step_size=0.5, ambiguity=BALL, initial=[0.5, -1.0])
    assert run.iterates[0].tolist() == [0.5, -1.0]
    for t, q in enumerate(run.weights):
        values = policy_values(POLICY, run.iterates[t], BANDIT)
        assert run.prompt_values[t] == pytest.approx(values, abs=1e-15)
        assert q @ values == pytest.approx(by_enumeration(values, BANDIT.start, 0.25), abs=1e-12)
        assert np.abs(q - BANDIT.start).sum() / 2 <= 0.25 + 1e-12
        matrix = fisher(POLICY, run.iterates[t], BANDIT, start=q)
        step = np.linalg.pinv(matrix) @ policy_gradient(POLICY, run.iterates[t], BANDIT, start=q)
        assert run.iterates[t + 1] == pytest.approx(run.iterates[t] + 0.5 * step, abs=1e-10)
    assert run.values == pytest.approx(run.prompt_values @ BANDIT.start, abs=1e-15)
    worst = [by_enumeration(v, BANDIT.start, 0.25) for v in run.prompt_values]
    assert run.worst_values(BALL) == pytest.approx(worst, abs=1e-12)


def test_the_trajectory_has_the_sign_of_minimisation_and_true_averages():
    run = natural_policy_gradient(BANDIT, POLICY, steps=5, step_size=0.5, ambiguity=BALL)
    optimum = float(worst_value(BANDIT.optimal_values(), BALL, BANDIT.start))
    path = run.trajectory(BALL, optimum)
    assert (path.iterate_gaps >= 0).all()
    assert path.iterate_gaps == pytest.approx(optimum - run.worst_values(BALL), abs=1e-15)
    for t in range(1, 6):
        values = policy_values(POLICY, run.iterates[:t].mean(axis=0), BANDIT)
        assert path.average_values[t - 1] == pytest.approx(-by_enumeration(values, BANDIT.start, 0.25), abs=1e-12)


@pytest.mark.parametrize("ambiguity", [TotalVariation(0.05), KL(0.5)], ids=str)
def test_tabular_policies_take_the_same_path_with_and_without_robustness(ambiguity):
    for mdp in (BANDIT, garnet(4, 3, 3, 0.8, np.random.default_rng(0))):
        plain, robust = (
            natural_policy_gradient(mdp, TabularPolicy(4, 3), steps=8, step_size=2.0, ambiguity=which)
            for which in (None, ambiguity)
        )
        assert robust.weights.min() > 0
        assert np.abs(robust.weights - plain.weights).max() > 0.01
        assert robust.iterates == pytest.approx(plain.iterates, abs=1e-12)


def test_prompts_without_weight_stop_learning():
    """The condition q > 0 matters: CVaR of the worst half never trains on the good prompts."""
    easy = prompts([[1.0, 0.0], [0.0, 0.25]])
    robust = natural_policy_gradient(easy, TabularPolicy(2, 2), steps=5, step_size=1.0, ambiguity=CVaR(0.5))
    assert (robust.iterates[:, :2] == 0).all()
    assert (robust.weights == [0, 1]).all()


def test_minibatches_average_to_the_population_and_repeat_with_the_seed():
    mean = np.zeros(2)
    for seed in range(400):
        run = natural_policy_gradient(
            BANDIT, POLICY, steps=1, step_size=1.0, batch=50, rng=np.random.default_rng(seed), ambiguity=BALL
        )
        mean += run.iterates[1] / 400
        assert run.weights[0].sum() == pytest.approx(1)
    population = natural_policy_gradient(BANDIT, POLICY, steps=1, step_size=1.0, ambiguity=BALL)
    assert mean == pytest.approx(population.iterates[1], abs=0.05)
    again = [
        natural_policy_gradient(BANDIT, POLICY, steps=4, step_size=1.0, batch=3, rng=np.random.default_rng(1)).iterates
        for _ in range(2)
    ]
    assert (again[0] == again[1]).all()
    one = natural_policy_gradient(BANDIT, POLICY, steps=9, step_size=1.0, batch=1, rng=np.random.default_rng(1))
    assert (one.weights.max(axis=1) == 1).all()


def test_the_regularised_run_reaches_the_closed_form():
    weights = np.array([0.8, -0.5])
    bandit = prompts(POLICY.features @ weights, BANDIT.start)
    reference = RNG.dirichlet(np.ones(3), size=4)
    family, regulariser = LogLinearPolicy(POLICY.features, reference), KLRegulariser(reference, 0.5)
    run = natural_policy_gradient(
        bandit, family, steps=60, step_size=1.0, ambiguity=TotalVariation(0.05), regulariser=regulariser
    )
    # theta <- theta + eta (w - beta theta), so the error halves at every step.
    assert run.iterates == pytest.approx(2 * weights * (1 - 0.5 ** np.arange(61))[:, None], abs=1e-9)
    assert run.prompt_values[-1] == pytest.approx(regulariser.optimum(bandit).values, abs=1e-9)


def test_no_steps_and_bad_requests():
    run = natural_policy_gradient(BANDIT, POLICY, steps=0, step_size=1.0)
    assert (run.iterates.shape, run.weights.shape, run.prompt_values.shape) == ((1, 2), (0, 4), (1, 4))
    assert run.trajectory(BALL, 1.0).gaps.shape == (0,)
    for changes, message in (
        ({"steps": -1}, "at least 0, got -1"),
        ({"step_size": 0.0}, r"\(0, inf\), got 0.0"),
        ({"batch": 0}, "for all prompts use None"),
        ({"batch": 3}, "default_rng"),
    ):
        with pytest.raises(ValueError, match=message):
            natural_policy_gradient(BANDIT, POLICY, **({"steps": 1, "step_size": 1.0} | changes))
