"""Claims about balls of the transport distance (theory.md section 3, inner problem)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from dro_core import TotalVariation, Wasserstein, worst_case
from proofs_check.claim import Array, Claim, Curve, Instances, Relation, dyadic, mutant, shrunk, stated
from proofs_check.claims.inner.inner_problem import MASSES, WeightedLosses, excess, one_radius, radius_curve
from proofs_check.exact.certificates import exact_tv, exact_wasserstein

_ORDER = {"1": 1, "2": 2, "inf": np.inf}
_DUAL = {"1": "inf", "2": "2", "inf": "1"}
_FAR = 2.0**12  # the longest way mass is sent; the bound is the limit as it grows


Move = tuple[float, float]


@dataclass(frozen=True)
class LabelledPoints:
    """Points with equal masses and labels +1 or -1, a linear classifier, a radius in one of the norms 1, 2 and inf.

    ``detours`` are moves on offer to the adversary beside those straight against the classifier.
    """

    points: tuple[Move, ...]
    labels: tuple[int, ...]
    weights: Move
    radius: float
    norm: str
    detours: tuple[Move, ...] = ()

    @property
    def margins(self) -> Array:
        """Labels times scores."""
        return np.array(self.labels) * (np.array(self.points) @ np.array(self.weights))


@stated
def wasserstein_is_tv() -> Claim[WeightedLosses]:
    """Transport at cost 1 per move is total variation.

    Problem: max <q, l> over mean transport costs of at most rho from p to q, cost 1[i != j].
    Guarantee (exact, if every scenario has mass): that is total variation of radius rho. A scenario without mass may
        receive some by transport, but not by reweighting.
    Source: [D]: the cheapest plan leaves min(p, q) where it is, so it costs 1 - sum min(p, q) = 1/2 ||q - p||_1.
    Example: l = (0, 1), p = (1/2, 1/2), rho = 1/4: a quarter moves from 0 to 1 at cost 1/4, both give 3/4.
    """

    def transported(x: WeightedLosses, scale: float = 1.0, shortcut: float = 1.0) -> float:
        cost = scale * (1 - np.eye(len(x.losses)))
        cost[0, -1] = cost[-1, 0] = shortcut * scale
        return excess(x, Wasserstein(x.radius, cost))

    def along_a_line(x: WeightedLosses) -> float:
        places = np.arange(len(x.losses))
        return excess(x, Wasserstein(x.radius, np.abs(places - places[:, None])))

    claim = Claim[WeightedLosses](
        label="wasserstein-is-tv",
        statement="Wasserstein(rho, cost 1[i != j]) = TotalVariation(rho)",
        reference="theory.md section 3",
        assumptions={
            **MASSES,
            "every scenario has mass": lambda x: min(x.masses) > 0,
            "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1,
        },
        instances=one_radius(top=1.0, least=2.0**-40),
        lhs=transported,
        rhs=lambda x: excess(x, TotalVariation(x.radius)),
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        verifies=_same_exactly,
        curve=radius_curve(),
    )
    halved = mutant(claim, "half forgotten: cost 2", lhs=lambda x: transported(x, scale=2.0))
    line = mutant(claim, "cost |i - j|", lhs=along_a_line)
    shortcut = mutant(claim, "one pair at half the cost", lhs=lambda x: transported(x, shortcut=0.5))
    massless = mutant(claim, "a scenario without mass", instances=Instances(WeightedLosses, (_MASSLESS,)))
    massless = replace(massless, assumptions={})
    return claim.with_mutants(shrunk(claim), halved, line, shortcut, massless)


@stated
def wasserstein_logistic() -> Claim[LabelledPoints]:
    """Moving the features of a logistic regression is a penalty on its weights.

    Problem: V = sup E log(1 + exp(-y <w, x>)) over distributions within transport distance eps of the data, features
        moved at the cost of their norm, labels fixed.
    Guarantee (exact as a limit): V = E l + eps ||w||_dual. It is not attained. Upper: the loss is 1-Lipschitz in the
        margin. Lower: a share eps / D of one point, sent the way D straight against the classifier, falls short by no
        more than eps / D log(1 + exp(margin)) of that point. Checked between the two by the exact worst case over
        the points themselves, their ways of length 1, 8 and D, and the detours of the instance.
    Source: [SMK15].
    Example: one point with y = 1, x = (0, 0), w = (1, 0), eps = 1: V = log 2 + 1, of which D = 4096 gives all but
        log(2) / 4096.
    """

    def bounds(x: LabelledPoints, value: float | None = None) -> Array:
        found = _worst_transport(x) if value is None else value
        return np.array([_penalised(x, _DUAL[x.norm]), found + _shortfall(x)])

    claim = Claim[LabelledPoints](
        label="wasserstein-logistic",
        statement="features moved, labels fixed: sup E l = E l + eps ||w||_dual, as a limit",
        reference="SMK15",
        assumptions={
            "points and detours in [-8, 8]": lambda x: np.max(np.abs([*x.points, *x.detours])) <= 8,
            "labels +1 or -1": lambda x: {*x.labels} <= {1, -1},
            "weights of size 1/16 to 4": lambda x: 1 / 16 <= max(map(abs, x.weights)) <= 4,
            "1/64 <= radius <= 4": lambda x: 1 / 64 <= x.radius <= 4,
        },
        instances=_labelled(),
        lhs=lambda x: (_worst_transport(x), _penalised(x, _DUAL[x.norm])),
        rhs=bounds,
        scale=lambda x: _penalised(x, _DUAL[x.norm]),
        tight=True,
        curve=Curve("radius", tuple(replace(_CROSS, radius=k / 8) for k in range(1, 17))),
        effort=0.5,
    )
    same_norm = mutant(claim, "the norm itself, not its dual", lhs=lambda x: (0.0, _penalised(x, x.norm)))
    on_data = mutant(claim, "on the data points only", rhs=lambda x: bounds(x, _worst_transport(x, ways=())))
    labels = mutant(claim, "labels change for nothing", lhs=lambda x: (_worst_transport(x, flip=0.0), 0.0))
    return claim.with_mutants(shrunk(claim), same_norm, on_data, labels)


_MASSLESS = WeightedLosses((0.0, 1.0, 2.0), (1.0, 1.0, 0.0), 0.25)
_CROSS = LabelledPoints(((1.0, 0.0), (-1.0, 1.0), (0.5, -1.0)), (1, -1, -1), (1.0, 0.5), 0.5, "2", ((0.0, -1.0),))


def _same_exactly(x: WeightedLosses) -> bool:
    n = len(x.losses)
    cost = [[int(i != j) for j in range(n)] for i in range(n)]
    return exact_wasserstein(x.losses, x.masses, cost, x.radius) == exact_tv(x.losses, x.masses, x.radius)


def _labelled() -> Instances[LabelledPoints]:
    corners = tuple(replace(_CROSS, norm=norm, radius=radius) for norm in _ORDER for radius in (0.125, 1.0))
    place = st.tuples(dyadic(-4, 4), dyadic(-4, 4))
    data = st.lists(st.tuples(place, st.sampled_from((-1, 1))), min_size=1, max_size=3)
    detours = st.lists(place, max_size=2).map(tuple)
    draws = st.tuples(data, place, dyadic(1 / 64, 2), st.sampled_from(tuple(_ORDER)), detours)
    return Instances(LabelledPoints, corners, draws.map(lambda d: _labelled_points(*d)))


def _labelled_points(
    data: Sequence[tuple[Move, int]], weights: Move, radius: float, norm: str, detours: tuple[Move, ...]
) -> LabelledPoints:
    points, labels = zip(*data, strict=True)
    return LabelledPoints(points, labels, weights, radius, norm, detours)


def _penalised(x: LabelledPoints, norm: str) -> float:
    """Return E l + eps ||w||."""
    return float(np.mean(_logistic(x.margins)) + x.radius * np.linalg.norm(x.weights, ord=_ORDER[norm]))


def _shortfall(x: LabelledPoints) -> float:
    return x.radius / _FAR * float(np.min(_logistic(-x.margins)))


def _logistic(margins: Array) -> Array:
    return np.logaddexp(0.0, -margins)


def _steepest(x: LabelledPoints) -> Array:
    """Return the move of norm 1 that changes the score most, by the dual norm of w."""
    w = np.array(x.weights)
    if x.norm == "1":
        return np.where(np.arange(2) == np.argmax(np.abs(w)), np.sign(w), 0.0)
    return w / np.linalg.norm(w) if x.norm == "2" else np.sign(w)


def _worst_transport(x: LabelledPoints, *, ways: tuple[float, ...] = (1.0, 8.0, _FAR), flip: float = 8 * _FAR) -> float:
    """Return the exact worst case over the points and where they may go; a label costs ``flip`` to change."""
    points, labels = np.array(x.points), np.array(x.labels)
    straight = [-labels[:, None] * way * _steepest(x) for way in ways]
    moves = [np.zeros(2), *straight, *map(np.array, x.detours if ways else ())]
    places, signs = np.concatenate([points + move for move in moves]), np.tile(labels, len(moves))
    cost = np.linalg.norm(places - places[:, None], ord=_ORDER[x.norm], axis=-1)
    cost += flip * (signs != signs[:, None])
    losses = _logistic(signs * (places @ np.array(x.weights)))
    masses = np.repeat([1 / len(points), 0.0], [len(points), len(places) - len(points)])
    return float(worst_case(losses, Wasserstein(x.radius, cost), reference=masses).value)
