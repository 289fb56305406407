"""The arms of the bench: an estimator, a weighting of prompts, what its adversary sees, and how prompts are drawn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from dro_core import parse_ambiguity, worst_case
from llm.adversary.weightings import formulas
from llm.policy.advantages import groups

Weighting = Callable[[Any, np.ndarray], tuple[Any, np.ndarray]]
"""From a state (None at first) and estimated pass rates ``(*batch, n)`` to the next state and weights, mean 1."""

ESTIMATORS: dict[str, Callable[..., Any]] = {
    "rloo": groups.leave_one_out,
    "dr_grpo": groups.group_mean,
    "grpo_std": groups.group_standardised,
    "maxrl": groups.maximum_likelihood,
    "rs_grpo:2": partial(groups.risk_seeking, beta=2.0),
    "pass_at_k:4": partial(groups.max_of_k, k=4),
}
SETS = ("kl_penalty:0.3", "tv:0.3", "burg:0.3", "burg_penalty:0.3", "cvar:0.5", "chi2:0.5")
RULES: dict[str, Callable[..., Any]] = {
    "difficulty_filter": formulas.difficulty_filter,
    "difficulty_band:0.2:0.8": partial(formulas.difficulty_band, low=0.2, high=0.8),
    "gdro": formulas.gdro,
    "dgpo": formulas.dgpo,
    "curverl": formulas.curverl,
    "riskpo": formulas.riskpo,
}


class Arm(NamedTuple):
    """One way to train.

    Attributes:
        name: As in the tables.
        estimator: A name in ESTIMATORS.
        weighting: A set, a name in RULES, ``easy``, ``signal``, or None for equal weights.
        estimate: A name in ``estimates.ESTIMATES``.
        control: ``permuted`` deals the weights to other prompts, ``random`` keeps only their effective number.
        draws: ``shared``; ``again``: a step is taken once BATCH groups with signal are there; ``weighted``: prompts
            are drawn by their weight, ``corrected``: so, and each counts by the inverse of it.
    """

    name: str
    estimator: str = "rloo"
    weighting: str | None = None
    estimate: str = "raw"
    control: str | None = None
    draws: str = "shared"


def _weighted(spec: str, estimate: str) -> Arm:
    return Arm(f"{spec}, {estimate}", weighting=spec, estimate=estimate)


PLAIN = Arm("plain")
ARMS: tuple[Arm, ...] = (
    PLAIN,
    *(Arm(name, estimator=name) for name in ESTIMATORS if name != "rloo"),
    *(Arm(spec, weighting=spec) for spec in (*SETS, *RULES)),
    Arm("easy first", weighting="easy"),
    *(_weighted(spec, seen) for spec in SETS[:2] for seen in ("running", "shrunk", "pooled", "oracle")),
    Arm("signal only", weighting="signal"),
    Arm("drawn again", draws="again"),
    Arm("drawn by weight", weighting=SETS[0], draws="weighted"),
    Arm("drawn by weight, corrected", weighting=SETS[0], draws="corrected"),
    Arm("permuted weights", weighting=SETS[0], control="permuted"),
    Arm("random weights", weighting=SETS[0], control="random"),
)
MAIN = ("plain", "kl_penalty:0.3", "tv:0.3", "burg:0.3", "maxrl", "grpo_std", "rs_grpo:2", "difficulty_filter")
"""Arms that are also trained for longer, and on the other relations of hard prompts to easy ones."""
EASY_UNTIL = 300
"""Steps after which ``easy first`` weighs alike."""


def weighting(name: str) -> Weighting:
    """The function of a set or rule; weights have mean 1 over the batch."""
    if name == "easy":
        return _easy
    if name == "signal":
        return _signal
    if name in RULES:
        rule = RULES[name]

        def ruled(state: Any, rates: np.ndarray) -> tuple[Any, np.ndarray]:
            state, found = rule(state, torch.as_tensor(rates))
            return state, rates.shape[-1] * found.numpy()

        return ruled
    ambiguity = parse_ambiguity(name)
    return lambda state, rates: (state, rates.shape[-1] * np.asarray(worst_case(-rates, ambiguity).weights))


def _easy(state: int | None, rates: np.ndarray) -> tuple[int, np.ndarray]:
    """Our reading of easy first: weights proportional to p at first, alike after EASY_UNTIL steps."""
    step = 0 if state is None else state
    share = max(0.0, 1 - step / EASY_UNTIL)
    mean = rates.mean(axis=-1, keepdims=True)
    tilt = np.where(mean > 0, rates / np.where(mean > 0, mean, 1.0), 1.0)
    return step + 1, share * tilt + 1 - share


def _signal(state: Any, rates: np.ndarray) -> tuple[Any, np.ndarray]:
    """Groups without signal left out of the mean; all alike where none has any."""
    there = (rates > 0) & (rates < 1)
    share = there.mean(axis=-1, keepdims=True)
    return state, np.where(share > 0, there / np.where(share > 0, share, 1.0), 1.0)


def controlled(weights: np.ndarray, control: str, uniforms: np.ndarray) -> np.ndarray:
    """Weights that know nothing: dealt to other prompts, or random ones with the same sum of squares.

    Args:
        weights: Mean 1, ``(*batch, n)``.
        control: ``permuted`` or ``random``.
        uniforms: The same shape.
    """
    if control == "permuted":
        return np.take_along_axis(weights, uniforms.argsort(axis=-1), axis=-1)
    scores = -np.log(uniforms)  # exponential, as a tilt of random size
    target = (weights**2).mean(axis=-1, keepdims=True)
    low, high = np.zeros_like(target), np.full_like(target, 64.0)
    for _ in range(40):
        middle = (low + high) / 2
        tilted = np.exp(middle * (scores - scores.max(axis=-1, keepdims=True)))
        tilted /= tilted.mean(axis=-1, keepdims=True)
        less = (tilted**2).mean(axis=-1, keepdims=True) < target
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return tilted
