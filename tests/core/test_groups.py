"""Labels of groups and what wraps a set: how they are given, bound, taken apart, compared, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    AmbiguitySet,
    Grouped,
    TotalVariation,
    Trimmed,
    Wasserstein,
    parse_ambiguity,
    robust_loss,
    worst_case,
)

from .examples import line


def value(losses: np.ndarray, ambiguity: AmbiguitySet) -> float:
    return float(worst_case(losses, ambiguity).value)


# What labels may be


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "c", "a"],
        ("b", "a", "c", "a"),
        np.array(["b", "a", "c", "a"]),
        np.array(["b", "a", "c", "a"], dtype=object),
        [1, 0, 2, 0],
        [7, -3, 10**12, -3],
        np.array([1, 0, 2, 0], dtype=np.uint8),
        np.array([1, 0, 2, 0], dtype=np.int32),
        torch.tensor([1, 0, 2, 0]),
        torch.tensor([1, 0, 2, 0], dtype=torch.uint8),
        [0.5, 0.25, 1.0, 0.25],
    ],
    ids=lambda groups: f"{type(groups).__name__}-{groups[2]}",
)
def test_labels_of_any_kind(groups: Any) -> None:
    losses = np.array([4.0, 1.0, 2.0, 0.0])
    expected = worst_case(losses, Grouped(TotalVariation(0.2), np.array([1, 0, 2, 0]))).weights
    ambiguity = Grouped(TotalVariation(0.2), groups)
    assert ambiguity.count == 3
    np.testing.assert_allclose(worst_case(losses, ambiguity).weights, expected, atol=1e-15)
    ours = worst_case(torch.from_numpy(losses), ambiguity).weights
    np.testing.assert_allclose(ours, expected, atol=1e-15)


def test_groups_of_their_own_for_every_row() -> None:
    rng = np.random.default_rng(0)
    losses, p, groups = rng.standard_normal((2, 3, 8)), rng.dirichlet(np.ones(8), (2, 3)), rng.integers(0, 4, (2, 3, 8))
    for given in (groups, groups[0], groups[0, 0]):
        batch = worst_case(losses, Grouped(KL(0.3), given), reference=p)
        every = np.broadcast_to(given, losses.shape)
        for at in np.ndindex(2, 3):
            alone = worst_case(losses[at], Grouped(KL(0.3), every[at]), reference=p[at])
            np.testing.assert_allclose(batch.weights[at], alone.weights, rtol=0, atol=1e-13)
            assert float(batch.value[at]) == pytest.approx(float(alone.value), abs=1e-13)


def test_rows_of_a_large_batch_keep_their_groups() -> None:
    """Large batches are solved some rows at a time."""
    rng = np.random.default_rng(1)
    losses, groups = rng.standard_normal((60, 1000)), rng.integers(0, 9, (60, 1000))
    for kind in (Grouped(KL(0.3), groups), Trimmed(Grouped(KL(0.3), groups), 0.1)):
        together = worst_case(losses, kind).value
        wrap = (lambda one: Trimmed(one, 0.1)) if isinstance(kind, Trimmed) else (lambda one: one)
        alone = [value(row, wrap(Grouped(KL(0.3), own))) for row, own in zip(losses, groups, strict=True)]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("column", [["y", "x", "y", "z"], np.array([1, 0, 1, 2]), torch.tensor([1, 0, 1, 2])])
def test_binding_fills_in_the_column(column: Any) -> None:
    bound = Grouped(KL(0.3), np.array([1, 0, 1, 2]))
    columns = {"source": column, "other": [0, 0, 0, 0]}
    assert Grouped(KL(0.3), "source").bind(columns) == bound
    assert Trimmed(Grouped(KL(0.3), "source"), 0.1).bind(columns) == Trimmed(bound, 0.1)
    assert bound.bind({}) == bound
    assert KL(0.3).bind(columns) == KL(0.3)
    for spec in ("kl:0.3,by=source", "kl:0.3,by=source,trim=0.1"):
        ambiguity = parse_ambiguity(spec)
        assert ambiguity is not None
        assert np.isfinite(value(np.arange(4.0), ambiguity.bind(columns)))


def test_binding_keeps_the_count_of_groups() -> None:
    assert Grouped(KL(0.3), "source", count=7).bind({"source": [0, 1]}).count == 7
    with pytest.raises(ValueError, match=r"`Grouped\.count`.*at least 2"):
        Grouped(KL(0.3), "source", count=1).bind({"source": [0, 1]})


def test_binding_reaches_the_groups_of_groups() -> None:
    columns = {"city": [0, 1, 2, 2], "country": [0, 0, 1]}
    bound = Grouped(Grouped(KL(0.3), "country"), "city").bind(columns)
    assert bound == Grouped(Grouped(KL(0.3), np.array([0, 0, 1])), np.array([0, 1, 2, 2]))


@pytest.mark.parametrize(
    "rows", [[4, 0, 2], np.array([1, 1, 3]), torch.tensor([3, 1])], ids=["list", "copies", "torch"]
)
@pytest.mark.parametrize("groups", [np.array([0, 1, 1, 2, 0]), torch.tensor([0, 1, 1, 2, 0])], ids=["numpy", "torch"])
def test_take_keeps_the_labels_of_the_rows(rows: Any, groups: Any) -> None:
    ambiguity, at = Grouped(KL(0.3), groups), np.asarray(rows)
    part = ambiguity.take(rows)
    np.testing.assert_array_equal(part.groups, np.asarray(groups)[at])
    assert part.count == 3  # a group without scenarios stays a group
    losses = np.arange(5.0)[at]
    assert value(losses, part) == value(losses, Grouped(KL(0.3), np.asarray(groups)[at]))
    assert Trimmed(ambiguity, 0.1).take(rows) == Trimmed(part, 0.1)
    assert Grouped(KL(0.3), "source").take(rows) == Grouped(KL(0.3), "source")
    assert Trimmed(KL(0.3), 0.1).take(rows) == Trimmed(KL(0.3), 0.1)


# What is refused


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([], ValueError, r"needs one label per scenario, got shape \(0,\)"),
        (np.zeros((3, 0), int), ValueError, "needs one label per scenario"),
        (3, (TypeError, ValueError), ""),
        (None, (TypeError, ValueError), ""),
        ("", ValueError, "must name a column or hold one label per scenario, got ''"),
        (b"source", (TypeError, ValueError), ""),
        ({"a"}, (TypeError, ValueError), ""),
        ([[0, 1], [1]], (TypeError, ValueError), ""),
        ([None, "a"], (TypeError, ValueError), ""),
        (np.array([-1, 0]), ValueError, "must be labels from 0 on, got -1"),
        (torch.tensor([0.0, 1.0]), TypeError, "must be integers or a list of labels, got dtype torch.float32"),
        (torch.tensor([True, False]), TypeError, "must be integers"),
        ([0.0, float("nan")], (TypeError, ValueError), "[Nn]a[Nn]"),
        (np.array([np.nan, 0.0]), (TypeError, ValueError), "[Nn]a[Nn]"),
        (np.ma.array([0, 1], mask=[True, False]), TypeError, "masked"),
        (torch.zeros(2, dtype=torch.int64, device="meta"), (TypeError, ValueError), "meta"),
    ],
    ids=str,
)
def test_bad_labels(groups: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=r"(?s)`Grouped\.groups`.*" + message):
        Grouped(KL(0.3), groups)


@pytest.mark.parametrize("count", [0, 1, -2, 2.0, True, "2"])
def test_bad_counts(count: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"`Grouped\.count` must be an integer of at least 2.*got"):
        Grouped(KL(0.3), [0, 1], count=count)


@pytest.mark.parametrize("array", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_gaps_between_labels_cost_nothing(array: Any) -> None:
    ambiguity = Grouped(KL(0.3), array([2**40, 1, 2**40]))
    assert ambiguity == Grouped(KL(0.3), array([1, 0, 1]))
    assert ambiguity.count == 2


def test_more_groups_than_labels_are_allowed() -> None:
    assert Grouped(KL(0.3), [0, 1], count=np.int64(9)) == Grouped(KL(0.3), [0, 1], count=9)
    losses = np.arange(2.0)
    assert value(losses, Grouped(KL(0.3), [0, 1], count=9)) == value(losses, Grouped(KL(0.3), [0, 1]))


@pytest.mark.parametrize(("groups", "n"), [([0, 1], 3), ([0, 1, 2], 1), ([[0, 1], [1, 0]], 3)])
def test_one_label_for_each_scenario(groups: list[Any], n: int) -> None:
    message = rf"`Grouped\.groups` has \d labels, the losses have {n} scenarios; give one label per scenario"
    with pytest.raises(ValueError, match=message):
        worst_case(np.zeros(n), Grouped(KL(0.3), groups))
    with pytest.raises(ValueError, match=message):
        robust_loss(torch.zeros(n), Trimmed(Grouped(KL(0.3), groups), 0.1))


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 2, 5)])
def test_a_batch_of_labels_for_another_batch(shape: tuple[int, ...]) -> None:
    for zeros in (np.zeros(shape), torch.zeros(shape)):
        with pytest.raises(ValueError, match=r"`Grouped\.groups`"):
            worst_case(zeros, Grouped(KL(0.1), np.zeros((3, 5), dtype=int)))


@pytest.mark.parametrize("wrap", [lambda inner: Grouped(inner, [0, 1]), lambda inner: Trimmed(inner, 0.1)])
@pytest.mark.parametrize("inner", ["tv:0.2", None, 0.2, KL], ids=repr)
def test_the_inner_set_is_a_set(wrap: Any, inner: Any) -> None:
    with pytest.raises(TypeError, match=r"`(Grouped|Trimmed)\.inner` must be an ambiguity set such as CVaR.*, got"):
        wrap(inner)


@pytest.mark.parametrize("wrap", [lambda inner: Grouped(inner, [0, 1]), lambda inner: Trimmed(inner, 0.1)])
def test_transport_cannot_be_wrapped(wrap: Any) -> None:
    with pytest.raises(ValueError, match=r"\.inner` must give no weight to scenarios of zero mass.*Wasserstein.*Use "):
        wrap(Wasserstein(0.1, line(2)))


def test_a_column_must_be_bound_and_known() -> None:
    unbound = Grouped(KL(0.3), "source")
    for losses in (np.zeros(2), torch.zeros(2), torch.zeros(2, device="meta")):
        with pytest.raises(ValueError, match=r"`Grouped\.groups` is the name of the column 'source'.*bind\("):
            robust_loss(losses, unbound)
        with pytest.raises(ValueError, match=r"`Grouped\.groups` is the name of the column 'source'"):
            robust_loss(losses, Trimmed(unbound, 0.1))
    with pytest.raises(ValueError, match=r"`Grouped\.groups` names the column 'source'; the columns are: city, length"):
        unbound.bind({"length": [1], "city": [0]})
    with pytest.raises(ValueError, match="the columns are: none"):
        Trimmed(unbound, 0.1).bind({})


# Constants with an equality


def test_the_labels_are_a_constant_of_the_set() -> None:
    given = np.array([0, 1, 1])
    ambiguity = Grouped(KL(0.3), given)
    given[:] = 0
    np.testing.assert_array_equal(ambiguity.groups, [0, 1, 1])


@pytest.mark.parametrize("groups", [np.array([0, 1, 1]), torch.tensor([0, 1, 1]), "source"], ids=str)
def test_equality_and_pickling_look_into_the_labels(groups: Any) -> None:
    one = Grouped(KL(0.3), groups)
    for ambiguity in (one, Trimmed(one, 0.1)):
        copy = pickle.loads(pickle.dumps(ambiguity))
        assert copy == ambiguity
        assert hash(copy) == hash(ambiguity)
        assert len({ambiguity, copy, KL(0.3)}) == 2
    assert one not in (Grouped(KL(0.4), groups), Grouped(KL(0.3), [1, 0, 1]), Grouped(KL(0.3), "city"), KL(0.3))
    assert Trimmed(one, 0.1) not in (Trimmed(one, 0.2), Trimmed(KL(0.3), 0.1), one)
    assert Grouped(KL(0.3), np.array([0, 1])) != Grouped(KL(0.3), np.array([0, 1]), count=5)
