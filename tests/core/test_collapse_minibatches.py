"""The collapse radius of minibatches: against the linear program over all of them, its limits, and its sample."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, hstack, kron, vstack
from scipy.stats import hypergeom

from dro_core import Burg, TotalVariation, collapse_radius, margin_collapse

from .collapse_problems import SEEDS, never, only_radius

sets = pytest.mark.parametrize("kind", ["tv", "cvar"])


def problem(seed: int) -> tuple[np.ndarray, int]:
    """Pairs and the size of a minibatch: smooth, with heavy tails, or on a lattice with a dependent column."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(5, 10)), int(rng.integers(1, 4))
    x = rng.standard_normal((n, d)) + rng.choice([0.1, 0.5])
    if seed % 3 == 1:
        x = rng.standard_t(1.5, (n, d)) + 0.4
    if seed % 3 == 2:
        x = np.round(2 * x)
        x = np.hstack([x, 1e3 * x[:, :1]])
    return x, int(rng.integers(2, n))


def every_minibatch(x: np.ndarray, kind: str, batch: int, *, of: np.ndarray | None = None) -> float:
    """The definition by HiGHS: a q of the set for each minibatch, whose mean balances, or is ``of``; the least set."""
    subsets = list(itertools.combinations(range(len(x)), batch))
    count, each = len(subsets), batch * len(subsets)
    places = (np.ravel(subsets), np.arange(each))
    average = coo_array((np.full(each, 1 / count), places), shape=(len(x), each)).tocsr()  # q of the whole sample
    sums = kron(np.eye(count), np.ones(batch), format="csr")
    eye, ones = csr_array(np.eye(each)), np.ones((each, 1))
    if kind == "tv":  # the excess of q over 1 / batch, and the radius
        cost = np.r_[np.zeros(2 * each), 1.0]
        over = vstack([hstack([eye, -eye, 0 * ones]), hstack([0 * sums, sums, -np.ones((count, 1))])])
        most, spare = np.r_[np.full(each, 1 / batch), np.zeros(count)], each + 1
    else:  # the largest q times batch: 1 / alpha
        cost, over, most, spare = np.r_[np.zeros(each), 1.0], hstack([eye, -ones / batch]), np.zeros(each), 1
    mean = csr_array(x.T / np.abs(x.T).max(axis=1, keepdims=True)) @ average if of is None else average
    target = np.zeros(mean.shape[0]) if of is None else of
    equal = hstack([vstack([mean, sums]), csr_array((mean.shape[0] + count, spare))])
    found: Any = linprog(cost, A_ub=over, b_ub=most, A_eq=equal, b_eq=np.r_[target, np.ones(count)], method="highs")
    if found.status != 0:
        return never(kind)
    return 1 / found.fun if kind == "cvar" else found.fun


@sets
@pytest.mark.parametrize("seed", SEEDS)
def test_the_radius_is_that_of_the_program_over_every_minibatch(kind: str, seed: int) -> None:
    x, batch = problem(seed)
    found, right = only_radius(x, kind, batch=batch), every_minibatch(x, kind, batch)
    assert found.radius == pytest.approx(right, rel=1e-3)
    low, high = sorted([found.bound, found.radius])
    assert right == never(kind) or low * (1 - 1e-6) <= right <= high * (1 + 1e-6)
    assert margin_collapse(x @ found.direction, kind, batch=batch) == pytest.approx(found.bound, rel=1e-6)
    if found.weights is None:
        assert found.separable
        assert "of a lot" in str(found)
    else:  # minibatches in the set of that radius have these weights on average
        assert np.max(np.abs(found.weights @ x) / np.sqrt(np.mean(x**2, axis=0))) < 1e-8
        assert every_minibatch(x, kind, batch, of=found.weights) == pytest.approx(found.radius, rel=1e-6)


@sets
def test_many_pairs_are_proved_from_both_sides_and_say_how_far_apart(kind: str) -> None:
    """The weights: no sum of the largest ones exceeds that of the rank weights, by hypergeometric chances."""
    n, batch = 3000, 50
    x = np.random.default_rng(0).standard_normal((n, 30)) + 0.03
    found = only_radius(x, kind, batch=batch)  # a warning would fail
    assert 0 < found.gap <= 1.001e-3 * min(found.radius, found.bound)
    assert margin_collapse(x @ found.direction, kind, batch=batch) == pytest.approx(found.bound, rel=1e-9)
    assert found.weights.min() >= 0
    assert np.max(np.abs(found.weights @ x)) < 1e-9
    chance = hypergeom.pmf(np.arange(batch)[:, None], n - 1, np.arange(n), batch - 1) * batch / n
    below = np.arange(batch) / batch
    if kind == "tv":
        weights = np.clip(1 - found.radius - below, 0, 1 / batch) + np.eye(batch)[0] * found.radius
    else:
        weights = np.clip(1 - below / found.radius, 0, 1 / (found.radius * batch))
    room = np.cumsum(weights @ chance) - np.cumsum(np.sort(found.weights)[::-1])
    assert room.min() > -1e-9
    assert f"{kind}, minibatches of 50: collapse" in str(found)


@sets
@pytest.mark.parametrize("tails", [2, 50])
def test_the_radius_falls_as_minibatches_grow_down_to_that_of_the_sample(kind: str, tails: int) -> None:
    x = np.random.default_rng(3).standard_t(tails, (120, 4)) + 0.3
    sizes = (1, 2, 5, 12, 40, 100, 118, 120)
    found = [only_radius(x, kind, batch=batch) for batch in sizes]
    for small, large in itertools.pairwise(found):  # the proof of the one does not contradict that of the other
        assert large.bound >= small.radius if kind == "cvar" else large.bound <= small.radius
    assert found[0].radius == found[0].bound == never(kind)  # one pair cannot be reweighed
    whole = only_radius(x, kind)
    assert (found[-1].radius, found[-1].bound) == (whole.radius, whole.bound)
    assert found[-2].radius == pytest.approx(whole.radius, rel=0.02)
    assert found[3].radius != pytest.approx(whole.radius, rel=0.02)


@sets
def test_what_balances_already_and_what_is_separable_needs_no_solver(kind: str) -> None:
    for x in (np.zeros((4, 2)), np.array([[1.0, 0.0], [-1.0, 0.0]])):
        found = only_radius(x, kind, batch=1)
        assert found.radius == found.bound == (1.0 if kind == "cvar" else 0.0)
    rng = np.random.default_rng(0)
    signed = rng.standard_normal((40, 3))
    signed *= np.sign(signed @ [1.0, -2.0, 0.5])[:, None]
    for features in (rng.standard_normal((5, 8)), signed):
        assert only_radius(features, kind, batch=3).radius == never(kind)
    few = np.r_[np.ones(9), -1.0][:, None]  # not separable, but pairs of them never are: E min = .8
    assert only_radius(few, kind).radius != never(kind)
    assert only_radius(few, kind, batch=2).separable


@sets
def test_null_and_folds_are_those_of_minibatches(kind: str) -> None:
    from dro_core.collapse.crossfit import deal

    rng = np.random.default_rng(4)
    x, clusters, batch = rng.standard_normal((300, 3)) + 0.4, rng.integers(60, size=300), 12
    found = collapse_radius(x, kind, clusters=clusters, seeds=range(3, 11), batch=batch)
    folds = deal(np.unique(clusters, return_inverse=True)[1], 5, np.random.default_rng(3))
    right = [
        margin_collapse(x[fold] @ only_radius(np.delete(x, fold, 0), kind, batch=batch).direction, kind, batch=batch)
        for fold in folds
    ]
    assert found.by_fold == pytest.approx(right, rel=0.02)
    assert found.interval[0] < found.held_out < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.2
    signs = rng.choice([-1.0, 1.0], size=(8, 300, 1))
    random = [only_radius(x * sign, kind, batch=batch).radius for sign in signs]
    assert found.null.mean() == pytest.approx(np.mean(random), abs=4 * float(np.std(random)) / 2)
    assert found.batch == batch


@sets
def test_the_interval_covers_the_radius_of_minibatches_of_the_population(kind: str) -> None:
    """One feature, so that every direction is the same: margins N(1/2, 1)."""
    batch = 16
    population = margin_collapse(0.5 + np.random.default_rng(0).standard_normal(100_000), kind, batch=batch)
    covered = 0
    for seed in range(24):
        x = 0.5 + np.random.default_rng(1000 + seed).standard_normal((200, 1))
        low, high = collapse_radius(x, kind, seeds=(), folds=2, batch=batch).interval
        covered += low <= population <= high
    assert covered >= 19


def test_margins_drawn_anew_are_the_margins_that_were_drawn() -> None:
    from dro_core.collapse.crossfit import _even  # pyright: ignore[reportPrivateUsage]

    rng = np.random.default_rng(2)
    margins, counts = rng.standard_normal(20), rng.multinomial(20, np.full(20, 1 / 20), size=5)
    right = np.sort([np.repeat(margins, count) for count in counts])
    np.testing.assert_allclose(_even(margins, counts / 20), right, atol=1e-13)
    masses = rng.dirichlet(np.ones(20), size=5)  # as where clusters differ in size
    found = _even(margins, masses)
    np.testing.assert_allclose(found.mean(axis=1), masses @ margins, atol=1e-13)
    assert np.all(np.diff(found) >= -1e-12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"set_kind": "kl"}, "'tv' or 'cvar'"),
        ({"set_kind": Burg}, "'tv' or 'cvar'"),
        ({"reference": np.full(8, 1 / 8)}, "no reference"),
        ({"groups": list("aabbccdd")}, "no groups"),
        ({"batch": 0}, "from 1 to 8"),
        ({"batch": 9}, "from 1 to 8"),
        ({"batch": True}, "an integer"),
        ({"batch": 2.0}, "an integer"),
        ({"folds": 3}, "minibatches of 3 cannot be drawn from a fold of 2 rows; use a smaller batch, fewer folds"),
    ],
)
def test_minibatches_that_nothing_is_known_of_get_a_sentence(given: dict[str, Any], said: str) -> None:
    arguments = {"set_kind": TotalVariation, "folds": 0, "batch": 3, "seeds": (), **given}
    with pytest.raises(ValueError, match=said):
        collapse_radius(np.eye(8)[:, :2], arguments.pop("set_kind"), **arguments)


def test_what_minibatches_leave_open_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from dro_core.collapse import balance

    monkeypatch.setattr(balance, "_STEPS", 2)
    x = np.random.default_rng(1).standard_normal((60, 3)) + 0.3
    with pytest.warns(RuntimeWarning, match="wider gap than 0.001 of it"):
        found = only_radius(x, "tv", batch=20)
    assert not found.separable
    assert "between" in str(found)
