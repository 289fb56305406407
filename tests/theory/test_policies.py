import numpy as np
import pytest

from synthetic.bandits.mdp import KLRegulariser, garnet, prompts
from synthetic.bandits.policies import (
    LogLinearPolicy,
    TabularPolicy,
    fisher,
    natural_gradient,
    policy_gradient,
    policy_values,
)

RNG = np.random.default_rng(7)
MDP = garnet(4, 3, 3, 0.8, np.random.default_rng(0))
BANDIT = prompts(RNG.random((4, 3)), [0.4, 0.3, 0.2, 0.1])
REFERENCE = RNG.dirichlet(np.ones(3), size=4)
POLICIES = {
    "log-linear": LogLinearPolicy(RNG.normal(size=(4, 3, 2))),
    "with a reference": LogLinearPolicy(RNG.normal(size=(4, 3, 5)), REFERENCE),
    "tabular": TabularPolicy(4, 3),
}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
every_charge = pytest.mark.parametrize("regulariser", [None, KLRegulariser(REFERENCE, 0.3)], ids=["plain", "kl"])
every_mdp = pytest.mark.parametrize("mdp", [MDP, BANDIT], ids=["mdp", "bandit"])
WEIGHTS = np.array([0.1, 0.6, 0.05, 0.25])


def somewhere(policy):
    return np.random.default_rng(3).normal(size=policy.size)


def differences(function, point, step=1e-5):
    """Central differences along every coordinate, on the first axis."""
    units = np.eye(len(point))
    return np.array([(function(point + step * e) - function(point - step * e)) / (2 * step) for e in units])


@every_policy
def test_probabilities_are_a_softmax_and_scores_its_log_derivative(policy):
    theta = somewhere(policy)
    probabilities = np.exp(policy.log_probabilities(theta))
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-14)
    assert np.moveaxis(differences(policy.log_probabilities, theta), 0, -1) == pytest.approx(
        policy.scores(theta), abs=1e-9
    )
    if isinstance(policy, LogLinearPolicy):
        base = np.full((4, 3), 1 / 3) if policy.reference is None else policy.reference
        unnormalised = base * np.exp((policy.features * theta).sum(axis=2))
        assert probabilities == pytest.approx(unnormalised / unnormalised.sum(axis=1, keepdims=True), abs=1e-14)
        assert np.exp(policy.log_probabilities(np.zeros(policy.size))) == pytest.approx(base, abs=1e-15)


@every_mdp
@every_charge
@every_policy
def test_the_gradient_agrees_with_differences_of_the_weighted_value(policy, regulariser, mdp):
    theta = somewhere(policy)
    for start in (None, WEIGHTS):
        weights = mdp.start if start is None else start
        numeric = differences(lambda t, w=weights: w @ policy_values(policy, t, mdp, regulariser=regulariser), theta)
        exact = policy_gradient(policy, theta, mdp, start=start, regulariser=regulariser)
        assert exact == pytest.approx(numeric, abs=1e-8)


@every_mdp
@every_policy
def test_fisher_is_the_curvature_of_the_divergence_from_the_present_policy(policy, mdp):
    theta = somewhere(policy)
    now = np.exp(policy.log_probabilities(theta))
    visits = mdp.occupancy(now, WEIGHTS)

    def slope(other):  # gradient of E_{d_q} KL(pi_theta || pi_other) in other; its derivative at theta is F
        return differences(lambda t: -(visits @ (now * policy.log_probabilities(t)).sum(axis=1)), other, 1e-3)

    numeric = differences(slope, theta, 1e-3)
    assert fisher(policy, theta, mdp, start=WEIGHTS) == pytest.approx(numeric, abs=1e-6)


@every_mdp
@every_charge
@every_policy
def test_the_natural_gradient_is_the_pseudo_inverse_of_fisher_times_the_gradient(policy, regulariser, mdp):
    theta = somewhere(policy)
    for start in (mdp.start, WEIGHTS, np.array([0.0, 0.5, 0.5, 0.0])):
        matrix = fisher(policy, theta, mdp, start=start)
        gradient = policy_gradient(policy, theta, mdp, start=start, regulariser=regulariser)
        expected = np.linalg.pinv(matrix, rcond=1e-9, hermitian=True) @ gradient
        found = natural_gradient(policy, theta, mdp, start=start, regulariser=regulariser)
        assert found == pytest.approx(expected, abs=1e-8 * max(1, abs(expected).max()))


def test_the_tabular_closed_form_agrees_with_the_general_solution_and_skips_unseen_prompts():
    tabular, theta = TabularPolicy(4, 3), np.random.default_rng(2).normal(size=12)
    for start in (BANDIT.start, np.array([0.5, 0.0, 0.5, 0.0])):
        closed = natural_gradient(tabular, theta, BANDIT, start=start)
        assert closed == pytest.approx(natural_gradient(tabular.as_log_linear(), theta, BANDIT, start=start), abs=1e-12)
        assert (closed.reshape(4, 3)[start == 0] == 0).all()
    assert tabular.scores(theta) == pytest.approx(tabular.as_log_linear().scores(theta), abs=1e-15)


def test_almost_deterministic_policies_keep_their_natural_gradient():
    """An answer of probability e^-40: F is 1e-17, the direction is as good as ever."""
    policy, bandit = LogLinearPolicy([[[1.0], [0.0]]]), prompts([[0.75, 0.25]])
    for theta in (0.0, 20.0, -40.0):
        assert natural_gradient(policy, [theta], bandit) == pytest.approx([0.5], abs=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LogLinearPolicy(np.ones((2, 2))), "one row per action"),
        (lambda: LogLinearPolicy(np.full((1, 2, 1), np.inf)), "finite"),
        (lambda: LogLinearPolicy(np.ones((1, 2, 1)), [[1.0, 0.0]]), "leave forbidden actions out"),
        (lambda: TabularPolicy(1, 2).log_probabilities([0.0]), r"shape \(2,\), got \(1,\)"),
        (lambda: natural_gradient(TabularPolicy(2, 2), np.zeros(4), BANDIT), "same tables"),
    ],
)
def test_errors_name_the_field_and_the_remedy(build, message):
    with pytest.raises(ValueError, match=message):
        build()
