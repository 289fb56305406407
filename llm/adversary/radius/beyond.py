"""Is the set larger than the data can bear? A verdict on the log of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from dro_core import CVaR
from dro_core.texts import Spec

from .bearing import Array

_FULL = 0.999  # of the strength: a mean over steps may be rounded
_WINDOWS = 3  # that share no margin: fewer have no spread
_PARTS = (4, 2, 1)  # quarters of the run, or halves, or all of it, as far as there are windows


@dataclass(frozen=True)
class Beyond:
    """A set that is larger than the margins of a run bear.

    Attributes:
        name: What the set's size is called: alpha for CVaR, else rho.
        used: Its size at full strength, in its own unit.
        radius: What the margins bore where they bore most, with the ends of its interval of 95 %, on the same scale.
        low: Where the set could be smallest.
        high: Where it could be largest.
        ratio: Used by bearable, over the last part of the run.
        margins: How many were pooled for one value.
        windows: How many values, of margins that they do not share, the interval is from.
        learned: Whether the margins are shown to bear anything at all.
    """

    name: str
    used: float
    radius: float
    low: float
    high: float
    ratio: float
    margins: int
    windows: int
    learned: bool

    @property
    def title(self) -> str:
        """What is wrong."""
        return "the set is larger than the data can bear"

    @property
    def evidence(self) -> str:
        """The numbers that say so."""
        least = "smallest useful alpha" if self.name == "alpha" else "largest useful radius"
        ends = sorted((self.low, self.high))
        return (
            f"at {self.name} {_short(self.used)} an adversary explains every label by noise; {least} about "
            f"{_short(self.radius)} [{_short(ends[0])}, {_short(ends[1])}]"
        )

    def __str__(self) -> str:
        return f"{self.title}: {self.evidence}"


def beyond(rows: Sequence[Mapping[str, float]], *, ambiguity: str, batch: int | None) -> Beyond | str | None:
    """Whether the set of a run is larger than its margins bear, by what it logged.

    Where the run bore most counts: the quarter of its steps with the largest mean radius, of values whose margins no
    other one shares, with Student's interval over them. The set is beyond where it reaches further than the upper end.

    Args:
        rows: Of the training log, in order.
        ambiguity: The set, as text.
        batch: Examples of an effective batch; None where unknown.

    Returns:
        None where the set is not shown to be beyond; the reason where nothing can be said.
    """
    told = [row for row in rows if "radius_ratio" in row and "step" in row]
    full = [row for row in told if row.get("radius_fraction", 0.0) >= _FULL]
    if not full:
        return "no logged step has what its margins bear of the full set"
    falls = any(layer.name == CVaR.spec for layer in Spec.of(ambiguity).layers())
    used = float(np.mean([_grown(row["radius_used"], falls) for row in full]))
    apart = _apart(told, batch or 1)
    part = next((len(apart) // parts for parts in _PARTS if len(apart) // parts >= _WINDOWS), 0)
    if not part:
        return f"fewer than {_WINDOWS} values of what the margins bear share no margin: train longer"
    bears = np.array([_grown(row.get("collapse_radius", -np.inf if falls else np.inf), falls) for row in apart])
    parts = [bears[start : start + part] for start in range(len(bears) % part, len(bears), part)]
    best = max(parts, key=lambda values: float(values.mean()))
    if not np.isfinite(best).all():
        return None
    mean, half = float(best.mean()), _half_width(best)
    if used <= mean + half:
        return None
    sizes = (_grown(size, falls) for size in (used, mean, max(mean - half, 0.0), mean + half))
    late = float(np.mean([row["radius_ratio"] for row in full[-max(len(full) // 4, 1) :]]))
    name, margins = "alpha" if falls else "rho", int(apart[-1]["collapse_margins"])
    return Beyond(name, *sizes, ratio=late, margins=margins, windows=len(best), learned=mean > half)


def sentence_of(history: Sequence[Mapping[str, float]], *, ambiguity: str, batch: int | None) -> str | None:
    """The verdict in one sentence, where a set is beyond; what cards and reports say."""
    found = beyond(history, ambiguity=ambiguity, batch=batch)
    return str(found) if isinstance(found, Beyond) else None


def _apart(rows: Sequence[Mapping[str, float]], batch: int) -> list[Mapping[str, float]]:
    """Rows whose margins no other one of them has, from the last one back, in order."""
    chosen: list[Mapping[str, float]] = []
    for row in reversed(rows):
        if not chosen or chosen[-1]["step"] - row["step"] >= -(-chosen[-1]["collapse_margins"] // batch):
            chosen.append(row)
    return chosen[::-1]


def _half_width(values: Array) -> float:
    n = len(values)
    return float(student.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))


def _grown(size: float, falls: bool) -> float:  # noqa: FBT001
    """A size as it grows with the set; its own inverse."""
    return 1 - size if falls else size


def _short(number: float) -> str:
    """Two digits, without the zero before the point: .05."""
    text = f"{number:.2g}" if number >= 0.01 or number == 0 else f"{number:.1g}"
    return text.replace("0.", ".", 1) if text.startswith("0.") else text
