"""Whole studies with known effects: what the analysis makes of them is tried before there is anything real to judge.

A head ranks pair i right where a normal number is below the quantile of its accuracy. That number is a mixture of what
is shared by all arms and seeds (half of it by all pairs of a prompt), what is the arm's, and what is the run's; and
every seed moves the accuracy of its arm a little. So the mean difference of two arms is known, whatever the mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .judge import Records
from .places import PLANTED, TEST, TWIN, Suite
from .rules import SEEDS, Cell

Array = NDArray[np.float64]

Effect = Callable[[Cell, str], float]
"""By cell and group (a suite in distribution, a category out of it, ``minority``): accuracy less plain training's."""

OUTSIDE = {
    "one": {"Chat": 797, "Chat-Hard": 418, "Reasoning": 1715, "Safety": 239},
    "two": {"other": 215},
    "three": {"other": 458},
    "four": {"other": 836},
}
"""Pairs by category of the suites out of distribution."""
PLAIN: Mapping[str, float] = {TEST: 0.62, TWIN: 0.7, PLANTED: 0.8, "minority": 0.2, "Chat-Hard": 0.4}
ELSEWHERE = 0.58


@dataclass(frozen=True)
class World:
    """What is true, and how it is looked at.

    Attributes:
        effect: See ``Effect``.
        norm: By cell, the norm of its heads; plain training has 1.
        ratio: By cell of H1, its ratio to the collapse radius.
        own: Share of the variance that is the arm's own: with ``run``, what sets the discordance.
        run: Share that is the run's.
        wander: Standard deviation of the accuracy of an arm from seed to seed.
        size: Of every suite, as a share of the real one.
        radius: As of ``judge.Records``.
    """

    effect: Effect
    norm: Callable[[Cell], float] = lambda cell: 1.0
    ratio: Callable[[Cell], float | None] = lambda cell: None
    own: float = 0.1
    run: float = 0.05
    wander: float = 0.004
    size: float = 1.0
    radius: float = 0.06


def studied(world: World, cells: Iterable[Cell], *, seed: int, suites: Iterable[str] | None = None) -> Records:
    """Records of one study in a world.

    Args:
        world: What is true.
        cells: That are trained.
        seed: Of everything that is drawn.
        suites: That are judged; None: all.
    """
    rng = np.random.default_rng([seed, 24])
    groups = {name: found for name, found in _groups(world.size).items() if suites is None or name in suites}
    made = {name: _suite(name, categories, rng) for name, categories in groups.items()}
    shared = {name: _shared(suite, rng) for name, suite in made.items()}
    right: dict[Cell, dict[str, Array]] = {}
    for cell in cells:
        of = [name for name in made if (name == _home(cell) if _home(cell) else name not in (TWIN, PLANTED))]
        drift = world.wander * rng.standard_normal((len(SEEDS), 1))
        right[cell] = {name: _right(world, cell, groups[name], shared[name], drift, rng) for name in of}
    spread = {cell: np.exp(0.02 * rng.standard_normal(len(SEEDS))) for cell in right}
    ratios = {cell: ratio for cell in right if (ratio := world.ratio(cell)) is not None}
    norms = {cell: world.norm(cell) * spread[cell] for cell in right}
    return Records(made, right, norms, ratios, world.radius)


def _home(cell: Cell) -> str:
    """The suite of a cell whose labels are made; "" for the others, which are judged on all real ones."""
    return TWIN if cell.data.startswith("twin") else PLANTED if cell.data == "planted" else ""


def _groups(size: float) -> dict[str, NDArray[np.str_]]:
    """Group of every pair, by suite."""
    inside = {TEST: {TEST: 4004}, TWIN: {TWIN: 4950}, PLANTED: {PLANTED: 3604, "minority": 400}}
    return {
        name: np.repeat(list(counts), [max(round(size * count), 8) for count in counts.values()])
        for name, counts in (inside | OUTSIDE).items()
    }


def _suite(name: str, categories: NDArray[np.str_], rng: np.random.Generator) -> Suite:
    n = len(categories)
    places = rng.integers(0, max(n * 2 // 3, 2), n)
    told = {"minority": (categories == "minority").astype(float)} if name == PLANTED else {}
    shifted = {"even": np.ones(n), "half": np.where(np.arange(n) % 5 == 0, 3.0, 0.5)} if name == TWIN else {}
    return Suite(places, categories, rng.random(n).round(), rng.random(n) < 0.5, np.ones(n, dtype=bool), told | shifted)


def _shared(suite: Suite, rng: np.random.Generator) -> Array:
    """What all arms and seeds have in common of every pair, of variance 1."""
    by_prompt = rng.standard_normal(int(suite.prompts.max()) + 1)[suite.prompts.astype(int)]
    return np.sqrt(0.5) * (by_prompt + rng.standard_normal(len(suite)))


def _right(
    world: World, cell: Cell, groups: NDArray[np.str_], shared: Array, drift: Array, rng: np.random.Generator
) -> Array:
    """Whether each seed ranks each pair right, ``(seeds, pairs)``."""
    names, codes = np.unique(groups, return_inverse=True)
    aims = np.array([PLAIN.get(str(name), ELSEWHERE) + world.effect(cell, str(name)) for name in names])[codes]
    own = rng.standard_normal(len(groups))
    runs = rng.standard_normal((len(SEEDS), len(groups)), dtype=np.float32)
    number = np.sqrt(1 - world.own - world.run) * shared + np.sqrt(world.own) * own + np.sqrt(world.run) * runs
    return (number < ndtri(np.clip(aims + drift, 0.001, 0.999))).astype(np.float64)
