"""A proof as data: the family it covers, and a formula that is true of whole ranges of numbers, part by part.

A claim is about losses without number; a proof says in its ``reduction`` why a few polynomials decide it for all of
them, and its formula decides those: by Bernstein coefficients, which bound a polynomial on a range, by intervals, or by
as many points as a polynomial's degree asks for. A range on which that does not succeed is cut in two.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from proofs_check import verifier
from proofs_check.claim import Evidence, Verdict
from proofs_check.exact.plain import plain

if TYPE_CHECKING:
    from proofs_check.claim import Claim, Formula

I = TypeVar("I")  # noqa: E741 - an instance, as in ``claim``
Point = Mapping[str, Any]
_verifier: Any = verifier  # written for a Python without anything, type stubs included
_PARTS, _NARROW = 1000, Fraction(1, 2**30)  # that a box may be cut into, and ranges that are not cut any more
_COMPARED = 24  # points at which proof and claim have to say the same
_CLOSE = 1e-7  # how far apart they may be there, in scales: solvers promise 1e-9


class Unproved(ArithmeticError):
    """The proof does not go through, or is one of another claim; the message says where."""


class Box(NamedTuple):
    """A part of the family: numbers by name, ranges of numbers by name, and where to cut these first."""

    given: Mapping[str, Any]
    ranges: Mapping[str, tuple[Any, Any]] = {}
    kinks: Mapping[str, tuple[Any, ...]] = {}


@dataclass(frozen=True)
class Proof(Generic[I]):
    """Why a claim holds for every instance of a family.

    Attributes:
        family: what is covered, in words that stand beside the verdict.
        formula: what has to hold on every box; ranges are lists [low, high] there.
        boxes: the family, box by box.
        slack: formula of right side less left side, in scales, on the instance that ``extreme`` makes of a point:
            numbers or intervals that hold them; the text 'any' for an entry that is not compared.
        extreme: from a point of a box, ranges being numbers, to the instance of the claim that the formula speaks of.
        there: what ``slack`` alone uses, in this order: name -> formula.
        reduction: why the formula decides the claim; ``argued`` takes it from a docstring.
    """

    family: str
    formula: Formula
    boxes: Callable[[], Iterable[Box]] = field(repr=False)
    slack: str
    extreme: Callable[[Point], I] = field(repr=False)
    there: Mapping[str, str] = field(default_factory=dict[str, str])
    reduction: str = ""


def argued(make: Callable[[], Proof[I]]) -> Callable[[], Proof[I]]:
    """Let the proof that a function returns carry the function's docstring as its ``reduction``."""

    @wraps(make)
    def proof() -> Proof[I]:
        return replace(make(), reduction=inspect.getdoc(make) or "")

    return proof


def prove(claim: Claim[Any]) -> dict[str, Any]:
    """Return the proof of a claim as the verifier reads it, every box with its cuts.

    Raises:
        Unproved: A box of which some part leaves the formula false or open, or a point at which it says something
            else than the claim's own sides.
    """
    if claim.proof is None:
        raise Unproved(f"{claim.label} carries no proof")
    reject_other_claims(claim, claim.proof)
    return cut_boxes(claim.proof)


def cut_boxes(proof: Proof[Any]) -> dict[str, Any]:
    """Return a proof as the verifier reads it, of whichever claim it may be.

    Raises:
        Unproved: A box of which some part leaves the formula false or open, cut into however many.
    """
    formula = as_stored(proof)
    boxes = [(plain(dict(box.given) | dict(box.ranges)), box) for box in proof.boxes()]
    return formula | {"boxes": [[values, _cuts(formula, values, box, iter(range(_PARTS)))] for values, box in boxes]}


def with_proof(claim: Claim[Any], verdict: Verdict, evidence: Evidence, reason: str) -> tuple[Verdict, Evidence, str]:
    """Return what a search found, and where it upholds a claim that carries a proof, what becomes of that."""
    if claim.proof is None or verdict is not Verdict.UPHELD:
        return verdict, evidence, reason
    try:
        prove(claim)
    except Unproved as error:
        return Verdict.INCONCLUSIVE, evidence, f"The proof does not go through: {error}."
    return verdict, Evidence.PROVED, f"Proved for the family. The search was {evidence.value}: {reason}"


def as_stored(proof: Proof[Any]) -> dict[str, Any]:
    """Return family and formula of a proof as JSON."""
    where = [[name, " ".join(text.split())] for name, text in proof.formula.where.items()]
    return {"statement": proof.family, "where": where, "admits": [], "holds": " ".join(proof.formula.holds.split())}


def _cuts(formula: dict[str, Any], values: dict[str, Any], box: Box, left: Iterator[int]) -> list[Any]:
    """Cut where the formula has a kink, else the longest range in the middle, until it is true on every part."""
    try:
        if _verifier.holds(formula, values, None) is True:
            return []
    except _verifier.Refused:
        pass
    ranges = {name: (Fraction(values[name][0]), Fraction(values[name][1])) for name in box.ranges}
    inside = [
        (name, Fraction(kink))
        for name, (low, high) in ranges.items()
        for kink in box.kinks.get(name, ())
        if low < kink < high
    ]
    middles = [(name, (low + high) / 2) for name, (low, high) in ranges.items() if high - low > _NARROW]
    if not middles or next(left, None) is None:
        raise Unproved(f"the formula is not true on {values}")
    longest = max(middles, key=lambda middle: ranges[middle[0]][1] - ranges[middle[0]][0])
    name, at = inside[0] if inside else longest
    halves = ([values[name][0], plain(at)], [plain(at), values[name][1]])
    return [name, plain(at), *(_cuts(formula, values | {name: half}, box, left) for half in halves)]


def reject_other_claims(claim: Claim[Any], proof: Proof[Any]) -> None:
    """Compare the formula with both sides of the claim, at points spread over the boxes.

    Raises:
        Unproved: They differ, or an instance at such a point is none of the claim's.
    """
    boxes = list(proof.boxes())
    for box in boxes[:: max(1, len(boxes) // _COMPARED)]:
        for point in _points(box, max(1, _COMPARED // len(boxes))):
            instance = proof.extreme(point)
            if not claim.admits(instance):
                raise Unproved(f"{instance} does not meet the assumptions of {claim.label}")
            told, found = _slacks(proof, point, box), _gaps(claim, instance)
            if len(told) != len(found) or not all(map(_agree, told, found)):
                raise Unproved(f"the formula says {told} of {instance}, and {claim.label} {found}")


def _agree(told: Any, found: float) -> bool:
    low, high = (told.low, told.high) if isinstance(told, _verifier.Interval) else (told, told)
    return told == "any" if isinstance(told, str) else float(low) - _CLOSE <= found <= float(high) + _CLOSE


def _points(box: Box, count: int) -> Iterable[Point]:
    """Points inside of a box, on a grid of sixteenths of every range."""
    for k in range(count):
        places = [Fraction((k + 1) * (5 + 4 * j) % 16 or 8, 16) for j in range(len(box.ranges))]
        ends = [(Fraction(low), Fraction(high)) for low, high in box.ranges.values()]
        inside = [low + place * (high - low) for place, (low, high) in zip(places, ends, strict=True)]
        yield dict(box.given) | dict(zip(box.ranges, inside, strict=True))


def _gaps(claim: Claim[Any], instance: Any) -> list[float]:
    """Right side less left side, entry by entry, in scales."""
    right, left = (np.atleast_1d(np.asarray(side(instance), float)) for side in (claim.rhs, claim.lhs))
    return ((right - left) / claim.scale(instance)).tolist()


def _slacks(proof: Proof[Any], point: Point, box: Box) -> list[Any]:
    where = {**proof.formula.where, **proof.there}
    formula = as_stored(replace(proof, formula=replace(proof.formula, where=where, holds=proof.slack)))
    return list(_verifier.holds(formula, plain(dict(point) | {name: [point[name]] * 2 for name in box.ranges}), None))
