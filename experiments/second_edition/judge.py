"""From stored records to what becomes of each hypothesis; the rules are in ``rules``, all of them fixed before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from llm.statistics.intervals import holm

from .hypotheses import BLIND, HYPOTHESES, NEGATIVE, SUSPECTS, VALIDATED
from .places import Suite, parts
from .rules import ENTRY_ACCURACY, ENTRY_RADIUS, GAIN, LEVEL, Cell, Comparison, Hypothesis, Ranks, Way
from .two_way import Found, rank_limits, ratio, two_way

Array = NDArray[np.float64]

CONFIRMED, REFUTED, UNDECIDED, NOT_RUN = "confirmed", "refuted", "undecided", "not run"
CANNOT = "cannot bear a worst case"
_TWO_SIDED, _ONE_SIDED = 1 - LEVEL, 1 - 2 * LEVEL
_CORRECTED = ("more", "lost")


@dataclass(frozen=True)
class Records:
    """What one backbone left behind.

    Attributes:
        suites: By name.
        right: By cell and suite, ``(seeds, pairs)``: 1 where the head ranks the pair right, 1/2 on a tie.
        norms: By cell, ``(seeds,)``: of the heads at the settings of plain training.
        ratios: By cell of H1, the ratio of its radius to the collapse radius.
        radius: Of total variation, on prompts that did not choose the direction, all training pairs at once.
    """

    suites: Mapping[str, Suite]
    right: Mapping[Cell, Mapping[str, Array]]
    norms: Mapping[Cell, Array] = field(default_factory=dict)
    ratios: Mapping[Cell, float] = field(default_factory=dict)
    radius: float = math.nan


class Judged(NamedTuple):
    """A comparison, what was found (in points of accuracy, of a norm the ratio), its p-value, and its outcome.

    Attributes:
        test: The comparison.
        mean: Of the difference, the ratio or the rank correlation; nan where it was not run.
        low: Lower limit, 95 %.
        high: Upper limit, 95 %.
        p: After Holm within the family, of those that are corrected; else that of the kind, or nan.
        outcome: See ``rules``.
    """

    test: Comparison | Ranks
    mean: float
    low: float
    high: float
    p: float
    outcome: str


class Verdict(NamedTuple):
    """What becomes of a hypothesis, and of its comparisons, by way."""

    hypothesis: Hypothesis
    outcome: str
    ways: tuple[tuple[str, str, tuple[Judged, ...]], ...]


def difference(records: Records, test: Comparison) -> Found | None:
    """Accuracy of a cell less that of another at a place, over prompts and seeds; None where one was not judged there.

    Cells are compared seed by seed, for equal seeds have equal initial weights and batches.
    """
    places = parts(test.where, records.suites)
    one, other = records.right.get(test.cell), records.right.get(test.against)
    if one is None or other is None or not places or any(name not in one or name not in other for name, _ in places):
        return None
    return _over(records, places, {name: one[name] - other[name] for name, _ in places})


def accuracy(records: Records, cell: Cell, place: str) -> Found | None:
    """Of a cell at a place, over prompts and seeds."""
    right, places = records.right.get(cell), parts(place, records.suites)
    if right is None or not places or any(name not in right for name, _ in places):
        return None
    return _over(records, places, right)


def _over(records: Records, places: Sequence[tuple[str, Array]], values: Mapping[str, Array]) -> Found:
    prompts, count = [], 0
    for name, _ in places:
        prompts.append(count + np.unique(records.suites[name].prompts, return_inverse=True)[1])
        count = int(prompts[-1].max()) + 1
    weights = np.concatenate([weights for _, weights in places])
    return two_way(np.concatenate([values[name] for name, _ in places], axis=1), np.concatenate(prompts), weights)


def longer_wins(records: Records, place: str) -> float:
    """How often the longer answer is the right one at a place."""
    return float(sum(float(weights @ records.suites[name].longer) for name, weights in parts(place, records.suites)))


def family(records: Records, tests: Sequence[Comparison | Ranks]) -> list[Judged]:
    """Comparisons with their outcomes, corrected among themselves."""
    found = [None if isinstance(test, Ranks) else _found(records, test) for test in tests]
    raw = [
        _p(test, one) if isinstance(test, Comparison) and one is not None and test.kind in _CORRECTED else math.nan
        for test, one in zip(tests, found, strict=True)
    ]
    return [
        _ranked(records, test) if isinstance(test, Ranks) else _judged(test, one, p)
        for test, one, p in zip(tests, found, holm(raw), strict=True)
    ]


def _found(records: Records, test: Comparison) -> Found | None:
    if test.kind != "norm":
        return difference(records, test)
    one, other = records.norms.get(test.cell), records.norms.get(test.against)
    return None if one is None or other is None else ratio(one, other)


def _p(test: Comparison, found: Found) -> float:
    return found.p() if test.kind == "more" else found.p_below(-test.margin)


def _judged(test: Comparison, found: Found | None, p: float) -> Judged:
    if found is None:
        return Judged(test, math.nan, math.nan, math.nan, math.nan, NOT_RUN)
    outcome = _outcome(test, found, p)
    shown: Any = math.exp if test.kind == "norm" else float
    kind_p = found.p_same(test.margin) if test.kind == "same" else p
    low, high = found.limits(_TWO_SIDED)
    return Judged(test, shown(found.mean), shown(low), shown(high), kind_p, outcome)


def _outcome(test: Comparison, found: Found, p: float) -> str:
    (low, high), (inner_low, inner_high) = found.limits(_TWO_SIDED), found.limits(_ONE_SIDED)
    edge = test.margin
    if test.kind == "more":
        shown, excluded = p < LEVEL and found.mean > 0, high < GAIN
    elif test.kind == "lost":
        shown, excluded = p < LEVEL, low > -edge
    elif test.kind == "same":
        shown, excluded = -edge < inner_low and inner_high < edge, low > edge or high < -edge
    elif test.kind == "no less":
        shown, excluded = inner_low > -edge, high < -edge
    elif test.kind == "no more":
        shown, excluded = inner_high < edge, low > edge
    else:
        shown, excluded = inner_low >= math.log(edge), inner_high < math.log(edge)
    return CONFIRMED if shown else REFUTED if excluded else UNDECIDED


def _ranked(records: Records, test: Ranks) -> Judged:
    """Of cells that have a ratio and a norm, all of them or none."""
    if any(cell not in records.ratios or {cell, cell.plain} - records.norms.keys() for cell in test.cells):
        return Judged(test, math.nan, math.nan, math.nan, math.nan, NOT_RUN)
    lost = [1 - math.exp(ratio(records.norms[cell], records.norms[cell.plain]).mean) for cell in test.cells]
    found: Any = spearmanr([records.ratios[cell] for cell in test.cells], lost)
    correlation, count = float(found.statistic), len(test.cells)
    low, high = rank_limits(correlation, count, _ONE_SIDED)
    outcome = CONFIRMED if low >= test.margin else REFUTED if high < test.margin else UNDECIDED
    return Judged(test, correlation, *rank_limits(correlation, count, _TWO_SIDED), math.nan, outcome)


def _all(outcomes: Sequence[str]) -> str:
    """Of comparisons that must all come out."""
    for one in (REFUTED, NOT_RUN, UNDECIDED):
        if one in outcomes:
            return one
    return CONFIRMED


def _any(outcomes: Sequence[str]) -> str:
    """Of ways of which one is enough."""
    for one in (CONFIRMED, NOT_RUN, UNDECIDED):
        if one in outcomes:
            return one
    return REFUTED


def enters(records: Records) -> bool | None:
    """Whether a backbone takes part in what confirms: see ``rules``; None before the test set is read."""
    found = accuracy(records, Cell("real"), "test")
    return None if found is None else found.mean >= ENTRY_ACCURACY and records.radius >= ENTRY_RADIUS


def judged(records: Records, hypothesis: Hypothesis, *, entered: bool | None = None) -> Verdict:
    """What becomes of a hypothesis on a backbone.

    Args:
        records: Of the backbone.
        hypothesis: In ``hypotheses``.
        entered: Whether the backbone takes part; by default as ``enters`` says.
    """
    tests = [test for way in hypothesis.ways for test in way.tests]
    found = iter(family(records, tests))
    ways = [_way(way, [next(found) for _ in way.tests]) for way in hypothesis.ways]
    outcome = _any([one[1] for one in ways])
    takes_part = enters(records) if entered is None else entered
    if outcome != NOT_RUN and not hypothesis.known and not takes_part:
        outcome = NOT_RUN if takes_part is None else CANNOT
    return Verdict(hypothesis, outcome, tuple(ways))


def _way(way: Way, found: Sequence[Judged]) -> tuple[str, str, tuple[Judged, ...]]:
    return way.name, _all([one.outcome for one in found]), tuple(found)


def scoreboard(records: Records) -> list[Verdict]:
    """All hypotheses."""
    entered = enters(records)
    return [judged(records, hypothesis, entered=entered) for hypothesis in HYPOTHESES]


def sees(records: Records) -> str:
    """Whether the bench sees what is there: the positive control, whose mean must also reach its margin."""
    verdict = judged(records, BLIND)
    [test] = (one for *_, tests in verdict.ways for one in tests)
    if verdict.outcome == NOT_RUN:
        return NOT_RUN
    assert isinstance(test.test, Comparison)
    return CONFIRMED if verdict.outcome == CONFIRMED and test.mean >= test.test.margin else REFUTED


def told(records: Records) -> Iterator[tuple[str, list[Judged]]]:
    """What has no part in an outcome, by name: the controls, the suspects of H5, the validated radius."""
    yield "positive control", family(records, [test for way in BLIND.ways for test in way.tests])
    yield "negative controls", family(records, NEGATIVE)
    yield "suspects", family(records, SUSPECTS)
    yield "validated radius", family(records, [VALIDATED])
