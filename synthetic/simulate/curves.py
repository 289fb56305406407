"""Records of a study as curves: the mean over seeds with its interval, and slopes on log-log axes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..estimate import mean_estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from .grid import Record, Scalar

    Array = NDArray[np.float64]

ERROR = 0.05  # chance that one interval misses what it is for


class Slope(NamedTuple):
    """The exponent of a power law, from a straight line on log-log axes.

    Attributes:
        value: The exponent.
        low: Lower end of its 95 % interval over seeds (one slope per seed, Student's t); None for a single curve and
            for one that no seed changes: nothing was sampled there, or once.
        high: Upper end, or None.
        first: The smallest x used.
        last: The largest.
        end: The exponent at the end of the mean: of its last third, of the last two points at least.
        floor: Whether it falls at first, and at its end less than half as fast as over all, or not at all. Then it is
            no power law, and its exponent says how far the range reached into the floor.
    """

    value: float
    low: float | None
    high: float | None
    first: float
    last: float
    end: float | None
    floor: bool

    def __str__(self) -> str:
        """What a legend says."""
        interval = "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2f}{interval}" + (f", a floor: ends with {self.end:z.2f}" if self.floor else "")


class Curve(NamedTuple):
    """What is drawn as one line.

    Attributes:
        label: For the legend; curves of one label share their colour.
        x: Increasing, shape ``(k,)``.
        y: The mean over seeds, shape ``(k,)``.
        low: Lower end of the 95 % interval of the mean, or None for one seed or where all seeds agree.
        high: Upper end.
        theory: Name of the theory curve; empty for what was measured.
        slope: The fitted slope, or None.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    theory: str = ""
    slope: Slope | None = None


def curve(
    rows: Sequence[Record],
    x: str,
    y: str,
    label: str,
    *,
    where: Mapping[str, Scalar],
    theory: str = "",
    fit: tuple[float, float] | None = None,
) -> Curve:
    """Collect column ``y`` over column ``x`` from the rows that agree with ``where``.

    Args:
        rows: Records with a ``seed``; those without an x or a y are left out.
        x: Name of a column of numbers.
        y: Name of another.
        label: For the legend.
        where: Column to value.
        theory: Name of the theory curve, if y is one: drawn dashed and without a band.
        fit: Smallest and largest x of the slope; None for no slope.

    Raises:
        ValueError: Two rows for one x and seed: ``where`` is too loose.

    Example:
        >>> rows = [{"seed": s, "n": n, "bias": (1 + s) / n} for s in (0, 1) for n in (1, 4)]
        >>> line = curve(rows, "n", "bias", "example", where={}, fit=(1, 4))
        >>> line.x, line.y, round(line.slope.value, 12)
        ((1, 4), (1.5, 0.375), -1.0)
    """
    table: dict[Any, dict[Any, Any]] = defaultdict(dict)
    for row in rows:
        if any(row.get(column) != value for column, value in where.items()) or None in (row.get(x), row.get(y)):
            continue
        at, seed = row[x], row["seed"]
        if seed in table[at]:
            raise ValueError(
                f"two rows have {x} = {at} and seed = {seed} among those with {dict(where)}: name more columns."
            )
        table[at][seed] = row[y]
    places = tuple(sorted(table))
    means = tuple(float(np.mean(list(table[at].values()))) for at in places)
    low = high = None
    if not theory and places and min(len(table[at]) for at in places) > 1 and _vary(table):
        intervals = [mean_estimate(list(table[at].values()), ERROR) for at in places]
        low, high = (tuple(float(ends[side]) for ends in intervals) for side in (1, 2))
    inside = {at: table[at] for at in places if fit is not None and fit[0] <= at <= fit[1]}
    return Curve(label, places, means, low, high, theory, _slope_over_seeds(inside))


def fit_slope(x: ArrayLike, y: ArrayLike) -> Slope:
    """Fit log y = c + slope log x by least squares to one curve.

    Args:
        x: Positive, shape ``(k,)``, k >= 3, increasing.
        y: Positive, shape ``(k,)``.

    Example:
        >>> round(fit_slope([1, 10, 100], [5.0, 0.05, 0.0005]).value, 12)
        -2.0
        >>> print(fit_slope([1, 10, 100, 1000, 10000, 100000], [1.0, 0.1, 0.011, 0.01, 0.01, 0.01]))
        -0.37, a floor: ends with 0.00
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.size < 3 or min(x.min(), y.min()) <= 0:
        raise ValueError("a slope needs at least three positive x with positive y: take more points.")
    value = _exponent(x, y)
    return Slope(value, None, None, float(x.min()), float(x.max()), *_ends(x, y, value))


def _exponent(x: Array, y: Array) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _ends(x: Array, y: Array, value: float) -> tuple[float | None, bool]:
    """The exponent at the end of a curve, and whether it ends in a floor; see ``Slope``."""
    last = max(2, x.size // 3)
    if x.size <= last or y[-last:].min() <= 0:
        return None, False
    end = _exponent(x[-last:], y[-last:])
    return end, bool(y.min() < y[0]) and end > min(value, 0.0) / 2


def _vary(table: Mapping[float, Mapping[int, float]]) -> bool:
    """Whether seeds change anything: an interval of what is the same for all would claim a sample."""
    return any(len(set(values.values())) > 1 for values in table.values())


def _slope_over_seeds(table: Mapping[float, Mapping[int, float]]) -> Slope | None:
    """The exponent from one line per seed; None where too few values are positive."""
    lines = []
    for seed in sorted(set().union(*table.values())):
        points = [(at, values[seed]) for at, values in table.items() if values.get(seed, 0) > 0]
        lines.append(np.array(points).reshape(-1, 2).T)
    if lines and (len(lines) == 1 or not _vary(table)):
        return fit_slope(*lines[0]) if lines[0].shape[1] >= 3 else None
    slopes = [_exponent(*line) for line in lines if line.shape[1] >= 2]
    if len(slopes) < 2 or len(slopes) < len(lines):
        return None
    from statsmodels.stats.weightstats import DescrStatsW

    low, high = (float(end) for end in DescrStatsW(slopes).tconfint_mean(ERROR))
    x = np.array(list(table), float)
    means = np.array([np.mean(list(values.values())) for values in table.values()], np.float64)
    value = float(np.mean(slopes))
    return Slope(value, low, high, float(x.min()), float(x.max()), *_ends(x, means, value))
