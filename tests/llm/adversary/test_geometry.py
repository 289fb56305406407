"""Adversaries in embedding space: against the set of the bound prompts, and a linear program."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from dro_core import MeanDiscrepancy, gaussian_kernel, worst_case
from llm.adversary.rules import reweighted
from llm.adversary.spec import parse_reweighting


def test_the_discrepancy_is_that_of_the_bound_prompts():
    rng = np.random.default_rng(0)
    prompts, rows = rng.normal(size=(60, 8)), np.arange(5, 25)
    rule = parse_reweighting("mmd:0.2").bind({"prompt_embedding": prompts})
    unit = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - unit[None], axis=-1)
    assert rule.bandwidth == pytest.approx(np.median(distances[np.triu_indices(60, 1)]))
    losses = rng.exponential(size=20)
    q = reweighted(rule.take(rows), torch.from_numpy(losses)).numpy()
    ball = MeanDiscrepancy(0.2, gaussian_kernel(unit[rows], bandwidth=rule.bandwidth))
    assert q @ losses == pytest.approx(float(worst_case(losses, ball).value), abs=1e-12)


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
