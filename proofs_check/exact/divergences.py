"""Divergence balls made to measure: a convex function whose slopes are the losses, in rational numbers."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class DivergenceBall(NamedTuple):
    """Weights q' with E phi(n q') <= radius, phi the largest of the lines through ``points``.

    Attributes:
        points: (t, phi(t), slope of phi at t), smallest t first; (1, 0, 0) is one of them.
        radius: E phi(n q).
        threshold: What the losses exceed the slopes by.
    """

    points: tuple[tuple[Fraction, Fraction, Fraction], ...]
    radius: Fraction
    threshold: Fraction

    def phi(self, t: Fraction) -> Fraction:
        """The divergence of one ratio n q'."""
        return max(value + slope * (t - place) for place, value, slope in self.points)


def divergence_ball(weights: Sequence[Fraction], losses: Sequence[Fraction]) -> DivergenceBall | None:
    """Return a divergence ball around equal weights of which the weights are a worst case; None if there is none.

    Where phi'(n q) + threshold holds the losses, E phi(n q') >= E phi(n q) + <q' - q, l> for every q' that sums to 1,
    so no q' in the ball has a larger mean loss. Such a convex phi exists exactly if the losses rise with the weights.

    Args:
        weights: q, ``(n,)``, nonnegative, with sum 1.
        losses: ``(n,)``.

    Raises:
        ArithmeticError: The function found is not convex or not least at 1, which would be a mistake in this module.

    Example:
        >>> from fractions import Fraction as F
        >>> ball = divergence_ball([F(2, 3), F(1, 3)], [F(1), F(0)])
        >>> ball.radius, ball.phi(F(4, 3)), ball.phi(F(1))
        (Fraction(1, 12), Fraction(1, 6), Fraction(0, 1))
        >>> divergence_ball([F(1, 3), F(2, 3)], [F(1), F(0)]) is None
        True
    """
    n = len(weights)
    pairs = sorted((n * weight, loss) for weight, loss in zip(weights, losses, strict=True))
    if not _rise(pairs):
        return None
    threshold = max(loss for t, loss in pairs if t <= 1)
    slopes = sorted([(t, loss - threshold) for t, loss in pairs] + [(Fraction(1), Fraction(0))])
    ball = DivergenceBall(_integrated(slopes), Fraction(0), threshold)
    _check(ball)
    return ball._replace(radius=sum((ball.phi(t) for t, _ in pairs), Fraction(0)) / n)


def _rise(pairs: list[tuple[Fraction, Fraction]]) -> bool:
    """Whether no loss at a smaller ratio exceeds one at a larger ratio; at equal ratios any will do."""
    return all(loss <= other for t, loss in pairs for s, other in pairs if t < s)


def _integrated(slopes: list[tuple[Fraction, Fraction]]) -> tuple[tuple[Fraction, Fraction, Fraction], ...]:
    """Walk from place to place, each time along a slope between those at either end, and put 0 at 1."""
    values = [Fraction(0)]
    for (t, low), (s, high) in pairwise(slopes):
        values.append(values[-1] + (s - t) * (low + high) / 2)
    base = values[slopes.index((Fraction(1), Fraction(0)))]
    return tuple((t, value - base, slope) for (t, slope), value in zip(slopes, values, strict=True))


def _check(ball: DivergenceBall) -> None:
    for place, value, slope in ball.points:
        if value < 0 or any(other < value + slope * (t - place) for t, other, _ in ball.points):
            raise ArithmeticError("the divergence found is not convex, or not least at 1")
    if ball.phi(Fraction(1)) != 0:
        raise ArithmeticError("the divergence found is not 0 at 1")
