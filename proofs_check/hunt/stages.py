"""The stages of a search: draws of the claim's strategy, moves from what was drawn, and an optimiser."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, cast

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from proofs_check.hunt.forms import form_of, on_grid, work_of
from proofs_check.hunt.moves import Moves

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from proofs_check.claim import Array, I
    from proofs_check.evaluation import Tally
    from proofs_check.hunt.guides import Measure

_UNIT = 100.0  # cases that cost as much as asking the sides at all
_REFUSED = 0.1  # what a move that leads outside the assumptions costs
_GUIDED = 0.6  # moves that start at one of the best instances; the others start anywhere


class _Settled(Exception):
    """There is a counterexample: stop drawing."""


def draw(tally: Tally[I], strategy: SearchStrategy[I], examples: int, seed: int) -> None:
    """Hypothesis as a library; the exception that ends it is our own, and nothing is shrunk by it."""

    def visit(instance: I) -> None:
        if not tally.settled:
            tally.visit(instance)
        if tally.settled:
            raise _Settled

    settings = hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    )
    try:
        hypothesis.seed(seed)(settings(hypothesis.given(strategy)(visit)))()
    except _Settled:
        return


def wander(tally: Tally[Any], moves: float, work: float, seed: int) -> None:
    """Move from the best instances, and from any others, until a counterexample or the end of the budget."""
    rng = random.Random(seed)
    step = Moves(form_of(tally.pool), tally.admits, rng)
    known = set(tally.pool)
    while moves > 0 and not tally.settled:
        start = tally.guides.choose(rng) if tally.guides.kept and rng.random() < _GUIDED else rng.choice(tally.pool)
        candidate = step.beside(start, tally.pool)
        moves -= _REFUSED
        if candidate in known or not tally.admits(candidate) or (cases := work_of(candidate)) > work:
            continue
        known.add(candidate)
        tally.probe(candidate)
        moves -= 1 + cases / _UNIT


def climb(tally: Tally[Any], starts: int, evaluations: int) -> None:
    """Nelder-Mead on the floats of the best instances: the sides are piecewise smooth at best."""
    for measure, start in tally.guides.starts(starts):
        _climb(tally, measure, start, round(evaluations / (1 + work_of(start) / _UNIT)))


def _climb(tally: Tally[Any], measure: Measure, start: Any, evaluations: int) -> None:
    origin = _floats(start)
    if not origin.size or evaluations < 1 or tally.settled:
        return

    def descent(vector: Array) -> float:
        candidate = _with_floats(start, vector)
        scores = None if tally.settled or not tally.admits(candidate) else tally.probe(candidate)
        score = (scores or {}).get(measure, -np.inf)
        return -score if np.isfinite(score) else 1e6

    simplex = np.vstack([origin, origin + np.diag(np.maximum(np.abs(origin), 0.25) / 16)])
    options = {"maxfev": evaluations, "initial_simplex": simplex}
    cast("Callable[..., Any]", minimize)(descent, origin, method="Nelder-Mead", options=options)


def _floats(instance: Any) -> Array:
    return np.hstack([np.empty(0), *(value.ravel() for value in _float_fields(instance).values())])


def _with_floats(instance: Any, vector: Array) -> Any:
    """The instance with its floats replaced, on a fine dyadic grid."""
    rest = vector
    changes: dict[str, Any] = {}
    for name, old in _float_fields(instance).items():
        changes[name] = _tuples([on_grid(x) for x in rest[: old.size]], old.shape)
        rest = rest[old.size :]
    return replace(instance, **changes)


def _tuples(flat: list[float], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    below = len(flat) // shape[0]
    return tuple(_tuples(flat[k * below : (k + 1) * below], shape[1:]) for k in range(shape[0]))


def _float_fields(instance: Any) -> dict[str, Array]:
    """The fields that hold a float, a tuple of floats, or a table of them."""
    values = {f.name: _array(getattr(instance, f.name)) for f in fields(instance)}
    return {name: value for name, value in values.items() if value.size and value.dtype == np.float64}


def _array(value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError:  # a ragged table
        return np.empty(0)
