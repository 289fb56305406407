"""One table: every set obeys every law on every array library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dro_core import Dual, dual_objective, duality_gap, worst_case

from . import tolerances as tol
from .generated_problem import Problem
from .registry import BACKENDS, FAMILIES, Backend, Family


def weights_are_a_member_and_give_the_value(problem: Problem) -> None:
    result = problem.solve()
    weights = problem.backend.numpy(result.weights)
    assert np.all(weights >= 0)
    assert abs(weights.sum() - 1) <= 1e-12
    outside = problem.family.violation(problem.ambiguity, weights, problem.reference, problem.losses)
    # The largest q/p, of size p^(-1/k), moves by so much when the threshold moves by some roundings of the range.
    order, smallest = getattr(problem.ambiguity, "order", 2.0), problem.reference[problem.reference > 0].min()
    assert outside <= tol.MEMBER + 8 * tol.EPS * smallest ** (1 / order - 1)
    objective = weights @ problem.losses - problem.charge(weights)
    # A high price times the rounding of scipy's divergence blurs the comparison.
    close = problem.close + 1e-12 * problem.range + 8 * tol.EPS * problem.price
    assert float(result.value) == pytest.approx(objective, rel=0, abs=close)


def zero_mass_gets_nothing(problem: Problem) -> None:
    assert np.all(problem.weights()[problem.reference == 0] == 0)


def gap_certifies(problem: Problem) -> None:
    array = problem.backend.array
    gap = duality_gap(array(problem.losses), problem.ambiguity, problem.solve(), reference=array(problem.reference))
    # The divergence of q/p - 1, which is good to EPS, at prices of up to 2^60 (a thousand times those of the law).
    most = (tol.CERTIFICATE + problem.family.accuracy) * problem.range + 2**12 * tol.EPS**2 * problem.price
    most += 4 * tol.EPS * np.abs(problem.losses).max()  # the threshold is a loss, and rounds as one
    assert -tol.MEMBER * problem.range <= float(gap) <= most


def every_dual_is_an_upper_bound(problem: Problem) -> None:
    multiplier = problem.range * problem.draw(st.sampled_from([0.0, 0.05, 0.25, 1.0, 5.0]))
    threshold = problem.losses.min() + problem.range * problem.draw(st.integers(-32, 32)) / 16
    array = problem.backend.array
    dual = Dual(array(np.array(multiplier)), array(np.array(threshold)))
    bound = dual_objective(array(problem.losses), problem.ambiguity, dual, reference=array(problem.reference))
    assert float(bound) >= problem.value() - problem.close


def translation_equivariant(problem: Problem) -> None:
    shift = problem.draw(st.sampled_from([-3.0, 0.375, 1e4])) * max(1.0, float(np.abs(problem.losses).max()))
    moved = problem.value(problem.losses + shift)
    assert moved == pytest.approx(
        problem.value() + shift, rel=0, abs=2 * problem.close + 4 * tol.EPS * problem.n * abs(shift)
    )


def positively_homogeneous(problem: Problem) -> None:
    factor = problem.draw(st.sampled_from([1e-90, 0.3, 7.0, 1e90]))
    assert problem.value(factor * problem.losses) == pytest.approx(
        factor * problem.value(), abs=2 * factor * problem.close
    )


def monotone(problem: Problem) -> None:
    steps = problem.draw(st.lists(st.integers(0, 8), min_size=problem.n, max_size=problem.n))
    larger = problem.losses + problem.range * np.array(steps) / 8
    assert problem.value(larger) >= problem.value() - 3 * problem.close


def permutation_equivariant(problem: Problem) -> None:
    order = np.array(problem.draw(st.permutations(range(problem.n))))
    moved = problem.ambiguity.take(order)
    permuted = problem.weights(problem.losses[order], reference=problem.reference[order], ambiguity=moved)
    np.testing.assert_allclose(permuted, problem.weights()[order], atol=tol.WEIGHT, rtol=0)


def equal_losses_share_by_mass(problem: Problem) -> None:
    ratio = problem.weights() / np.where(problem.reference > 0, problem.reference, 1)
    for level in np.unique(problem.seen):
        peers = ratio[(problem.losses == level) & (problem.reference > 0)]
        assert np.ptp(peers) <= 1e-12 * peers.max()


def convex(problem: Problem) -> None:
    steps = problem.draw(st.lists(st.integers(-8, 8), min_size=problem.n, max_size=problem.n))
    other = problem.losses + problem.range * np.array(steps) / 4
    middle = problem.value(problem.losses / 2 + other / 2)
    assert middle <= problem.value() / 2 + problem.value(other) / 2 + 4 * problem.close


def monotone_in_the_strength(problem: Problem) -> None:
    fractions = [0.0, 1e-6, 0.25, 0.5, 1.0]
    values = [problem.value(ambiguity=problem.ambiguity.with_strength(fraction)) for fraction in fractions]
    assert np.all(np.diff(values) >= -2 * problem.close)


def no_strength_is_the_mean(problem: Problem) -> None:
    result = problem.weights(ambiguity=problem.ambiguity.with_strength(0.0))
    np.testing.assert_allclose(result, problem.reference, atol=4 * tol.EPS, rtol=4 * tol.EPS * problem.n)


def only_the_reference_where_it_says_so(problem: Problem) -> None:
    ambiguity = problem.ambiguity
    for one in (ambiguity, ambiguity.with_strength(0.0)):
        if one.holds_only_reference:
            result = problem.weights(ambiguity=one)
            np.testing.assert_allclose(result, problem.reference, atol=4 * tol.EPS, rtol=4 * tol.EPS * problem.n)
    if "no_strength_is_the_mean" not in problem.family.lacks:
        assert ambiguity.with_strength(0.0).holds_only_reference


def everything_is_the_maximum(problem: Problem) -> None:
    assert problem.family.everything is not None
    whole = problem.family.everything(problem.reference)
    assert problem.value(ambiguity=whole) == pytest.approx(
        problem.counted.max(), abs=2 * problem.close + 1e-11 * problem.range
    )


def splitting_an_atom_changes_nothing(problem: Problem) -> None:
    at = problem.draw(st.integers(0, problem.n - 1))
    share = problem.draw(st.sampled_from([0.0, 0.25, 0.5, 0.9]))
    masses = np.append(problem.reference, share * problem.reference[at])
    masses[at] -= masses[-1]
    twice = problem.ambiguity.take(np.append(np.arange(problem.n), at))
    split = problem.solve(np.append(problem.losses, problem.losses[at]), reference=masses, ambiguity=twice)
    weights = problem.backend.numpy(split.weights)
    merged = weights[:-1] + weights[-1] * (np.arange(problem.n) == at)
    assert float(split.value) == pytest.approx(problem.value(), abs=2 * problem.close)
    np.testing.assert_allclose(merged, problem.weights(), atol=tol.WEIGHT, rtol=0)


def a_batch_is_a_loop(problem: Problem) -> None:
    rows = np.stack([problem.losses, problem.losses[::-1], -problem.losses])
    batch = problem.solve(rows.reshape(3, 1, -1))
    assert tuple(batch.weights.shape) == (3, 1, problem.n)
    for k, row in enumerate(rows):
        alone = problem.solve(row)
        for ours, theirs in zip(
            (batch.weights, batch.value, *batch.dual), (alone.weights, alone.value, *alone.dual), strict=True
        ):
            # The multiplier has no bound at radius 0, so it is compared relative to itself.
            np.testing.assert_allclose(
                problem.backend.numpy(ours)[k, 0], problem.backend.numpy(theirs), rtol=1e-9, atol=1e-9 * problem.range
            )


def arguments_stay_as_they_were(problem: Problem) -> None:
    array = problem.backend.array
    given_losses, masses = array(problem.losses), array(problem.reference)
    worst_case(given_losses, problem.ambiguity, reference=masses)
    np.testing.assert_array_equal(problem.backend.numpy(given_losses), problem.losses)
    np.testing.assert_array_equal(problem.backend.numpy(masses), problem.reference)


LAWS: list[Callable[[Problem], None]] = [
    weights_are_a_member_and_give_the_value,
    zero_mass_gets_nothing,
    gap_certifies,
    every_dual_is_an_upper_bound,
    translation_equivariant,
    positively_homogeneous,
    monotone,
    permutation_equivariant,
    equal_losses_share_by_mass,
    convex,
    monotone_in_the_strength,
    no_strength_is_the_mean,
    only_the_reference_where_it_says_so,
    everything_is_the_maximum,
    splitting_an_atom_changes_nothing,
    a_batch_is_a_loop,
    arguments_stay_as_they_were,
]


NUMPY, *OTHERS = BACKENDS  # torch in main memory goes through numpy; the standard itself checks every call and is slow
FEWER = settings(max_examples=max(4, settings().max_examples // 6))
by_name = {"ids": lambda item: getattr(item, "name", None) or item.__name__}
TABLE = [(family, law) for family in FAMILIES for law in LAWS if law.__name__ not in family.lacks]
rows = pytest.mark.parametrize(("family", "law"), TABLE, ids=[f"{family.name}-{law.__name__}" for family, law in TABLE])
on_others = pytest.mark.parametrize("backend", OTHERS, **by_name)


def test_every_exception_names_a_law() -> None:
    assert {name for family in FAMILIES for name in family.lacks} <= {law.__name__ for law in LAWS}


@rows
@given(data=st.data())
def test_law(law: Callable[[Problem], None], family: Family, data: st.DataObject) -> None:
    law(Problem(family, NUMPY, data.draw))


@on_others
@pytest.mark.parametrize("family", FAMILIES, **by_name)
@FEWER
@given(data=st.data())
def test_another_library_solves_what_numpy_solves(family: Family, backend: Backend, data: st.DataObject) -> None:
    """Many problems in one call, so that every law that numpy obeys is obeyed by the others within rounding."""
    problem = Problem(family, NUMPY, data.draw)
    n, xs = problem.n, st.integers(-32, 32)
    drawn = data.draw(st.lists(xs, min_size=4 * n, max_size=4 * n).map(lambda k: np.reshape(k, (4, n)) / 8))
    unit = float(np.abs(problem.losses).max()) or 1.0
    many = np.stack([problem.losses, -problem.losses, *(unit * drawn)]).reshape(2, 3, n)
    array, reference = backend.array, backend.array(problem.reference)
    given_losses = array(many)
    ours = worst_case(given_losses, problem.ambiguity, reference=reference)
    theirs = worst_case(many, problem.ambiguity, reference=problem.reference)
    np.testing.assert_array_equal(backend.numpy(given_losses), many)
    spread = np.ptp(many, axis=-1) + np.finfo(float).tiny
    close = tol.exact(n) * np.abs(many).max() + (family.accuracy + 1e-12) * spread
    assert np.all(np.abs(backend.numpy(ours.value) - theirs.value) <= 2 * close)
    weights = backend.numpy(ours.weights)
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=0, atol=1e-12)
    if "splitting_an_atom_changes_nothing" not in family.lacks:  # else several q are worst
        np.testing.assert_allclose(weights, theirs.weights, rtol=0, atol=tol.WEIGHT)
    dual = Dual(spread * data.draw(st.sampled_from([0.05, 0.25, 1.0])), many.min(axis=-1) + spread / 2)
    bound = dual_objective(given_losses, problem.ambiguity, Dual(*map(array, dual)), reference=reference)
    expected = dual_objective(many, problem.ambiguity, dual, reference=problem.reference)
    np.testing.assert_allclose(backend.numpy(bound), expected, rtol=1e-12, atol=float(np.max(2 * close)))


@pytest.mark.exhaustive
@on_others
@rows
@FEWER
@given(data=st.data())
def test_law_on_another_library(
    law: Callable[[Problem], None], family: Family, backend: Backend, data: st.DataObject
) -> None:
    law(Problem(family, backend, data.draw))
