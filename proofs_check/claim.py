"""A theorem as data: what it says, where it is tested, and what false versions of it look like."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from synthetic import Estimate

if TYPE_CHECKING:
    from proofs_check.proof import Proof

I = TypeVar("I")  # noqa: E741 - an instance: a frozen dataclass of ints, floats and tuples of them
Array = NDArray[np.float64]
Side = Callable[[I], float | Sequence[float] | Array | Estimate]
Assumptions = Mapping[str, Callable[[I], bool]]


class Verdict(Enum):
    """What a check can say. That an upheld claim is proved is a matter of its evidence.

    TOUCHING: a violation so small, below 1e-8 of the scale, that only exact arithmetic could tell it from rounding.
    """

    UPHELD = "upheld"
    REFUTED = "refuted"
    VACUOUS = "vacuous"
    INCONCLUSIVE = "inconclusive"
    TOUCHING = "touching"


class Evidence(Enum):
    """What a verdict rests on: a proof for a family, exact arithmetic, every case, a search, or a confidence limit."""

    PROVED = "proved"
    CERTIFIED = "certified"
    EXHAUSTIVE = "exhaustive"
    SEARCHED = "searched"
    STATISTICAL = "statistical"


class Relation(Enum):
    """How the left side stands to the right."""

    AT_MOST = "<="
    EQUAL = "=="


@dataclass(frozen=True)
class Instances(Generic[I]):
    """Where a claim is tested: hand-made corners first, then draws of a strategy.

    An instance with the fields ``draws`` and ``seed`` is a statistical one: the check fills both in.
    One with a property ``work`` says how many cases its sides go through, and the search lets numbers grow as far as
    that allows; where they enumerate and do not say so, growing numbers could take for ever.

    Attributes:
        kind: the class of an instance: a frozen dataclass of ints, floats, strings and tuples of them.
        corners: instances to begin with.
        strategy: how to draw more; None for no more than the corners.
        complete: whether the corners are all the cases there are.
    """

    kind: type[I]
    corners: tuple[I, ...]
    strategy: st.SearchStrategy[I] | None = None
    complete: bool = False


@dataclass(frozen=True)
class Curve(Generic[I]):
    """A family of instances to draw both sides over: ``axis`` names the field that grows."""

    axis: str
    instances: tuple[I, ...]


@dataclass(frozen=True)
class Formula:
    """What a certified verdict rests on, as text that `proofs_check/verifier.py` evaluates in rational numbers.

    Attributes:
        holds: true of every instance of an upheld claim, false of every counterexample to a refuted one.
        admits: what an instance of a refuted claim has to meet; a claim that is upheld needs none here.
        where: what it uses, in this order: name -> formula; the fields of the instance are names too.
        found: more names of an instance, found by search and believed only as far as ``holds`` proves them.
    """

    holds: str
    where: Mapping[str, str] = field(default_factory=dict[str, str])
    admits: tuple[str, ...] = ()
    found: Callable[[Any], Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Claim(Generic[I]):
    """For every instance that meets the assumptions: lhs `relation` rhs.

    A side may be a vector: then the relation holds entry by entry, and the worst entry counts.

    Attributes:
        label: the name in theory.md section 3.
        statement: one line, as a reader would say it.
        reference: source key of theory.md.
        assumptions: name -> predicate, tested in this order; all must hold.
        instances: where to look.
        lhs: left side.
        rhs: right side.
        scale: positive size of the instance; violations are measured in it, and count from 1e-8 of it on. Zero counts
            as rejected.
        relation: between the sides.
        tight: whether the bound is claimed to be reached.
        mutants: false versions; a check that does not refute each of them has no power, and one that has none to
            refute upholds nothing, unless a proof or every case decides.
        expected: the verdict that theory.md predicts.
        violates: whether an instance certainly violates the claim, in exact or outward-rounded arithmetic.
        verifies: whether an instance certainly satisfies it, in the same way.
        curve: what the figure shows.
        by_hand: three lines with which a reader checks the counterexample of a refuted claim.
        effort: share of the budget's draws and evaluations; below 1 where the sides are costly.
        resolution: the widest interval of a simulated side, in scales, with which the claim can be upheld.
        theorem: the statement in full, with problem, source and example; ``stated`` takes it from a docstring.
        formula: what ``verifies`` or ``violates`` decides, as text that can be checked elsewhere.
        proof: why it holds for every instance of a family.
        factor: of a mutant that ``shrunk`` made, what its right side was multiplied by; None for any other claim.
    """

    label: str
    statement: str
    reference: str
    assumptions: Assumptions[I]
    instances: Instances[I]
    lhs: Side[I]
    rhs: Side[I]
    scale: Callable[[I], float]
    relation: Relation = Relation.AT_MOST
    tight: bool = False
    mutants: tuple[Claim[I], ...] = field(default=(), repr=False)
    expected: Verdict = Verdict.UPHELD
    violates: Callable[[I], bool] | None = None
    verifies: Callable[[I], bool] | None = None
    curve: Curve[I] | None = None
    by_hand: str = ""
    effort: float = 1.0
    resolution: float = 0.1
    theorem: str = ""
    formula: Formula | None = None
    proof: Proof[I] | None = None
    factor: float | None = None

    def admits(self, instance: I) -> bool:
        """Whether the instance meets every assumption and has a size to measure by."""
        return all(holds(instance) for holds in self.assumptions.values()) and self.scale(instance) > 0

    def with_mutants(self, *mutants: Claim[I]) -> Claim[I]:
        """This claim with its false versions attached."""
        return replace(self, mutants=mutants)


def stated(make: Callable[[], Claim[I]]) -> Callable[[], Claim[I]]:
    """Let the claim that a function returns carry the function's docstring as its ``theorem``."""

    @wraps(make)
    def claim() -> Claim[I]:
        return replace(make(), theorem=inspect.getdoc(make) or "")

    return claim


def mutant(
    claim: Claim[I],
    name: str,
    *,
    lhs: Side[I] | None = None,
    rhs: Side[I] | None = None,
    instances: Instances[I] | None = None,
) -> Claim[I]:
    """A false version of a claim: the same but for the parts given."""
    return replace(
        claim,
        label=f"{claim.label}/{name}",
        lhs=lhs or claim.lhs,
        rhs=rhs or claim.rhs,
        instances=instances or claim.instances,
        mutants=(),
        tight=False,
        violates=None,
        verifies=None,
        curve=None,
        by_hand="",
        theorem="",
        formula=None,
        proof=None,
        factor=None,
        expected=Verdict.REFUTED,
    )


def shrunk(claim: Claim[I], factor: float = 0.99) -> Claim[I]:
    """The mutant whose right side is ``factor`` times the claim's: put the bound alone on the right.

    Of ``lhs <= mean + bound`` the mean would be shrunk too; state it as ``lhs - mean <= bound``. Where the largest
    left / right that the search finds (``Report.tightness``) is below the factor, this mutant may be true.
    """

    def smaller(x: I) -> Array | Estimate:
        rhs = claim.rhs(x)
        if isinstance(rhs, Estimate):
            return Estimate(*(factor * part for part in rhs))
        return factor * np.asarray(rhs, float)

    return replace(mutant(claim, f"bound times {factor}", rhs=smaller), factor=factor)


def swapped(claim: Claim[I]) -> Claim[I]:
    """The mutant with the inequality turned round."""
    return mutant(claim, "sides swapped", lhs=claim.rhs, rhs=claim.lhs)


def dyadic(low: float, high: float, *, steps: int = 64) -> st.SearchStrategy[float]:
    """Multiples of 1/steps, a power of two, in [low, high]: a tiny float underflows and refutes a truth."""
    return st.integers(round(low * steps), round(high * steps)).map(lambda k: k / steps)
