"""Study `when`: what a worst case gains for a minority, exactly, over label noise and over how much the two differ."""

from __future__ import annotations

from functools import lru_cache
from math import cos, radians, sin
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from dro_core import collapse_radius, fit_pairs, parse_ambiguity

from ..curves import curve
from ..figures import Panel
from .study import Choices, Study, allowed, distinct, unique

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..grid import Record, Scalar

    Array = NDArray[np.float64]

_FAMILIES, _SETS = ("tv:{:g}", "tv:{:g},by=group"), ("tv:0.1", "tv:0.2,by=group")
_DIRECTIONS, _SHARE, _STRENGTH = 60, 0.2, 2.0  # prompts of each group, mass of the minority, norm of the rewards
_PENALTY = 1e-6
_TURN, _FLIPS = 90.0, 0.1


def points(choices: Choices) -> list[Mapping[str, Scalar]]:
    """Every set over the flips, over the angle, and over the radius; one class that can serve both groups."""
    sets = allowed(choices.ambiguity or _SETS, "when", erm=False, groups=True)
    flips = np.linspace(0, 0.4, 17 if choices.full else 5).round(3).tolist()
    turns = np.linspace(0, 180, 19 if choices.full else 7).tolist()

    def point(spec: str, flip: float = _FLIPS, turn: float = _TURN, features: str = "shared") -> dict[str, Scalar]:
        return {"ambiguity": spec, "flips": flip, "turn": turn, "features": features}

    grid = [point(spec, flip=flip) for spec in sets for flip in flips]
    grid += [point(spec, turn=turn, features=one) for spec in sets for turn in turns for one in ("shared", "own")]
    return unique(grid + [point(one.format(radius)) for one in _FAMILIES for radius in _radii(choices)])


def _radii(choices: Choices) -> tuple[float, ...]:
    return choices.radius or (0.02, 0.05, 0.1, 0.2, 0.4) + ((0.01, 0.03, 0.15, 0.3, 0.6) if choices.full else ())


class Pairs:
    """Prompts in the plane, the same for both groups, whose answers differ by x; the majority's reward is along (1, 0).

    The minority's is turned away by ``turn`` degrees. Labels follow Bradley-Terry models and are turned round with
    probability ``flips``. With ``own`` features each group has its own two, so that one reward serves both.

    Example:
        >>> pairs = Pairs(turn=90.0, flips=0.1)
        >>> pairs.rows.shape, round(float(pairs.masses.sum()), 12)
        ((240, 2), 1.0)
    """

    def __init__(self, turn: float, flips: float, features: str = "shared") -> None:
        angles = np.pi * (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS  # x and -x are one prompt with its labels
        x = np.column_stack([np.cos(angles), np.sin(angles)])
        rewards = _STRENGTH * np.array([[1.0, 0.0], [cos(radians(turn)), sin(radians(turn))]])
        self.margins = x @ rewards.T  # (prompts, groups)
        right = (1 - 2 * flips) * expit(self.margins.T) + flips
        mass = np.array([[1 - _SHARE], [_SHARE]]) / _DIRECTIONS
        none = np.zeros_like(x)
        blocks = [x, x] if features == "shared" else [np.hstack([x, none]), np.hstack([none, x])]
        self.features = np.stack(blocks)  # (groups, prompts, d)
        shown = self.features.reshape(2 * _DIRECTIONS, -1)
        self.rows = np.vstack([shown, -shown])
        self.masses = np.concatenate([(mass * right).ravel(), (mass * (1 - right)).ravel()])
        self.groups = np.tile(np.repeat([0, 1], _DIRECTIONS), 2)

    def accuracies(self, weights: Array) -> Array:
        """How often each group's labels without flips agree with this reward, ties half, shape ``(2,)``."""
        said = np.sign(np.round(np.einsum("gpd,d->gp", self.features, weights), 12))
        return (0.5 + said * (expit(self.margins.T) - 0.5)).mean(axis=1)

    def fit(self, spec: str) -> Array:
        """The reward of the smallest worst-case loss, exactly; 0 from the collapse radius on, where it is the best."""
        ambiguity = parse_ambiguity(spec)
        groups = self.groups if ",by=" in spec else None
        if ambiguity is not None:
            if self.radius(ambiguity=spec.split(":")[0], grouped=groups is not None) <= _size(spec):
                return np.zeros(self.rows.shape[1])
            ambiguity = ambiguity.bind({"group": self.groups})
        fitted = fit_pairs(self.rows, 0 * self.rows, ambiguity, penalty=_PENALTY, reference=self.masses, tolerance=1e-7)
        return np.asarray(fitted.coefficients)

    def radius(self, *, ambiguity: str = "tv", grouped: bool = False) -> float:
        """From which size of the set on the reward 0 is the best."""
        groups = self.groups if grouped else None
        rows, masses = self.rows, self.masses
        return float(collapse_radius(rows, ambiguity, reference=masses, groups=groups, folds=0, seeds=()).radius)


def _size(spec: str) -> float:
    return float(spec.split(":")[1].split(",")[0])


@lru_cache(maxsize=256)
def _plain(turn: float, flips: float, features: str) -> tuple[float, float]:
    pairs = Pairs(turn, flips, features)
    majority, minority = pairs.accuracies(pairs.fit("erm"))
    return float(majority), float(minority)


def evaluate(point: Mapping[str, Any], seed: int) -> list[Record]:
    """Accuracies of both groups under the set and plainly, by exact fits to the population; the seed is not used."""
    where = point["turn"], point["flips"], point["features"]
    pairs, plain = Pairs(*where), _plain(*where)
    majority, minority = pairs.accuracies(pairs.fit(point["ambiguity"]))
    grouped = ",by=" in point["ambiguity"]
    radius = pairs.radius(grouped=grouped)
    size = _size(point["ambiguity"])
    return [
        {
            "family": point["ambiguity"].replace(f"{size:g}", "RADIUS", 1),
            "radius": size,
            "majority": float(majority),
            "minority": float(minority),
            "gain": 100 * float(min(majority, minority) - min(plain)),
            "mean_gain": 100 * float((1 - _SHARE) * (majority - plain[0]) + _SHARE * (minority - plain[1])),
            "collapse_radius": radius if np.isfinite(radius) else None,
        }
    ]


def panels(rows: Sequence[Record], choices: Choices) -> list[Panel]:
    """The gain of the worse group over the flips, the angle (for both classes) and the radius."""
    shared = [row for row in rows if row["features"] == "shared"]
    specs = distinct([row for row in rows if row["turn"] != _TURN], "ambiguity")
    kept = {"turn": _TURN, "flips": _FLIPS}
    label = "gain of the worse group (points of accuracy)"
    flips = [curve(shared, "flips", "gain", spec, where={"ambiguity": spec, "turn": _TURN}) for spec in specs]
    turns = [
        curve(rows, "turn", "gain", f"{spec}, {one} features", where=_where(spec, one))
        for spec in specs
        for one in ("shared", "own")
    ]
    asked = {family.format(radius) for family in _FAMILIES for radius in _radii(choices)}
    balls = [row for row in shared if row["ambiguity"] in asked]
    radii = [curve(balls, "radius", "gain", one, where={"family": one, **kept}) for one in distinct(balls, "family")]
    linear = ("linear", "linear")
    angle, noise = f"angle {_TURN:g} degrees", f"{_FLIPS:g} flipped"
    made = [
        Panel("Over the label noise", "share of flipped labels", label, tuple(flips), *linear, angle),
        Panel("Over what the groups differ by", "angle (degrees)", label, tuple(turns), *linear, noise),
        Panel("Over the radius", "radius", label, tuple(radii), *linear, f"{angle}, {noise}"),
    ]
    return [panel for panel in made if any(line.x for line in panel.curves)]


def _where(spec: str, features: str) -> dict[str, Scalar]:
    return {"ambiguity": spec, "flips": _FLIPS, "features": features}


STUDY = Study(
    name="when",
    version=1,
    title="When can a worst case help? Exact fits to a population of two groups",
    about=(
        "A majority and a minority of 20 % judge the same answers by rewards that are an angle apart; labels are "
        "Bradley-Terry with flips; rewards are linear. A worst case over pairs turns to flipped labels and, from the "
        "collapse radius on, learns nothing; one over groups gains for the minority where one reward cannot serve both "
        "and gains nothing where it can. No sample: every point is exact."
    ),
    options=("ambiguity", "radius"),
    seeds=(0, 0),
    points=points,
    evaluate=evaluate,
    panels=panels,
)
