"""From measures per problem to differences, intervals and what becomes of each claim; the rules are in ``rules``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from llm.statistics.intervals import Interval, holm, mean_interval

from . import rules
from .measures import NAMES
from .rules import Claim, Test

HOLDS, NOT_SHOWN, REVERSED = "holds", "not shown", "reversed"


class Found(NamedTuple):
    """A difference over problems: mean with 95 % limits, and the p-value of its being 0."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Numbers:
    """Measures of one stage.

    Attributes:
        runs: Names of arms and step sizes.
        along: ``(times, problems, runs, measures)``; the first is before training, the others EVERY steps apart.
    """

    runs: Sequence[tuple[str, float]]
    along: np.ndarray

    def curve(self, arm: str, size: float, measure: str) -> np.ndarray:
        """A measure along the way, ``(times, problems)``."""
        return self.along[:, :, list(self.runs).index((arm, size)), NAMES.index(measure)].astype(np.float64)


def judged(values: np.ndarray) -> Found:
    """Of differences ``(problems,)``: the t-interval and t-test."""
    interval: Interval = mean_interval(values)
    p = 1.0 if not values.any() else float(stats.ttest_1samp(values, 0.0).pvalue)
    return Found(*interval, p)


def at_level(progress: np.ndarray, values: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Values ``(problems,)`` where the progress first reaches the level of its problem, between measurements by a line.

    Args:
        progress: ``(times, problems)``, whose last row is at least the level.
        values: The same shape.
        level: ``(problems,)``.
    """
    first = np.argmax(progress >= level, axis=0)
    rows, before = np.arange(len(level)), np.maximum(first - 1, 0)
    step = progress[first, rows] - progress[before, rows]
    share = np.where(step > 0, (level - progress[before, rows]) / np.where(step > 0, step, 1.0), 1.0)
    share = np.clip(share, 0.0, 1.0)
    return (1 - share) * values[before, rows] + share * values[first, rows]


def equally_far(numbers: Numbers, arms: Sequence[tuple[str, float]], measure: str) -> list[np.ndarray]:
    """The measure of two arms ``(problems,)`` each, where both have the training pass@1 the lower of them ends with."""
    progress = [numbers.curve(*arm, "train pass@1") for arm in arms]
    level = np.minimum(*(curve[-1] for curve in progress))
    return [at_level(p, numbers.curve(*arm, measure), level) for p, arm in zip(progress, arms, strict=True)]


def difference(test: Test, stages: Mapping[str, Numbers], sizes: Mapping[str, float]) -> np.ndarray:
    """What a test is about, ``(problems,)``.

    Args:
        test: See ``rules.Test``.
        stages: ``end`` and ``longer``.
        sizes: Step size of every arm.
    """
    arm, against, plain = ((name, sizes[name]) for name in (test.arm, test.against, "plain"))
    if test.when == "level":
        mine, other = equally_far(stages["end"], (arm, against), test.measure)
        return mine - other
    numbers = stages["longer" if test.when == "longer" else "end"]
    place = rules.STEPS // 4 // rules.EVERY if test.when == "early" else -1
    mine, other, base = (numbers.curve(*one, test.measure)[place] for one in (arm, against, plain))
    return mine - other if test.times is None else (mine - base) - test.times * (other - base)


def outcome(test: Test, found: Found, p_holm: float) -> str:
    """What a test says by itself."""
    if test.kind in ("more", "less"):
        sign = 1 if test.kind == "more" else -1
        if p_holm >= rules.LEVEL:
            return NOT_SHOWN
        return HOLDS if sign * found.mean > 0 else REVERSED
    if test.kind == "no less":
        return HOLDS if found.low > -test.margin else REVERSED if found.high < -test.margin else NOT_SHOWN
    inside = -test.margin < found.low and found.high < test.margin
    outside = found.low > test.margin or found.high < -test.margin
    return HOLDS if inside else REVERSED if outside else NOT_SHOWN


def together(outcomes: Sequence[str]) -> str:
    """Of a claim with several tests."""
    if REVERSED in outcomes:
        return REVERSED
    return HOLDS if set(outcomes) == {HOLDS} else NOT_SHOWN


def scoreboard(
    claims: Sequence[Claim], stages: Mapping[str, Numbers], sizes: Mapping[str, float]
) -> list[tuple[str, list[tuple[Found, float, str]]]]:
    """For each claim what becomes of it, and for each of its tests what was found, p after Holm, and its outcome."""
    found = [[judged(difference(test, stages, sizes)) for test in claim.tests] for claim in claims]
    signed = [
        (i, j) for i, claim in enumerate(claims) for j, test in enumerate(claim.tests) if test.kind in ("more", "less")
    ]
    adjusted = dict(zip(signed, holm([found[i][j].p for i, j in signed]), strict=True))
    rows = []
    for i, claim in enumerate(claims):
        tests = []
        for j, test in enumerate(claim.tests):
            p = adjusted.get((i, j), float("nan"))
            tests.append((found[i][j], p, outcome(test, found[i][j], p)))
        rows.append((together([one[2] for one in tests]), tests))
    return rows


def false_alarms(numbers: Numbers) -> dict[str, int]:
    """By measure, how many of the comparisons of an arm with itself come out different at LEVEL."""
    count = numbers.along.shape[1] // rules.PER_TEST
    alarms = {}
    for place, name in enumerate(NAMES):
        last = numbers.along[-1, :, :, place].astype(np.float64)
        pairs = last[:, 0::2] - last[:, 1::2]
        blocks = pairs[: count * rules.PER_TEST].reshape(count, rules.PER_TEST, -1)
        alarms[name] = int((stats.ttest_1samp(blocks, 0.0, axis=1).pvalue < rules.LEVEL).sum())
    return alarms
