"""Both sides of the inner problem at an answer, in centred units, and what to do where they do not meet."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Array, as_numpy, float64_like, inner
from .problem import Problem

if TYPE_CHECKING:
    from ..sets.ambiguity import AmbiguitySet, Dual

_PROMISE = 1e-9  # of the range: the duality gap of our solutions


def primal_value(problem: Problem, ambiguity: AmbiguitySet, weights: Array) -> Array:
    """Return <q, l> less what the set charges for q, ``(*batch, 1)``."""
    gain = inner(problem.xp, weights, problem.losses)
    return gain - ambiguity.penalty(problem, weights) if ambiguity.charges else gain


def dual_value(problem: Problem, ambiguity: AmbiguitySet, dual: Dual) -> Array:
    """Evaluate the dual at ``(*batch,)`` variables in the units of the losses; infinite where it is infeasible."""
    xp, shift, scale = problem.xp, problem.shift, problem.scale
    multiplier = float64_like(xp, dual.multiplier, problem.losses)[..., None] / scale
    threshold = (float64_like(xp, dual.threshold, problem.losses)[..., None] - shift) / scale
    feasible = (multiplier >= 0) & xp.isfinite(multiplier) & xp.isfinite(threshold)
    safe = type(dual)(xp.where(feasible, multiplier, 0.0), xp.where(feasible, threshold, 0.0))
    return xp.where(feasible, ambiguity.dual_value(problem, safe), xp.inf)


def bound_of(problem: Problem, ambiguity: AmbiguitySet, dual: Dual) -> Array:
    """Evaluate the dual of a solution, whose variables are found anew where they overflow, near the largest float."""
    bound, parts = dual_value(problem, ambiguity, dual), [as_numpy(part) for part in dual]
    if not any(part is not None and np.isinf(part).any() for part in parts):
        return bound
    anew = ambiguity.dual_value(problem, ambiguity.maximise(problem)[1])
    return problem.xp.where(problem.xp.isinf(bound), anew, bound)


def warn_unless_certified(problem: Problem, ambiguity: AmbiguitySet, dual: Dual, primal: Array) -> None:
    """Warn of an answer, in main memory, that its own dual does not certify; Python shows it once."""
    gap = ambiguity.dual_value(problem, dual) - primal
    rounding = 4 * np.finfo(np.float64).eps * np.abs(problem.shift) / problem.scale
    wrong = ~(np.abs(gap) <= _PROMISE + rounding)
    if wrong.any():
        worst = float(np.max((np.abs(gap) * problem.scale)[wrong]))
        warnings.warn(
            f"{ambiguity} was solved to a duality gap of {worst:.2g} only, for a reference with masses below 1e-12; "
            "`duality_gap` tells it of every problem. Drop scenarios of so little mass.",
            RuntimeWarning,
            stacklevel=2,
        )
