"""Natural policy gradient with one parameter in outward-rounded interval arithmetic.

Shares no code with dro_core or synthetic, so neither rounding errors nor their mistakes can decide a verdict.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    Table = Sequence[Sequence[float]]

_DIGITS = 200  # a step loses one or two, because intervals forget that their errors belong together


class Enclosed(NamedTuple):
    """An interval that holds the exact number; its ends are rational."""

    low: Fraction
    high: Fraction


def worst_value_intervals(
    rewards: Table, features: Table, radius: float, step: float, steps: int, *, robust: bool
) -> list[Enclosed] | None:
    """Enclose the total-variation worst-case values of theta_0 = 0 ... theta_T, prompts equally likely.

    With E_x and Var_x under pi_theta(a|x) proportional to exp(theta feature(x, a)), theta grows per step by

        step sum_x q_x Cov_x(feature, reward) / sum_x q_x Var_x(feature).

    Args:
        rewards: One row per prompt, one number per answer.
        features: The same; not constant at every prompt.
        radius: Of the ball around the uniform distribution of prompts.
        step: eta.
        steps: T.
        robust: Whether q is the worst mixture; else it is uniform.

    Returns:
        T + 1 intervals; None if two values are too close to say which prompt is worse.

    Example:
        >>> [start] = worst_value_intervals([[1, 0], [2, 1]], [[1, 0], [1, 0]], 0.25, 1.0, 0, robust=False)
        >>> start.low <= Fraction(3, 4) <= start.high, float(start.high - start.low) < 1e-50
        (True, True)
    """
    from mpmath.ctx_iv import MPIntervalContext  # pyright: ignore[reportMissingTypeStubs]

    iv: Any = MPIntervalContext()  # a context of its own: the precision of the shared one is left alone
    iv.dps = _DIGITS
    prompts = _prompts(iv, rewards, features)
    theta, found = iv.mpf(0), list[Enclosed]()
    uniform = [Fraction(1, len(rewards))] * len(rewards)
    for _ in range(steps + 1):
        moments = [_moments(iv, theta, *rows) for rows in prompts]
        q = _worst_mixture([value for value, _, _ in moments], uniform, Fraction(radius))
        if q is None:
            return None
        found.append(_enclosed(sum(_exact(iv, w) * value for w, (value, _, _) in zip(q, moments, strict=True))))
        weights = [_exact(iv, w) for w in (q if robust else uniform)]
        covariance, variance = (sum(w * m[k] for w, m in zip(weights, moments, strict=True)) for k in (1, 2))
        theta += iv.mpf(step) * covariance / variance
    return found


def robust_supremum(
    rewards: Table, features: Table, radius: float, step: float, low: float, *, boxes: int = 256
) -> Fraction | None:
    """Bound the worst-case values of all robust iterates, of however many steps, of two equally likely prompts.

    The interval [low, 0] is cut into boxes. In each of them the direction is enclosed for both orders of the prompts,
    where the order is not certain. If no step leaves the interval no iterate ever does, as theta_0 = 0.

    Returns:
        An upper bound of the worst-case value on [low, 0]; None if some step may leave it.

    Example:
        >>> trap = [[0, 1, 1], [0.75, 0, 0.75]], [[0, 1, 1], [0, 2, 3]]
        >>> 0.564 < float(robust_supremum(*trap, 0.25, 0.25, -0.5)) < 0.57
        True
    """
    from mpmath.ctx_iv import MPIntervalContext  # pyright: ignore[reportMissingTypeStubs]

    iv: Any = MPIntervalContext()
    iv.dps = 30
    prompts = _prompts(iv, rewards, features)
    half, moved, most = Fraction(1, 2), Fraction(radius), Fraction(-(10**9))
    for k in range(boxes):
        ends = [Fraction(low) * (boxes - j) / boxes for j in (k, k + 1)]
        theta = iv.mpf([_exact(iv, ends[0]).a, _exact(iv, ends[1]).b])
        (value, cov, var), (other, cov2, var2) = (_moments(iv, theta, *rows) for rows in prompts)
        first, second = _enclosed(value), _enclosed(other)
        upper = list[Fraction]()
        for q, possible in ((half + moved, first.low <= second.high), (half - moved, second.low <= first.high)):
            if possible:
                a, b = _exact(iv, q), _exact(iv, 1 - q)
                new = _enclosed(theta + iv.mpf(step) * (a * cov + b * cov2) / (a * var + b * var2))
                upper.append(_enclosed(a * value + b * other).high)
                if new.low < Fraction(low) or new.high > 0:
                    return None
        most = max(most, min(upper))
    return most


def _prompts(iv: Any, rewards: Table, features: Table) -> list[tuple[list[Any], list[Any]]]:
    """Rewards and features of every prompt, as intervals: a float would be made one in every operation."""
    return [([*map(iv.mpf, row)], [*map(iv.mpf, other)]) for row, other in zip(rewards, features, strict=True)]


def _moments(iv: Any, theta: Any, rewards: Sequence[Any], features: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Mean reward, covariance of feature and reward, variance of the feature, at one prompt."""
    weights = [iv.exp(theta * feature) for feature in features]
    total = sum(weights)
    policy = [weight / total for weight in weights]
    value, mean = (sum(p * number for p, number in zip(policy, row, strict=True)) for row in (rewards, features))
    rows = list(zip(policy, features, rewards, strict=True))
    covariance = sum(p * (feature - mean) * (reward - value) for p, feature, reward in rows)
    return value, covariance, sum(p * (feature - mean) ** 2 for p, feature, _ in rows)


def _worst_mixture(values: Sequence[Any], reference: list[Fraction], radius: Fraction) -> list[Fraction] | None:
    """Move radius of mass from the best prompts to the worst one, if the order is certain."""
    ends = [_enclosed(value) for value in values]
    order = sorted(range(len(ends)), key=lambda x: ends[x].low)
    if any(ends[a].high >= ends[b].low for a, b in pairwise(order)):
        return None
    q, left = list(reference), radius
    for x in reversed(order[1:]):
        moved = min(q[x], left)
        q[x], q[order[0]], left = q[x] - moved, q[order[0]] + moved, left - moved
    return q


def _exact(iv: Any, number: Fraction) -> Any:
    return iv.mpf(number.numerator) / number.denominator


def _enclosed(interval: Any) -> Enclosed:
    low, high = (_rational(end) for end in interval._mpi_)
    return Enclosed(low, high)


def _rational(number: tuple[int, int, int, int]) -> Fraction:
    """Sign, mantissa, exponent and bits of mpmath's raw format."""
    sign, mantissa, exponent, _ = number
    return (-1) ** sign * int(mantissa) * Fraction(2) ** exponent
