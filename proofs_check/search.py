"""The search for a counterexample, and the verdict on what it found."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, cast

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from proofs_check.claim import Array, Claim, Evidence, I, Relation, Verdict
from proofs_check.report import Report, Witness, instance_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

TOLERANCE = 1e-8  # of the scale: the solvers promise 1e-9, a mutant misses by 1e-3 or more
REACHED = 0.99  # of a bound that is claimed to be tight
MOST_REJECTED = 0.9
_GRID = 2.0**20


@dataclass(frozen=True)
class Budget:
    """How long to look: draws, restarts of the optimiser, evaluations per restart."""

    examples: int
    restarts: int
    evaluations: int


QUICK = Budget(examples=100, restarts=2, evaluations=60)
FULL = Budget(examples=1000, restarts=8, evaluations=500)


def check(claim: Claim[I], *, budget: Budget = QUICK, seed: int = 0) -> Report:
    """Look for a counterexample by corners, guided draws and an optimiser; then do the same to the mutants.

    Example:
        >>> from proofs_check.inner_problem import tv_gap
        >>> check(tv_gap()).verdict
        <Verdict.UPHELD: 'upheld'>
    """
    start = time.perf_counter()
    tally = _search(claim, budget, seed)
    controls = {false.label: check(false, budget=budget, seed=seed).verdict for false in claim.mutants}
    verdict, evidence, reason = _verdict(tally, controls)
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
    )


def replay(claim: Claim[I], stored: Mapping[str, Any]) -> Witness:
    """Evaluate the worst instance of a stored report (`Report.to_json`) again."""
    return _Tally(claim).evaluate(instance_from_json(claim, stored["worst"]["instance"]))


@dataclass
class _Tally(Generic[I]):
    """What the search has seen so far."""

    claim: Claim[I]
    checked: int = 0
    rejected: int = 0
    tightness: float | None = None
    best: list[Witness] = field(default_factory=list[Witness])
    broken: Witness | None = None
    active: NDArray[np.bool_] | None = None

    @property
    def worst(self) -> Witness | None:
        """A broken side outranks the largest margin, unless that is a counterexample."""
        best = self.best[0] if self.best else None
        return best if self.refuted else self.broken or best

    @property
    def refuted(self) -> bool:
        return bool(self.best) and self.best[0].margin > TOLERANCE

    def visit(self, instance: I) -> float | None:
        """Margin of an admitted instance; None, and one more rejection, otherwise."""
        if self.claim.admits(instance):
            return self.evaluate(instance).margin
        self.rejected += 1
        return None

    def evaluate(self, instance: I) -> Witness:
        claim, scale = self.claim, self.claim.scale(instance)
        lhs, rhs = (np.atleast_1d(np.asarray(side(instance), float)) for side in (claim.lhs, claim.rhs))
        with np.errstate(invalid="ignore"):
            margins = (lhs - rhs) / scale
        margins = np.abs(margins) if claim.relation is Relation.EQUAL else margins
        entry = int(np.argmax(margins))  # the first NaN, if there is one
        witness = Witness(instance, float(lhs[entry]), float(rhs[entry]), float(margins[entry]))
        self._record(witness, lhs, rhs, scale)
        return witness

    def _record(self, witness: Witness, lhs: Array, rhs: Array, scale: float) -> None:
        self.checked += 1
        if np.isnan(witness.margin):
            self.broken = self.broken or witness
            return
        self.best = sorted([*self.best, witness], key=lambda w: -w.margin)[:16]
        active = (np.abs(lhs) > TOLERANCE * scale) & (rhs < np.inf)
        self.active = active if self.active is None else self.active | active
        sizeable = (rhs > 1e-3 * scale) & (rhs < np.inf)
        if sizeable.any():
            self.tightness = max(self.tightness or 0.0, float(np.max(lhs[sizeable] / rhs[sizeable])))


def _search(claim: Claim[I], budget: Budget, seed: int) -> _Tally[I]:
    """Each stage starts only if the one before found no counterexample."""
    tally = _Tally(claim)
    for corner in claim.instances.corners:
        tally.visit(corner)
    if not tally.refuted:
        _draw(tally, budget, seed)
    if not tally.refuted:
        for witness in tally.best[: budget.restarts]:
            _climb(tally, witness.instance, budget.evaluations)
    return tally


def _draw(tally: _Tally[I], budget: Budget, seed: int) -> None:
    """Hypothesis as a library: it draws and climbs the margin; nothing fails, so nothing is shrunk."""

    def visit(instance: I) -> None:
        margin = tally.visit(instance)
        if margin is not None and np.isfinite(margin):
            hypothesis.target(margin)

    settings = hypothesis.settings(
        max_examples=budget.examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.target),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    )
    hypothesis.seed(seed)(settings(hypothesis.given(tally.claim.instances.strategy)(visit)))()


def _climb(tally: _Tally[I], start: I, evaluations: int) -> None:
    """Nelder-Mead on the floats of an instance: the sides are piecewise smooth at best."""
    origin = _floats(start)
    if not origin.size:
        return

    def descent(vector: Array) -> float:
        instance = _with_floats(start, vector)
        if not tally.claim.admits(instance):
            return 1e6
        margin = tally.evaluate(instance).margin
        return -margin if np.isfinite(margin) else 1e6

    minimize(descent, origin, method="Nelder-Mead", options={"maxfev": evaluations})


def _floats(instance: Any) -> Array:
    return np.hstack([np.empty(0), *_float_fields(instance).values()])


def _with_floats(instance: I, vector: Array) -> I:
    """The instance with its floats replaced, on a fine dyadic grid."""
    rest: list[float] = (np.round(vector * _GRID) / _GRID).tolist()
    changes: dict[str, Any] = {}
    for name, old in _float_fields(instance).items():
        changes[name] = tuple(rest[: old.size]) if old.ndim else rest[0]
        rest = rest[old.size :]
    return cast("I", replace(cast("Any", instance), **changes))


def _float_fields(instance: Any) -> dict[str, Array]:
    """The fields that hold a float or a tuple of floats."""
    values = {f.name: np.asarray(getattr(instance, f.name)) for f in fields(instance)}
    return {name: value for name, value in values.items() if value.size and value.dtype == np.float64}


def _verdict(tally: _Tally[Any], controls: Mapping[str, Verdict]) -> tuple[Verdict, Evidence, str]:
    if not tally.refuted:
        verdict, reason = _unrefuted(tally, controls)
        return verdict, Evidence.SEARCHED, reason
    certificate = tally.claim.certificate
    if certificate is None:
        return Verdict.REFUTED, Evidence.SEARCHED, "An instance violates the claim."
    if certificate(tally.best[0].instance):
        return Verdict.REFUTED, Evidence.CERTIFIED, "An instance violates the claim in exact arithmetic."
    return (
        Verdict.INCONCLUSIVE,
        Evidence.SEARCHED,
        "The violation found in floating point is not an exact one.",
    )


def _unrefuted(tally: _Tally[Any], controls: Mapping[str, Verdict]) -> tuple[Verdict, str]:
    seen = tally.checked + tally.rejected
    survivors = [label for label, verdict in controls.items() if verdict is not Verdict.REFUTED]
    if tally.broken is not None:
        return Verdict.INCONCLUSIVE, "A side is not a number on the instance shown."
    if tally.rejected > MOST_REJECTED * seen or tally.active is None:
        return Verdict.VACUOUS, f"{tally.rejected} of {seen} instances fail the assumptions."
    if not tally.active.all():
        return Verdict.VACUOUS, "The left side is always zero or the right side always infinite."
    if tally.claim.tight and (tally.tightness or 0.0) < REACHED:
        return Verdict.INCONCLUSIVE, f"Claimed tight, but only {tally.tightness} of the bound was reached."
    if survivors:
        return Verdict.INCONCLUSIVE, f"The check has no power: it did not refute {', '.join(survivors)}."
    return Verdict.UPHELD, "No instance violates the claim, and every mutant was refuted."
