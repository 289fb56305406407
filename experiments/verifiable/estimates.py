"""What an adversary over prompts sees of their pass rates: pure functions with a state, on ``(*batch, n)``."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from .bandit import GROUP
from .problem import MIXTURE, PROMPTS

SHARE = 0.3
"""Of the newest rate in a running average."""
STRENGTH = 4.0
"""Of the Beta prior, in answers."""


class Seen(NamedTuple):
    """One batch of one arm.

    Attributes:
        rates: Sampled, ``(*batch, n)``.
        exact: The pass rates they were drawn with, the same shape.
        places: Which prompts, ``(*batch, n)``.
        sources: Which source each is of, ``(*batch, n)``.
    """

    rates: np.ndarray
    exact: np.ndarray
    places: np.ndarray
    sources: np.ndarray


class Estimate(Protocol):
    """From a state (None at first) and a batch to the next state and estimates ``(*batch, n)``."""

    def __call__(self, state: np.ndarray | None, seen: Seen, /) -> tuple[np.ndarray | None, np.ndarray]:
        """See the functions of this module."""
        ...


def raw(state: np.ndarray | None, seen: Seen) -> tuple[np.ndarray | None, np.ndarray]:
    """The share of right answers in the group."""
    return state, seen.rates


def oracle(state: np.ndarray | None, seen: Seen) -> tuple[np.ndarray | None, np.ndarray]:
    """The exact pass rates, which nobody has."""
    return state, seen.exact


def shrunk(state: np.ndarray | None, seen: Seen) -> tuple[np.ndarray | None, np.ndarray]:
    """The posterior mean under a Beta prior worth STRENGTH answers at the mean of the batch."""
    mean = seen.rates.mean(axis=-1, keepdims=True)
    return state, (GROUP * seen.rates + STRENGTH * mean) / (GROUP + STRENGTH)


def running(state: np.ndarray | None, seen: Seen) -> tuple[np.ndarray | None, np.ndarray]:
    """A running average of each prompt, which begins at the mean of the first batch."""
    state = np.repeat(seen.rates.mean(axis=-1, keepdims=True), PROMPTS, axis=-1) if state is None else state.copy()
    old = np.take_along_axis(state, seen.places, axis=-1)
    new = old + SHARE * (seen.rates - old)
    np.put_along_axis(state, seen.places, new, axis=-1)
    return state, new


def pooled(state: np.ndarray | None, seen: Seen) -> tuple[np.ndarray | None, np.ndarray]:
    """The running average of the source: all of its prompts look alike."""
    members = seen.sources[..., None, :] == np.arange(len(MIXTURE))[:, None]
    count = members.sum(axis=-1)
    mean = (members * seen.rates[..., None, :]).sum(axis=-1) / np.maximum(count, 1)
    if state is None:
        state = np.where(count > 0, mean, seen.rates.mean(axis=-1, keepdims=True))
    else:
        state = np.where(count > 0, state + SHARE * (mean - state), state)
    return state, np.take_along_axis(state, seen.sources, axis=-1)


ESTIMATES: dict[str, Estimate] = {
    "raw": raw, "running": running, "shrunk": shrunk, "pooled": pooled, "oracle": oracle,
}  # fmt: skip
