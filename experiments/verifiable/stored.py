"""What the page is made of: numbers of the bandits as docs/results/verifiable keeps them, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llm.statistics.intervals import mean_interval

from . import rules
from .arms import ARMS, MAIN
from .judge import Found, Numbers, difference, false_alarms, judged, scoreboard
from .measures import NAMES
from .rules import CLAIMS, Test

COLUMNS = ("tuned", "common")
WHENS = ("end", "early", "level", "longer")


def sizes_of(column: str, chosen: Mapping[str, float]) -> dict[str, float]:
    """Step sizes of a column of the scoreboard."""
    return {name: size if column == "tuned" else rules.COMMON for name, size in chosen.items()}


def summary(
    stages: Mapping[str, Mapping[str, Numbers]], itself: Numbers, chosen: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Everything that tables and sentences use.

    Args:
        stages: By relation, its stages ``end`` and, where they are opposed, ``longer``.
        itself: Of an arm against itself.
        chosen: By relation, the size of every arm.
    """
    opposed = stages["opposed"]
    told = {"sizes": chosen, "alarms": false_alarms(itself), "claims": {}, "arms": {}, "differences": {}}
    told["comparisons"] = itself.along.shape[1] // rules.PER_TEST * (len(itself.runs) // 2)
    for column in COLUMNS:
        rows = scoreboard(CLAIMS, opposed, sizes_of(column, chosen["opposed"]))
        told["claims"][column] = [
            {
                "verdict": verdict,
                "tests": [[*map(_short, found), None if np.isnan(p) else _short(p), what] for found, p, what in tests],
            }
            for verdict, tests in rows
        ]
    for relation, found in stages.items():
        told["arms"][relation] = [
            {"arm": arm, "size": size, **_levels(found["end"], arm, size)} for arm, size in found["end"].runs
        ]
        told["differences"][relation] = list(_differences(relation, found, chosen[relation]))
    return told


def _levels(numbers: Numbers, arm: str, size: float) -> dict[str, Any]:
    curves = {name: numbers.curve(arm, size, name)[-1] for name in NAMES}
    return {name: [_short(one) for one in mean_interval(values)] for name, values in curves.items()}


def _differences(relation: str, stages: Mapping[str, Numbers], chosen: Mapping[str, float]) -> Iterable[dict[str, Any]]:
    """Of every arm to plain training, at every column and time it has; ``same`` is tuned, plain at the arm's size."""
    for column in (*COLUMNS, "same"):
        for when in ("end",) if column == "same" else WHENS:
            for name in chosen:
                if name == "plain" or (when == "longer" and (name not in MAIN or "longer" not in stages)):
                    continue
                sizes = sizes_of("common" if column == "common" else "tuned", chosen)
                sizes |= {"plain": sizes[name]} if column == "same" else {}
                tests = {measure: Test(name, measure, when=when) for measure in NAMES}
                found = {measure: judged(difference(test, stages, sizes)) for measure, test in tests.items()}
                values = {measure: [_short(one) for one in numbers] for measure, numbers in found.items()}
                yield {"relation": relation, "column": column, "when": when, "arm": name, **values}


def of_seeds(numbers: Numbers, sizes: Mapping[str, float]) -> dict[str, dict[str, list[float]]]:
    """The values of every problem at the end, of every arm at its own size: what intervals are made of."""
    return {
        name: {
            measure: [round(float(value), 5) for value in numbers.curve(name, size, measure)[-1]] for measure in NAMES
        }
        for name, size in sizes.items()
    }


def p_or_none(p: float) -> float | None:
    """JSON has no nan: a test of an interval alone has no p-value."""
    return None if np.isnan(p) else _short(p)


def _short(value: float) -> float:
    """Six digits are enough, and tiny p-values keep theirs."""
    return float(f"{value:.6g}")


@dataclass(frozen=True)
class Told:
    """The stored summary, with questions to it; ``cells`` are those of the transformers that are finished.

    Attributes:
        raw: See ``summary``.
        cells: See ``transformer.collected``.
        problems: See ``of_seeds``.
    """

    raw: Mapping[str, Any]
    cells: Sequence[Mapping[str, Any]] = ()
    problems: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    def gain(
        self, arm: str, measure: str, *, column: str = "tuned", when: str = "end", relation: str = "opposed"
    ) -> Found:
        """Measure of an arm less that of plain training."""
        for row in self.raw["differences"][relation]:
            if (row["arm"], row["column"], row["when"]) == (arm, column, when):
                return Found(*row[measure])
        raise KeyError(f"no difference of {arm!r}, {column!r}, {when!r}, {relation!r}")

    def between(self, arm: str, other: str, measure: str) -> Found:
        """Measure of an arm less that of another, tuned, at the end."""
        mine, theirs = (np.array(self.problems[name][measure]) for name in (arm, other))
        return judged(mine - theirs)

    def level(
        self, arm: str, measure: str, *, size: float | None = None, relation: str = "opposed"
    ) -> tuple[float, float, float]:
        """Mean and limits of an arm at a size, by default its own."""
        wanted = self.raw["sizes"][relation][arm] if size is None else size
        for row in self.raw["arms"][relation]:
            if (row["arm"], row["size"]) == (arm, wanted):
                return tuple(row[measure])
        raise KeyError(f"no {arm!r} at {wanted!r}, {relation!r}")

    def verdicts(self, column: str) -> Sequence[Mapping[str, Any]]:
        """Of the claims, in their order."""
        return self.raw["claims"][column]


def points(found: Sequence[float]) -> str:
    """A difference with its interval in points."""
    mean, low, high = (100 * value for value in found[:3])
    return f"{_signed(mean)} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def names() -> list[str]:
    """Of all arms."""
    return [arm.name for arm in ARMS]
