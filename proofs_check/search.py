"""The search for a counterexample, and the verdict on what it found."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from proofs_check.claim import Claim, Evidence, I, Verdict
from proofs_check.evaluation import ROUNDING, TOLERANCE, Tally, along, evaluate
from proofs_check.hunt.forms import form_of
from proofs_check.hunt.shrinking import shrink
from proofs_check.hunt.stages import climb, draw, wander
from proofs_check.proof import with_proof
from proofs_check.report import Control, CurvePoint, Report, Witness, instance_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

REACHED = 0.99  # of a bound that is claimed to be tight
MOST_REJECTED = 0.9
NO_CONTROL = (
    "No false version was tried, so nothing shows that the search would have found a violation: give the claim mutants."
)
_CLEAR = 1e-3  # of the scale: a smaller violation does not become smaller still when its instance is shrunk


@dataclass(frozen=True)
class Budget:
    """How long to look.

    Attributes:
        examples: draws of a strategy.
        restarts: starts of the optimiser.
        evaluations: of the optimiser, per start.
        draws: of every simulation.
        moves: evaluations of instances made from those drawn.
        work: the most cases that an instance made by the search may have its sides go through.
        alone: whether mutants are also searched without corners.
        share: one instance in so many goes to exact arithmetic, besides corners and those within 1e-9 of the bound.
    """

    examples: int
    restarts: int
    evaluations: int
    draws: int = 4000
    moves: int = 60
    work: int = 1000
    alone: bool = False
    share: int = 1

    def scaled(self, effort: float) -> Budget:
        """Return this budget for a claim of that effort; corners and simulations stay."""
        examples, evaluations = max(1, round(effort * self.examples)), round(effort * self.evaluations)
        return replace(self, examples=examples, evaluations=evaluations, moves=round(effort * self.moves))


QUICK = Budget(examples=100, restarts=6, evaluations=60, draws=4000, moves=800)
FULL = Budget(examples=1000, restarts=12, evaluations=300, draws=100_000, moves=4000, work=10_000, alone=True, share=8)


def check(
    claim: Claim[I],
    *,
    budget: Budget = QUICK,
    seed: int = 0,
    curves: bool = False,
    seen: list[I] | None = None,
    exact: list[I] | None = None,
) -> Report:
    """Look for a counterexample by corners, draws, moves and an optimiser; then do the same to the mutants.

    Args:
        claim: what to check.
        budget: how long to look.
        seed: of the draws, the moves and the simulations.
        curves: whether to evaluate the claim's curve, for a figure.
        seen: is given every instance on which both sides were evaluated, those of mutants aside.
        exact: is given those of them that were chosen for exact arithmetic: by the quick budget all.

    Example:
        >>> from proofs_check.claims.inner.inner_problem import tv_gap
        >>> check(tv_gap()).verdict
        <Verdict.UPHELD: 'upheld'>
    """
    start = time.perf_counter()
    tally = _search(claim, budget.scaled(claim.effort), seed, seen)
    if exact is not None:
        exact += tally.exact
    powers = {false.label: _control(false, budget.scaled(claim.effort), seed) for false in claim.mutants}
    verdict, evidence, reason = with_proof(claim, *_verdict(tally, powers))
    return Report(
        label=claim.label,
        verdict=verdict,
        evidence=evidence,
        expected=claim.expected,
        reason=reason,
        checked=tally.checked,
        exact=len(tally.exact) if claim.verifies is not None else 0,
        rejected=tally.rejected,
        worst=tally.worst,
        simplest=_simplest(tally),
        tightness=tally.tightness,
        powers=powers,
        seconds=time.perf_counter() - start,
        family=claim.proof.family if claim.proof is not None and evidence is Evidence.PROVED else "",
        points=tuple(tally.points),
        curve=_curve(claim, budget, seed) if curves else (),
    )


def replay(claim: Claim[I], stored: Mapping[str, Any]) -> Witness:
    """Evaluate the worst instance of a stored report (`Report.to_json`) again."""
    return evaluate(claim, instance_from_json(claim, stored["worst"]["instance"]))


def _search(claim: Claim[I], budget: Budget, seed: int, seen: list[I] | None = None) -> Tally[I]:
    """Each stage starts only if the ones before found no counterexample."""
    tally = Tally(claim, seen=seen, share=budget.share)
    _visit_corners(tally, budget, seed)
    strategy = claim.instances.strategy
    if strategy is None or tally.settled:
        return tally
    draw(tally, strategy, budget.examples, seed)
    if tally.pool and not _is_simulated(tally.pool[0]):
        wander(tally, budget.moves, budget.work, seed)
        climb(tally, budget.restarts, budget.evaluations)
    return tally


def _visit_corners(tally: Tally[I], budget: Budget, seed: int) -> None:
    for k, corner in enumerate(tally.claim.instances.corners):
        tally.visit(_simulated(corner, budget, seed, k))


def _control(false: Claim[Any], budget: Budget, seed: int) -> Control:
    """Whether a mutant is refuted: by its corners, by search from them and, if the budget says so, without them."""
    corners = Tally(false)
    _visit_corners(corners, budget, seed)
    alone: bool | None = None
    if budget.alone and false.instances.strategy is not None:
        search = replace(false, instances=replace(false.instances, corners=()))
        alone = _search(search, budget, seed).settled
    refuted = corners.settled or (alone or _search(false, budget, seed).settled)
    return Control(refuted, corners.settled, alone)


def _is_simulated(instance: Any) -> bool:
    """Whether an instance has a size and a seed to fill in."""
    return {"draws", "seed"} <= {f.name for f in fields(instance)}


def _simulated(instance: I, budget: Budget, seed: int, k: int) -> I:
    """Fill in the size and the seed of a statistical instance; any other stays as it is."""
    if not _is_simulated(instance):
        return instance
    own = int(np.random.SeedSequence([seed, k]).generate_state(1)[0])
    return cast("I", replace(cast("Any", instance), draws=budget.draws, seed=own))


def _simplest(tally: Tally[Any]) -> Witness | None:
    """The simplest instance found that violates the claim as clearly, or as certainly, as the worst one."""
    claim, worst = tally.claim, tally.worst
    if not tally.settled or worst is None or _is_simulated(worst.instance):
        return None
    least = 0.0 if claim.violates else max(TOLERANCE, min(worst.margin, _CLEAR))

    def violates(instance: Any) -> bool:
        try:
            certain = claim.violates is None or claim.violates(instance)
        except Exception:  # an exact check that is not made for it
            return False
        return tally.admits(instance) and evaluate(claim, instance).margin >= least and certain

    simplest = evaluate(claim, shrink(worst.instance, violates, form=form_of(tally.pool)))
    if tally.seen is not None:
        tally.seen.append(simplest.instance)
    return simplest


def _curve(claim: Claim[I], budget: Budget, seed: int) -> tuple[CurvePoint, ...]:
    """Both sides along the claim's curve."""
    if claim.curve is None:
        return ()
    family = [_simulated(instance, budget, seed, k) for k, instance in enumerate(claim.curve.instances)]
    places = (float(getattr(instance, claim.curve.axis)) for instance in family)
    return tuple(CurvePoint(x, *sides) for x, sides in zip(places, along(claim, family), strict=True))


def _verdict(tally: Tally[Any], powers: Mapping[str, Control]) -> tuple[Verdict, Evidence, str]:
    claim = tally.claim
    if tally.certified is not None:
        return Verdict.REFUTED, Evidence.CERTIFIED, "An instance violates the claim in exact arithmetic."
    if tally.violated and claim.violates is None:
        evidence = Evidence.STATISTICAL if tally.width > 0 else Evidence.SEARCHED
        return Verdict.REFUTED, evidence, "An instance violates the claim."
    if tally.violated:
        return (
            Verdict.INCONCLUSIVE,
            Evidence.SEARCHED,
            "The violation found in floating point is not an exact one.",
        )
    verdict, reason = _unrefuted(tally, powers)
    return verdict, _evidence(tally), reason


def _evidence(tally: Tally[Any]) -> Evidence:
    if tally.width > 0:
        return Evidence.STATISTICAL
    if tally.claim.verifies is not None and tally.unverified is None:
        return Evidence.CERTIFIED
    return Evidence.EXHAUSTIVE if tally.claim.instances.complete else Evidence.SEARCHED


def _unrefuted(tally: Tally[Any], powers: Mapping[str, Control]) -> tuple[Verdict, str]:
    claim, seen = tally.claim, tally.checked + tally.rejected
    survivors = [label for label, power in powers.items() if not power.refuted]
    if tally.broken is not None:
        why = tally.broken.error or "a side is not a number"
        return Verdict.INCONCLUSIVE, f"The claim could not be evaluated on the instance shown: {why}."
    if tally.rejected > MOST_REJECTED * seen or tally.active is None:
        return Verdict.VACUOUS, f"{tally.rejected} of {seen} instances fail the assumptions."
    if not tally.active.all():
        return Verdict.VACUOUS, "The left side is always zero or the right side always infinite."
    if tally.unverified is not None:
        return Verdict.INCONCLUSIVE, "Exact arithmetic does not confirm the claim on the instance shown."
    if _touches(tally):
        return (
            Verdict.TOUCHING,
            f"Beyond the bound by {tally.best[0].margin:.1g} of the scale: rounding or not.",
        )
    if tally.width > claim.resolution:
        return Verdict.INCONCLUSIVE, f"The intervals are too wide: {tally.width:.2g} of the scale. Draw more."
    if claim.tight and (tally.tightness or 0.0) < REACHED:
        return Verdict.INCONCLUSIVE, f"Claimed tight, but only {tally.tightness} of the bound was reached."
    if survivors:
        return Verdict.INCONCLUSIVE, _powerless(claim, survivors, tally.tightness)
    if not (powers or claim.proof is not None or claim.instances.complete):
        return Verdict.INCONCLUSIVE, NO_CONTROL
    blind = [label for label, power in powers.items() if power.alone is False]
    if blind and _evidence(tally) is Evidence.SEARCHED:
        return Verdict.INCONCLUSIVE, f"The search has no power of its own: only corners refute {', '.join(blind)}."
    return Verdict.UPHELD, "No instance violates the claim, and every mutant was refuted."


def _powerless(claim: Claim[Any], survivors: list[str], tightness: float | None) -> str:
    """What is wrong where mutants survive: the search, or a mutant that may be true."""
    why = f"The check has no power: it did not refute {', '.join(survivors)}."
    factors = {false.label: false.factor for false in claim.mutants}
    mild = [label for label in survivors if tightness is not None and (factors.get(label) or 0.0) >= tightness > 0]
    if not mild:
        return why
    return f"{why} {', '.join(mild)} may be true, for the tightness is {tightness:.4g}: shrink by a factor below that."


def _touches(tally: Tally[Any]) -> bool:
    """Whether the worst violation is one that floating point cannot decide and exact arithmetic was not asked about."""
    exact = tally.claim.verifies is not None or tally.claim.violates is not None
    return not exact and bool(tally.best) and tally.best[0].margin > ROUNDING
