"""Radii at which different sets weigh equally hard: matched at equal effective sample size on given losses.

A radius of 0.2 means one thing for total variation and another for chi-square. What all sets share is how many examples
their weights amount to, 1 / sum q^2, as a share of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dro_core.spec import Spec

from ..data.grouping.named import NamedGroups
from ..run.files import JsonObject
from .effective_batch import batch_weights
from .rules import Reweighting
from .spec import parse_reweighting

HOLE = "?"  # stands for the radius in the text of a set: "tv:?,max_ratio=4"
_BATCHES = 64
_DIGITS = 4


class UnreachableShare(ValueError):
    """No radius gives the effective sample size asked for; the message says which ones can be had."""


def effective_share(
    rule: Reweighting | None, losses: NDArray[np.float64], batches: Sequence[NDArray[np.int64]]
) -> float:
    """Mean of 1 / (n sum q^2) over minibatches, in (0, 1].

    Args:
        rule: Bound to the training pairs; None for equal weights.
        losses: Of all training pairs, ``(N,)``.
        batches: Positions in it, each ``(n,)``.
    """
    weights = (batch_weights(rule, losses[batch], batch, strength=1.0) for batch in batches)
    return float(np.mean([1 / (len(q) * (q @ q)) for q in weights]))


def matched_radius(
    template: str,
    target: float,
    losses: NDArray[np.float64],
    batches: Sequence[NDArray[np.int64]],
    columns: JsonObject,
) -> str:
    """The text of the set whose mean effective share on these losses is ``target``, its number found by bisection.

    Args:
        template: Text of a set or rule with ``?`` for one of its numbers: ``chi2:?``, ``tv:?,by=source``,
            ``hardest:0.1,factor=?``.
        target: Effective sample size as a share of the batch, in (0, 1).
        losses: Of all training pairs, ``(N,)``.
        batches: Minibatches to average over, as positions in it.
        columns: What the set may name.

    Raises:
        UnreachableShare: The target lies outside what the set can do on these losses.
        ValueError: A template without ``?``, or no such set.
    """

    def share(number: float) -> float:
        rule = parse_reweighting(template.replace(HOLE, repr(number)))
        return effective_share(None if rule is None else rule.bind(NamedGroups.of(columns)), losses, batches)

    if template.count(HOLE) != 1:
        raise ValueError(f"{template!r} must have one {HOLE}, in the place of the number to be found")
    low, high = _interval(template)
    ends = share(low), share(high)
    if not min(ends) <= target <= max(ends):
        raise UnreachableShare(
            f"{template} reaches effective shares between {min(ends):.3f} and {max(ends):.3f} on these losses, not "
            f"{target:.3f}: choose another share, or another set"
        )
    number = _bisected(share, target, low, high, falling=ends[0] > ends[1])
    return template.replace(HOLE, f"{number:.{_DIGITS}g}")


def sampled_batches(pairs: int, size: int, *, count: int = _BATCHES) -> list[NDArray[np.int64]]:
    """Random minibatches of ``size`` out of ``pairs``, the same ones every time."""
    rng = np.random.default_rng(5)
    return [rng.choice(pairs, size, replace=False) for _ in range(count)]


def _interval(template: str) -> tuple[float, float]:
    """Where the number is looked for: up to 1 where it is a share, else as far as it has any effect."""
    for high in (1e4, 1.0):
        try:
            parse_reweighting(template.replace(HOLE, repr(high)))
            low = 1.0 if ("factor", HOLE) in Spec.of(template).options else 1e-6
            return low, high
        except ValueError as error:
            reason = error
    raise reason


def _bisected(share: Callable[[float], float], target: float, low: float, high: float, *, falling: bool) -> float:
    """Bisection of the logarithm: radii span decades."""
    for _ in range(40):
        middle = (low * high) ** 0.5
        if (share(middle) > target) == falling:
            low = middle
        else:
            high = middle
        if high / low < 1 + 10.0**-_DIGITS:
            break
    return (low * high) ** 0.5
