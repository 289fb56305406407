"""The search for a counterexample, and the verdict on what it found."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from proofs_check.claim import Array, Claim, Evidence, I, Verdict
from proofs_check.evaluation import TOLERANCE, Tally, along, evaluate
from proofs_check.proof import with_proof
from proofs_check.report import CurvePoint, Report, Witness, instance_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

REACHED = 0.99  # of a bound that is claimed to be tight
MOST_REJECTED = 0.9
_GRID = 2.0**20


@dataclass(frozen=True)
class Budget:
    """How long to look: draws of a strategy, restarts of the optimiser, evaluations per restart, simulations."""

    examples: int
    restarts: int
    evaluations: int
    draws: int = 4000

    def scaled(self, effort: float) -> Budget:
        """Return this budget for a claim of that effort; corners and simulations stay."""
        examples, evaluations = max(1, round(effort * self.examples)), round(effort * self.evaluations)
        return replace(self, examples=examples, evaluations=evaluations)


QUICK = Budget(examples=100, restarts=2, evaluations=60, draws=4000)
FULL = Budget(examples=1000, restarts=8, evaluations=500, draws=100_000)


def check(
    claim: Claim[I], *, budget: Budget = QUICK, seed: int = 0, curves: bool = False, seen: list[I] | None = None
) -> Report:
    """Look for a counterexample by corners, guided draws and an optimiser; then do the same to the mutants.

    Args:
        claim: what to check.
        budget: how long to look.
        seed: of the draws and of the simulations.
        curves: whether to evaluate the claim's curve, for a figure.
        seen: is given every instance on which both sides were evaluated, those of mutants aside.

    Example:
        >>> from proofs_check.claims.inner.inner_problem import tv_gap
        >>> check(tv_gap()).verdict
        <Verdict.UPHELD: 'upheld'>
    """
    start = time.perf_counter()
    tally = _search(claim, budget.scaled(claim.effort), seed, seen)
    controls = {false.label: check(false, budget=budget, seed=seed).verdict for false in claim.mutants}
    verdict, evidence, reason = with_proof(claim, *_verdict(tally, controls))
    return Report(
        label=claim.label,
        verdict=verdict,
        evidence=evidence,
        expected=claim.expected,
        reason=reason,
        checked=tally.checked,
        rejected=tally.rejected,
        worst=tally.worst,
        tightness=tally.tightness,
        controls=controls,
        seconds=time.perf_counter() - start,
        family=claim.proof.family if claim.proof is not None and evidence is Evidence.PROVED else "",
        points=tuple(tally.points),
        curve=_curve(claim, budget, seed) if curves else (),
    )


def replay(claim: Claim[I], stored: Mapping[str, Any]) -> Witness:
    """Evaluate the worst instance of a stored report (`Report.to_json`) again."""
    return evaluate(claim, instance_from_json(claim, stored["worst"]["instance"]))


def _search(claim: Claim[I], budget: Budget, seed: int, seen: list[I] | None) -> Tally[I]:
    """Each stage starts only if the one before found no counterexample."""
    tally = Tally(claim, seen=seen)
    for k, corner in enumerate(claim.instances.corners):
        tally.visit(_simulated(corner, budget, seed, k))
    if claim.instances.strategy is None:
        return tally
    if not tally.refuted:
        _draw(tally, budget, seed)
    if not tally.refuted:
        for witness in tally.best[: budget.restarts]:
            _climb(tally, witness.instance, budget.evaluations)
    return tally


def _simulated(instance: I, budget: Budget, seed: int, k: int) -> I:
    """Fill in the size and the seed of a statistical instance; any other stays as it is."""
    if not {"draws", "seed"} <= {f.name for f in fields(cast("Any", instance))}:
        return instance
    own = int(np.random.SeedSequence([seed, k]).generate_state(1)[0])
    return cast("I", replace(cast("Any", instance), draws=budget.draws, seed=own))


def _draw(tally: Tally[I], budget: Budget, seed: int) -> None:
    """Hypothesis as a library: it draws and climbs the margin; nothing fails, so nothing is shrunk."""
    strategy = tally.claim.instances.strategy
    if strategy is None:
        return

    def visit(instance: I) -> None:
        margin = None if tally.refuted else tally.visit(instance)
        if margin is not None and np.isfinite(margin):
            hypothesis.target(margin)

    settings = hypothesis.settings(
        max_examples=budget.examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    )
    hypothesis.seed(seed)(settings(hypothesis.given(strategy)(visit)))()


def _climb(tally: Tally[I], start: I, evaluations: int) -> None:
    """Nelder-Mead on the floats of an instance: the sides are piecewise smooth at best."""
    origin = _floats(start)
    if not origin.size or evaluations < 1:
        return

    def descent(vector: Array) -> float:
        margin = None if tally.refuted else _margin(tally, _with_floats(start, vector))
        return -margin if margin is not None and np.isfinite(margin) else 1e6

    minimize(descent, origin, method="Nelder-Mead", options={"maxfev": evaluations})


def _margin(tally: Tally[I], instance: I) -> float | None:
    """Like ``visit``, but a step of the optimiser outside the assumptions is no rejected draw."""
    rejected = tally.rejected
    margin = tally.visit(instance)
    tally.rejected = rejected
    return margin


def _floats(instance: Any) -> Array:
    return np.hstack([np.empty(0), *(value.ravel() for value in _float_fields(instance).values())])


def _with_floats(instance: I, vector: Array) -> I:
    """The instance with its floats replaced, on a fine dyadic grid."""
    rest = np.round(vector * _GRID) / _GRID
    changes: dict[str, Any] = {}
    for name, old in _float_fields(instance).items():
        changes[name] = _tuples(rest[: old.size].reshape(old.shape).tolist())
        rest = rest[old.size :]
    return cast("I", replace(cast("Any", instance), **changes))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, cast("list[Any]", value))) if isinstance(value, list) else value


def _float_fields(instance: Any) -> dict[str, Array]:
    """The fields that hold a float, a tuple of floats, or a table of them."""
    values = {f.name: _array(getattr(instance, f.name)) for f in fields(instance)}
    return {name: value for name, value in values.items() if value.size and value.dtype == np.float64}


def _array(value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError:  # a ragged table
        return np.empty(0)


def _curve(claim: Claim[I], budget: Budget, seed: int) -> tuple[CurvePoint, ...]:
    """Both sides along the claim's curve."""
    if claim.curve is None:
        return ()
    family = [_simulated(instance, budget, seed, k) for k, instance in enumerate(claim.curve.instances)]
    places = (float(getattr(instance, claim.curve.axis)) for instance in family)
    return tuple(CurvePoint(x, *sides) for x, sides in zip(places, along(claim, family), strict=True))


def _verdict(tally: Tally[Any], controls: Mapping[str, Verdict]) -> tuple[Verdict, Evidence, str]:
    claim = tally.claim
    if not tally.refuted:
        verdict, reason = _unrefuted(tally, controls)
        return verdict, _evidence(tally), reason
    violations = [witness.instance for witness in tally.best if witness.margin > TOLERANCE]
    if claim.violates is None:
        evidence = Evidence.STATISTICAL if tally.width > 0 else Evidence.SEARCHED
        return Verdict.REFUTED, evidence, "An instance violates the claim."
    if any(map(claim.violates, violations)):
        return Verdict.REFUTED, Evidence.CERTIFIED, "An instance violates the claim in exact arithmetic."
    return (
        Verdict.INCONCLUSIVE,
        Evidence.SEARCHED,
        "The violation found in floating point is not an exact one.",
    )


def _evidence(tally: Tally[Any]) -> Evidence:
    if tally.width > 0:
        return Evidence.STATISTICAL
    if tally.claim.verifies is not None and tally.unverified is None:
        return Evidence.CERTIFIED
    return Evidence.EXHAUSTIVE if tally.claim.instances.complete else Evidence.SEARCHED


def _unrefuted(tally: Tally[Any], controls: Mapping[str, Verdict]) -> tuple[Verdict, str]:
    seen = tally.checked + tally.rejected
    survivors = [label for label, verdict in controls.items() if verdict is not Verdict.REFUTED]
    if tally.broken is not None:
        why = tally.broken.error or "a side is not a number"
        return Verdict.INCONCLUSIVE, f"The claim could not be evaluated on the instance shown: {why}."
    if tally.rejected > MOST_REJECTED * seen or tally.active is None:
        return Verdict.VACUOUS, f"{tally.rejected} of {seen} instances fail the assumptions."
    if not tally.active.all():
        return Verdict.VACUOUS, "The left side is always zero or the right side always infinite."
    if tally.unverified is not None:
        return Verdict.INCONCLUSIVE, "Exact arithmetic does not confirm the claim on the instance shown."
    if tally.width > tally.claim.resolution:
        return Verdict.INCONCLUSIVE, f"The intervals are too wide: {tally.width:.2g} of the scale. Draw more."
    if tally.claim.tight and (tally.tightness or 0.0) < REACHED:
        return Verdict.INCONCLUSIVE, f"Claimed tight, but only {tally.tightness} of the bound was reached."
    if survivors:
        return Verdict.INCONCLUSIVE, f"The check has no power: it did not refute {', '.join(survivors)}."
    return Verdict.UPHELD, "No instance violates the claim, and every mutant was refuted."
