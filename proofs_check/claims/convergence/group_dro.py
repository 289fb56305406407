"""The claim about exponentiated-gradient weights of groups (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from hypothesis import strategies as st

from proofs_check.claim import Array, Claim, Curve, Instances, dyadic, mutant, stated, swapped

_LONGEST = 32


@dataclass(frozen=True)
class Grouped:
    """Losses |slope w - place| of groups, one parameter, |w| <= R, T steps; step sizes over the best ones."""

    slopes: tuple[float, ...]
    places: tuple[float, ...]
    distance: float
    steps: int
    pace: float = 1.0
    tilt: float = 1.0

    @property
    def lipschitz(self) -> float:
        """G."""
        return max(map(abs, self.slopes))

    @property
    def largest(self) -> float:
        """B, the largest loss of any group in the ball."""
        pairs = zip(self.slopes, self.places, strict=True)
        return max(abs(a) * self.distance + abs(b) for a, b in pairs)

    def losses(self, w: Array) -> Array:
        """The losses of all groups, ``(*w.shape, m)``."""
        return np.abs(w[..., None] * np.array(self.slopes) - np.array(self.places))


@stated
def group_dro_online() -> Claim[Grouped]:
    """Group weights by exponentiated gradients find the worst group's minimum.

    Problem: min over |w| <= R of max_g L_g(w), m convex losses in [0, B] with subgradients of norm at most G.
    Algorithm: q_g proportional to exp(eta_q sum_{s < t} L_g(w_s)), w_{t+1} = Proj(w_t - eta_w sum_g q_g grad L_g) from
        w_0 = 0.
    Guarantee (upper): max_g L_g(average of w_0 .. w_{T-1}) - min <= R^2/(2 eta_w T) + eta_w G^2/2 + log m/(eta_q T) +
        eta_q B^2/8, which is G R/sqrt(T) + B sqrt(log m/(2T)) for the best steps.
    Source: the algorithm of 1911.08731 with the losses of all groups at every step; the bound is the sum of two
        regrets, derived here. With one sampled group per step it is of order m times as large.
    Example: one group: log 1 = 0, the bound of the subgradient method.
    """
    claim = Claim[Grouped](
        label="group-dro-online",
        statement="max_g L_g(average) - min <= R^2/(2 eta_w T) + eta_w G^2/2 + log m/(eta_q T) + eta_q B^2/8",
        reference="1911.08731; derived",
        assumptions={
            "a place for each slope, G in [1/8, 8]": lambda x: (
                len(x.slopes) == len(x.places) and 1 / 8 <= x.lipschitz <= 8
            ),
            "1/16 <= R <= 8, places at most 8": lambda x: 1 / 16 <= x.distance <= 8 and max(map(abs, x.places)) <= 8,
            "steps over the best ones in [1/64, 64]": lambda x: (
                1 / 64 <= min(x.pace, x.tilt) <= max(x.pace, x.tilt) <= 64
            ),
        },
        instances=_runs(),
        lhs=_gap,
        rhs=_bound,
        scale=lambda x: x.lipschitz * x.distance + x.largest,
        curve=Curve("steps", tuple(Grouped((1.0, 1.0, -1.0), (1.0, 1.0, 1.0), 1.0, t) for t in range(1, 33))),
        effort=0.5,
    )
    no_groups = mutant(claim, "log m forgotten", rhs=lambda x: _bound(x, groups=0.0))
    nearer = mutant(claim, "half the distance", rhs=lambda x: _bound(x, distance=0.5, groups=0.0))
    faster = mutant(claim, "rate 1/T", rhs=lambda x: _bound(x) / sqrt(x.steps))
    return claim.with_mutants(no_groups, nearer, faster, swapped(claim))


def _paces(x: Grouped) -> tuple[float, float]:
    """The two step sizes, eta_w and eta_q."""
    best = sqrt(8 * max(log(len(x.slopes)), 1e-3) / x.steps) / x.largest
    return x.pace * x.distance / (x.lipschitz * sqrt(x.steps)), x.tilt * best


def _bound(x: Grouped, *, groups: float = 1.0, distance: float = 1.0) -> float:
    """The right side; the arguments, 1 but in mutants, multiply the numbers."""
    step, tilt = _paces(x)
    weights = groups * log(len(x.slopes)) / (tilt * x.steps) + tilt * x.largest**2 / 8
    return (distance * x.distance) ** 2 / (2 * step * x.steps) + step * x.lipschitz**2 / 2 + weights


def _gap(x: Grouped) -> float:
    step, tilt = _paces(x)
    w, total, scores, slopes = 0.0, 0.0, np.zeros(len(x.slopes)), np.array(x.slopes)
    for _ in range(x.steps):
        raw = np.exp(tilt * (scores - scores.max()))
        gradient = float(raw @ (slopes * np.sign(slopes * w - np.array(x.places))) / raw.sum())
        total, scores = total + w, scores + x.losses(np.array(w))
        w = float(np.clip(w - step * gradient, -x.distance, x.distance))
    return float(x.losses(np.array(total / x.steps)).max()) - _minimum(x)


def _minimum(x: Grouped) -> float:
    """The least of the largest loss: at an end, at a kink, or where two losses are the same."""
    a, b = np.array(x.slopes), np.array(x.places)
    places = [np.array([-x.distance, x.distance])]
    for sign in (1.0, -1.0):
        slopes, heights = a[:, None] - sign * a, b[:, None] - sign * b
        crosses = heights[slopes != 0] / slopes[slopes != 0]
        places.append(crosses)
    w = np.hstack(places)
    return float(x.losses(w[np.abs(w) <= x.distance]).max(axis=1).min())


def _runs() -> Instances[Grouped]:
    corners = (
        Grouped((1.0, 1.0, 1.0, -1.0), (1.0, 1.0, 1.0, 1.0), 1.0, _LONGEST, 1.0, 1 / 64),
        Grouped((1.0,), (1.0,), 1.0, 1),
        Grouped((1.0, -1.0), (2.0, 1.0), 4.0, 16),
        Grouped((1.0,), (8.0,), 1.0, 4),
    )

    def of_size(m: int) -> st.SearchStrategy[Grouped]:
        slopes, places = st.tuples(*[dyadic(-2, 2)] * m), st.tuples(*[dyadic(-4, 4)] * m)
        paces = dyadic(1 / 16, 8), dyadic(1 / 16, 8)
        return st.builds(Grouped, slopes, places, dyadic(1 / 16, 4), st.integers(1, _LONGEST), *paces)

    return Instances(Grouped, corners, st.integers(1, 5).flatmap(of_size))
