"""Wasserstein sets: against the transport LP, on costs that make the search long, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from dro_core import AmbiguitySet, Dual, TotalVariation, Wasserstein, dual_objective, duality_gap, worst_case

from . import tolerances as tol
from .examples import line
from .oracles import instance, worst_value


def value(losses: np.ndarray, ambiguity: AmbiguitySet, p: np.ndarray | None = None) -> float:
    return float(worst_case(losses, ambiguity, reference=p).value)


def costs(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    points = rng.random((n, 2))
    squared = np.square(points[:, None] - points).sum(axis=-1)
    made = {
        "discrete": 1 - np.eye(n),
        "distances": np.sqrt(squared),
        "squared": squared,  # no triangle inequality
        "free": np.triu(rng.random((n, n)), 1) + np.triu(np.ones((n, n)), 1),
        "some_moves_free": np.round(2 * np.sqrt(squared)) / 2,
    }[kind]
    return np.maximum(made, made.T)


# Against HiGHS


@pytest.mark.parametrize("kind", ["discrete", "distances", "squared", "free", "some_moves_free"])
@pytest.mark.parametrize("radius", [0.0, 1e-3, 0.1, 0.4, 3.0])
@pytest.mark.parametrize(("seed", "n"), [(0, 2), (1, 7), (2, 7), (3, 15), (4, 15)])
def test_agrees_with_the_transport_problem(kind: str, radius: float, seed: int, n: int) -> None:
    """The reference has an atom of zero mass, which may receive some; odd seeds have ties."""
    losses, p = instance(seed, n)
    ball = Wasserstein(radius, costs(kind, np.random.default_rng(seed), n))
    result = worst_case(losses, ball, reference=p)
    assert float(result.value) == pytest.approx(worst_value(losses, p, ball), abs=tol.CONIC)
    assert float(losses @ result.weights) == pytest.approx(float(result.value), abs=1e-14)
    assert abs(float(duality_gap(losses, ball, result, reference=p))) <= tol.CERTIFICATE


# Exponentially spread costs: the dual has kinks at prices of every size, and supporting lines meet far from it.


def hub(decades: float, n: int) -> np.ndarray:
    """From the first scenario to each other one, through which all ways lead, it is ever more expensive."""
    away = np.append(0.0, 10.0 ** np.linspace(-decades, 0, n - 1))
    return (away[:, None] + away) * (1 - np.eye(n))


def ultrametric(decades: float, n: int) -> np.ndarray:
    away = 10.0 ** np.linspace(-decades, 0, n)
    return np.maximum.outer(away, away) * (1 - np.eye(n))


def walk(decades: float, n: int) -> np.ndarray:
    at = np.cumsum(10.0 ** np.linspace(-decades, 0, n))
    return np.abs(at[:, None] - at)


def scattered(decades: float, n: int) -> np.ndarray:
    free = 10.0 ** (-decades * np.random.default_rng(n).random((n, n)))
    return np.maximum(free, free.T) * (1 - np.eye(n))


every_spread = pytest.mark.parametrize("spread", [hub, ultrametric, walk, scattered])


@every_spread
@pytest.mark.parametrize("decades", [8, 40, 300])
@pytest.mark.parametrize("n", [10, 60])
def test_every_price_is_found(spread: Any, decades: float, n: int) -> None:
    cost = spread(decades, n)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        losses = np.arange(n) / n if seed % 3 else rng.random(n)
        p = 10.0 ** (-decades * rng.random(n)) if seed % 2 else rng.dirichlet(np.full(n, 0.3))
        p /= p.sum()
        radius = float(10.0 ** (-decades * rng.random()) * (p @ cost.max(axis=1)))
        ball = Wasserstein(radius, cost)
        result = worst_case(losses, ball, reference=p)
        assert abs(float(duality_gap(losses, ball, result, reference=p))) <= tol.CERTIFICATE * np.ptp(losses), seed
        assert np.all(result.weights >= 0)
        assert abs(result.weights.sum() - 1) <= 1e-12


@every_spread
@pytest.mark.parametrize("n", [8, 20])
def test_spread_costs_agree_with_the_transport_problem(spread: Any, n: int) -> None:
    """Over four decades, because a linear program is feasible only to about 1e-7."""
    losses, p = instance(n, n)
    ball = Wasserstein(0.02, spread(4, n))
    assert value(losses, ball, p) == pytest.approx(worst_value(losses, p, ball), abs=10 * tol.CONIC)


# Identities


@pytest.mark.parametrize("radius", [0.0, 0.05, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_discrete_metric_is_total_variation(radius: float, seed: int) -> None:
    losses, p = instance(seed, 12)
    p = np.where(p > 0, p, 0.01) / np.where(p > 0, p, 0.01).sum()  # total variation cannot reach a zero mass
    transport = worst_case(losses, Wasserstein(radius, 1 - np.eye(12)), reference=p)
    assert float(transport.value) == pytest.approx(value(losses, TotalVariation(radius), p), abs=1e-14)
    assert np.abs(transport.weights - p).sum() / 2 <= radius + 1e-14
    assert float(losses @ transport.weights) == pytest.approx(float(transport.value), abs=1e-14)


@pytest.mark.parametrize("factor", [1e-100, 0.5, 1e100])
def test_only_radius_over_cost_matters(factor: float) -> None:
    losses, p = instance(2, 10)
    here, there = Wasserstein(0.1, line(10)), Wasserstein(0.1 * factor, line(10) * factor)
    assert value(losses, there, p) == pytest.approx(value(losses, here, p), abs=1e-13)


def test_an_atom_without_mass_may_receive_it() -> None:
    losses, p = np.array([0.0, 10.0, 1.0]), np.array([0.5, 0.0, 0.5])
    result = worst_case(losses, Wasserstein(0.25, 1 - np.eye(3)), reference=p)
    np.testing.assert_allclose(result.weights, [0.25, 0.25, 0.5], atol=1e-15)
    far = np.array([[0, 4, 1], [4, 0, 4], [1, 4, 0]])  # 10 for a way of 4 is still better than 1 for a way of 1
    result = worst_case(losses, Wasserstein(0.25, far), reference=p)
    np.testing.assert_allclose(result.weights, [0.4375, 0.0625, 0.5], atol=1e-15)


@pytest.mark.parametrize("radius", [1e-14, 1e-6])
def test_a_small_radius_buys_the_best_way(radius: float) -> None:
    losses, p = instance(2, 10)
    ways = np.subtract.outer(losses, losses[p > 0]) / (line(10)[:, p > 0] + np.eye(10)[:, p > 0])
    multiplier = worst_case(losses, Wasserstein(radius, line(10)), reference=p).dual.multiplier
    assert float(multiplier) == pytest.approx(ways.max(), rel=1e-9)


def test_free_moves_join_scenarios() -> None:
    """At no distance mass goes to the larger loss even at radius 0."""
    cost = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]])
    assert value(np.array([1.0, 3.0, 2.0]), Wasserstein(0, cost)) == pytest.approx(8 / 3)


@pytest.mark.parametrize("n", [1, 2])
def test_few_scenarios(n: int) -> None:
    assert value(np.arange(float(n)), Wasserstein(0.25, 1 - np.eye(n))) == pytest.approx([0.0, 0.75][n - 1])


@pytest.mark.parametrize("multiplier", [0.0, 0.3, 2.0, 1e9])
def test_the_dual_is_the_formula_of_the_docstring(multiplier: float) -> None:
    losses, p = instance(1, 9)
    bound = 0.1 * multiplier + p @ (losses - multiplier * line(9)).max(axis=1)
    ours = dual_objective(losses, Wasserstein(0.1, line(9)), Dual(multiplier, 0.0), reference=p)
    assert float(ours) == pytest.approx(bound, rel=1e-14, abs=1e-14)
    assert float(ours) >= value(losses, Wasserstein(0.1, line(9)), p) - 1e-14


# Batches and parts


def test_a_batch_of_costs_is_a_loop() -> None:
    rng = np.random.default_rng(0)
    losses, p = rng.standard_normal((2, 3, 5)), rng.dirichlet(np.ones(5), size=(2, 3))
    many = np.stack([costs("distances", rng, 5) for _ in range(6)]).reshape(2, 3, 5, 5)
    per_row, per_column, shared = (
        worst_case(losses, Wasserstein(0.2, cost), reference=p) for cost in (many, many[0], many[0, 0])
    )
    for at in np.ndindex(2, 3):
        for result, cost in ((per_row, many[at]), (per_column, many[0, at[1]]), (shared, many[0, 0])):
            alone = worst_case(losses[at], Wasserstein(0.2, cost), reference=p[at])
            np.testing.assert_allclose(result.weights[at], alone.weights, rtol=0, atol=1e-13)
            assert float(result.value[at]) == pytest.approx(float(alone.value), abs=1e-14)
    assert per_row.dual.multiplier.shape == per_row.value.shape == (2, 3)


@pytest.mark.parametrize("batch", [(40,), (4, 10)])
def test_rows_of_a_large_batch_keep_their_costs(batch: tuple[int, ...]) -> None:
    """Large batches are solved some rows at a time."""
    rng, n = np.random.default_rng(1), 60
    losses = rng.standard_normal((40, n))
    many = np.stack([costs("distances", rng, n) for _ in range(40)])
    together = worst_case(losses.reshape(*batch, n), Wasserstein(0.1, many.reshape(*batch, n, n))).value
    alone = [value(row, Wasserstein(0.1, cost)) for row, cost in zip(losses, many, strict=True)]
    np.testing.assert_allclose(together.ravel(), alone, rtol=0, atol=1e-13)


SOME_ROWS = {"list": [4, 0, 2], "copies": np.array([1, 1, 3, 0, 2, 4]), "torch": torch.tensor([3, 1])}


@pytest.mark.parametrize("rows", SOME_ROWS.values(), ids=SOME_ROWS)
def test_take_keeps_the_rows_and_columns(rows: Any) -> None:
    losses, p = instance(2, 5)
    at = np.asarray(rows)
    part = Wasserstein(0.1, line(5)).take(rows)
    np.testing.assert_array_equal(part.cost, line(5)[np.ix_(at, at)])
    masses = p[at] / p[at].sum()
    direct = Wasserstein(0.1, line(5)[np.ix_(at, at)])
    assert value(losses[at], part, masses) == value(losses[at], direct, masses)
    assert Wasserstein(0.1, torch.from_numpy(line(5))).take(rows) == part


# What a cost may be


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (np.zeros((2, 3)), ValueError, r"must be square, \(\*batch, n, n\), got shape \(2, 3\)"),
        (np.zeros(3), ValueError, "must be square"),
        (np.zeros((0, 0)), ValueError, "must be square"),
        (np.zeros((2, 0, 0)), ValueError, "must be square"),
        (3.0, (TypeError, ValueError), ""),
        (None, (TypeError, ValueError), ""),
        ("discrete", (TypeError, ValueError), ""),
        ([[0, 1], [1]], (TypeError, ValueError), ""),
        (np.eye(2) - 1, ValueError, "must be nonnegative, got -1"),
        (np.array([[0.0, 1.0], [2.0, 0.0]]), ValueError, r"must be symmetric; use \(cost \+ cost\.T\) / 2"),
        (np.array([[0.0, 1.0], [1.0 + 1e-9, 0.0]]), ValueError, "must be symmetric"),
        (np.ones((2, 2)), ValueError, "must be zero on its diagonal.*Subtract or zero it"),
        (np.array([np.eye(2) * 0, np.eye(2)]), ValueError, "must be zero on its diagonal"),
        (np.array([[0.0, np.nan], [np.nan, 0.0]]), ValueError, "must be finite.*use a large number"),
        (np.array([[0.0, np.inf], [np.inf, 0.0]]), ValueError, "must be finite"),
        (1j * np.eye(2), TypeError, "must hold real numbers, got dtype complex128; cast it first"),
        (~np.eye(2, dtype=bool), TypeError, "must hold real numbers, got dtype bool"),
        (np.ma.array(1 - np.eye(2), mask=np.eye(2)), TypeError, "masked"),
        (torch.zeros(2, 2, device="meta"), (TypeError, ValueError), "meta"),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, (np.ndarray, torch.Tensor)) else None,
)
def test_bad_costs(cost: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=r"`Wasserstein\.cost`.*" + message):
        Wasserstein(0.1, cost)


def test_a_sum_in_two_orders_is_still_symmetric() -> None:
    cost = np.array([[0.0, 0.3], [0.1 + 0.2, 0.0]])
    assert cost[0, 1] != cost[1, 0]
    assert Wasserstein(0.1, cost).cost.shape == (2, 2)


def test_a_cost_for_another_number_of_scenarios() -> None:
    with pytest.raises(
        ValueError, match=r"`Wasserstein\.cost` is for 4 scenarios, the losses have 3; use `take\(rows\)`"
    ):
        worst_case(np.arange(3.0), Wasserstein(0.1, line(4)))


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 2, 5)])
def test_a_batch_of_costs_for_another_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"`Wasserstein\.cost`"):
        worst_case(np.zeros(shape) + np.arange(5.0), Wasserstein(0.1, np.stack([line(5)] * 3)))


def test_the_cost_is_a_constant_of_the_set() -> None:
    """No later change of the given array reaches it, and no gradient."""
    given = line(4)
    ball = Wasserstein(0.1, given)
    given[:] = 0
    np.testing.assert_array_equal(ball.cost, line(4))
    learned = torch.from_numpy(line(4)).requires_grad_()
    result = worst_case(torch.arange(4.0), Wasserstein(0.1, learned))
    assert not result.value.requires_grad
    np.testing.assert_array_equal(result.weights, worst_case(np.arange(4.0), ball).weights.astype(np.float32))


@pytest.mark.parametrize("cost", [line(4), line(4).tolist(), torch.from_numpy(line(4))], ids=["numpy", "list", "torch"])
def test_equality_and_pickling_look_into_the_cost(cost: Any) -> None:
    ball = Wasserstein(0.1, cost)
    copy = pickle.loads(pickle.dumps(ball))
    assert copy == ball == Wasserstein(0.1, line(4))
    assert hash(copy) == hash(ball) == hash(Wasserstein(0.1, line(4)))
    assert len({ball, copy, Wasserstein(0.2, line(4))}) == 2
    assert ball not in (Wasserstein(0.1, 2 * line(4)), Wasserstein(0.2, line(4)), Wasserstein(0.1, line(3)))
    assert ball != TotalVariation(0.1)
