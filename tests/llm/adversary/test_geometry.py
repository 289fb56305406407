"""Adversaries in embedding space against a conic solver and a linear program."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from dro_core import gaussian_kernel, mmd_ball, worst_case
from llm.adversary.discrepancy import RIDGE, worst_in_discrepancy
from llm.adversary.rules import reweighted
from llm.adversary.spec import parse_reweighting


def instance(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 18))
    points = rng.normal(size=(n, int(rng.integers(1, 6))))
    if seed % 3 == 0:
        points[rng.integers(n)] = points[rng.integers(n)]  # two equal prompts
    losses = rng.exponential(size=n)
    losses = np.round(losses) if seed % 4 == 0 else losses  # ties
    reference = rng.dirichlet(np.full(n, 3.0)) if seed % 2 else np.full(n, 1 / n)
    return losses, gaussian_kernel(points, bandwidth=float(rng.uniform(0.3, 3))), reference


@pytest.mark.parametrize("radius", [1e-3, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_path_ends_where_a_conic_solver_does(seed, radius):
    losses, kernel, reference = instance(seed)
    q = worst_in_discrepancy(losses, kernel, radius, reference=reference)
    matrix = kernel + RIDGE * np.eye(len(losses))
    assert q.min() >= 0
    assert q.sum() == pytest.approx(1)
    assert (q - reference) @ matrix @ (q - reference) <= radius**2 + 1e-12
    oracle = worst_case(losses, mmd_ball(matrix, radius), reference=reference)
    assert q @ losses >= float(oracle.value) - 1e-7 * (np.ptp(losses) + 1e-12)


def test_alike_prompts_exchange_weight_and_distant_ones_hardly():
    losses = np.array([1.0, 0.0, 1.0, 0.0])
    points = np.array([[0.0], [0.1], [9.0], [-9.0]])
    q = worst_in_discrepancy(losses, gaussian_kernel(points, bandwidth=1.0), 0.05)
    assert q[1] < 0.05
    assert q[3] > 0.18


def test_the_discrepancy_is_that_of_the_bound_prompts():
    rng = np.random.default_rng(0)
    prompts, rows = rng.normal(size=(60, 8)), np.arange(5, 25)
    rule = parse_reweighting("mmd:0.2").bind({"prompt_embedding": prompts})
    unit = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - unit[None], axis=-1)
    assert rule.bandwidth == pytest.approx(np.median(distances[np.triu_indices(60, 1)]))
    losses = rng.exponential(size=20)
    q = reweighted(rule.take(rows), torch.from_numpy(losses)).numpy()
    kernel = gaussian_kernel(unit[rows], bandwidth=rule.bandwidth) + RIDGE * np.eye(20)
    assert q @ losses == pytest.approx(float(worst_case(losses, mmd_ball(kernel, 0.2)).value), abs=1e-7)


def test_transport_by_cosine_distance_is_the_linear_program():
    rng = np.random.default_rng(1)
    n, radius = 9, 0.15
    prompts, losses = rng.normal(size=(n, 4)), rng.exponential(size=n)
    rule = parse_reweighting(f"wasserstein:{radius}").bind({"prompt_embedding": prompts})
    q = reweighted(rule, torch.from_numpy(losses)).numpy()
    unit = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
    cost = 1 - unit @ unit.T
    leaving = np.kron(np.eye(n), np.ones(n))
    plan = linprog(-np.tile(losses, n), A_ub=[cost.ravel()], b_ub=[radius], A_eq=leaving, b_eq=np.full(n, 1 / n))
    assert q @ losses == pytest.approx(-plan.fun, rel=1e-8)
    assert q.sum() == pytest.approx(1)


@pytest.mark.parametrize("spec", ["wasserstein:0.1", "mmd:0.1"])
def test_without_embeddings_the_error_says_where_there_are_some(spec):
    with pytest.raises(ValueError, match="head runs of a sweep"):
        parse_reweighting(spec).bind({"source": ["a"]})


def test_a_kernel_that_is_none_ends_with_an_error():
    with pytest.raises((ArithmeticError, np.linalg.LinAlgError)):
        worst_in_discrepancy(np.array([0.0, 1.0, 0.3]), -np.ones((3, 3)) + 1.2 * np.eye(3), 0.5)
