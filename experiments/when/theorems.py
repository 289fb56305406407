"""Statements that say when a worst case changes nothing: a closed form of each, and the same from the solvers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logit

from dro_core import KL, ChiSquare, TotalVariation, fit_pairs, worst_case
from dro_core.sets.ambiguity import AmbiguitySet
from synthetic.simulate.studies.when import Pairs, evaluate

Curve = list[tuple[float, float]]
RHO = 0.2
SEPARABLE = np.array([[1.0, 1.0], [1.0, -1.0], [2.5, 1.5], [3.0, 2.0], [2.0, 1.8]])
"""The direction of the largest least margin is (1, 0), by the first two rows: cos t - |sin t| is largest at 0."""


def zero_one() -> dict[str, Curve]:
    """The worst-case error of a model against its error, over pairs."""
    sets = {"tv:0.2": TotalVariation(RHO), "chi2:0.2": ChiSquare(RHO), "kl:0.2": KL(RHO)}
    errors = np.linspace(0, 0.6, 61)
    return {name: [(float(e), worst_error(one, float(e))) for e in errors] for name, one in sets.items()}


def worst_error(ambiguity: AmbiguitySet, error: float) -> float:
    """The worst-case mean of a 0-1 loss that is 1 with this probability."""
    return float(worst_case(np.array([0.0, 1.0]), ambiguity, reference=np.array([1 - error, error])).value)


def noise(flips: float, preference: float = 0.9) -> tuple[Curve, Curve]:
    """Robust margin of one prompt against the radius: the closed form, and fits."""
    said = flips + (1 - 2 * flips) * preference
    radii = np.linspace(0, 0.5, 101)
    exact = [(float(rho), float(logit(max(0.5, said - rho)))) for rho in radii]
    return exact, [(float(rho), _margin(said, float(rho))) for rho in radii[::10]]


def _margin(said: float, rho: float) -> float:
    rows = np.array([[1.0], [-1.0]])
    ball = TotalVariation(rho) if rho else None
    fit = fit_pairs(rows, 0 * rows, ball, penalty=1e-9, reference=np.array([said, 1 - said]))
    return float(fit.coefficients[0])


def coverage(prompts: int) -> tuple[Curve, Curve]:
    """The least eigenvalue of E_q x x' over the ball for one-hot prompts, in shares of its value without."""
    radii = np.linspace(0, 0.6, 25)
    exact = [(float(rho), max(0.0, 1 - prompts * float(rho))) for rho in radii]
    first = -np.eye(prompts)[0]  # the adversary drains one prompt; the eigenvalue is its mass
    found = [-prompts * float(worst_case(first, TotalVariation(float(rho))).value) for rho in radii[::3]]
    return exact, list(zip(map(float, radii[::3]), found, strict=True))


def separable() -> dict[str, Curve]:
    """The least margin over the norm of the best reward of that norm, for separable pairs, and the bound from below."""
    norms = np.geomspace(0.5, 64, 15)
    curves: dict[str, Curve] = {}
    for name, ball in {"plain": None, "tv:0.2": TotalVariation(RHO), "tv:0.6": TotalVariation(0.6)}.items():
        curves[name] = [(float(r), float((SEPARABLE @ best(float(r), ball)).min() / r)) for r in norms]
    curves["bound"] = [(float(r), margin_bound(float(r)) / float(r)) for r in norms]
    return curves


def best(norm: float, ball: AmbiguitySet | None) -> np.ndarray:
    """The reward of this norm with the smallest worst-case loss, by its angle."""

    def loss(angle: float) -> float:
        losses = np.logaddexp(0, -SEPARABLE @ _turned(norm, angle))
        return float(np.log(losses.mean() if ball is None else worst_case(losses, ball).value))

    return _turned(norm, float(minimize_scalar(loss, bounds=(-0.7, 0.7), method="bounded", options={"xatol": 1e-9}).x))


def _turned(norm: float, angle: float) -> np.ndarray:
    return norm * np.array([np.cos(angle), np.sin(angle)])


def margin_bound(norm: float, least: float = 1.0) -> float:
    """-log expm1(n log1p(e^{-R g})) for n equally likely pairs of largest least margin g at norm 1."""
    return float(-np.log(np.expm1(len(SEPARABLE) * np.log1p(np.exp(-norm * least)))))


def collapse(turn: float) -> tuple[Curve, Curve]:
    """The collapse radius of pairs against the flips: at most (1 - 2 flips) times that without, and by program."""
    clean = Pairs(turn, 0.0).radius()
    shares = np.linspace(0, 0.4, 9)
    exact = [(float(f), (1 - 2 * float(f)) * clean) for f in np.linspace(0, 0.5, 11)]
    return exact, [(float(f), Pairs(turn, float(f)).radius()) for f in shares]


def capacity(spec: str, features: str, flips: float = 0.1) -> Curve:
    """The gain of the worse group against the angle between what the groups want."""
    return [(float(t), _gain(spec, float(t), flips, features)) for t in np.linspace(0, 180, 13)]


def _gain(spec: str, turn: float, flips: float, features: str) -> float:
    point = {"ambiguity": spec, "turn": turn, "flips": flips, "features": features}
    return float(evaluate(point, 0)[0]["gain"])  # pyright: ignore[reportArgumentType]


def phase(spec: str, features: str, flips: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Gains of the worse group, ``(turns, flips)``."""
    return np.array([[_gain(spec, float(t), float(f), features) for f in flips] for t in turns])


def angles(specs: tuple[str, ...], turn: float = 90.0) -> dict[str, float]:
    """Where the fits point, in degrees from what the majority wants; labels without flips."""
    fits = {spec: Pairs(turn, 0.0).fit(spec) for spec in specs}
    return {spec: float(np.degrees(np.arctan2(fit[1], fit[0]))) for spec, fit in fits.items()}


def frontier(radius: float, turns: np.ndarray, radius_of: Callable[[float], float]) -> list[float]:
    """By theorem, the share of flips from which on a radius over pairs is too large: (1 - 2 f) r_c = radius."""
    return [max(0.0, (1 - radius / radius_of(float(t))) / 2) for t in turns]
