"""Thresholds of one problem in main memory, without a sort: what cannot matter is left out, round by round.

numpy takes a branch per entry in ``where`` and ``array[mask]``, which costs ten passes on a mask without order;
``compress``, and products with a mask, take none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import TINY
from .problem import Problem

EDGE = 2.0**-46
"""Cumulative sums of n masses are good to about n roundings: what is closer than this to a border is on it."""

_FEW = 1024  # losses that are sorted at once
_Vector = Any  # numpy.ndarray, (n,)


class Support:
    """The scenarios that are left, and moments measured from the least of their losses: small masses cancel nothing.

    Attributes:
        losses: ``(k,)``, and their ``masses``, None if uniform.
        mass: Of these, and ``out`` of all others.
        edge: The least of the losses; ``below`` the largest that was left out.
        above: What each lies above the edge, ``(k,)``, and the ``mean`` of that.
    """

    def __init__(self, losses: _Vector, masses: _Vector | None, n: int, out: float, below: float) -> None:
        self.losses, self.masses, self.n, self.out, self.below = losses, masses, n, out, below
        self.edge = float(np.minimum.reduce(losses))
        self.above = losses - self.edge
        self.mass = losses.size / n if masses is None else float(np.add.reduce(masses))
        total = float(np.add.reduce(self.above)) / n if masses is None else float(masses @ self.above)
        self.mean = total / self.mass

    def variance(self) -> float:
        """Of the losses that are left."""
        deviation = self.above - self.mean
        if self.masses is None:
            return float(deviation @ deviation) / deviation.size
        return float((self.masses * deviation) @ deviation) / self.mass

    def without(self, kept: _Vector) -> Support:
        """Leave out all but those ``kept``."""
        losses, out = self.losses.compress(kept), ~kept
        below = float(np.maximum.reduce(self.losses.compress(out)))
        if self.masses is None:
            return Support(losses, None, self.n, (self.n - losses.size) / self.n, below)
        lost = float(np.add.reduce(self.masses.compress(out)))
        return Support(losses, self.masses.compress(kept), self.n, self.out + lost, below)


def pays(problem: Problem) -> bool:
    """Whether there is one long problem, of which numpy may look at the values, and no mass is lost in a sum."""
    if problem.xp is not np or not problem.losses.size == problem.losses.shape[-1] > _FEW:
        return False
    p = problem.reference
    return p is None or not ((p > 0) & (p < TINY)).any()


def support_of(problem: Problem, drop: Callable[[Support], float]) -> Support:
    """Return what lies above the threshold eta that solves an equation in E psi((l - eta)_+), psi convex.

    On too large a support the threshold comes out too low, so that what lies below it may be left out for good.
    ``drop`` is the mean of a support less its threshold; 0 where no threshold below the largest loss will do.
    """
    losses, reference = problem.losses.reshape(-1), problem.reference
    left = Support(losses, None if reference is None else reference.reshape(-1), losses.size, 0.0, -np.inf)
    while left.mean > 0:
        distance = drop(left)
        if not distance > 0:  # NaN, too
            return left.without(left.losses == np.maximum.reduce(left.losses))
        kept = left.above > left.mean - distance * (1 - EDGE)
        if kept.all():
            break
        left = left.without(kept)
    return left


def weighted_edge(problem: Problem, wanted: float) -> _Vector:
    """Return the loss at which the mass of the larger ones first reaches ``wanted``, the least if none does."""
    losses, masses = problem.losses.reshape(-1), problem.masses().reshape(-1)
    shape, least, above = (*problem.losses.shape[:-1], 1), np.minimum.reduce(losses), 0.0
    while losses.size > _FEW:
        pivot = np.partition(losses, losses.size // 2)[losses.size // 2]
        larger = losses > pivot
        further = float(np.vecdot(masses, larger))
        if further > 0 and above + further >= wanted:
            losses, masses = losses.compress(larger), masses.compress(larger)
            continue
        above += further + float(np.vecdot(masses, losses == pivot))
        if above >= wanted:
            return np.full(shape, pivot)
        smaller = losses < pivot
        losses, masses = losses.compress(smaller), masses.compress(smaller)
    order = np.argsort(losses)[::-1]
    reached = np.flatnonzero(above + np.cumsum(masses[order]) >= wanted)
    return np.full(shape, losses[order[reached[0]]] if reached.size else least)
