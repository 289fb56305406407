"""The collapse radius of margins and of features, against linear and conic programs, closed forms and robust fits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import entr

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    ChiSquare,
    CVaR,
    TotalVariation,
    Wasserstein,
    collapse_radius,
    fit_pairs,
    margin_collapse,
    worst_case,
)

from .collapse_problems import CLASSES, KINDS, SEEDS, balancing, kinds, never, only_radius, problem

# One dimension


@kinds
@pytest.mark.parametrize("seed", SEEDS)
def test_margins_collapse_where_the_program_says(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    margins, p = rng.standard_normal((2, 9)) + 0.4, rng.dirichlet(np.ones(9))
    if seed % 2:
        margins, p[2] = np.round(margins) - 0.25, 0.0
        p /= p.sum()
    found = margin_collapse(margins, kind, reference=p)
    for value, row in zip(np.asarray(found), margins, strict=True):
        assert value == pytest.approx(balancing(row[:, None], p, kind, below=True), abs=2e-6)


@pytest.mark.parametrize("accuracy", [0.5, 0.55, 0.75, 0.99])
def test_signs_have_closed_forms(accuracy: float) -> None:
    signs, a = [[1.0, -1.0]], accuracy
    right = {
        "tv": a - 0.5,
        "cvar": 2 * (1 - a),
        "chi2": (2 * a - 1) ** 2 / (8 * a * (1 - a)),
        "kl": -np.log(4 * a * (1 - a)) / 2,
        "burg": np.log(2) - entr(a) - entr(1 - a),
    }
    for kind, radius in right.items():
        found = margin_collapse(signs, kind, reference=[a, 1 - a])
        assert found == pytest.approx([radius], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("kind", [TotalVariation, CVaR, ChiSquare, KL, Burg], ids=lambda kind: kind.spec)
def test_a_set_is_named_by_its_class_too(kind: type[AmbiguitySet]) -> None:
    margins = np.random.default_rng(2).standard_normal((3, 40)) + 0.3
    np.testing.assert_array_equal(margin_collapse(margins, kind), margin_collapse(margins, kind.spec))


@pytest.mark.parametrize("kind", ["tv", "cvar"])
def test_minibatches_collapse_where_their_mean_worst_case_is_zero(kind: str) -> None:
    """By the definition: all 4-subsets of 9 margins, and the set's own worst case of each."""
    margins = np.random.default_rng(8).standard_normal(9) + 0.9
    subsets = np.array(list(itertools.combinations(margins, 4)))
    radius = margin_collapse(margins, kind, batch=4)
    assert np.mean(worst_case(-subsets, CLASSES[kind](radius)).value) == pytest.approx(0.0, abs=1e-12)
    whole = margin_collapse(margins, kind)
    assert margin_collapse(margins, kind, batch=9) == pytest.approx(whole)
    assert radius < whole if kind == "cvar" else radius > whole
    assert margin_collapse(margins, kind, batch=1) == never(kind)  # one margin at a time cannot be reweighted
    assert margin_collapse([1.0, 1.0, 1.0, -1.0], kind, batch=2) == 0.5  # of the least ones half are 1, half -1


@kinds
def test_margins_at_the_edges(kind: str) -> None:
    none = 1.0 if kind == "cvar" else 0.0
    edges = {"tv": 0.7, "cvar": 0.3, "chi2": (1 / 0.3 - 1) / 2, "kl": -np.log(0.3), "burg": np.inf}
    p = [0.3, 0.6, 0.1]
    assert margin_collapse([-1.0, 0.1, 0.1], kind, reference=p) == none  # the mean is negative already
    assert margin_collapse([0.0, 0.0, 0.0], kind, reference=p) == none
    assert margin_collapse([1e-300, 2.0, 1.0], kind, reference=p) == never(kind)
    assert margin_collapse([0.0, 2.0, 1e-9], kind, reference=p) == pytest.approx(edges[kind], rel=1e-12)
    assert margin_collapse([2.0, 0.0, 0.0, 1.0], kind, reference=[0.5, 0.2, 0.1, 0.2]) == pytest.approx(edges[kind])
    many = np.append(np.random.default_rng(0).gamma(0.2, size=999), 0.0)  # sums that round, and a target at their end
    assert margin_collapse(many, "tv") == pytest.approx(0.999, rel=1e-12)
    assert margin_collapse([1.0, 2.0, np.nan], kind, reference=[0.5, 0.5, 0.0]) == never(kind)


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.floats(-6, 6))
def test_batches_are_loops_and_scale_and_copies_do_not_matter(seed: int, kind: str, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    margins, p = rng.standard_normal((2, 3, 5)) + rng.uniform(0, 2), rng.dirichlet(np.full(5, 0.5), size=(2, 3))
    found = np.asarray(margin_collapse(margins, kind, reference=p))
    alone = [
        margin_collapse(row, kind, reference=q) for row, q in zip(margins.reshape(6, 5), p.reshape(6, 5), strict=True)
    ]
    assert found.ravel() == pytest.approx(alone, rel=1e-9, abs=1e-12)
    assert margin_collapse(10.0**exponent * margins, kind, reference=p) == pytest.approx(found, rel=1e-9, abs=1e-12)
    split = margin_collapse(np.concatenate([margins, margins], -1), kind, reference=np.concatenate([p, 3 * p], -1) / 4)
    assert split == pytest.approx(found, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_margins_without_mass_are_as_good_as_absent(kind: str) -> None:
    """Wherever they stand: masses are resampled counts, of which many are 0."""
    rng = np.random.default_rng(5)
    margins, counts = rng.normal(0.5, 1.0, 12), rng.multinomial(12, np.full(12, 1 / 12), size=40)
    found = margin_collapse(np.broadcast_to(margins, counts.shape), kind, reference=counts / 12)
    kept = [margin_collapse(margins[row > 0], kind, reference=row[row > 0] / 12) for row in counts]
    assert found == pytest.approx(np.array(kept), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_worst_case_of_the_set_has_mean_zero_exactly_there(kind: str) -> None:
    rng = np.random.default_rng(3)
    margins = rng.standard_normal(50) + 0.4
    radius = margin_collapse(margins, CLASSES[kind])
    assert float(worst_case(-margins, CLASSES[kind](radius)).value) == pytest.approx(0.0, abs=1e-9)


# Feature vectors


@kinds
@pytest.mark.parametrize("seed", SEEDS)
def test_the_radius_is_that_of_the_program_and_both_proofs_hold(kind: str, seed: int) -> None:
    x, p = problem(seed)
    found = only_radius(x, CLASSES.get(kind, kind), reference=p)
    assert found.radius == pytest.approx(balancing(x, p, kind), rel=3e-5)
    assert found.gap <= 1.01e-7 * max(found.radius, found.bound)
    q, size = found.weights, np.sqrt(p @ x**2).clip(1e-300)
    assert q.min() >= 0
    assert q.sum() == pytest.approx(1, abs=1e-12)
    assert np.max(np.abs(q @ x) / size) < 1e-8
    assert margin_collapse(x @ found.direction, kind, reference=p) == pytest.approx(found.bound, rel=1e-6)
    assert np.all(q[p == 0] == 0)


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_no_direction_bears_more(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((14, 3)) + 0.2
    radius = only_radius(x, kind).radius
    others = np.asarray(margin_collapse(rng.standard_normal((200, 3)) @ x.T, kind))
    assert np.all(others >= radius - 1e-6) if kind == "cvar" else np.all(others <= radius + 1e-6)


@kinds
def test_separable_pairs_have_no_radius_and_the_direction_says_so(kind: str) -> None:
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((5, 8))
    x = rng.standard_normal((40, 3))
    signed = x * np.sign(x @ [1.0, -2.0, 0.5])[:, None]
    for features in (wide, signed, np.ones((1, 1))):
        found = only_radius(features, kind)
        assert found.radius == found.bound == never(kind)
        assert found.weights is None
        assert found.separable
        assert np.all(features @ found.direction > 0)
        assert "all a positive" in str(found) or kind == "burg"
    assert only_radius(wide, kind).vacuous
    assert not only_radius(signed, kind).vacuous


@kinds
def test_weakly_separable_pairs_balance_on_a_face_and_never_for_burg(kind: str) -> None:
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.5, 1.0], [0.3, 2.0]])
    p = np.array([0.2, 0.1, 0.4, 0.3])
    found = only_radius(x, kind, reference=p)
    even = np.array([0.5, 0.5])  # q on the first two
    face = {"tv": 0.7, "cvar": 0.2, "chi2": ((even**2) @ [5.0, 10.0] - 1) / 2, "kl": even @ np.log([2.5, 5.0])}
    assert found.radius == pytest.approx(face.get(kind, np.inf), rel=1e-6)
    assert (x @ found.direction).min() >= -1e-7 if kind == "burg" else found.weights[2:].max() < 1e-7


# Features, masses, set, radius as a rational number: the interior point went in circles, or took a margin for zero.
STUBBORN = {
    "circles of four steps": ([(-4, -3), (-2, -4), (2, -2), (1, 0), (-4, 4)], [3, 4, 3, 1, 1], "chi2", 16367 / 24068),
    "circles, far away": ([(-2, -4), (-3, -2), (-2, 3), (4, -3)], [7, 1, 1, 1], "chi2", 4185 / 3034),
    "on a face": ([(-3, 4), (-1, 1), (4, -4), (4, 0), (0, 1), (1, 3)], [8, 5, 1, 2, 6, 8], "tv", 4 / 5),
    "on another face": ([(3, 1), (-2, 0), (2, 1), (0, 2), (1, 0)], [5, 2, 8, 3, 3], "tv", 16 / 21),
}


@pytest.mark.parametrize("name", STUBBORN)
def test_both_proofs_meet_on_small_lattices(name: str) -> None:
    rows, masses, kind, radius = STUBBORN[name]
    found = only_radius(np.array(rows, float), kind, reference=np.array(masses) / sum(masses))
    assert found.radius == pytest.approx(radius, rel=2e-7)
    assert found.bound == pytest.approx(radius, rel=2e-7)


@kinds
def test_a_face_is_found_whatever_the_features_are_called(kind: str) -> None:
    """Rotated, margins that are zero on the face are only small, of either sign."""
    rng = np.random.default_rng(5)
    face = rng.standard_normal((6, 3))
    face -= face.mean(axis=0)
    x = np.vstack([np.hstack([face, np.zeros((6, 1))]), [[0.3, -0.2, 0.5, 1.0], [1.0, 2.0, 0.1, 2.0]]])
    plain = only_radius(x, kind)
    assert plain.radius == never("kl") if kind == "burg" else np.isfinite(plain.radius)
    for _ in range(5):
        assert only_radius(face @ np.linalg.qr(rng.standard_normal((3, 3)))[0], kind).gap == 0  # balanced already
        turned = only_radius(x @ np.linalg.qr(rng.standard_normal((4, 4)))[0], kind)
        assert turned.radius == pytest.approx(plain.radius, rel=1e-6)


def test_units_of_features_do_not_matter() -> None:
    x, p = problem(0)
    radius = only_radius(x, "tv", reference=p).radius
    for unit in (1e-200, 1e250):
        scaled = only_radius(x * np.r_[unit, np.ones(x.shape[1] - 1)], "tv", reference=p)
        assert scaled.radius == pytest.approx(radius, rel=1e-6)
        assert np.isfinite(scaled.direction).all()


@pytest.mark.parametrize(("kind", "seed"), [("tv", 3), ("tv", 27), ("cvar", 13), ("kl", 2), ("chi2", 2)])
def test_masses_may_lie_ten_decades_apart(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, p = rng.standard_normal((79, 14)) + 0.2, rng.dirichlet(np.full(79, 0.05)) + 1e-12
    found = only_radius(x, kind, reference=p / p.sum())  # without a warning
    assert found.weights is not None
    assert found.gap <= 1.01e-7 * min(found.radius, found.bound)


# In transport cost


def transport(x: np.ndarray, p: np.ndarray, cost: np.ndarray) -> float:
    """The plan as a linear program, by HiGHS."""
    n = p.size
    rows = np.kron(np.eye(n), np.ones(n))
    found = linprog(cost.ravel(), A_eq=np.vstack([rows, np.tile(x.T, n)]), b_eq=np.r_[p, np.zeros(x.shape[1])])
    return found.fun if found.status == 0 else np.inf


@pytest.mark.parametrize("seed", SEEDS)
def test_mass_moves_as_far_as_the_program_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, places, p = rng.standard_normal((20, 3)) + 0.4, rng.standard_normal((20, 2)), rng.dirichlet(np.ones(20))
    p[4] = 0.0
    p /= p.sum()
    cost = np.linalg.norm(places[:, None] - places, axis=-1)
    found = only_radius(x, Wasserstein, reference=p, cost=cost)
    assert found.radius == pytest.approx(transport(x, p, cost), rel=1e-6)
    assert found.gap <= 1.01e-7 * found.radius
    assert np.max(np.abs(found.weights @ x)) < 1e-8
    assert margin_collapse(x @ found.direction, "wasserstein", reference=p, cost=cost) == pytest.approx(found.bound)
    margins = np.abs(x[:, :1]) - 0.3
    assert margin_collapse(margins[:, 0], "wasserstein", reference=p, cost=cost) == pytest.approx(
        transport(margins, p, cost) if p @ margins[:, 0] > 0 else 0.0, rel=1e-6
    )
    assert only_radius(np.abs(x), "wasserstein", cost=cost).radius == np.inf
    margins = np.maximum(x[:, 0], 0.0)  # all mass must go to the nearest zero
    nearest = p @ cost[:, margins == 0].min(axis=1)
    assert margin_collapse(margins, "wasserstein", reference=p, cost=cost) == pytest.approx(nearest)


def test_at_one_price_for_every_way_transport_is_total_variation() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 4)) + 0.3
    cost = 1 - np.eye(60)
    moved, varied = collapse_radius(x, "wasserstein", cost=cost), collapse_radius(x, "tv")
    assert moved.radius == pytest.approx(varied.radius, rel=1e-6)
    assert moved.null == pytest.approx(varied.null, rel=1e-3)
    assert moved.by_fold == pytest.approx(varied.by_fold, rel=2e-2, abs=1e-3)
    assert margin_collapse([[0.0, 1.0], [-1.0, 3.0]], "wasserstein", cost=cost[:2, :2]) == pytest.approx([0.5, 0.25])


@kinds
def test_balanced_and_constant_features_collapse_at_once(kind: str) -> None:
    none = 1.0 if kind == "cvar" else 0.0
    for x in (np.zeros((4, 2)), np.array([[1.0, 0.0], [-1.0, 0.0]])):
        found = only_radius(x, kind)
        assert found.radius == found.bound == none
        assert found.weights == pytest.approx(np.full(len(x), 1 / len(x)))
        assert not found.direction.any()


@pytest.mark.parametrize("kind", ["tv", "chi2", "kl", "cvar"])
def test_a_robust_fit_is_zero_exactly_from_the_radius_on(kind: str) -> None:
    """The definition itself, by another solver: the robust logistic loss at its minimum is log 2."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((60, 3)) + 0.3
    radius = only_radius(x, kind).radius
    for factor, collapsed in ((0.97, kind == "cvar"), (1.03, kind != "cvar")):
        fit = fit_pairs(x, np.zeros_like(x), CLASSES[kind](factor * radius), penalty=1e-4, tolerance=1e-10)
        assert (np.linalg.norm(fit.coefficients) < 1e-3) == collapsed
