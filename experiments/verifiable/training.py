"""Training of many runs on S problems: one loop, three ways to draw prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .arms import ESTIMATORS, Arm, controlled, weighting
from .bandit import BATCH, GROUP, Answers, Streams, advantages, answer
from .estimates import ESTIMATES, Seen
from .measures import Judge
from .problem import PROMPTS, WIDTH, Prompts, draw

ORDER, SAMPLES, CHANCE, OWN = 1, 2, 3, 4
"""Purposes of random numbers."""
FLOOR = 0.1
"""Share of uniform draws where prompts are drawn by weight, so that none is lost."""


class Run(NamedTuple):
    """An arm at a step size."""

    arm: Arm
    step: float


@dataclass
class _Adversary:
    """One weighting over all its runs: columns beside each other, a state each."""

    arm: Arm
    columns: list[int]
    seen_state: Any = None
    state: Any = None

    def __post_init__(self) -> None:
        self.weigh, self.estimate = weighting(str(self.arm.weighting)), ESTIMATES[self.arm.estimate]

    def weights(self, answers: Answers, exact: np.ndarray, places: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """Of the batch, ``(S, runs, n)``, mean 1."""
        rates = answers.successes[..., self.columns].swapaxes(1, 2) / GROUP
        shape = rates.shape
        seen = Seen(
            np.ascontiguousarray(rates), exact[..., self.columns].swapaxes(1, 2),
            np.broadcast_to(places[:, None], shape), np.broadcast_to(sources[:, None], shape),
        )  # fmt: skip
        self.seen_state, estimates = self.estimate(self.seen_state, seen)
        self.state, found = self.weigh(self.state, np.ascontiguousarray(estimates))
        return found


@dataclass
class Shared:
    """Runs that see the same prompts; those of ``drawn again`` step when enough groups with signal are there."""

    runs: Sequence[Run]
    problems: int
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        arms = [run.arm for run in self.runs]
        self.weights = np.zeros((self.problems, WIDTH, len(arms)))
        self.steps = np.array([run.step for run in self.runs])
        tables = {name: advantages(ESTIMATORS[name]) for name in {arm.estimator for arm in arms}}
        self.right, self.wrong = (np.stack([tables[arm.estimator][k] for arm in arms], axis=1) for k in (0, 1))
        self.again = [column for column, arm in enumerate(arms) if arm.draws == "again"]
        self.pending = np.zeros((self.problems, WIDTH, len(self.again)))
        self.waiting = np.zeros((self.problems, len(self.again)))
        weighed = {arm: [c for c, other in enumerate(arms) if other == arm] for arm in arms if arm.weighting}
        self.adversaries = [_Adversary(arm, columns) for arm, columns in weighed.items()]

    def step(self, prompts: Prompts, chosen: np.ndarray, uniforms: np.ndarray, chance: np.ndarray) -> None:
        """Draw answers to the prompts ``(S, n)`` and move every policy."""
        answers = answer(prompts, chosen, self.weights, uniforms)
        counts, columns = answers.successes.astype(np.intp), np.arange(len(self.runs))
        right, wrong = self.right[counts, columns], self.wrong[counts, columns]
        exact = answers.rates() if self.adversaries else answers.successes
        sources = np.take_along_axis(prompts.source, chosen, axis=1)
        for one in self.adversaries:
            found = one.weights(answers, exact, chosen, sources)
            if one.arm.control:
                found = controlled(found, one.arm.control, np.broadcast_to(chance[:, None], found.shape))
            for part in (right, wrong):
                part[..., one.columns] *= found.swapaxes(1, 2)
        gradient = answers.gradient(right, wrong)
        if self.again:
            gradient[..., self.again] = self._gathered(answers, gradient[..., self.again])
        self.weights += self.steps * gradient

    def _gathered(self, answers: Answers, gradient: np.ndarray) -> np.ndarray:
        """The mean over groups with signal once there are BATCH of them, else 0: groups without add nothing."""
        found = answers.successes[..., self.again]
        self.waiting += ((found > 0) & (found < GROUP)).sum(axis=1)
        self.pending += gradient * BATCH
        full = self.waiting >= BATCH
        moved = np.where(full[:, None], self.pending / np.maximum(self.waiting, 1)[:, None], 0.0)
        self.pending = np.where(full[:, None], 0.0, self.pending)
        self.waiting = np.where(full, 0.0, self.waiting)
        return moved


@dataclass
class Drawn:
    """One run that draws its prompts by their weight under running averages of their rates."""

    run: Run
    problems: int
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.weights = np.zeros((self.problems, WIDTH, 1))
        self.weigh = weighting(str(self.run.arm.weighting))
        self.right, self.wrong = advantages(ESTIMATORS[self.run.arm.estimator])
        self.estimate, self.state = ESTIMATES["running"], None

    def step(self, prompts: Prompts, chosen: np.ndarray, uniforms: np.ndarray, chance: np.ndarray) -> None:
        """Draw BATCH prompts, those given at first, and move the policy."""
        density = np.ones((self.problems, PROMPTS))
        if self.state is not None:
            density = (1 - FLOOR) * self.weigh(None, self.state)[1] + FLOOR
            ends = density.cumsum(axis=1) / PROMPTS
            places = (np.arange(BATCH) + chance[:, :1]) / BATCH  # systematic: as many of each as its weight, rounded
            chosen = (places[:, :, None] > ends[:, None]).sum(axis=2).clip(max=PROMPTS - 1)
        answers = answer(prompts, chosen, self.weights, uniforms)
        counts = answers.successes.astype(np.intp)
        taken = np.take_along_axis(density, chosen, axis=1)[..., None]
        factor = 1 / taken if self.run.arm.draws == "corrected" else np.ones_like(taken)
        rates = answers.successes[..., 0] / GROUP
        sources = np.take_along_axis(prompts.source, chosen, axis=1)
        self.state, _ = self.estimate(self.state, Seen(rates, rates, chosen, sources))
        self.weights += self.run.step * answers.gradient(self.right[counts] * factor, self.wrong[counts] * factor)


def train(
    seeds: Sequence[int], runs: Sequence[Run], steps: int, *, every: int, relation: str = "opposed", own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Measures along the way and final pass rates of the training prompts.

    Args:
        seeds: One problem each.
        runs: Arms at step sizes.
        steps: How many batches of BATCH prompts with GROUP answers each.
        every: Steps between measurements.
        relation: See ``problem.draw``.
        own: Whether every run has random answers of its own (for comparisons of an arm with itself).

    Returns:
        ``(1 + steps / every, S, runs, measures)``, and ``(S, prompts, runs)``.
    """
    prompts, held_out = draw(seeds, relation)
    judge, count = Judge(prompts, held_out), len(seeds)
    alike = [place for place, run in enumerate(runs) if run.arm.draws in ("shared", "again")]
    parts: list[Shared | Drawn] = [Shared([runs[place] for place in alike], count)] if alike else []
    apart = [place for place in range(len(runs)) if place not in alike]
    parts += [Drawn(runs[place], count) for place in apart]
    back = np.argsort([*alike, *apart])

    def policies() -> np.ndarray:
        return np.concatenate([part.weights for part in parts], axis=2)[..., back]

    order, samples, chance = Streams(seeds, ORDER), Streams(seeds, OWN if own else SAMPLES), Streams(seeds, CHANCE)
    found = [judge(policies())]
    for step in range(1, steps + 1):
        chosen, dealt = order.batches(PROMPTS), chance.uniforms(BATCH)
        uniforms = samples.uniforms(GROUP, BATCH, len(runs) if own else 1)
        for part in parts:
            part.step(prompts, chosen, uniforms, dealt)
        if step % every == 0:
            found.append(judge(policies()))
    return np.stack(found), prompts.rates(policies())[0]
