"""Random decision processes, their exact values, and the sets whose games are solved on them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from .registry import FAMILIES, Family


class Model(NamedTuple):
    rewards: np.ndarray
    transitions: np.ndarray
    discount: float


def random_model(seed: int, *, states: int = 4, actions: int = 3, discount: float = 0.9) -> Model:
    """Rewards in [-1, 1] and transitions of which about a third are impossible."""
    rng = np.random.default_rng(seed)
    masses = rng.exponential(size=(states, actions, states)) * (rng.random((states, actions, states)) > 0.35)
    masses[..., 0] += 0.1
    return Model(rng.uniform(-1, 1, (states, actions)), masses / masses.sum(axis=-1, keepdims=True), discount)


def exact_values(model: Model, policy: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Values of a stationary policy under given transitions, by a linear solve."""
    followed = np.einsum("sa,sat->st", policy, transitions)
    rewards = np.sum(policy * model.rewards, axis=1)
    return np.linalg.solve(np.eye(len(rewards)) - model.discount * followed, rewards)


def deterministic_policies(states: int, actions: int) -> list[np.ndarray]:
    return [np.eye(actions)[list(choice)] for choice in itertools.product(range(actions), repeat=states)]


def models(*discounts: float) -> st.SearchStrategy[Model]:
    sizes = {"states": st.integers(1, 4), "actions": st.integers(1, 3)}
    return st.builds(random_model, st.integers(0, 2**20), **sizes, discount=st.sampled_from(discounts))


by_name = {"ids": lambda item: getattr(item, "name", None) or str(item)}
every_family = pytest.mark.parametrize("family", FAMILIES, **by_name)


def iterated(families: list[Family]) -> pytest.MarkDecorator:
    """Value iteration with a conic solver inside takes seconds; its operator obeys the laws above as the others do."""
    exhaustive = {True: [pytest.mark.exhaustive], False: []}
    rows = [pytest.param(family, id=family.name, marks=exhaustive[family.name == "convex"]) for family in families]
    return pytest.mark.parametrize("family", rows)


def draw_values(data: st.DataObject, model: Model, name: str) -> np.ndarray:
    states = len(model.rewards)
    return np.array(data.draw(st.lists(st.integers(-16, 16), min_size=states, max_size=states), label=name)) / 4
