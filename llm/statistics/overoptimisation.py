"""Over-optimisation curves: what a policy gains by the reward it optimises, and by one that it does not see.

With d the square root of the KL divergence to the policy that everything starts from, and rewards counted from that
policy's, the gold reward was found to follow [2210.10760]

    best-of-n   R(d) = d (alpha - beta d)          policy training   R(d) = d (alpha - beta log d)

alpha is what optimisation brings at first, beta what too much of it takes away. Both laws are linear in alpha and
beta, so they are fitted by least squares and nothing is searched. Where the points cannot tell the two coefficients
apart, none are reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from statsmodels.regression.linear_model import OLS

from .best_of import BestOfN
from .intervals import Clusters, Interval, cluster_count, mean_interval

Floats: TypeAlias = NDArray[np.float64]
START_KL = 0.01  # nats; a first record above it is no measurement of the starting policy
MOST_MISSED = 0.25  # a law that misses the mean curve by more than this share of its peak says nothing about the peak
MAX_CONDITION = 30.0  # of the fit's two columns, scaled to equal length: errors grow by as much


class Law(Enum):
    """The form of a curve in d = sqrt(KL); the value is how it is written."""

    BEST_OF_N = "d (alpha - beta d)"
    TRAINING = "d (alpha - beta log d)"

    def columns(self, d: Floats) -> Floats:
        """What alpha and beta are multiplied with, ``(points, 2)``, for d > 0 of shape ``(points,)``."""
        return np.stack([d, -d * (d if self is Law.BEST_OF_N else np.log(d))], axis=1)

    def peak(self, alpha: float, beta: float) -> float:
        """The d of the largest reward where beta > 0, by the derivative."""
        return alpha / (2 * beta) if self is Law.BEST_OF_N else math.exp(min(alpha / beta - 1, 700.0))


@dataclass(frozen=True)
class Curve:
    """Rewards against KL, both counted from the starting policy.

    A unit is what the intervals are over: a prompt for best-of-n, a run (seed) for policy training.

    Attributes:
        name: For legends.
        law: The form to expect.
        kl: In nats, ``(units, points)``.
        proxy: Gain in the reward that was optimised, ``(units, points)``.
        gold: Gain in the reward that judges.
        clusters: One label per unit; units with the same label are not independent.
    """

    name: str
    law: Law
    kl: Floats
    proxy: Floats
    gold: Floats
    clusters: Clusters = None

    def __post_init__(self) -> None:
        if not self.kl.shape == self.proxy.shape == self.gold.shape or self.kl.ndim != 2 or not self.kl.size:
            shapes = f"{self.kl.shape}, {self.proxy.shape}, {self.gold.shape}"
            raise ValueError(f"kl, proxy and gold of a curve must be (units, points), the same for all; got {shapes}")

    def means(self, gains: Floats) -> list[tuple[float, Interval]]:
        """Mean KL and mean gain of every point, ``gains`` being ``proxy`` or ``gold``; no limits with one unit."""
        return [
            (float(kl.mean()), mean_interval(gain, self.clusters)) for kl, gain in zip(self.kl.T, gains.T, strict=True)
        ]


class Peak(NamedTuple):
    """Where a fitted curve is highest: KL in nats, gain there, and whether that is within the measured KL."""

    kl: float
    gain: float
    measured: bool


@dataclass(frozen=True)
class Fit:
    """A law fitted to a curve.

    Attributes:
        law: The form.
        alpha: With interval, or None where it cannot be told from beta.
        beta: The same.
        peak: Where the reward is highest, if beta is above 0 with its whole interval and the law describes the curve.
        missed: By how much the law misses the mean curve at worst, in units of the reward.
        basis: What the intervals are over.
        reason: Why there are no coefficients; empty where there are.
    """

    law: Law
    alpha: Interval | None = None
    beta: Interval | None = None
    peak: Peak | None = None
    missed: float = math.nan
    basis: str = ""
    reason: str = ""

    def gain(self, kl: ArrayLike) -> Floats:
        """The fitted reward at KL > 0 in nats."""
        if self.alpha is None or self.beta is None:
            raise ValueError(f"there is no fit: {self.reason}")
        coefficients = np.array([self.alpha.mean, self.beta.mean])
        return self.law.columns(np.sqrt(np.asarray(kl, dtype=np.float64))) @ coefficients

    def __str__(self) -> str:
        if self.alpha is None or self.beta is None:
            return f"not fitted: {self.reason}"
        said = (
            f"{self.law.value} with alpha {_limits(self.alpha)}, beta {_limits(self.beta)} ({self.basis}), "
            f"missing the mean curve by at most {self.missed:.2g}"
        )
        if self.peak is None:
            return f"{said}; {'TOO MUCH to tell its peak' if self.beta.low > 0 else 'no decline shown'}"
        place = "within" if self.peak.measured else "BEYOND"
        return f"{said}; highest at a KL of {self.peak.kl:.3g} nats, {place} what was measured"


def best_of_curve(result: BestOfN, *, name: str = "best-of-n", clusters: Clusters = None) -> Curve:
    """The curve of best-of-n. Its KL is the upper bound, which is exact for rewards without ties and rare answers.

    Args:
        result: Must hold n = 1, which is the starting policy.
        name: For legends.
        clusters: One label per prompt.

    Raises:
        ValueError: n = 1 is missing.
    """
    if result.sizes[0] != 1:
        raise ValueError("gains are counted from the policy itself: estimate best-of-n for n = 1 too")
    kl = np.broadcast_to(result.kl_bound, result.gold.shape)
    return Curve(
        name, Law.BEST_OF_N, kl, result.proxy - result.proxy[:, :1], result.gold - result.gold[:, :1], clusters
    )


def training_curve(
    runs: Sequence[Sequence[Mapping[str, float]]],
    *,
    name: str,
    start: Mapping[str, float] | None = None,
    proxy: str = "reward",
    points: int | None = None,
) -> Curve:
    """The curve of policy training from the logs of one or more runs (seeds), at the steps that all of them judged.

    Args:
        runs: Histories: records of ``step``, ``kl`` (nats), ``reward`` and ``gold``; those that lack one are left out.
        name: For legends.
        start: ``reward`` and ``gold`` of the starting policy. Without it, each run's first record must be of it.
        proxy: The field of the reward that was optimised, if it is not ``reward``.
        points: At most so many beside the first, each the mean over consecutive steps: a step sees few prompts, so its
            rewards are noisy.

    Raises:
        ValueError: No step was judged in all runs, or the first record is not of the starting policy.
    """
    fields = ("kl", proxy, "gold")
    judged = [{int(row["step"]): row for row in run if _is_judged(row, ("step", *fields))} for run in runs]
    steps = sorted(set.intersection(*map(set, judged))) if judged else []
    if not steps:
        raise ValueError(f"{name}: no step has {', '.join(fields)} in every run, so there is no curve")
    table = {field: np.array([[run[s][field] for s in steps] for run in judged]) for field in fields}
    first = float(table["kl"][:, 0].max())
    if start is None and first > START_KL:
        raise ValueError(
            f"{name}: the first record is {first:.3g} nats from the starting policy, which gains are counted from: "
            "judge step 0, or pass start"
        )
    for field in (proxy, "gold"):
        table[field] = table[field] - (table[field][:, :1] if start is None else start[field])
    kl, gained, gold = (_thinned(table[field], points) for field in fields)
    return Curve(name, Law.TRAINING, kl, gained, gold)


def fit(curve: Curve, *, gains: Floats | None = None, level: float = 0.95) -> Fit:
    """Fit the law of a curve to its gold rewards, or to other ``gains`` of the same shape.

    Least squares is linear, so the coefficients of the mean curve are the means of the units' own ones: intervals are
    t-intervals over units, and the points of one unit may depend on each other as they like. With a single unit there
    are only the residuals to go by; neighbouring steps of a run share their noise, so those intervals are too short.

    Returns:
        The fit, or one with a ``reason`` instead of coefficients: fewer than three points, or points too close.
    """
    values = curve.gold if gains is None else gains
    usable = (curve.kl > 0).all(axis=0)
    kl, values = curve.kl[:, usable], values[:, usable]
    if reason := _why_not(curve.law, kl):
        return Fit(curve.law, reason=reason)
    if cluster_count(curve.clusters, len(kl)) > 1:
        alpha, beta = (mean_interval(part, curve.clusters, level=level) for part in _by_unit(curve.law, kl, values).T)
        basis = "intervals over prompts" if curve.law is Law.BEST_OF_N else f"intervals over {len(kl)} runs"
    else:
        alpha, beta = _by_residuals(curve.law, kl.mean(axis=0), values.mean(axis=0), level)
        basis = "intervals from the residuals of one curve, too short"
    fitted = curve.law.columns(np.sqrt(kl.mean(axis=0))) @ [alpha.mean, beta.mean]
    missed = float(np.abs(values.mean(axis=0) - fitted).max())
    return Fit(curve.law, alpha, beta, _peak(curve.law, alpha, beta, kl, missed), missed, basis)


def _thinned(values: Floats, points: int | None) -> Floats:
    """The first column, and means over ``points`` groups of consecutive ones of the rest."""
    first, rest = values[:, :1], values[:, 1:]
    if points is None or rest.shape[1] <= points:
        return values
    return np.hstack([first, *(part.mean(axis=1, keepdims=True) for part in np.array_split(rest, points, axis=1))])


def _is_judged(row: Mapping[str, object], fields: Sequence[str]) -> bool:
    values = [row.get(field) for field in fields]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _why_not(law: Law, kl: Floats) -> str:
    """Why alpha and beta cannot be told apart, empty if they can."""
    distinct = min(len(set(np.round(row, 12))) for row in kl)
    if distinct < 3:
        return f"{distinct} points away from the start, and two coefficients and an error need three"
    columns = [law.columns(np.sqrt(row)) for row in kl]
    worst = max(float(np.linalg.cond(part / np.linalg.norm(part, axis=0))) for part in columns)
    if worst > MAX_CONDITION:
        return f"the points lie too close together to tell alpha from beta (condition {worst:.0f} > {MAX_CONDITION:g})"
    return ""


def _by_unit(law: Law, kl: Floats, gains: Floats) -> Floats:
    """Alpha and beta of every unit, ``(units, 2)``."""
    return np.stack([np.linalg.lstsq(law.columns(np.sqrt(k)), g)[0] for k, g in zip(kl, gains, strict=True)])


def _by_residuals(law: Law, kl: Floats, gains: Floats, level: float) -> tuple[Interval, Interval]:
    found: object = OLS(gains, law.columns(np.sqrt(kl))).fit()
    alpha, beta = (
        Interval(float(mean), float(low), float(high))
        for mean, (low, high) in zip(found.params, found.conf_int(alpha=1 - level), strict=True)
    )
    return alpha, beta


def _peak(law: Law, alpha: Interval, beta: Interval, kl: Floats, missed: float) -> Peak | None:
    d = law.peak(alpha.mean, beta.mean) if beta.low > 0 else 0.0
    if not d > 0:
        return None
    gain = float(law.columns(np.array([d]))[0] @ [alpha.mean, beta.mean])
    if missed > MOST_MISSED * gain:
        return None
    return Peak(d**2, gain, measured=bool(kl.min() <= d**2 <= kl.max()))


def _limits(interval: Interval) -> str:
    return f"{interval.mean:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
