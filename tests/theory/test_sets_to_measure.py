"""Sets that are made for given weights, their permutations and a divergence ball, against linear programs."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linprog

from proofs_check.claims.verifiable.rates import hull_value, shares
from proofs_check.exact.divergences import divergence_ball


def hull_by_doubly_stochastic_matrices(weights, losses):
    """max <B q, l> over doubly stochastic B."""
    n = len(weights)
    rows = [np.kron(np.eye(n)[i], np.ones(n)) for i in range(n)] + [np.kron(np.ones(n), np.eye(n)[i]) for i in range(n)]
    found = linprog(-np.outer(losses, weights).ravel(), A_eq=np.array(rows), b_eq=np.ones(2 * n))
    return -found.fun


def test_the_hull_of_permutations_is_a_linear_program():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        for _ in range(5):
            weights, losses = rng.dirichlet(np.ones(n)), rng.random(n)
            assert hull_value(weights, losses) == pytest.approx(hull_by_doubly_stochastic_matrices(weights, losses))
            best = max(np.dot(order, losses) for order in permutations(weights))
            assert hull_value(weights, losses) == pytest.approx(best)


def worst_of_the_ball(ball, losses):
    """max <q, l> over E phi(n q) <= radius by a linear program: phi is the largest of finitely many lines."""
    n, points = len(losses), [tuple(map(float, point)) for point in ball.points]
    rows, bounds = [], []
    for i in range(n):
        for place, value, slope in points:  # slope n q_i - s_i <= slope place - value
            row = np.zeros(2 * n)
            row[i], row[n + i] = slope * n, -1
            rows.append(row)
            bounds.append(slope * place - value)
    rows.append(np.r_[np.zeros(n), np.full(n, 1 / n)])
    bounds.append(float(ball.radius))
    total = np.r_[np.ones(n), np.zeros(n)][None]
    found = linprog(
        np.r_[-losses, np.zeros(n)],
        A_ub=np.array(rows),
        b_ub=bounds,
        A_eq=total,
        b_eq=[1],
        bounds=[(0, None)] * n + [(None, None)] * n,
    )
    return -found.fun


def test_falling_weights_are_the_worst_case_of_the_ball_that_is_built_for_them():
    rng = np.random.default_rng(0)
    for n in (2, 3, 6):
        for _ in range(8):
            losses = sorted(Fraction(int(k), 8) for k in rng.integers(0, 9, n))
            q = shares(sorted([*map(int, rng.integers(0, 9, n - 1)), 9]))
            ball = divergence_ball(q, losses)
            assert ball.phi(Fraction(1)) == 0 <= ball.radius
            given = float(sum(a * b for a, b in zip(q, losses, strict=True)))
            assert worst_of_the_ball(ball, np.array(losses, float)) == pytest.approx(given, abs=1e-8)
    assert divergence_ball([Fraction(1, 3), Fraction(2, 3)], [Fraction(1), Fraction(0)]) is None
