"""The collapse radius against linear and conic programs, closed forms, robust fits, and the law of random labels."""

from __future__ import annotations

import itertools
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import entr

from dro_core import (
    KL,
    ChiSquare,
    CVaR,
    Hellinger,
    TotalVariation,
    collapse_radius,
    fit_pairs,
    margin_collapse,
    worst_case,
)

CLASSES: dict[str, Any] = {"tv": TotalVariation, "cvar": CVaR, "chi2": ChiSquare, "kl": KL}
KINDS = [*CLASSES, "burg"]
kinds = pytest.mark.parametrize("kind", KINDS)
SEEDS = [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(3, 15))]


def never(kind: str) -> float:
    return 0.0 if kind == "cvar" else np.inf


def only_radius(x: np.ndarray, kind: Any, **given: Any) -> Any:
    return collapse_radius(x, kind, folds=0, seeds=(), **given)


def problem(seed: int, n: int = 30, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Pairs with a signal, every third time on a lattice, with dependent columns and a row of mass 0."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, d)) + 0.3) * 10.0 ** rng.uniform(-3, 3, d)
    if seed % 3 == 1:
        x = np.hstack([np.round(2 * rng.standard_normal((n, d)) + 0.5), np.zeros((n, 1))])
    x = np.hstack([x, x[:, :1], x[:, :1] - x[:, 1:2]])
    masses = rng.dirichlet(np.full(n, 2.0))
    masses[3] = 0.0
    return x, masses / masses.sum()


def balancing(x: np.ndarray, p: np.ndarray, kind: str, *, below: bool = False) -> float:
    """The least radius of a q with E_q x = 0 (E_q x <= 0 if ``below``), from the definitions of the sets."""
    x, p = x[p > 0], p[p > 0]
    x = x / np.abs(x).max(axis=0).clip(1e-300)
    if kind in ("tv", "cvar"):
        return linear_program(x, p, kind, below=below)
    q = cp.Variable(p.size, nonneg=True)
    divergence = {
        "chi2": cp.sum_squares(cp.multiply(q - p, p**-0.5)) / 2,
        "kl": cp.sum(cp.kl_div(q, p)),
        "burg": cp.sum(cp.kl_div(p, q)),
    }[kind]
    constraints: Any = [cp.sum(q) == 1, x.T @ q <= 0 if below else x.T @ q == 0]
    program = cp.Problem(cp.Minimize(divergence), constraints)
    value: Any = program.solve(solver="CLARABEL")
    return float(value)


def linear_program(x: np.ndarray, p: np.ndarray, kind: str, *, below: bool) -> float:
    """By HiGHS, in the variables (q, excess of q over p) or (q, the largest q/p)."""
    n, d = x.shape
    eye, zeros = np.eye(n), np.zeros((d, n))
    if kind == "tv":
        cost, upper, over = np.r_[np.zeros(n), np.ones(n)], np.hstack([eye, -eye]), p
        means, total = np.hstack([x.T, zeros]), np.r_[np.ones(n), np.zeros(n)]
    else:
        cost, upper, over = np.r_[np.zeros(n), 1.0], np.hstack([eye, -p[:, None]]), np.zeros(n)
        means, total = np.hstack([x.T, zeros[:, :1]]), np.r_[np.ones(n), 0.0]
    if below:
        upper, over, means = np.vstack([upper, means]), np.r_[over, np.zeros(d)], means[:0]
    target = np.r_[np.zeros(len(means)), 1.0]
    found = linprog(cost, A_ub=upper, b_ub=over, A_eq=np.vstack([means, total]), b_eq=target, method="highs")
    value = found.fun if found.status == 0 else np.inf
    return 1 / value if kind == "cvar" else value


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


@kinds
def test_margins_at_the_edges(kind: str) -> None:
    none = 1.0 if kind == "cvar" else 0.0
    edges = {"tv": 0.7, "cvar": 0.3, "chi2": (1 / 0.3 - 1) / 2, "kl": -np.log(0.3), "burg": np.inf}
    p = [0.3, 0.6, 0.1]
    assert margin_collapse([-1.0, 0.1, 0.1], kind, reference=p) == none  # the mean is negative already
    assert margin_collapse([0.0, 0.0, 0.0], kind, reference=p) == none
    assert margin_collapse([1e-300, 2.0, 1.0], kind, reference=p) == never(kind)
    assert margin_collapse([0.0, 2.0, 1e-9], kind, reference=p) == pytest.approx(edges[kind], rel=1e-12)
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


# Groups


@kinds
def test_groups_are_their_means(kind: str) -> None:
    x, p = problem(2, n=60, d=3)
    groups = np.array(list("abcdefghijkl") * 5)
    masses = np.array([p[groups == name].sum() for name in "abcdefghijkl"])
    means = np.stack([p[groups == name] @ x[groups == name] for name in "abcdefghijkl"]) / masses[:, None]
    found = only_radius(x, kind, reference=p, groups=groups.tolist())
    assert found.radius == pytest.approx(balancing(means, masses, kind), rel=3e-5)
    ratio = found.weights[p > 0] / p[p > 0]
    for name in "abcdefghijkl":
        assert np.ptp(ratio[groups[p > 0] == name]) < 1e-12
    assert np.max(np.abs(found.weights @ x) / np.sqrt(p @ x**2)) < 1e-8
    alone = only_radius(x, kind, reference=p, groups=np.arange(60))
    assert alone.radius == pytest.approx(only_radius(x, kind, reference=p).radius, rel=1e-6)


def test_groups_that_are_no_more_than_the_features_say_that_they_prove_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6))  # no signal at all
    for count in (1, 6):
        found = collapse_radius(x, "tv", groups=rng.integers(count, size=300), seeds=(0,))
        assert found.vacuous
        assert found.radius == found.null[0] == np.inf
        assert "vacuous" in str(found)
        assert found.held_out < 0.25 or count == 1


# What the sample makes of it


@pytest.mark.parametrize("kind", ["kl", "burg", "chi2"])
def test_random_signs_have_the_radius_of_the_law(kind: str) -> None:
    """2 n r is chi-square with d degrees of freedom, whatever signal the features have."""
    n, d, seeds = 1500, 10, range(40)
    x = np.random.default_rng(1).standard_normal((n, d)) + 0.5
    null = 2 * n * collapse_radius(x, kind, folds=0, seeds=seeds).null
    assert null.mean() == pytest.approx(d, abs=4 * np.sqrt(2 * d / len(seeds)))
    assert null.std() == pytest.approx(np.sqrt(2 * d), rel=0.5)


@kinds
def test_held_out_is_the_direction_of_the_other_folds_on_this_one(kind: str) -> None:
    """By the public parts alone: folds by name, directions by collapse_radius, values by margin_collapse."""
    from dro_core.collapse.crossfit import deal

    rng = np.random.default_rng(4)
    x, clusters = rng.standard_normal((240, 3)) + 0.4, rng.integers(50, size=240)
    found = collapse_radius(x, kind, clusters=clusters, seeds=(5,))
    folds = deal(np.unique(clusters, return_inverse=True)[1], 5, np.random.default_rng(5))
    assert sorted(np.concatenate(folds)) == list(range(240))
    assert sum(len(set(clusters[fold])) for fold in folds) == len(set(clusters))  # none in two folds
    values = []
    for fold in folds:
        direction = only_radius(np.delete(x, fold, axis=0), kind).direction
        values.append(margin_collapse(x[fold] @ direction, kind))
    assert found.by_fold == pytest.approx(values, rel=0.05, abs=2e-3)
    assert found.held_out == pytest.approx(np.mean(found.by_fold))
    assert found.interval[0] <= found.held_out <= found.interval[1]


def test_the_interval_covers_the_radius_of_the_population() -> None:
    """One feature, so that every direction is the same: margins N(1/2, 1), TV."""
    population = margin_collapse(0.5 + np.random.default_rng(0).standard_normal(200_000), "chi2")
    covered = 0
    for seed in range(40):
        x = 0.5 + np.random.default_rng(1000 + seed).standard_normal((400, 1))
        low, high = collapse_radius(x, "chi2", seeds=()).interval
        covered += low <= population <= high
    assert covered >= 33


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    x = np.repeat(0.5 + rng.standard_normal((100, 1)), 10, axis=0)
    apart = collapse_radius(x, "kl", seeds=()).interval
    together = collapse_radius(x, "kl", seeds=(), clusters=np.repeat(np.arange(100), 10)).interval
    assert np.diff(together) > 2 * np.diff(apart)


def test_held_out_is_far_below_the_sample_where_there_is_no_signal() -> None:
    x = np.random.default_rng(3).standard_normal((400, 60))
    found = collapse_radius(x, "kl", seeds=(0,))
    assert found.radius == pytest.approx(found.null[0], rel=0.5)
    assert found.held_out < found.radius / 5


# Refusals


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"set_kind": Hellinger}, "no collapse radius is known"),
        ({"set_kind": "tvv"}, "'tv', 'cvar', 'chi2', 'kl', 'burg'"),
        ({"set_kind": TotalVariation(0.1)}, "or its class"),
        ({"features": np.full((4, 1), np.nan)}, "must be finite"),
        ({"features": np.zeros(4)}, "shape"),
        ({"reference": [0.5, 0.5, 0.5, -0.5]}, "nonnegative"),
        ({"reference": np.zeros(4)}, "sum to 1"),
        ({"reference": [1.0]}, "shape"),
        ({"folds": 1}, "at least 2, or 0"),
        ({"folds": 5}, "got 4; use folds=4"),
        ({"clusters": [7, 7, 7, 7], "folds": 2}, "got 1; use folds=0"),
        ({"reference": [0.5, 0.5, 0.0, 0.0], "folds": 3}, "got 2; use folds=2"),
        ({"groups": ["a"]}, "groups must hold one label"),
        ({"clusters": ["a"]}, "clusters must hold one label"),
    ],
)
def test_bad_input_gets_a_sentence(given: dict[str, Any], said: str) -> None:
    arguments = {"features": np.eye(4)[:, :2], "set_kind": "tv", "folds": 2, **given}
    with pytest.raises(ValueError, match=said):
        collapse_radius(arguments.pop("features"), arguments.pop("set_kind"), **arguments)


def test_bad_margins_get_a_sentence() -> None:
    for margins, said in (([], "n > 0"), (1.0, "n > 0"), ([np.nan, 1.0], "finite")):
        with pytest.raises(ValueError, match=said):
            margin_collapse(margins, "tv")
    bad: list[tuple[Any, str]] = [
        ({"batch": 3}, "from 1 to 2"),
        ({"batch": 1, "reference": [0.5, 0.5]}, "no reference"),
    ]
    for arguments, said in bad:
        with pytest.raises(ValueError, match=said):
            margin_collapse([1.0, 2.0], "tv", **arguments)
    with pytest.raises(ValueError, match="'tv' or 'cvar'"):
        margin_collapse([1.0, 2.0], "kl", batch=1)
    with pytest.raises(TypeError, match="real numbers"):
        margin_collapse(["a"], "tv")


def test_what_is_not_proved_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that stops early warns, and the text gives both ends."""
    from dro_core.collapse import balance

    monkeypatch.setattr(balance, "_STEPS", 2)
    with pytest.warns(RuntimeWarning, match="lies between"):
        found = only_radius(problem(0)[0], "tv")
    assert not found.separable
    assert "between" in str(found)
