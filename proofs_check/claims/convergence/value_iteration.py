"""The claim that robust value iteration knows its own error (theory.md section 3, Convergence)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dro_core import robust_value_iteration
from proofs_check.claim import Claim, shrunk, stated, swapped
from proofs_check.claims.convergence.robust_mdp import MODELS, Model, models


@stated
def value_iteration_bracket() -> Claim[Model]:
    """Robust value iteration knows how far it is from the solution.

    Problem: V = T V for the robust Bellman operator, total variation, chi-square and KL.
    Algorithm: ``dro_core.robust_value_iteration``, stopped early; it returns the middle of MacQueen's bounds.
    Guarantee (tight): |values - V| <= error_bound, in every state.
    Source: MacQueen 1966; [I05, NE05] for T. Compared with a solution to 1e-11.
    Example: one state, reward 1: the change is the same everywhere, so the first step is exact.
    """
    claim = Claim[Model](
        label="value-iteration-bracket",
        statement="|values - V| <= error_bound for robust value iteration, whenever it stops (TV, chi-square, KL)",
        reference="MacQueen 1966; I05, NE05",
        assumptions=MODELS,
        instances=models(),
        lhs=lambda x: [_error(x, k)[0] for k in range(3)],
        rhs=lambda x: [_error(x, k)[1] for k in range(3)],
        scale=lambda x: (1 + float(np.abs(x.reward_table).max())) / (1 - x.gamma),
        tight=True,
        effort=0.15,
    )
    return claim.with_mutants(shrunk(claim), swapped(claim))


@lru_cache(maxsize=1024)
def _error(x: Model, k: int) -> tuple[float, float]:
    """The error of a solution that stops early, and its bound."""
    ball, table, p = x.sets[k], x.reward_table, x.transitions
    tolerance = (1e-6 + float(np.ptp(table))) / (1 - x.gamma) / 4
    rough, exact = (robust_value_iteration(table, p, x.gamma, ball, tolerance=t) for t in (tolerance, 1e-11))
    return float(np.abs(rough.values - exact.values).max()), rough.error_bound
