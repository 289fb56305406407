"""Collapse radii in KL and Burg's entropy between two rational numbers: the two proofs, rounded outwards.

Newton's method finds a reward w and weights q in floating point. The weights are corrected until E_q x = 0 exactly;
what either proves is then evaluated in rational numbers and outward-rounded logarithms. Shares no code with dro_core.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from proofs_check.exact.balance import dot, face, rebalanced
from proofs_check.exact.enclosures import exp_bounds, log_bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Rows = tuple[tuple[int, ...], ...]

_GRID = 2**40  # of rewards and weights: short numbers prove as much as long ones
_FAR = 64  # a margin whose exponential is lost in the enclosure
_MOST_STEPS = 60


class EnclosedBalance(NamedTuple):
    """The least ball that collapses.

    Attributes:
        low: At most its radius, as ``reward`` proves; None if there is none.
        high: At least its radius, as ``weights`` prove; None if there is none.
        weights: q in it with E_q x = 0, ``(n,)``; None if there is none.
        reward: w, ``(d,)``.
    """

    low: Fraction | None
    high: Fraction | None
    weights: tuple[Fraction, ...] | None
    reward: tuple[Fraction, ...]


def enclosed_balance(rows: Sequence[Sequence[int]], masses: Sequence[int], kind: str) -> EnclosedBalance:
    """Return the collapse radius of features x under p, enclosed.

    KL(q, p) is infinite for every q that balances if all margins of some w are positive, Burg's E_p log(p/q), which
    needs mass everywhere, if all are nonnegative and one is positive. The bounds from below, for any w:

        KL(q, p) >= -log E_p exp(-<w, x>),    E_p log(p/q) >= E_p log(1 + <w, x>) where 1 + <w, x> > 0.

    Args:
        rows: x_i, ``(n, d)``.
        masses: ``(n,)``, positive, proportional to p.
        kind: "kl" or "burg".

    Raises:
        ValueError: Another kind.
        ArithmeticError: Newton's method came to no weights that balance.

    Example:
        >>> from fractions import Fraction
        >>> low, high, _, _ = enclosed_balance([(1,), (-1,)], [3, 1], "kl")
        >>> low <= log_bounds(Fraction(4, 3))[1] / 2 and log_bounds(Fraction(4, 3))[0] / 2 <= high
        True
        >>> float(high - low) < 1e-12
        True
    """
    if kind not in ("kl", "burg"):
        raise ValueError(f"`kind` must be 'kl' or 'burg', got {kind!r}.")
    return _enclosed(tuple(map(tuple, rows)), tuple(masses), kind)


@lru_cache(maxsize=4096)
def _enclosed(rows: Rows, masses: tuple[int, ...], kind: str) -> EnclosedBalance:
    kept, beyond = face(rows)
    if len(kept) < (len(rows) if kind == "burg" else 1):
        return EnclosedBalance(None, None, None, beyond)
    p = [Fraction(mass, sum(masses)) for mass in masses]
    inner, near = [rows[i] for i in kept], [p[i] for i in kept]
    w, raw = _newton(np.array(inner, float), np.array(near, float), kind)
    found = rebalanced(inner, list(map(_short, raw.tolist())))
    if found is None or min(found) == 0:
        raise ArithmeticError("Newton's method came to no weights that balance")
    reward = _sent_far(rows, kept, list(map(_short, w.tolist())), beyond)
    weights = dict(zip(kept, found, strict=True))
    low, high = _from_below(rows, p, reward, kind), _from_above(near, found, kind)
    return EnclosedBalance(low, high, tuple(weights.get(i, Fraction(0)) for i in range(len(rows))), reward)


def _from_above(p: list[Fraction], q: list[Fraction], kind: str) -> Fraction:
    pairs = zip(q, p, strict=True) if kind == "kl" else zip(p, q, strict=True)
    return sum((one * log_bounds(one / two)[1] for one, two in pairs), Fraction(0))


def _from_below(rows: Rows, p: list[Fraction], reward: tuple[Fraction, ...], kind: str) -> Fraction:
    margins = [(mass, dot(row, reward)) for mass, row in zip(p, rows, strict=True)]
    if kind == "burg":
        return sum((mass * log_bounds(1 + margin)[0] for mass, margin in margins), Fraction(0))
    return -log_bounds(sum((mass * exp_bounds(-margin)[1] for mass, margin in margins), Fraction(0)))[1]


def _sent_far(
    rows: Rows, kept: list[int], reward: list[Fraction], beyond: tuple[Fraction, ...]
) -> tuple[Fraction, ...]:
    """Return a reward with the same margins on the face, whose others are so large that they count for nothing."""
    others = [dot(row, reward) for i, row in enumerate(rows) if i not in kept]
    share = max([Fraction(0), *(_FAR - margin for margin in others)])
    return tuple(a + share * b for a, b in zip(reward, beyond, strict=True))


def _newton(x: NDArray[Any], p: NDArray[Any], kind: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Minimise log E exp(-<w, x>), or -E log(1 + <w, x>); return w and the weights that then balance."""

    def value(w: NDArray[Any]) -> float:
        margins = x @ w
        if kind == "kl":
            return float(np.logaddexp.reduce(np.log(p) - margins))
        return float(-p @ np.log1p(margins)) if margins.min() > -1 else np.inf

    def weights(w: NDArray[Any]) -> NDArray[Any]:
        raw = p * np.exp(-x @ w) if kind == "kl" else p / (1 + x @ w)
        return raw / raw.sum()

    w = np.zeros(x.shape[1])
    for _ in range(_MOST_STEPS):
        q = weights(w)
        mean = q @ x
        curvature = (x.T * q) @ x - np.outer(mean, mean) if kind == "kl" else (x.T * (p / (1 + x @ w) ** 2)) @ x
        slope = mean if kind == "kl" else (p / (1 + x @ w)) @ x
        step = np.linalg.lstsq(curvature, slope)[0]
        share = 1.0
        while value(w + share * step) > value(w) and share > 1e-6:
            share /= 2
        w = w + share * step
        if float(slope @ step) < 1e-24:
            break
    return w, weights(w)


def _short(number: float) -> Fraction:
    return Fraction(round(number * _GRID), _GRID)
