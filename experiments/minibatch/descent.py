"""Gradient steps on minibatches of a known population, judged by the exact minimum of two risks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from dro_core import Spectral, TotalVariation
from llm.statistics.intervals import mean_interval
from synthetic.pairs.robust_pairs import RobustPairs, into_ball

from .densities import rank_weights, shares
from .pairs import RADIUS, SMALL, rules

MANY, FEW, DIMENSION, REACH = 45, 3, 4, 3.0
LARGE = 64
STEPS = tuple(4**k for k in range(2, 8))
RUNS = 64


class Arm(NamedTuple):
    """How steps are made: pairs in a batch, and their weights by rank."""

    name: str
    batch: int
    weights: np.ndarray


def arms() -> list[Arm]:
    """Batches of eight, and of LARGE with three kinds of weights."""
    small = Arm(f"batches of {SMALL}, tv:{RADIUS:g}", SMALL, rank_weights(TotalVariation(RADIUS), SMALL))
    large = rules(LARGE)
    return [small, *(Arm(f"batches of {LARGE}, {name.strip('`')}", LARGE, weights) for name, weights in large.items())]


def population() -> np.ndarray:
    """Feature differences of MANY pairs that mostly agree and of FEW that want the opposite, of norm 1; ``(m, d)``."""
    rng = np.random.default_rng([DIMENSION, MANY])
    centre, around = rng.standard_normal(DIMENSION), rng.standard_normal((MANY + FEW, DIMENSION))
    signs = np.repeat([1.0, -1.0], [MANY, FEW])
    rows = np.outer(signs, centre / np.linalg.norm(centre)) + 0.6 * _unit(around)
    return _unit(rows)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def risk(weights: np.ndarray | None) -> RobustPairs:
    """The exact risk of independent batches with these weights by rank, in the ball; None: total variation itself."""
    rows = population()
    masses = np.full(len(rows), 1 / len(rows))
    if weights is None:
        return RobustPairs(rows, masses, TotalVariation(RADIUS), REACH)
    spectrum = np.maximum.accumulate(shares(weights, len(rows)))
    return RobustPairs(rows, masses, Spectral(tuple((spectrum / spectrum.sum()).tolist())), REACH)


def average(arm: Arm, steps: int, *, seed: int = 0, runs: int = RUNS) -> np.ndarray:
    """The average iterate of projected steps from 0 of length R / (G sqrt steps), ``(runs, d)``; pairs are fresh."""
    rows, rng = population(), np.random.default_rng([seed, steps, arm.batch])
    w, total = np.zeros((runs, DIMENSION)), np.zeros((runs, DIMENSION))
    length = REACH / (expit(REACH) * np.sqrt(steps))
    for _ in range(steps):
        total += w
        seen = rows[rng.integers(len(rows), size=(runs, arm.batch))]
        margins = np.einsum("rbd,rd->rb", seen, w)
        order = np.argsort(-margins, axis=1)  # the loss falls with the margin; equal pairs have equal gradients
        pull = np.empty_like(margins)
        np.put_along_axis(pull, order, np.broadcast_to(arm.weights, margins.shape), axis=1)
        w = into_ball(w + length * np.einsum("rb,rbd->rd", pull * expit(-margins), seen), REACH)
    return total / steps


def measured(*, seed: int = 0) -> dict:
    """Gaps of every arm over the steps, judged by the risk of batches of eight and by the worst case itself.

    ``ends`` are the exact gaps of the minimisers that the arms go to: 0 where it is the risk that judges.
    """
    judges = {"eight": risk(rank_weights(TotalVariation(RADIUS), SMALL)), "all": risk(None)}
    found: dict = {"steps": list(STEPS), "bound": [REACH * float(expit(REACH)) / s**0.5 for s in STEPS], "arms": []}
    for arm in arms():
        points = [average(arm, steps, seed=seed) for steps in STEPS]
        aim = risk(arm.weights).optimum.parameters
        told: dict = {"name": arm.name}
        for name, judge in judges.items():
            least = judge.optimum.bound
            told[name] = [list(mean_interval(judge.objective(w) - least)) for w in points]
            told[f"{name} end"] = max(float(judge.objective(aim)) - least, 0.0)
        found["arms"].append(told)
    return found
