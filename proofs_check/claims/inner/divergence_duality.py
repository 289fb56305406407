"""Claims that a ball of a divergence and its dual have the same value (theory.md section 3, inner problem).

The left side is the worst case that dro_core finds, the right side the dual as theory.md prints it, minimised here by a
general method. Both are shown minus the mean loss. On every instance dro_core's weights, made feasible, and its dual
variables also enclose the value to 1e-9 of the range, in rational numbers: these values are not rational themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.optimize import minimize_scalar  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from dro_core import KL, ChiSquare
from proofs_check.claim import Claim, Relation, mutant, shrunk, stated
from proofs_check.claims.inner.inner_problem import MASSES, WeightedLosses, excess, one_radius, radius_curve, variance
from proofs_check.exact.enclosures import certified

if TYPE_CHECKING:
    from collections.abc import Callable


@stated
def chi2_dual() -> Claim[WeightedLosses]:
    """The chi-square ball by its dual.

    Problem: L = max <q, l> over 1/2 sum p (q/p - 1)^2 <= rho.
    Guarantee (exact): L = inf_eta eta + sqrt(1 + 2 rho) sqrt(E (l - eta)_+^2).
    Source: [L20].
    Example: l = (0, 1), p = (1/2, 1/2), rho = 1/8: eta = -1/2 gives -1/2 + sqrt(5/4) sqrt(5/4) = 3/4 = L.
    """

    def least(x: WeightedLosses, slope: float, floor: float = 0.0) -> float:
        def objective(eta: float) -> float:
            return eta + slope * float(np.sqrt(np.maximum(np.array(x.losses) - eta, floor) ** 2 @ x.reference))

        # To the left of both of these all weights are positive and the objective falls.
        deepest = x.mean - np.sqrt(variance(x) / (2 * x.radius))
        top = max(x.seen)  # the search is precise to its distance from here, near which tiny masses have the minimum
        return _minimum(lambda d: objective(top - d), 0.0, top - min(deepest, min(x.seen))) - x.mean

    claim = Claim[WeightedLosses](
        label="chi2-dual",
        statement="ChiSquare = inf_eta eta + sqrt(1 + 2 rho) sqrt(E (l - eta)_+^2), enclosed to 1e-9 of the range",
        reference="L20",
        assumptions={**MASSES, "1/1024 <= radius <= 8": lambda x: 1 / 1024 <= x.radius <= 8},
        instances=one_radius(top=8.0),
        lhs=lambda x: excess(x, ChiSquare(x.radius)),
        rhs=lambda x: least(x, np.sqrt(1 + 2 * x.radius)),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        verifies=lambda x: certified(x.losses, ChiSquare(x.radius), x.masses),
        curve=radius_curve(top=4.0),
    )
    no_one = mutant(claim, "sqrt(2 rho) for sqrt(1 + 2 rho)", rhs=lambda x: least(x, np.sqrt(2 * x.radius)))
    no_half = mutant(claim, "half of the ball forgotten", rhs=lambda x: least(x, np.sqrt(1 + x.radius)))
    both = mutant(claim, "positive part forgotten", rhs=lambda x: least(x, np.sqrt(1 + 2 * x.radius), floor=-np.inf))
    return claim.with_mutants(shrunk(claim), no_one, no_half, both)


@stated
def kl_dual() -> Claim[WeightedLosses]:
    """The Kullback-Leibler ball by its dual.

    Problem: L = max <q, l> over sum q log(q/p) <= rho.
    Guarantee (exact): L = inf_{t>0} t rho + t log E exp(l/t), which is max l from rho = -log p(argmax) on, as t -> 0.
    Source: theory.md section 3, `kl-dual` (Donsker and Varadhan).
    Example: l = (0, 1), p = (1/2, 1/2), rho = log 2: t log(2 (1 + exp(1/t)) / 2) falls to 1 = L as t -> 0.
    """

    def least(x: WeightedLosses, radius: float, sign: float = 1.0) -> float:
        losses, p = sign * np.array(x.seen), x.reference[x.reference > 0]

        def objective(logarithm: float) -> float:
            t = np.exp(logarithm)
            mass = p @ np.exp((losses - losses.max()) / t)
            return float(losses.max() + t * (radius + np.log(mass)))

        # At temperature t the divergence is at most (spread / t)^2 / 8 (Hoeffding): it reaches rho below this t.
        hottest = np.log(x.spread / np.sqrt(8 * radius))
        return min(_minimum(objective, hottest - 30, hottest), float(losses.max())) - sign * x.mean

    claim = Claim[WeightedLosses](
        label="kl-dual",
        statement="KL = inf_{t>0} t rho + t log E exp(l/t), enclosed to 1e-9 of the range",
        reference="theory.md section 3",
        assumptions={**MASSES, "1/1024 <= radius <= 8": lambda x: 1 / 1024 <= x.radius <= 8},
        instances=one_radius(top=8.0),
        lhs=lambda x: excess(x, KL(x.radius)),
        rhs=lambda x: least(x, x.radius),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        verifies=lambda x: certified(x.losses, KL(x.radius), x.masses),
        curve=radius_curve(top=2.0),
    )
    doubled = mutant(claim, "radius doubled", rhs=lambda x: least(x, 2 * x.radius))
    best = mutant(claim, "exp(-l/t)", rhs=lambda x: least(x, x.radius, sign=-1.0))
    return claim.with_mutants(shrunk(claim), doubled, best)


def _minimum(objective: Callable[[float], float], low: float, high: float) -> float:
    """Return the minimum of a unimodal function over an interval."""
    search = cast("Any", minimize_scalar)  # scipy has no types
    inside = search(objective, bounds=(low, high), method="bounded", options={"xatol": 1e-10})
    return min(float(inside.fun), objective(low), objective(high))
