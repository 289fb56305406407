"""Matrix-free Fisher products and natural gradients against explicit matrices and exact bandits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact import close, normal
from torch import nn

from dro_core import KL
from llm.policy.fisher import (
    conjugate_gradient,
    fisher_product,
    natural_direction,
    policy_gradient,
    sampled_weights,
)
from llm.policy.prompt_weights import prompt_multipliers
from synthetic.bandits import policies
from synthetic.bandits.mdp import prompts
from synthetic.bandits.natural_gradient import natural_policy_gradient


def enumerated_weights(log_probabilities, q):
    """w_ia = q_i pi(a | x_i): those of the exact F_q = sum_i q_i sum_a pi(a | x_i) grad log pi grad log pi^T."""
    return q[:, None] * log_probabilities.detach().exp()


BANDIT = prompts([[1.0, 0.2, -0.5], [0.3, 0.1, 2.0], [-1.0, 0.4, 0.2], [0.0, 0.7, 0.9]])


def test_fisher_and_direction_are_those_of_log_linear_policies():
    features, theta, q = normal(29, 4, 3, 7).numpy(), normal(30, 7), np.array([0.4, 0.0, 0.35, 0.25])
    for columns in (slice(0, 3), slice(0, 7)):  # full rank, and 7 parameters for the 6 degrees of freedom of q > 0
        policy, leaf = policies.LogLinearPolicy(features[..., columns]), theta[columns].clone().requires_grad_()
        logs = (torch.tensor(policy.features) @ leaf).log_softmax(1)
        weights = enumerated_weights(logs, torch.tensor(q))
        product = fisher_product(logs, [leaf], weights)
        dense = policies.fisher(policy, leaf.detach().numpy(), BANDIT, start=q)
        close(torch.stack([product(e) for e in torch.eye(len(leaf), dtype=torch.float64)]), dense)
        advantages = torch.tensor(BANDIT.advantages(logs.detach().exp().numpy()))
        found = natural_direction(logs, [leaf], weights, advantages, tolerance=1e-12)
        exact = policies.natural_gradient(policy, leaf.detach().numpy(), BANDIT, start=q)
        assert found.solved
        assert found.residual < 1e-10
        close(found.vector, exact, 1e-8)
        gradient = policies.policy_gradient(policy, leaf.detach().numpy(), BANDIT, start=q)
        close(policy_gradient(logs, [leaf], weights, advantages), gradient)
        damped = natural_direction(logs, [leaf], weights, advantages, damping=0.1, tolerance=1e-12)
        assert damped.solved
        close(damped.vector, np.linalg.solve(dense + 0.1 * np.eye(len(leaf)), gradient), 1e-9)


def test_robust_natural_policy_gradient_walks_as_the_exact_one():
    """Weights of prompts, product and solver together, against the iterates of ``synthetic``."""
    features, ball = normal(36, 4, 3, 2), KL(0.3)
    run = natural_policy_gradient(
        BANDIT, policies.LogLinearPolicy(features.numpy()), steps=5, step_size=0.5, ambiguity=ball
    )
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for step in range(5):
        logs = (features @ theta).log_softmax(1)
        returns = (logs.detach().exp() * torch.tensor(BANDIT.rewards)).sum(1, keepdim=True)
        q = prompt_multipliers(returns, ball)[:, 0] / 4
        close(q, run.weights[step], 1e-9)
        weights = enumerated_weights(logs, q)
        found = natural_direction(logs, [theta], weights, torch.tensor(BANDIT.rewards) - returns, tolerance=1e-12)
        theta = (theta + 0.5 * found.vector).detach().requires_grad_()
        close(theta, run.iterates[step + 1], 1e-9)
    assert len(np.unique(run.weights.round(6), axis=0)) == 5


def test_sampled_fisher_is_the_mean_of_score_products_of_a_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    unused = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    parameters, q = [*model.parameters(), unused], torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    logs = (
        model(normal(31, 4, 3))
        .log_softmax(1)
        .gather(1, torch.randint(3, (4, 8), generator=torch.Generator().manual_seed(1)))
    )
    scores = [torch.autograd.grad(x, parameters[:-1], retain_graph=True) for x in logs.flatten()]
    rows = torch.stack([torch.cat([*map(torch.flatten, score), torch.zeros(2).double()]) for score in scores])
    weights = sampled_weights(logs, q)
    dense = rows.T @ (torch.repeat_interleave(q / 8, 8)[:, None] * rows)
    vector = normal(32, rows.shape[1])
    close(fisher_product(logs, parameters, weights)(vector), dense @ vector)
    tokens = torch.stack([0.25 * logs, 0.75 * logs], dim=-1)  # a sequence of two tokens with parallel scores
    by_token = fisher_product(tokens, parameters, sampled_weights(tokens, q))
    close(by_token(vector), (0.25**2 + 0.75**2) * dense @ vector)


def test_conjugate_gradient_stops_at_the_residual_and_says_when_it_could_not():
    root = normal(33, 12, 12)
    matrix, target = root @ root.T, normal(34, 12)
    loose, tight = (conjugate_gradient(matrix.mv, target, tolerance=t) for t in (0.3, 1e-10))
    close(loose.residual, float((matrix @ loose.vector - target).norm() / target.norm()))
    assert tight.residual < 1e-9 < loose.residual <= 0.3
    assert loose.steps < tight.steps
    assert loose.solved
    assert not conjugate_gradient(matrix.mv, target, tolerance=1e-10, max_steps=2).solved
    outside = conjugate_gradient(lambda v: v * torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    assert not outside.solved
    assert outside.residual <= 1
    still = conjugate_gradient(matrix.mv, 0 * target)
    assert (still.steps, still.residual, still.solved, float(still.vector.norm())) == (0, 0.0, True, 0.0)


def test_rounding_in_the_kernel_does_not_carry_the_solution_away():
    """A singular matrix in float32 and a tolerance below its rounding: the iterates diverge, the answer must not."""
    root = normal(37, 8, 3)
    matrix, target = root @ root.T, root @ normal(38, 3)
    found = conjugate_gradient(lambda v: (matrix.float() @ v.float()).double(), target, tolerance=1e-14, max_steps=300)
    assert not found.solved
    close(found.vector, torch.linalg.pinv(matrix, hermitian=True) @ target, 1e-5)


@pytest.mark.parametrize(("options", "said"), [({"damping": -1.0}, "`damping`"), ({"tolerance": 0.0}, "`tolerance`")])
def test_wrong_solver_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        conjugate_gradient(lambda v: v, torch.ones(2), **options)
