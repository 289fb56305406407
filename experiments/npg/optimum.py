"""The best worst-case value within a class of log-linear policies, by many starts of a general solver.

Nothing here is shared with the runs that it judges: worst cases enter by a dual or by vertices of the set, values and
derivatives are written out again, and the solvers are scipy's. The problem is not concave, so the best of the
starts is a lower bound of the optimum; how often it is found is reported with the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from dro_core import ChiSquare, CVaR, TotalVariation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from dro_core import AmbiguitySet
    from synthetic.bandits.bandit_batch import BanditBatch

    Array = NDArray[np.float64]

MOST_ROUNDS, CLOSE, REACH = 100, 1e-11, 1.0
GUIDE = ChiSquare(0.25)


@dataclass(frozen=True)
class Bandit:
    """One bandit of a batch: features ``(x, a, d)``, rewards ``(x, a)``, strength of the KL charge."""

    features: Array
    rewards: Array
    strength: float

    @classmethod
    def of(cls, batch: BanditBatch, index: int) -> Bandit:
        """Take one out."""
        return cls(batch.features[index], batch.rewards[index], batch.strength)

    def losses(self, theta: Array) -> tuple[Array, Array]:
        """-V of every prompt, shape ``(x,)``, and its derivative ``(x, d)``."""
        logs = log_softmax(self.features @ theta, axis=1)
        policy = np.exp(logs)
        charged = self.rewards - self.strength * (logs + np.log(logs.shape[1]))
        value = (policy * charged).sum(axis=1)
        slope = np.einsum("xa,xad->xd", policy * (charged - value[:, None]), self.features)
        return -value, -slope


class Optimum(NamedTuple):
    """A local maximum: its parameters and its worst-case value."""

    theta: Array
    value: float


def local_optima(bandit: Bandit, ambiguity: AmbiguitySet, starts: Iterable[Array]) -> list[Optimum]:
    """The local maximum of the worst-case value that each start leads to."""
    solve = _smooth if isinstance(ambiguity, ChiSquare) else _piecewise
    return [solve(bandit, ambiguity, np.asarray(start, float)) for start in starts]


def guided(bandit: Bandit, ambiguity: AmbiguitySet, starts: Iterable[Array]) -> list[Array]:
    """Better starts for sets with kinks: where the starts lead on a chi-square ball, whose worst case is smooth."""
    return list(starts) if isinstance(ambiguity, ChiSquare) else [o.theta for o in local_optima(bandit, GUIDE, starts)]


def _smooth(bandit: Bandit, ambiguity: AmbiguitySet, start: Array) -> Optimum:
    """Chi-square: minimise eta + sqrt(1 + 2 rho) sqrt(E (l - eta)_+^2) over theta and eta."""
    assert isinstance(ambiguity, ChiSquare)
    factor = (1 + 2 * ambiguity.radius) ** 0.5

    def objective(point: Array) -> tuple[float, Array]:
        losses, slopes = bandit.losses(point[:-1])
        above = np.maximum(losses - point[-1], 0.0)
        size = float(np.sqrt((above**2).mean())) or 1e-300
        weights = factor * above / (size * losses.size)
        return point[-1] + factor * size, np.append(weights @ slopes, 1 - weights.sum())

    losses, _ = bandit.losses(start)
    first = np.append(start, losses.mean() - losses.std() / (2 * ambiguity.radius) ** 0.5)
    found = minimize(objective, first, jac=True, method="BFGS", options={"gtol": 1e-9})
    return Optimum(found.x[:-1], -float(found.fun))


def _piecewise(bandit: Bandit, ambiguity: AmbiguitySet, start: Array) -> Optimum:
    """Total variation and CVaR: minimise m over theta and m with m >= <q, l(theta)> for the vertices q met so far.

    Cutting planes in a box around the best theta so far: every round adds the worst vertex at the new theta, and the
    box moves only uphill, so that the search ends in the basin it started in.
    """
    losses, _ = bandit.losses(start)
    vertices = [_vertex(losses, ambiguity)]
    best = Optimum(start, -float(vertices[0] @ losses))
    for _ in range(MOST_ROUNDS):
        level, theta = _against(bandit, np.array(vertices), best.theta)
        losses, _ = bandit.losses(theta)
        vertices.append(_vertex(losses, ambiguity))
        gained = -float(vertices[-1] @ losses) - best.value
        if gained > 0:
            best = Optimum(theta, best.value + gained)
        if -level - best.value <= CLOSE:
            break
    return best


def _against(bandit: Bandit, vertices: Array, theta: Array) -> tuple[float, Array]:
    """Minimise the largest <q, l(theta)> over some q, theta in a box of half-width REACH."""

    def slack(point: Array) -> Array:
        return point[-1] - vertices @ bandit.losses(point[:-1])[0]

    def slope(point: Array) -> Array:
        return np.column_stack([-vertices @ bandit.losses(point[:-1])[1], np.ones(len(vertices))])

    last = np.append(np.zeros(theta.size), 1.0)
    found = minimize(
        lambda point: float(point[-1]),
        np.append(theta, (vertices @ bandit.losses(theta)[0]).max()),
        jac=lambda _: last,
        method="SLSQP",
        bounds=[*((t - REACH, t + REACH) for t in theta), (None, None)],
        constraints={"type": "ineq", "fun": slack, "jac": slope},
        options={"ftol": 1e-13, "maxiter": 200},
    )
    return float(found.fun), found.x[:-1]


def _vertex(losses: Array, ambiguity: AmbiguitySet) -> Array:
    """Worst distribution, by filling or draining prompts in the order of their losses."""
    order, even = np.argsort(losses), 1 / losses.size
    q = np.empty(losses.size)
    if isinstance(ambiguity, TotalVariation):
        q[order] = np.diff(np.maximum(np.arange(losses.size + 1) * even - ambiguity.radius, 0.0))
        q[order[-1]] += min(ambiguity.radius, 1.0)
        return q
    assert isinstance(ambiguity, CVaR)
    q[order[::-1]] = np.diff(np.minimum(np.arange(losses.size + 1) * even / ambiguity.alpha, 1.0))
    return q
