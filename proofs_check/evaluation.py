"""Both sides of a claim on one instance, and the tally of all instances seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Generic
from zlib import crc32

import numpy as np

from proofs_check.claim import Array, Claim, I, Relation
from proofs_check.hunt.guides import Guides, Measure
from proofs_check.report import Witness
from synthetic import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOLERANCE = 1e-8  # of the scale: the solvers promise 1e-9, a mutant misses by 1e-3 or more
ROUNDING = 1e-9  # of the scale: what the solvers promise; beyond it, and below TOLERANCE, the sides touch
_KEPT = 16  # worst instances
_POOL = 256  # instances to move from
_DRAWN = 300  # points of a figure


def evaluate(claim: Claim[I], instance: I) -> Witness:
    """Evaluate both sides; a side that raises or is not a number gives a witness that says so."""
    return _sides(claim, instance)[0]


def along(claim: Claim[I], instances: Sequence[I]) -> list[tuple[float, float]]:
    """Both sides on a family of instances, at the one entry that comes closest to a violation somewhere in it.

    The entry is one and the same, so that a curve does not jump between unlike entries; vectors of several lengths
    have no such entry, and each instance then shows its own worst.
    """
    witnesses, lefts, rights = zip(*(_sides(claim, instance) for instance in instances), strict=True)
    pairs = [np.broadcast_arrays(left.value, right.value) for left, right in zip(lefts, rights, strict=True)]
    if len({left.shape for left, _ in pairs}) > 1 or any(np.isnan(witness.margin) for witness in witnesses):
        return [(witness.lhs, witness.rhs) for witness in witnesses]
    closest = max(witnesses, key=lambda witness: witness.margin)
    left, right = pairs[witnesses.index(closest)]
    entry = int(np.flatnonzero((left == closest.lhs) & (right == closest.rhs))[0])
    return [(float(left[entry]), float(right[entry])) for left, right in pairs]


def _sides(claim: Claim[I], instance: I) -> tuple[Witness, Estimate, Estimate]:
    nothing = _interval(np.nan)
    try:
        scale = claim.scale(instance)
        lhs, rhs = _interval(claim.lhs(instance)), _interval(claim.rhs(instance))
        with np.errstate(invalid="ignore"):
            beyond = np.asarray(lhs.low - rhs.high)
            if claim.relation is Relation.EQUAL:
                beyond = np.maximum(beyond, rhs.low - lhs.high)
            margins = beyond / scale
    except Exception as error:  # whatever a side does must not end the run
        return Witness(instance, np.nan, np.nan, np.nan, f"{type(error).__name__}: {error}"), nothing, nothing
    entry = int(np.argmax(margins))  # the first NaN, if there is one
    left, right = (float(np.broadcast_to(side.value, margins.shape)[entry]) for side in (lhs, rhs))
    return Witness(instance, left, right, float(margins[entry])), lhs, rhs


def _interval(side: float | Sequence[float] | Array | Estimate) -> Estimate:
    if isinstance(side, Estimate):
        return Estimate(*(np.atleast_1d(np.asarray(part, float)) for part in side))
    exact = np.atleast_1d(np.asarray(side, float))
    return Estimate(exact, exact, exact)


def _width(side: Estimate) -> float:
    wide = side.high != side.low  # an infinite bound is exact, and inf - inf is not a number
    return float(np.max((side.high - side.low)[wide])) if wide.any() else 0.0


@dataclass
class Tally(Generic[I]):
    """What the search has seen so far.

    Attributes:
        claim: the claim.
        checked: instances on which both sides were evaluated.
        rejected: instances that failed an assumption.
        tightness: the largest lhs / rhs seen where rhs is at least a thousandth of the scale, if any.
        best: the instances with the largest margins, largest first.
        points: (lhs, rhs) in scales on the first instances.
        broken: the first instance with a side that raised or was not a number.
        unverified: the first instance on which the exact check did not confirm the claim.
        active: entry by entry, whether some instance had a left side that is not zero and a finite right side.
        width: the widest interval of a side, in scales.
        certified: the instance with the largest margin that exact arithmetic found to violate the claim.
        guides: the instances to search on from.
        pool: the first admitted corners and draws.
        seen: the instances on which both sides were evaluated, in order, if somebody asked for them.
        share: besides corners and what nearly touches, one instance in so many goes to exact arithmetic.
        exact: the instances that were chosen for it, in order.
    """

    claim: Claim[I]
    checked: int = 0
    rejected: int = 0
    tightness: float | None = None
    best: list[Witness] = field(default_factory=list[Witness])
    points: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    broken: Witness | None = None
    unverified: Witness | None = None
    active: NDArray[np.bool_] | None = None
    width: float = 0.0
    certified: Witness | None = None
    guides: Guides = field(default_factory=Guides)
    pool: list[I] = field(default_factory=list[I])
    seen: list[I] | None = None
    share: int = 1
    exact: list[I] = field(default_factory=list[I])

    @property
    def worst(self) -> Witness | None:
        """A broken side outranks the largest margin, unless that is a counterexample."""
        best = self.best[0] if self.best else None
        return self.certified or (best if self.violated else self.broken or self.unverified or best)

    @property
    def violated(self) -> bool:
        """Whether some instance violates the claim, in floating point."""
        return bool(self.best) and self.best[0].margin > TOLERANCE

    @property
    def settled(self) -> bool:
        """Whether no more has to be looked for: there is a violation, an exact one if the claim can tell."""
        return self.violated if self.claim.violates is None else self.certified is not None

    def admits(self, instance: I) -> bool:
        """Whether an instance meets the assumptions; one that the search made up may fit none of them."""
        try:
            return self.claim.admits(instance)
        except Exception:  # it has a form that no draw has
            return False

    def visit(self, instance: I) -> None:
        """Evaluate a corner or a draw, or count one more rejection."""
        try:
            admitted = self.claim.admits(instance)
        except Exception as error:
            broken = Witness(instance, np.nan, np.nan, np.nan, f"{type(error).__name__}: {error}")
            self.broken = self.broken or broken
            return
        if not admitted:
            self.rejected += 1
            return
        if len(self.pool) < _POOL:
            self.pool.append(instance)
        witness, lhs, rhs = _sides(self.claim, instance)
        if np.isnan(witness.margin):
            self.checked += 1
            if self.seen is not None:
                self.seen.append(instance)
            self.broken = self.broken or witness
            return
        self._note(witness)
        self._record(witness, lhs, rhs)

    def probe(self, instance: I) -> dict[Measure, float] | None:
        """Evaluate an admitted instance that the search made up; where the sides cannot be had it does not count."""
        try:
            witness, lhs, rhs = _sides(self.claim, instance)
            if np.isnan(witness.margin):
                return None
            self._note(witness)
        except Exception:  # an exact check that is not made for it
            return None
        return self._record(witness, lhs, rhs)

    def _note(self, witness: Witness) -> None:
        """Ask exact arithmetic whether it refutes the claim there, or else whether it confirms it."""
        claim, instance = self.claim, witness.instance
        if claim.violates is not None and witness.margin > 0 and claim.violates(instance):
            if self.certified is None or witness.margin > self.certified.margin:
                self.certified = witness
        elif witness.margin <= TOLERANCE and not self.settled and self._chosen(witness):
            if claim.verifies is not None and not claim.verifies(instance):
                self.unverified = self.unverified or witness
            self.exact.append(instance)

    def _chosen(self, witness: Witness) -> bool:
        """Whether an instance goes to exact arithmetic: what rounding may hide, corners, and a share told by a hash."""
        if self.share == 1 or witness.margin > ROUNDING or witness.instance in self._corners:
            return True
        return crc32(repr(witness.instance).encode()) % self.share == 0

    @cached_property
    def _corners(self) -> frozenset[I]:
        return frozenset(self.claim.instances.corners)

    def _record(self, witness: Witness, lhs: Estimate, rhs: Estimate) -> dict[Measure, float]:
        """Count an instance, and return how near it comes to a violation."""
        instance, scale = witness.instance, self.claim.scale(witness.instance)
        self.checked += 1
        if self.seen is not None:
            self.seen.append(instance)
        self.best = sorted([*self.best, witness], key=lambda w: -w.margin)[:_KEPT]
        if len(self.points) < _DRAWN:
            self.points.append((witness.lhs / scale, witness.rhs / scale))
        self._measure(lhs, rhs, scale)
        left, right = np.broadcast_arrays(lhs.value, rhs.value)
        with np.errstate(invalid="ignore"):
            beyond = np.abs(left - right) if self.claim.relation is Relation.EQUAL else left - right
        return self.guides.add(instance, beyond, np.abs(left) + np.abs(right), scale)

    def _measure(self, lhs: Estimate, rhs: Estimate, scale: float) -> None:
        left, right = np.broadcast_arrays(lhs.value, rhs.value)
        active = (np.abs(left) > TOLERANCE * scale) & (right < np.inf)
        if self.active is None or self.active.shape == active.shape:
            self.active = active if self.active is None else self.active | active
        else:  # vectors of several lengths: one active entry anywhere is enough
            self.active = np.array([self.active.any() or active.any()])
        self.width = max(self.width, _width(lhs) / scale, _width(rhs) / scale)
        sizeable = (right > 1e-3 * scale) & (right < np.inf)
        if sizeable.any():
            self.tightness = max(self.tightness or 0.0, float(np.max(left[sizeable] / right[sizeable])))
