"""How far a set may go before an adversary explains every label by noise, and how far it goes.

The collapse radius of the margins of a model (``dro_core.margin_collapse``) is what they bear: from there on some
reweighting of the pairs has a mean margin of at most 0, and a model that says nothing would do as well. CVaR's size
falls as the set grows; compared is the mass that may move, 1 - alpha.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dro_core import AmbiguitySet, CVaR, Grouped, Trimmed, margin_collapse, worst_case
from dro_core.sets.composition import Composite

from ...run.stored_arrays import read_arrays

Array = NDArray[np.float64]
Size = TypeVar("Size", float, Array)
EXACT = ("tv", "cvar", "chi2", "kl", "burg")  # what ``margin_collapse`` knows of the sets that text can name
POOLED = 256  # margins: a radius of total variation is then known to some .03
MOST_RATIO = 99.0  # what a ratio says where the margins bear nothing
_FILE = "margins.npz"
_MOST_STEPS, _NOTHING = 50, 1e-12


def margins_of(losses: object) -> Array:
    """The h of losses -log sigmoid(h), of any shape; 27.6 where the loss has rounded to zero.

    >>> margins_of(np.log1p(np.exp([-2.0, 3.0]))).round(6)
    array([ 2., -3.])
    """
    losses = np.maximum(np.asarray(losses, dtype=np.float64), 1e-12)
    return -losses - np.log(-np.expm1(-losses))


def has_bearing(rule: object) -> bool:
    """Whether it is known what margins bear of a set: one of ``EXACT``, over examples or groups, trimmed or not."""
    if isinstance(rule, Composite):
        return type(rule) in (Grouped, Trimmed) and has_bearing(rule.inner)
    return isinstance(rule, AmbiguitySet) and getattr(rule, "spec", None) in EXACT and rule.sizes is None


def size_of(ambiguity: AmbiguitySet, strength: float = 1.0) -> float:
    """The radius of a set at a share of its strength, in its own unit; of CVaR alpha."""
    core = ambiguity.core
    return float(getattr(core.with_strength(strength), core.size))


def resized(ambiguity: Any, size: float) -> Any:
    """The set with another size at its core."""
    if isinstance(ambiguity, Composite):
        changed: object = {"inner": resized(ambiguity.inner, size)}
        return replace(ambiguity, **changed)
    return replace(ambiguity, **{ambiguity.size: size})


def moved(ambiguity: AmbiguitySet, size: Size) -> Size:
    """A size as it grows with the set: the radius; of CVaR 1 - alpha. Its own inverse."""
    return 1 - size if isinstance(ambiguity.core, CVaR) else size


def bearable(ambiguity: AmbiguitySet, margins: Array, masses: Array | None = None) -> Array:
    """What margins bear of a set, in its own unit.

    Args:
        ambiguity: One that ``has_bearing``; its own size does not matter. Groups are those of these margins.
        margins: Shape ``(n,)``.
        masses: p, shape ``(n,)`` or ``(batch, n)``; uniform by default.

    Returns:
        Shape ``(batch,)``, with one row where the masses have none: 0 (of CVaR 1) where the mean margin is <= 0,
        infinite (0) where no reweighting in any set gets there.
    """
    masses = np.atleast_2d(np.full(len(margins), 1 / len(margins)) if masses is None else masses)
    return _bearable(ambiguity, np.broadcast_to(margins, masses.shape), masses)


def _bearable(ambiguity: AmbiguitySet, margins: Array, masses: Array) -> Array:
    if isinstance(ambiguity, Trimmed):
        return _bearable(ambiguity.inner, margins, _trimmed(margins, masses, float(ambiguity.fraction)))
    if isinstance(ambiguity, Grouped):
        groups, totals = summed(ambiguity, masses), summed(ambiguity, masses * margins)
        means = np.divide(totals, groups, out=np.zeros_like(groups), where=groups > 0)
        return _bearable(ambiguity.inner, means, groups)
    if getattr(ambiguity, "max_ratio", None) is None:
        return np.asarray(margin_collapse(margins, ambiguity.spec, reference=masses / masses.sum(-1, keepdims=True)))
    return np.array([_capped(ambiguity, row, mass) for row, mass in zip(margins, masses, strict=True)])


def summed(ambiguity: Grouped, values: Array) -> Array:
    """Sums of ``(batch, n)`` over the examples of every group that there is, ``(batch, groups)``."""
    codes = np.unique(np.asarray(ambiguity.groups), return_inverse=True)[1]
    return values @ np.eye(codes.max() + 1)[codes]


def _trimmed(margins: Array, masses: Array, fraction: float) -> Array:
    """The masses without those of the smallest margins, which have the largest losses."""
    order = np.argsort(margins, axis=-1)
    sums = np.cumsum(np.take_along_axis(masses, order, -1), axis=-1)
    kept = np.clip(sums - fraction, 0.0, np.take_along_axis(masses, order, -1))
    found = np.empty_like(kept)
    np.put_along_axis(found, order, kept, -1)
    return found / found.sum(axis=-1, keepdims=True)


def _capped(ambiguity: AmbiguitySet, margins: Array, masses: Array) -> float:
    """The radius at which the worst mean margin is 0, by Newton's method: it is convex and piecewise linear in it."""
    seen, radius = masses > 0, 0.0
    margins, masses = margins[seen], masses[seen] / masses[seen].sum()
    for _ in range(_MOST_STEPS):
        worst = worst_case(-margins, resized(ambiguity, radius), reference=masses)
        left, slope = -float(worst.value), float(worst.dual.multiplier)
        if left <= _NOTHING * float(np.abs(margins).max()):
            return radius
        if slope <= 0 or radius + left / slope > 1:
            break
        radius += left / slope
    return np.inf


def _sized(rule: object) -> Any:
    """The set of the radius that it has now, where a rule measures it."""
    return getattr(rule, "sized", rule)


class RunningRadius:
    """What the margins of the latest effective batches bear of a rule's set, pooled; ``Resumable``.

    The latest batches that hold ``POOLED`` margins count. In the first epoch they are margins of pairs that the model
    had not been trained on; later they are not, and may bear more than new pairs would.

    Args:
        rule: Bound to the training examples; one whose collapse radius is not known, or None, has nothing to tell.

    Attributes:
        masses: How much each training example counts, ``(examples,)``; None: alike.
    """

    def __init__(self, rule: object) -> None:
        from ..rules import layers  # needs torch, which those who read records do without

        self._rule = rule if has_bearing(_sized(rule)) else None
        self._inside = next((part for part in layers(rule) if has_bearing(_sized(part))), None)
        self.masses: Array | None = None
        self._seen: deque[tuple[NDArray[np.int64], Array]] = deque()

    @property
    def told(self) -> bool:
        """Whether it is known what margins bear of the set."""
        return self._rule is not None

    def used(self, strength: float) -> dict[str, float]:
        """``radius_used``: the size of the set, or of the one inside a rule, at that strength, in its own unit."""
        return {} if self._inside is None else {"radius_used": size_of(_sized(self._inside), strength)}

    def see(self, rows: NDArray[np.int64], margins: Array) -> None:
        """Take in a batch: the training examples ``rows`` with these ``margins``, ``(n,)`` each."""
        self._seen.append((rows, margins))
        while sum(len(batch) for batch, _ in self._seen) - len(self._seen[0][0]) >= POOLED:
            self._seen.popleft()

    def tells(self, looks: Mapping[str, float]) -> dict[str, float]:
        """What a log says beside ``looks``, which holds the mean ``radius_used``.

        ``collapse_radius`` (of CVaR the largest alpha that collapses; none where it is infinite), ``radius_ratio``
        (used by bearable; beyond 1 the set is larger than these margins bear) and ``collapse_margins`` (how many).
        """
        if self._rule is None or not self._seen or "radius_used" not in looks:
            return {}
        rows, margins = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        here = self._set().take(rows)
        masses = None if self.masses is None else self.masses[rows] / self.masses[rows].sum()
        radius, used = float(bearable(here, margins, masses)[0]), moved(here, looks["radius_used"])
        bears = moved(here, radius)
        ratio = used / bears if bears > 0 else MOST_RATIO if used > 0 else 0.0
        told = {"radius_ratio": min(ratio, MOST_RATIO), "collapse_margins": float(len(rows))}
        return told | ({"collapse_radius": radius} if np.isfinite(radius) else {})

    def _set(self) -> AmbiguitySet:
        return _sized(self._rule)

    def save(self, folder: Path) -> None:
        """Write the margins that count to ``folder/margins.npz``; nothing before the first."""
        if self._seen:
            rows, margins = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
            np.savez(folder / _FILE, rows=rows, margins=margins, sizes=[len(batch) for batch, _ in self._seen])

    def load(self, folder: Path) -> None:
        """Take them over; checkpoints of earlier versions have none."""
        self._seen.clear()
        if self._rule is None or not (folder / _FILE).exists():
            return
        stored = read_arrays(folder / _FILE, "rows", "margins", "sizes")
        ends = np.cumsum(stored["sizes"])[:-1]
        self._seen.extend(zip(np.split(stored["rows"], ends), np.split(stored["margins"], ends), strict=True))
