"""What the sample makes of a collapse radius: groups, random labels, held-out folds, intervals; and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dro_core import Hellinger, TotalVariation, collapse_radius, margin_collapse

from .collapse_problems import balancing, kinds, never, only_radius, problem

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
    alone, pairs = (only_radius(x, kind, reference=p, groups=labels).radius for labels in (np.arange(60), None))
    assert alone == pytest.approx(pairs, rel=1e-6)
    assert found.radius < pairs if kind == "cvar" else found.radius > pairs  # fewer weights to choose from


def test_groups_of_pairs_without_any_features_balance_at_once() -> None:
    found = collapse_radius(np.zeros((4, 2)), "tv", groups=[0, 0, 1, 1], folds=0, seeds=(0,))
    assert found.radius == found.bound == found.null[0] == 0


def test_groups_that_are_no_more_than_the_features_say_that_they_prove_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 6))  # no signal at all
    for count in (1, 6):
        found = collapse_radius(x, "tv", groups=rng.integers(count, size=300), seeds=(0,))
        assert found.vacuous
        assert found.radius == found.null[0] == np.inf
        assert "vacuous" in str(found)
        assert found.held_out < 0.25 or count == 1


@kinds
@pytest.mark.parametrize(("n", "d", "count", "noise"), [(400, 64, 6, 0.01), (400, 4, 6, 0.01), (2000, 20, 6, 0.3)])
def test_groups_that_one_direction_tells_apart_bear_every_set_held_out_too(
    kind: str, n: int, d: int, count: int, noise: float
) -> None:
    """Every pair has a positive margin along (1, ..., 1); other directions separate the groups by noise as well."""
    rng = np.random.default_rng(0)
    x = 0.5 + noise * rng.standard_normal((n, d))
    found = collapse_radius(x, kind, groups=rng.integers(count, size=n), seeds=())
    assert (found.held_out, *found.interval) == (never(kind),) * 3


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


def test_weights_of_the_rows_reach_the_folds() -> None:
    """Rows of nearly no mass, with the opposite sign, change nothing."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((200, 2)) + 0.5
    p = np.r_[np.full(200, 1.0), np.full(200, 1e-9)]
    clusters = np.tile(np.arange(200), 2)
    with_them = collapse_radius(np.vstack([x, -x]), "chi2", reference=p / p.sum(), clusters=clusters, seeds=())
    assert with_them.by_fold == pytest.approx(
        collapse_radius(x, "chi2", clusters=clusters[:200], seeds=()).by_fold, rel=1e-4
    )


def test_no_draw_loses_the_least_margin() -> None:
    """TV moves mass there: without it the interval would be infinite or lie beside its value."""
    x = np.where(np.arange(100) % 16 == 0, -0.2, 1.0)[:, None]
    found = collapse_radius(x, "tv", folds=2, seeds=())
    assert np.isfinite([found.held_out, *found.interval]).all()
    assert found.interval[0] <= found.held_out <= found.interval[1]


def test_held_out_is_far_below_the_sample_where_there_is_silent_groups() -> None:
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
        ({"cost": np.zeros((4, 4))}, "belongs to 'wasserstein'"),
        ({"set_kind": "wasserstein"}, "needs `cost`"),
        ({"set_kind": "wasserstein", "cost": np.zeros((3, 3))}, "must have shape"),
        ({"set_kind": "wasserstein", "cost": np.zeros((4, 4)), "groups": list("aabb")}, "knows no groups"),
        ({"set_kind": "wasserstein", "cost": np.zeros((4, 4)), "folds": 4, "reference": [1, 0, 0, 0]}, "no reference"),
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
    with pytest.raises(ValueError, match="belongs to 'wasserstein'"):
        margin_collapse([1.0, 2.0], "tv", cost=np.zeros((2, 2)))
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
