import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from dro_core import TotalVariation, robust_value_iteration
from synthetic.bandits.mdp import KLRegulariser, TabularMDP, chain, corridor, garnet, prompts

MDPS = {
    "garnet": garnet(6, 3, 2, 0.9, np.random.default_rng(1)),
    "dense": garnet(4, 4, 4, 0.5, np.random.default_rng(2)),
    "chain": chain(5, 0.95, slip=0.125),
    "corridor": corridor(3, 16, 0.9, 0.125),
    "prompts": prompts(np.random.default_rng(3).normal(size=(4, 3)), [0.1, 0.2, 0.3, 0.4]),
}
every_mdp = pytest.mark.parametrize("mdp", MDPS.values(), ids=MDPS)


def some_policy(mdp, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(mdp.shape[1]), size=mdp.shape[0])


@every_mdp
def test_values_and_occupancy_agree_with_a_rollout_of_their_definition(mdp):
    policy, steps = some_policy(mdp), 700
    kernel = np.einsum("sa,sat->st", policy, mdp.transitions)
    rewards, reached = (policy * mdp.rewards).sum(axis=1), np.eye(len(kernel))
    values, visits = np.zeros(len(kernel)), np.zeros(len(kernel))
    for k in range(steps):
        values += mdp.discount**k * reached @ rewards
        visits += (1 - mdp.discount) * mdp.discount**k * mdp.start @ reached
        reached = reached @ kernel
    assert mdp.values(policy) == pytest.approx(values, abs=1e-11)
    assert mdp.occupancy(policy) == pytest.approx(visits, abs=1e-12)
    assert mdp.occupancy(policy).sum() == pytest.approx(1, abs=1e-13)
    # The same value from the other side: rewards along the occupancy.
    assert mdp.occupancy(policy) @ rewards / (1 - mdp.discount) == pytest.approx(mdp.start @ values, abs=1e-11)
    assert (policy * mdp.advantages(policy)).sum(axis=1) == pytest.approx(np.zeros(len(kernel)), abs=1e-12)
    assert mdp.action_values(policy) - mdp.advantages(policy) == pytest.approx(
        np.repeat(values[:, None], mdp.shape[1], axis=1), abs=1e-11
    )


@every_mdp
def test_optimal_values_agree_with_the_linear_programme_and_with_value_iteration(mdp):
    states, actions = mdp.shape
    # min sum v  s.t.  v(s) >= r(s, a) + discount <P(s, a), v> for every s and a.
    rows = (mdp.discount * mdp.transitions - np.eye(states)[:, None]).reshape(-1, states)
    primal = linprog(np.ones(states), A_ub=rows, b_ub=-mdp.rewards.ravel(), bounds=(None, None))
    assert mdp.optimal_values() == pytest.approx(primal.x, abs=1e-8)
    iterated = robust_value_iteration(mdp.rewards, mdp.transitions, mdp.discount, TotalVariation(0.0), tolerance=1e-11)
    assert mdp.optimal_values() == pytest.approx(iterated.values, abs=1e-10)
    policy = mdp.optimal_policy()
    assert policy.shape == (states, actions)
    assert set(np.unique(policy)) == {0.0, 1.0}
    assert mdp.advantages(policy).max() <= 1e-11


@every_mdp
def test_the_performance_difference_lemma(mdp):
    old, new = some_policy(mdp, 1), some_policy(mdp, 2)
    for state in np.eye(mdp.shape[0]):
        gain = mdp.occupancy(new, state) @ (new * mdp.advantages(old)).sum(axis=1) / (1 - mdp.discount)
        assert gain == pytest.approx(state @ (mdp.values(new) - mdp.values(old)), abs=1e-11)


def test_named_problems_have_the_values_one_expects():
    # Far from the reward an action gains only 2^-15: too little to be taken for rounding.
    assert chain(16, 0.5).optimal_values() == pytest.approx(2.0 ** -np.arange(14, -2, -1), rel=1e-12)
    room = corridor(3, 4, 0.5, 0.0625)
    assert room.optimal_values() == pytest.approx([0.25, 0.5, 1, 2, 0.125])
    assert room.optimal_policy()[0].tolist() == [1, 0, 0, 0]
    assert corridor(3, 4, 0.5, 0.25).optimal_policy()[0, 0] == 0  # the exit is worth 1/2, the goal 1/4
    for mdp in MDPS.values():
        assert mdp.transitions.sum(axis=-1) == pytest.approx(np.ones(mdp.shape), abs=1e-12)
    fields = garnet(9, 2, 4, 0.9, np.random.default_rng(0))
    assert (np.count_nonzero(fields.transitions, axis=-1) == 4).all()
    assert len(np.unique(fields.transitions[0, 0])) == 5


def test_a_bandit_has_its_start_as_occupancy_and_mean_rewards_as_values():
    bandit, policy = MDPS["prompts"], some_policy(MDPS["prompts"])
    assert bandit.values(policy) == pytest.approx((policy * bandit.rewards).sum(axis=1), abs=1e-14)
    assert bandit.occupancy(policy) == pytest.approx(bandit.start, abs=1e-15)
    assert bandit.occupancy(policy, [1, 0, 0, 0]).tolist() == [1, 0, 0, 0]
    assert prompts([[1.0], [2.0]]).start.tolist() == [0.5, 0.5]


def test_the_regularised_optimum_agrees_with_a_numerical_maximiser():
    bandit, rng = MDPS["prompts"], np.random.default_rng(5)
    regulariser = KLRegulariser(rng.dirichlet(np.ones(3), size=4), 0.5)
    best = regulariser.optimum(bandit)
    for x in range(4):

        def loss(logits, x=x):
            logs = logits - np.logaddexp.reduce(logits)
            return -np.exp(logs) @ (bandit.rewards[x] - 0.5 * (logs - np.log(regulariser.reference[x])))

        found = minimize(loss, np.zeros(3), tol=1e-12)
        assert best.values[x] == pytest.approx(-found.fun, abs=1e-9)
        assert best.policy[x] == pytest.approx(np.exp(found.x) / np.exp(found.x).sum(), abs=1e-4)
    charged = regulariser.charge(bandit, np.log(best.policy))
    assert charged.values(best.policy) == pytest.approx(best.values, abs=1e-13)
    # At the optimum no answer has an advantage left.
    assert charged.advantages(best.policy) == pytest.approx(np.zeros((4, 3)), abs=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TabularMDP([[1.0]], [[[1.0]]], 1.0, [1.0]), r"\[0, 1\), got 1.0"),
        (lambda: TabularMDP([[np.nan]], [[[1.0]]], 0.5, [1.0]), "rewards must be finite"),
        (lambda: TabularMDP([1.0], [[[1.0]]], 0.5, [1.0]), r"shape \(s, a\)"),
        (lambda: TabularMDP([[1.0]], [[1.0]], 0.5, [1.0]), r"transitions must have shape \(1, 1, 1\)"),
        (lambda: TabularMDP([[1.0]], [[[0.5]]], 0.5, [1.0]), "divide by the sums"),
        (lambda: prompts([[1.0], [0.0]], [1.5, -0.5]), "nonnegative"),
        (lambda: prompts([1.0, 0.0]), "one row per prompt"),
        (lambda: garnet(3, 2, 4, 0.9, np.random.default_rng(0)), r"\[1, 3\], got 4"),
        (lambda: KLRegulariser([[1.0, 0.0]], 1.0), "infinitely much"),
        (lambda: KLRegulariser([[0.5, 0.5]], 0.0), "use no regulariser"),
        (lambda: KLRegulariser([[0.5, 0.5]], 1.0).optimum(chain(1, 0.5)), "use prompts"),
        (lambda: prompts([[1.0, 0.0]]).values([[1.0]]), "policy must have shape"),
        (lambda: prompts([[1.0, 0.0]]).occupancy([[1.0, 0.0]], [0.5]), "start must"),
    ],
)
def test_errors_name_the_field_and_the_remedy(build, message):
    with pytest.raises(ValueError, match=message):
        build()
