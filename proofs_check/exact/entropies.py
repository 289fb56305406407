"""Collapse radii in KL and Burg's entropy between two rational numbers: the two proofs, rounded outwards.

Newton's method finds a reward w and weights q in floating point. The weights are corrected until E_q x = 0 exactly;
what either proves is then evaluated in rational numbers and outward-rounded logarithms. Shares no code with dro_core.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from proofs_check.exact.balance import face, rebalanced
from proofs_check.exact.enclosures import Enclosure, exp_bounds, log_bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_GRID = 2**40  # of rewards and weights: short numbers prove as much as long ones
_FAR = 64  # a margin whose exponential is lost in the enclosure
_MOST_STEPS = 60


def enclosed_balance(rows: Sequence[Sequence[int]], masses: Sequence[int], kind: str) -> Enclosure | None:
    """Return the collapse radius of features x under p, enclosed; None if it is infinite.

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
        >>> low, high = enclosed_balance([(1,), (-1,)], [3, 1], "kl")
        >>> low <= log_bounds(Fraction(4, 3))[1] / 2 and log_bounds(Fraction(4, 3))[0] / 2 <= high
        True
        >>> float(high - low) < 1e-12
        True
    """
    if kind not in ("kl", "burg"):
        raise ValueError(f"`kind` must be 'kl' or 'burg', got {kind!r}.")
    return _enclosed(tuple(map(tuple, rows)), tuple(masses), kind)


@lru_cache(maxsize=4096)
def _enclosed(rows: tuple[tuple[int, ...], ...], masses: tuple[int, ...], kind: str) -> Enclosure | None:
    kept, beyond = face(rows)
    if len(kept) < (len(rows) if kind == "burg" else 1):
        return None
    p = [Fraction(mass, sum(masses)) for mass in masses]
    inner = np.array([rows[i] for i in kept], float)
    w, weights = _newton(inner, np.array([float(p[i]) for i in kept]), kind)
    q = rebalanced([rows[i] for i in kept], [_short(weight) for weight in weights.tolist()])
    if q is None or min(q) == 0:
        raise ArithmeticError("Newton's method came to no weights that balance")
    reward = [_short(entry) for entry in w.tolist()]
    margins = [sum((a * b for a, b in zip(row, reward, strict=True)), Fraction(0)) for row in rows]
    outside = [i for i in range(len(rows)) if i not in kept]
    share = max([Fraction(0), *(_FAR - margins[i] for i in outside)])
    beyonds = [sum((a * b for a, b in zip(row, beyond, strict=True)), Fraction(0)) for row in rows]
    margins = [margin + share * more for margin, more in zip(margins, beyonds, strict=True)]
    pairs = [(p[i], new) for i, new in zip(kept, q, strict=True)]
    if kind == "kl":
        high = sum((new * log_bounds(new / old)[1] for old, new in pairs), Fraction(0))
        tilted = sum((mass * exp_bounds(-margin)[1] for mass, margin in zip(p, margins, strict=True)), Fraction(0))
        return Enclosure(-log_bounds(tilted)[1], high)
    high = sum((old * log_bounds(old / new)[1] for old, new in pairs), Fraction(0))
    return Enclosure(sum((m * log_bounds(1 + x)[0] for m, x in zip(p, margins, strict=True)), Fraction(0)), high)


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
