"""Named problems, the same for the same seed: for examples, tests and studies."""

from __future__ import annotations

from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from synthetic.pairs.elliptical import SphereBradleyTerry, StudentBradleyTerry
from synthetic.pairs.modechoice import load_mode_choice
from synthetic.pairs.populations import (
    FinitePopulation,
    HiddenFeatures,
    NoisyLabels,
    linear_population,
    reward_population,
)
from synthetic.pairs.preferences import LinearBradleyTerry
from synthetic.pairs.shifts import Shift, group_shift

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synthetic.pairs.preferences import Array

_DIMENSION = 4
_PROMPTS = 24
_FLIP = 0.2


def instance(name: str, *, seed: int = 0) -> Any:
    """Build the problem `name`; the seed draws its parameters, not its data.

    Raises:
        ValueError: a name that is not in `NAMES`; the message has the closest ones.

    Example:
        >>> problem = instance("sphere-noisy", seed=1)
        >>> problem.flip, problem.dimension
        (0.2, 4)
    """
    if name not in _BUILDERS:
        close = get_close_matches(name, _BUILDERS, n=3, cutoff=0.4) or list(_BUILDERS)
        raise ValueError(f"no instance is called {name!r}: did you mean {' or '.join(close)}?")
    return _BUILDERS[name](np.random.default_rng(seed))


def _weights(rng: np.random.Generator) -> Array:
    """Length 2, so that margins are neither flat nor certain."""
    direction = rng.standard_normal(_DIMENSION)
    return 2 * direction / np.linalg.norm(direction)


def _covariance(rng: np.random.Generator) -> Array:
    root = rng.standard_normal((_DIMENSION, _DIMENSION))
    return root @ root.T / _DIMENSION


def _gaussian(rng: np.random.Generator) -> LinearBradleyTerry:
    return LinearBradleyTerry(_weights(rng), _covariance(rng))


def _sphere(rng: np.random.Generator) -> SphereBradleyTerry:
    return SphereBradleyTerry(_weights(rng), radius=1.0)


def _student(rng: np.random.Generator) -> StudentBradleyTerry:
    return StudentBradleyTerry(_weights(rng), _covariance(rng), degrees=3.0)


def _finite(rng: np.random.Generator) -> FinitePopulation:
    differences = rng.standard_normal((_PROMPTS, _DIMENSION))
    return linear_population(differences, rng.dirichlet(np.ones(_PROMPTS)), _weights(rng))


def _curved(rng: np.random.Generator) -> FinitePopulation:
    """A linear reward plus a square of one feature: longer answers please up to a point."""
    features = rng.standard_normal((_PROMPTS, 2, _DIMENSION))
    rewards = features @ _weights(rng) - features[:, :, 0] ** 2
    return reward_population(features, rewards, rng.dirichlet(np.ones(_PROMPTS)))


def _group_shift(rng: np.random.Generator) -> Shift:
    """The learner does not see the last feature, whose meaning turns round in the small group."""
    groups = (np.arange(_PROMPTS) >= 3 * _PROMPTS // 4).astype(int)
    differences, weights = rng.standard_normal((_PROMPTS, _DIMENSION)), _weights(rng)
    differences[:, -1] = (1 - 2 * groups) * differences[:, 0]
    full = linear_population(differences, np.full(_PROMPTS, 1 / _PROMPTS), weights)
    return group_shift(full.seeing(range(_DIMENSION - 1)), groups, [0.5, 0.5])


_BUILDERS: Mapping[str, Callable[[np.random.Generator], Any]] = MappingProxyType(
    {
        "gaussian": _gaussian,
        "gaussian-noisy": lambda rng: NoisyLabels(_gaussian(rng), _FLIP),
        "gaussian-hidden": lambda rng: HiddenFeatures(_gaussian(rng), tuple(range(_DIMENSION - 1))),
        "sphere": _sphere,
        "sphere-noisy": lambda rng: NoisyLabels(_sphere(rng), _FLIP),
        "student": _student,
        "student-noisy": lambda rng: NoisyLabels(_student(rng), _FLIP),
        "finite": _finite,
        "finite-noisy": lambda rng: _finite(rng).with_noise(_FLIP),
        "finite-hidden": lambda rng: _finite(rng).seeing(range(_DIMENSION - 1)),
        "finite-curved": _curved,
        "group-shift": _group_shift,
        "mode-choice": lambda rng: load_mode_choice(),
    }
)
NAMES: tuple[str, ...] = tuple(_BUILDERS)
