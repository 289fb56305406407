"""Exact maximisers by one sort and cumulative sums.

Losses arrive centred: their maximum over the support of the reference is 0, their minimum -1 (all 0 if
constant), and scenarios of zero mass carry the minimum. Weights are read off thresholds, never off positions
in the sorted order, so equal losses share in proportion to their mass and a permutation of the input permutes
the output.
"""

from __future__ import annotations

from ._arrays import Array, Namespace, total

# Cumulative sums of n masses are good to about n roundings; an edge closer than this to an atom's border is
# that border, so that scenarios beyond it have weight 0 and not 1e-17.
_EDGE = 2.0**-46
# A stand-in for radius zero: the multiplier stays finite, and 1 + 2**-60 rounds to 1, so that weights are p.
RADIUS_FLOOR = 2.0**-120


def _descending(xp: Namespace, losses: Array, reference: Array) -> tuple[Array, Array]:
    order = xp.argsort(losses, axis=-1, descending=True, stable=False)
    return xp.take_along_axis(losses, order, axis=-1), xp.take_along_axis(reference, order, axis=-1)


def upper_tail(xp: Namespace, losses: Array, reference: Array, mass: float) -> tuple[Array, Array]:
    """Take the part of the reference that lies on its largest losses.

    Args:
        xp: Array namespace.
        losses: Shape ``(*batch, n)``; only their order matters.
        reference: Shape ``(*batch, n)``, the distribution p.
        mass: How much of p to take, in [0, 1].

    Returns:
        The part, ``(*batch, n)``, between 0 and p with sum ``mass``; and the edge, ``(*batch, 1)``: the part
        is p above that loss, nothing below it, and one fraction of p on the scenarios exactly at it.
    """
    ordered, masses = _descending(xp, losses, reference)
    enough = xp.cumulative_sum(masses, axis=-1) >= mass * (1 - _EDGE)
    edge = xp.max(xp.where(enough, ordered, ordered[..., -1:]), axis=-1, keepdims=True)
    above = xp.where(losses > edge, reference, 0.0)
    at_edge = xp.where(losses == edge, reference, 0.0)
    wanted, there = mass - total(xp, above), total(xp, at_edge)
    fraction = xp.where(there - wanted <= _EDGE * mass, 1.0, xp.clip(wanted / there, 0.0, 1.0))
    return above + fraction * at_edge, edge


def lower_tail(xp: Namespace, losses: Array, reference: Array, mass: float) -> tuple[Array, Array]:
    """Take the part of the reference on its smallest losses: ``upper_tail`` seen from below."""
    part, edge = upper_tail(xp, -losses, reference, mass)
    return part, -edge


def top_share(xp: Namespace, losses: Array, reference: Array) -> Array:
    """Return the reference conditioned on the largest loss, which centring has made exactly 0."""
    top = xp.where(losses == 0, reference, 0.0)
    return top / total(xp, top)


def _shifted(xp: Namespace, array: Array) -> Array:
    return xp.concat([xp.zeros_like(array[..., :1]), array[..., :-1]], axis=-1)


def _excess_moments(xp: Namespace, losses: Array, reference: Array) -> tuple[Array, Array, Array]:
    """Return the losses in descending order, and E (l - eta)_+ and E (l - eta)_+^2 for eta at each of them.

    Both grow from one sorted loss to the next by nonnegative amounts, so that nothing cancels.
    """
    ordered, masses = _descending(xp, losses, reference)
    gaps = _shifted(xp, ordered) - ordered
    steps = gaps * _shifted(xp, xp.cumulative_sum(masses, axis=-1))
    first = xp.cumulative_sum(steps, axis=-1)
    return ordered, first, xp.cumulative_sum(gaps * (2 * first - steps), axis=-1)


def quadratic_threshold(xp: Namespace, losses: Array, reference: Array, multiplier: Array) -> Array:
    """Return the eta, ``(*batch, 1)``, at which E (l - eta)_+ equals a multiplier >= 0 of that shape."""
    ordered, first, _ = _excess_moments(xp, losses, reference)
    edge = xp.min(xp.where(first < multiplier, ordered, 0.0), axis=-1, keepdims=True)
    kept = xp.where(losses >= edge, reference, 0.0)
    return (total(xp, kept * losses) - multiplier) / total(xp, kept)


def quadratic_tilt(xp: Namespace, losses: Array, reference: Array, radius: float) -> tuple[Array, Array, Array]:
    """Maximise over 1/2 E (q/p - 1)^2 <= radius.

    On a support of mass m, mean mu and E (l - mu)^2 = v (over the support) the weights are p (l - eta)_+ /
    multiplier, and the constraint reads v + m d^2 = (1 + 2 radius) (m d)^2 with d = mu - eta, that is d^2 = v
    / (m ((1 + 2 radius) m - 1)).

    Returns:
        Weights ``(*batch, n)``, multiplier E (l - eta)_+ and threshold eta, both ``(*batch, 1)``.
    """
    ordered, first, second = _excess_moments(xp, losses, reference)
    # The second moment of p (l - eta)_+ / E (l - eta)_+ is E (l - eta)_+^2 / (E (l - eta)_+)^2 and grows with eta:
    # a loss gets weight when a threshold right at it would still be more concentrated than the radius allows.
    supported = second > (1 + 2 * radius) * (1 + _EDGE) * first * first
    edge = xp.min(xp.where(supported, ordered, 0.0), axis=-1, keepdims=True)
    kept = xp.where(losses >= edge, reference, 0.0)
    mass = total(xp, kept)
    mean = total(xp, kept * losses) / mass
    spread = total(xp, kept * (losses - mean) ** 2)
    # (1 + 2 radius) m - 1, written so that a radius of 1e-12 on the full support does not cancel.
    excess = 2 * radius - (1 + 2 * radius) * total(xp, reference - kept)
    drop = xp.sqrt(spread / (mass * xp.clip(excess, RADIUS_FLOOR, None)))
    # The threshold lies above every loss left out; this decides where the excess is nothing but rounding.
    left_out = xp.max(xp.where(losses < edge, losses, -xp.inf), axis=-1, keepdims=True)
    drop = xp.minimum(drop, mean - left_out)
    slope = xp.where(drop > 0, (losses - mean) / xp.where(drop > 0, drop, 1.0), 0.0)
    weights = kept * xp.clip(1 + slope, 0.0, None)
    return weights / total(xp, weights), mass * drop, mean - drop
