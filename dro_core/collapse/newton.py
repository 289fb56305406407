"""Balancing weights of least KL or Burg divergence: damped Newton in the d multipliers v.

KL is max_v -log E exp(-<v, x>) with q proportional to p exp(-<v, x>). Burg is max_v E log(1 + <v, x>) with q =
p / (1 + <v, x>), Owen's empirical likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .._solvers.arrays import Array
from .._solvers.normal import factor, gram

_HALVINGS = 60


class _State(NamedTuple):
    """The value to maximise, infinite outside its domain; q/p ``(n,)``; -value'' in each margin, over p."""

    value: float
    ratio: Array
    bend: Array


def _kl(margins: Array, masses: Array) -> _State:
    least = margins.min()
    ratio = np.exp(least - margins)
    total = float(masses @ ratio)
    ratio /= total
    return _State(least - np.log(total), ratio, ratio)


def _burg(margins: Array, masses: Array) -> _State:
    growth = 1 + margins
    if growth.min() <= 0:
        return _State(-np.inf, growth, growth)
    return _State(float(masses @ np.log(growth)), 1 / growth, 1 / growth**2)


STATES = {"kl": _kl, "burg": _burg}


def newton_path(rows: Array, masses: Array, name: str) -> Iterator[tuple[Array, Array]]:
    """Yield weights ``(n,)``, up to a scale, and directions ``(k,)`` of positive margins, better at every step.

    The weights are those at v after one Newton step of their linearisation, which balances them up to rounding; some
    may be negative far from the end.

    Args:
        rows: Shape ``(n, k)``, linearly independent whitened columns.
        masses: p, shape ``(n,)``, positive.
        name: A key of ``STATES``.
    """
    evaluate, v = STATES[name], np.zeros(rows.shape[1])
    at = evaluate(rows @ v, masses)
    while True:
        gradient = rows.T @ (masses * at.ratio)
        centre = gradient if name == "kl" else np.zeros_like(gradient)
        curvature = gram(rows, masses * at.bend) - np.outer(centre, centre)
        step = factor(curvature)(gradient)
        change = rows @ step
        yield masses * (at.ratio - at.bend * (change - centre @ step)), v
        gain, length = float(gradient @ step), 1.0
        for _ in range(_HALVINGS):
            new = evaluate(rows @ (v + length * step), masses)
            if new.value >= at.value + length * gain / 4:
                break
            length /= 2
        else:
            return  # as near as rounding allows
        v, at = v + length * step, new
