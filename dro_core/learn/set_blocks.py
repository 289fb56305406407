"""Ambiguity sets as the interior-point method sees them: a few blocks of bounded ratios.

Every set that is separable over its scenarios is a sum of blocks

    { b r : 0 <= r <= cap, sum b r = mass, and sum b phi(r) <= radius or at a price }

over atoms of base mass b: the scenarios themselves, groups of them, or known members of a set of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as _sparse  # pyright: ignore[reportMissingTypeStubs]
import scipy.special as _special  # pyright: ignore[reportMissingTypeStubs]

from .._solvers.arrays import Array
from ..sets.ambiguity import AmbiguitySet
from ..sets.burg import Burg, BurgPenalty
from ..sets.composed import Charged
from ..sets.composition import Grouped, Trimmed
from ..sets.divergences import KL, CressieRead, Hellinger
from ..sets.penalties import ChiSquarePenalty, CressieReadPenalty, KLPenalty
from ..sets.sorted import ChiSquare, CVaR, Spectral, TotalVariation

sparse: Any = _sparse  # scipy ships no type hints
special: Any = _special


class Block(NamedTuple):
    """Ratios to the base masses, ``(m,)``, with their bounds; ``order`` names the divergence (1 is KL)."""

    mass: float
    cap: float = math.inf
    order: float | None = None
    radius: float | None = None
    price: float = 0.0

    def divergence(self, ratio: Array) -> tuple[Array, Array, Array]:
        """Return phi, phi' and phi'' of [CressieRead] at positive ratios; zeros if the block has none."""
        k = self.order
        if k is None:
            return (np.zeros_like(ratio),) * 3
        if k == 0:
            return ratio - 1 - np.log(ratio), 1 - 1 / ratio, 1 / ratio**2
        if k == 1:
            return special.xlogy(ratio, ratio) - ratio + 1, np.log(ratio), 1 / ratio
        if k == 2:  # written so that ratios near 1 do not cancel
            return (ratio - 1) ** 2 / 2, ratio - 1, np.ones_like(ratio)
        power = ratio ** (k - 1)
        return (ratio * power - k * ratio + k - 1) / (k * (k - 1)), (power - 1) / (k - 1), power / ratio


class Adversary(NamedTuple):
    """The inner problem max_x <x, L>, x = base (fixed + sum of the blocks' ratios), L = link @ losses - charges."""

    base: Array  # (m,), positive
    fixed: float
    blocks: tuple[Block, ...]
    link: Array | None = None  # (m, n), dense or sparse; None is the identity
    charges: Array | float = 0.0

    def atom_losses(self, losses: Array) -> Array:
        """Map losses ``(n,)`` to the atoms, ``(m,)``."""
        return losses if self.link is None else self.link @ losses - self.charges

    def scenario_weights(self, atoms: Array) -> Array:
        """Map weights of atoms, ``(m,)``, to weights of scenarios, ``(n,)``."""
        return atoms if self.link is None else self.link.T @ atoms


def _cvar(share: float, alpha: float) -> tuple[float, tuple[Block, ...]]:
    """Return share * CVaR(alpha) as (mass without freedom, blocks)."""
    return (share, ()) if alpha >= 1 else (0.0, (Block(share, share / alpha if alpha else math.inf),))


def _divergence(order: float, radius: float) -> tuple[float, tuple[Block, ...]]:
    return (0.0, (Block(1.0, order=order, radius=radius),)) if radius > 0 else (1.0, ())


def _penalty(order: float, price: float) -> tuple[float, tuple[Block, ...]]:
    return (0.0, (Block(1.0, order=order, price=price),)) if math.isfinite(price) else (1.0, ())


def _total_variation(ball: TotalVariation) -> tuple[float, tuple[Block, ...]]:
    """The value is (1 - radius) CVaR_{1-radius} + radius CVaR_a with a = radius / (max_ratio - 1), or the maximum."""
    ratio, kept = math.inf if ball.max_ratio is None else ball.max_ratio, 1 - ball.radius
    if ratio * kept <= 1:
        return _cvar(1.0, 1 / ratio)
    parts = Block(kept, 1.0), Block(ball.radius, ratio - 1)
    return (1.0, ()) if ball.radius == 0 else (0.0, tuple(part for part in parts if part.mass > 0))


def _spectral(spectrum: Sequence[float]) -> tuple[float, tuple[Block, ...]]:
    """Write the spectrum as the mixture of CVaR(j/k) with weights j (its jth largest part - the next one)."""
    k, falling = len(spectrum), [*reversed(spectrum), 0.0]
    steps = [(j * (falling[j - 1] - falling[j]), j / k) for j in range(1, k + 1)]
    parts = [_cvar(share, alpha) for share, alpha in steps if share > 0]
    return sum(fixed for fixed, _ in parts), tuple(block for _, blocks in parts for block in blocks)


def _blocks(ambiguity: AmbiguitySet) -> tuple[float, tuple[Block, ...]] | None:
    match ambiguity:
        case TotalVariation():
            return _total_variation(ambiguity)
        case CVaR(alpha):
            return _cvar(1.0, alpha)
        case Spectral(spectrum):
            return _spectral(spectrum)
        case ChiSquare(radius):
            return _divergence(2.0, radius)
        case KL(radius):
            return _divergence(1.0, radius)
        case CressieRead(order, radius):
            return _divergence(order, radius)
        case Hellinger(radius):
            return _divergence(0.5, 2 * radius)
        case KLPenalty(temperature):
            return _penalty(1.0, temperature)
        case ChiSquarePenalty(strength):
            return _penalty(2.0, strength)
        case CressieReadPenalty(order, strength):
            return _penalty(order, strength)
        case Charged(CVaR(alpha), KLPenalty() | ChiSquarePenalty()) if 0 < alpha < 1:
            fixed, blocks = _blocks(ambiguity.price) or (1.0, ())
            return fixed, tuple(block._replace(cap=1 / alpha) for block in blocks)
        case Burg(radius):
            return _divergence(0.0, radius)
        case BurgPenalty(strength):
            return _penalty(0.0, strength)
        case _:
            return None


def adversary(ambiguity: AmbiguitySet | None, reference: Array) -> Adversary | None:
    """Describe a set around a positive reference ``(n,)``; None where it is no sum of blocks.

    Raises:
        ValueError: A set whose worst case is not convex in the losses.
    """
    if ambiguity is None:
        return Adversary(reference, 1.0, ())
    if isinstance(ambiguity, Trimmed):
        raise ValueError(
            f"ambiguity {str(ambiguity)!r} is not convex in the losses, so no fit to it can be certified; "
            "fit with its inner set, or train it with ProjectedSubgradient."
        )
    if not isinstance(ambiguity, Grouped):
        found = _blocks(ambiguity)
        return None if found is None else Adversary(reference, *found)
    codes: Array = np.unique(np.asarray(ambiguity.groups), return_inverse=True)[1]
    masses: Array = np.bincount(codes, reference)
    of_groups = adversary(ambiguity.inner, masses)
    if of_groups is None:
        return None
    shape = (masses.size, reference.size)
    within: Array = sparse.csr_array((reference / masses[codes], (codes, np.arange(reference.size))), shape=shape)
    return of_groups._replace(link=within if of_groups.link is None else of_groups.link @ within)


def hull(members: Array, charges: Array) -> Adversary:
    """Describe the convex hull of known members ``(m, n)`` of a set, each at the charge ``(m,)`` of its penalty."""
    m = charges.size
    return Adversary(np.full(m, 1 / m), 0.0, (Block(1.0),), members, charges)
