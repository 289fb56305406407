"""One random kill of every kind of run; `tests/kills.py` makes ten of each."""

from __future__ import annotations

import random

import kills
import pytest


@pytest.fixture(scope="module")
def given(once):
    return once("inputs of the kills", kills.inputs)


@pytest.mark.slow("a whole run, a killed one, and its continuation")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "policy" else pytest.mark.exhaustive) for name in kills.KINDS]
)
def test_killed_and_continued_ends_as_if_it_had_not_been(name, given, tmp_path):
    ends, off = kills.killed(kills.KINDS[name], given, tmp_path, kills=1, moments=random.Random(name))
    assert ends >= 1
    assert off == []


def test_one_bit_counts_as_a_difference():
    import numpy as np

    one = {"a": np.array([1.0, np.nan]), "b": np.zeros(2)}
    other = {"a": np.array([1.0, np.nan]), "b": np.array([0.0, 5e-324])}
    assert kills.differences(one, one) == []
    assert kills.differences(one, other) == ["b"]
    assert kills.differences(one, {"a": one["a"]}) == ["b"]
